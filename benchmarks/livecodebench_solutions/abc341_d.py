from math import lcm

n, m, k = map(int, input().split())
both = lcm(n, m)
low, high = 0, 2 * 10**18
while high - low > 1:
    middle = (low + high) // 2
    if middle // n + middle // m - 2 * (middle // both) >= k:
        high = middle
    else:
        low = middle
print(high)
