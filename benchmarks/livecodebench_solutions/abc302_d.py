import sys
from bisect import bisect_right


def main() -> int:
    read = sys.stdin.readline
    _n, _m, d = map(int, read().split())
    ours = sorted(map(int, read().split()))
    theirs = sorted(map(int, read().split()))
    best = -1
    for value in ours:
        at = bisect_right(theirs, value + d) - 1
        if at >= 0 and theirs[at] >= value - d:
            best = max(best, value + theirs[at])
    return best


print(main())
