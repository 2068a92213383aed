class Solution:
    def numberOfPowerfulInt(self, start: int, finish: int, limit: int, s: str) -> int:
        def upto(bound: int) -> int:
            """How many of the numbers 0..bound are powerful: prefixes of digits up to the limit, ahead of s."""
            if bound < int(s):
                return 0
            prefix, suffix = divmod(bound, int("1" + "0" * len(s)))
            below, free = 0, True  # prefixes that are less, and whether the digits so far are allowed
            for digit in map(int, str(prefix)):
                below = below * (limit + 1) + (min(digit, limit + 1) if free else 0)
                free = free and digit <= limit
            return below + (free and suffix >= int(s))

        return upto(finish) - upto(start - 1)
