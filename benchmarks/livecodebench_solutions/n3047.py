from math import isqrt


class Solution:
    def maximumSum(self, nums: list[int]) -> int:
        n = len(nums)
        return max(
            sum(nums[free * root * root - 1] for root in range(1, isqrt(n // free) + 1)) for free in range(1, n + 1)
        )
