from bisect import bisect_right


class Solution:
    def maxBalancedSubsequenceSum(self, nums: list[int]) -> int:
        if max(nums) <= 0:
            return max(nums)
        keys: list[int] = []
        sums: list[int] = []  # rises with the keys
        for at, number in enumerate(nums):
            if number <= 0:
                continue
            key = number - at
            place = bisect_right(keys, key)
            total = number + (sums[place - 1] if place else 0)
            end = place
            while end < len(sums) and sums[end] <= total:
                end += 1
            keys[place:end] = [key]
            sums[place:end] = [total]
        return sums[-1]
