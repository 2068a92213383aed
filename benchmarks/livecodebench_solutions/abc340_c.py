from functools import cache


@cache
def cost(x: int) -> int:
    return 0 if x < 2 else x + cost(x // 2) + cost(x - x // 2)


print(cost(int(input())))
