import math
import sys


def main() -> None:
    data = iter(map(int, sys.stdin.buffer.read().split()))
    n, walk_in, walk_out = next(data), next(data), next(data)
    buses = [(next(data), next(data)) for _ in range(n - 1)]
    period = math.lcm(*(every for every, _ in buses))
    took = []
    for start in range(period):
        now = start
        for every, ride in buses:
            now += -now % every + ride
        took.append(now - start)
    answers = []
    for _ in range(next(data)):
        now = next(data) + walk_in
        answers.append(now + took[now % period] + walk_out)
    print("\n".join(map(str, answers)))


main()
