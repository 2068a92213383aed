import sys
from itertools import accumulate


def widest_gap(weights: list[int]) -> int:
    n = len(weights)
    upto = [0, *accumulate(weights)]
    widest = 0
    for k in range(1, n):
        if n % k == 0:
            loads = [upto[end] - upto[end - k] for end in range(k, n + 1, k)]
            widest = max(widest, max(loads) - min(loads))
    return widest


data = sys.stdin.buffer.read().split()
at = 1
for _ in range(int(data[0])):
    size = int(data[at])
    print(widest_gap([int(word) for word in data[at + 1 : at + 1 + size]]))
    at += 1 + size
