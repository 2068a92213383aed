class Solution:
    def buyChoco(self, prices: list[int], money: int) -> int:
        left = money - sum(sorted(prices)[:2])
        return left if left >= 0 else money
