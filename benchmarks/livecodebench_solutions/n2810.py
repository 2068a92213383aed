class Solution:
    def minCost(self, nums: list[int], x: int) -> int:
        n = len(nums)
        least = nums[:]
        best = sum(nums)
        for turns in range(1, n):
            least = [min(have, nums[at - turns]) for at, have in enumerate(least)]
            best = min(best, sum(least) + turns * x)
        return best
