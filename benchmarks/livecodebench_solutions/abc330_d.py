n, *grid = open(0).read().split()  # noqa: SIM115  as contestants write it
rows = [row.count("o") - 1 for row in grid]
columns = [column.count("o") - 1 for column in zip(*grid, strict=True)]
print(sum(rows[i] * columns[j] for i, row in enumerate(grid) for j, cell in enumerate(row) if cell == "o"))
