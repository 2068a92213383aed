import heapq
import sys

INFINITE = 10**18


def main() -> None:
    n, *rest = map(int, sys.stdin.read().split())
    reached = [INFINITE] * (n + 1)
    heap = [(0, 1)]
    while heap:
        now, stage = heapq.heappop(heap)
        if stage == n:
            print(now)
            return
        if reached[stage] <= now:
            continue
        reached[stage] = now
        a, b, x = rest[3 * stage - 3 : 3 * stage]
        heapq.heappush(heap, (now + a, stage + 1))
        heapq.heappush(heap, (now + b, x))


main()
