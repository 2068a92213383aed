class Solution:
    def paintWalls(self, cost: list[int], time: list[int]) -> int:
        n = len(cost)
        cheapest = [0.0] + [float("inf")] * n  # by walls that are painted
        for price, minutes in zip(cost, time, strict=True):
            for walls in range(n, 0, -1):
                cheapest[walls] = min(cheapest[walls], cheapest[max(0, walls - 1 - minutes)] + price)
        return int(cheapest[n])
