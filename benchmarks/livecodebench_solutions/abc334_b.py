a, m, left, right = map(int, input().split())
print((right - a) // m - (left - a - 1) // m)
