class Solution:
    def semiOrderedPermutation(self, nums: list[int]) -> int:
        n = len(nums)
        first, last = nums.index(1), nums.index(n)
        return first + n - 1 - last - (first > last)
