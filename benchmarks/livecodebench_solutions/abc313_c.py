n, *numbers = map(int, open(0).read().split())  # noqa: SIM115  as contestants write it
low, extra = divmod(sum(numbers), n)
goal = [low] * (n - extra) + [low + 1] * extra
print(sum(max(0, want - have) for have, want in zip(sorted(numbers), goal, strict=True)))
