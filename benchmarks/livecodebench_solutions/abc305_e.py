import heapq
import sys


def main() -> None:
    numbers = map(int, sys.stdin.buffer.read().split())
    n, m, k = next(numbers), next(numbers), next(numbers)
    near: list[list[int]] = [[] for _ in range(n + 1)]
    for _ in range(m):
        a, b = next(numbers), next(numbers)
        near[a].append(b)
        near[b].append(a)
    stamina = [-1] * (n + 1)
    heap = []
    for _ in range(k):
        place, strength = next(numbers), next(numbers)
        stamina[place] = strength
        heap.append((-strength, place))
    heapq.heapify(heap)
    while heap:
        left, here = heapq.heappop(heap)
        if -left < stamina[here]:
            continue
        for there in near[here]:
            if stamina[there] < -left - 1:
                stamina[there] = -left - 1
                heapq.heappush(heap, (left + 1, there))
    guarded = [vertex for vertex in range(1, n + 1) if stamina[vertex] >= 0]
    print(len(guarded))
    print(*guarded)


if __name__ == "__main__":
    main()
