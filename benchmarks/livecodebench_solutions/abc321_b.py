n, x = map(int, input().split())
scores = list(map(int, input().split()))
enough = [mine for mine in range(101) if sum(sorted([*scores, mine])[1:-1]) >= x]
print(enough[0] if enough else -1)
