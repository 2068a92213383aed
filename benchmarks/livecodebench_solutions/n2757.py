from functools import cache


class Solution:
    def count(self, num1: str, num2: str, min_sum: int, max_sum: int) -> int:
        def upto(bound: str) -> int:
            @cache
            def ways(at: int, total: int, tight: bool) -> int:
                if total > max_sum:
                    return 0
                if at == len(bound):
                    return int(total >= min_sum)
                last = int(bound[at]) if tight else 9
                return sum(ways(at + 1, total + digit, tight and digit == last) for digit in range(last + 1))

            return ways(0, 0, True)

        return (upto(num2) - upto(str(int(num1) - 1))) % (10**9 + 7)
