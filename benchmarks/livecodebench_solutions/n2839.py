from bisect import bisect_left


class Solution:
    def maximumSumQueries(self, nums1: list[int], nums2: list[int], queries: list[list[int]]) -> list[int]:
        points = sorted(zip(nums1, nums2, strict=True), reverse=True)
        answers = [-1] * len(queries)
        heights: list[int] = []  # rising, and their sums falling
        sums: list[int] = []
        taken = 0
        for number in sorted(range(len(queries)), key=lambda at: -queries[at][0]):
            x, y = queries[number]
            while taken < len(points) and points[taken][0] >= x:
                self.add(heights, sums, points[taken][1], sum(points[taken]))
                taken += 1
            at = bisect_left(heights, y)
            if at < len(sums):
                answers[number] = sums[at]
        return answers

    def add(self, heights: list[int], sums: list[int], height: int, total: int) -> None:
        at = bisect_left(heights, height)
        if at < len(sums) and sums[at] >= total:
            return
        end = at + 1 if at < len(heights) and heights[at] == height else at
        start = at
        while start and sums[start - 1] <= total:
            start -= 1
        heights[start:end] = [height]
        sums[start:end] = [total]
