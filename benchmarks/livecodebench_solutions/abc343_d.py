import sys
from collections import Counter

read = sys.stdin.readline
n, seconds = map(int, read().split())
scores = [0] * n
held = Counter({0: n})
for _ in range(seconds):
    player, points = map(int, read().split())
    before = scores[player - 1]
    held[before] -= 1
    if not held[before]:
        del held[before]
    scores[player - 1] += points
    held[scores[player - 1]] += 1
    print(len(held))
