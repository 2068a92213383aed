from fractions import Fraction
from itertools import permutations

grid = "".join(input().replace(" ", "") for _ in range(3))
lines = ("012", "345", "678", "036", "147", "258", "048", "246")
traps = []  # the two cells that are alike, and the one that must not come last
for line in lines:
    for odd in range(3):
        alike = [int(cell) for cell in line[:odd] + line[odd + 1 :]]
        if grid[alike[0]] == grid[alike[1]]:
            traps.append((alike[0], alike[1], int(line[odd])))
calm = total = 0
for seen in permutations(range(9)):
    total += 1
    calm += all(seen[last] < seen[first] or seen[last] < seen[second] for first, second, last in traps)
share = Fraction(calm, total)
digits = round(share * 10**30)
print(f"{digits // 10**30}.{digits % 10**30:030d}")
