n = int(input())
seen = [0] * (n + 1)
order = []
for number in map(int, input().split()):
    seen[number] += 1
    if seen[number] == 2:
        order.append(number)
print(*order)
