import sys


def main() -> None:
    n = int(sys.stdin.readline())
    near: list[list[int]] = [[] for _ in range(n + 1)]
    for _ in range(n - 1):
        u, v = map(int, sys.stdin.readline().split())
        near[u].append(v)
        near[v].append(u)
    sizes = []
    for branch in near[1]:
        size, stack = 0, [(branch, 1)]
        while stack:
            here, before = stack.pop()
            size += 1
            stack.extend((there, here) for there in near[here] if there != before)
        sizes.append(size)
    print(n - max(sizes))


main()
