import sys
from collections import deque

lines = iter(sys.stdin.read().split("\n"))
n1, n2, m = map(int, next(lines).split())
near: list[list[int]] = [[] for _ in range(n1 + n2)]
for _ in range(m):
    a, b = map(int, next(lines).split())
    near[a - 1].append(b - 1)
    near[b - 1].append(a - 1)


def farthest(start: int) -> int:
    distance = {start: 0}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for there in near[here]:
            if there not in distance:
                distance[there] = distance[here] + 1
                waiting.append(there)
    return max(distance.values())


print(farthest(0) + 1 + farthest(n1 + n2 - 1))
