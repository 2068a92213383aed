import sys

b = int(sys.stdin.readline())
for a in range(1, 20):
    if a**a == b:
        print(a)
        sys.exit()
print(-1)
