n = int(input())
stock, for_a, for_b = (list(map(int, input().split())) for _ in range(3))


def servings_of_b(servings_of_a: int) -> int:
    left = [have - servings_of_a * need for have, need in zip(stock, for_a, strict=True)]
    if min(left) < 0:
        return -1
    return min(have // need for have, need in zip(left, for_b, strict=True) if need)


best = count = 0
while (other := servings_of_b(count)) >= 0:
    best = max(best, count + other)
    count += 1
print(best)
