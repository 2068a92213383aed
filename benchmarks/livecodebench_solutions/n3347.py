class Solution:
    def resultArray(self, nums: list[int]) -> list[int]:
        left, right = [nums[0]], [nums[1]]
        for number in nums[2:]:
            (left if left[-1] > right[-1] else right).append(number)
        return left + right
