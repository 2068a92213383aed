import sys


def strokes(cells: str, width: int) -> int:
    count = at = 0
    while (at := cells.find("B", at)) >= 0:
        count += 1
        at += width
    return count


words = iter(sys.stdin.read().split())
for _ in range(int(next(words))):
    next(words)
    k = int(next(words))
    print(strokes(next(words), k))
