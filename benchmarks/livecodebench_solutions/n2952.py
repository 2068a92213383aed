class Solution:
    def minimumTime(self, nums1: list[int], nums2: list[int], x: int) -> int:
        n = len(nums1)
        saved = [0] * (n + 1)  # the most that so many operations take away
        for grows, start in sorted(zip(nums2, nums1, strict=True)):
            for count in range(n, 0, -1):
                saved[count] = max(saved[count], saved[count - 1] + start + grows * count)
        total, growth = sum(nums1), sum(nums2)
        fast = (seconds for seconds in range(n + 1) if total + growth * seconds - saved[seconds] <= x)
        return next(fast, -1)
