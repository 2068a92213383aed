class Solution:
    def matrixSum(self, nums: list[list[int]]) -> int:
        rows = [sorted(row) for row in nums]
        return sum(map(max, zip(*rows, strict=True)))
