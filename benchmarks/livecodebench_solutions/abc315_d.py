import sys
from collections import Counter

_height, _width, *grid = sys.stdin.read().split()
height, width = len(grid), len(grid[0])
rows = [Counter(row) for row in grid]
columns = [Counter(column) for column in zip(*grid, strict=True)]
rows_left, columns_left = set(range(height)), set(range(width))


def uniform(counts: Counter[str]) -> bool:
    return len(counts) == 1 and next(iter(counts.values())) >= 2


while True:
    full_rows = [row for row in rows_left if uniform(rows[row])]
    full_columns = [column for column in columns_left if uniform(columns[column])]
    if not full_rows and not full_columns:
        break
    rows_left.difference_update(full_rows)
    columns_left.difference_update(full_columns)
    for row in full_rows:
        for column in columns_left:
            columns[column][grid[row][column]] -= 1
            columns[column] += Counter()
    for column in full_columns:
        for row in rows_left:
            rows[row][grid[row][column]] -= 1
            rows[row] += Counter()
print(len(rows_left) * len(columns_left))
