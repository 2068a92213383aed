from collections import defaultdict

n = int(input())
total = 0
count: defaultdict[int, int] = defaultdict(int)
places: defaultdict[int, int] = defaultdict(int)
for at, number in enumerate(map(int, input().split())):
    # Between an earlier equal number at i and this one lie at - i - 1 others, less those that are equal to both.
    total += count[number] * (at - 1) - places[number] - count[number] * (count[number] - 1) // 2
    count[number] += 1
    places[number] += at
print(total)
