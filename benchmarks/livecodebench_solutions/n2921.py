from functools import cache


class Solution:
    def countSteppingNumbers(self, low: str, high: str) -> int:
        def upto(bound: str) -> int:
            @cache
            def ways(at: int, before: int, tight: bool) -> int:
                """`before` is the digit before, or -1 ahead of the first that is not 0."""
                if at == len(bound):
                    return int(before >= 0)
                last = int(bound[at]) if tight else 9
                count = 0
                for digit in range(last + 1):
                    still = tight and digit == last
                    if before < 0:
                        count += ways(at + 1, digit or -1, still)
                    elif abs(before - digit) == 1:
                        count += ways(at + 1, digit, still)
                return count

            return ways(0, -1, True)

        return (upto(high) - upto(str(int(low) - 1))) % (10**9 + 7)
