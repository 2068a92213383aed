_n, m = map(int, input().split())
gifts = sorted(map(int, input().split()))
first = best = 0
for last, place in enumerate(gifts):
    while gifts[first] <= place - m:
        first += 1
    best = max(best, last - first + 1)
print(best)
