import sys


def solve() -> None:
    for _ in range(int(sys.stdin.readline())):
        sys.stdin.readline()
        best = ending_here = -(10**9)
        before = 0
        for number in map(int, sys.stdin.readline().split()):
            alternates = (number - before) % 2 == 1
            ending_here = number + (max(ending_here, 0) if alternates else 0)
            best = max(best, ending_here)
            before = number
        print(best)


solve()
