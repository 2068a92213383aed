n = int(input())
for _ in range(n):
    print(*(vertex for vertex, joined in enumerate(input().split(), start=1) if joined == "1"))
