h, w = map(int, input().split())
grid = [list(input()) for _ in range(h)]
sensors = 0
for i in range(h):
    for j in range(w):
        if grid[i][j] != "#":
            continue
        sensors += 1
        grid[i][j] = "."
        stack = [(i, j)]
        while stack:
            y, x = stack.pop()
            for near_y in range(max(0, y - 1), min(h, y + 2)):
                for near_x in range(max(0, x - 1), min(w, x + 2)):
                    if grid[near_y][near_x] == "#":
                        grid[near_y][near_x] = "."
                        stack.append((near_y, near_x))
print(sensors)
