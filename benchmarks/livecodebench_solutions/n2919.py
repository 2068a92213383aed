class Solution:
    def maxIncreasingGroups(self, usageLimits: list[int]) -> int:  # noqa: N803
        groups = spare = 0
        for limit in sorted(usageLimits):
            spare += limit
            if spare > groups:
                groups += 1
                spare -= groups
        return groups
