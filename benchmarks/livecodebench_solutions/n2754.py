class Solution:
    def maxStrength(self, nums: list[int]) -> int:
        high = low = nums[0]
        for number in nums[1:]:
            reached = (high, low, number, high * number, low * number)
            high, low = max(reached), min(reached)
        return high
