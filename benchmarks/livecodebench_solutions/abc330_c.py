from math import isqrt

d = int(input())
best = d
x = 0
while x * x <= d:
    y = isqrt(d - x * x)
    best = min(best, d - x * x - y * y, x * x + (y + 1) ** 2 - d)
    x += 1
print(best)
