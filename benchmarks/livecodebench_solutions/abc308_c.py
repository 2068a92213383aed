import sys
from functools import cmp_to_key

lines = sys.stdin.readlines()
tosses = [tuple(map(int, line.split())) for line in lines[1:] if line.strip()]


def order(left: int, right: int) -> int:
    (a, b), (c, d) = tosses[left], tosses[right]
    return c * (a + b) - a * (c + d)


print(*(person + 1 for person in sorted(range(len(tosses)), key=cmp_to_key(order))))
