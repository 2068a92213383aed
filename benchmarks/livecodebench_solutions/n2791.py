class Solution:
    def circularGameLosers(self, n: int, k: int) -> list[int]:
        losers = set(range(1, n + 1))
        holder = turn = 0
        while holder + 1 in losers:
            losers.remove(holder + 1)
            turn += 1
            holder = (holder + turn * k) % n
        return sorted(losers)
