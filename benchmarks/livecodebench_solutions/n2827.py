from math import gcd


class Solution:
    def canTraverseAllPairs(self, nums: list[int]) -> bool:
        reached, waiting = set[int](), {0}
        while waiting:
            here = waiting.pop()
            reached.add(here)
            waiting.update(at for at in range(len(nums)) if at not in reached and gcd(nums[at], nums[here]) > 1)
        return len(reached) == len(nums)
