class Solution:
    def isGood(self, nums: list[int]) -> bool:
        n = len(nums) - 1
        return sorted(nums) == [*range(1, n + 1), n]
