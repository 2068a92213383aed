class Solution:
    def sumCounts(self, nums: list[int]) -> int:
        n = len(nums)
        return sum(len(set(nums[i : j + 1])) ** 2 for i in range(n) for j in range(i, n))
