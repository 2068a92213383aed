class Solution:
    def distinctDifferenceArray(self, nums: list[int]) -> list[int]:
        return [len(set(nums[: at + 1])) - len(set(nums[at + 1 :])) for at in range(len(nums))]
