class Solution:
    def maximumOr(self, nums: list[int], k: int) -> int:
        n = len(nums)
        after = [0] * (n + 1)
        for at in range(n - 1, -1, -1):
            after[at] = after[at + 1] | nums[at]
        best = before = 0
        for at, number in enumerate(nums):
            best = max(best, before | number << k | after[at + 1])
            before |= number
        return best
