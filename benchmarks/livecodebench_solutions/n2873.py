class Solution:
    def findPrimePairs(self, n: int) -> list[list[int]]:
        prime = [False, False] + [True] * n
        for number in range(2, int(n**0.5) + 1):
            if prime[number]:
                for multiple in range(number * number, n + 1, number):
                    prime[multiple] = False
        return [[x, n - x] for x in range(2, n // 2 + 1) if prime[x] and prime[n - x]]
