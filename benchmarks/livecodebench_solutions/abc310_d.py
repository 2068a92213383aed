import sys

sys.setrecursionlimit(10_000)


def main() -> None:
    n, teams, m = map(int, input().split())
    enemies = [set[int]() for _ in range(n)]
    for _ in range(m):
        a, b = map(int, input().split())
        enemies[a - 1].add(b - 1)
        enemies[b - 1].add(a - 1)
    groups: list[set[int]] = []

    def place(player: int) -> int:
        if player == n:
            return int(len(groups) == teams)
        ways = 0
        for group in groups:
            if not group & enemies[player]:
                group.add(player)
                ways += place(player + 1)
                group.remove(player)
        if len(groups) < teams:
            groups.append({player})
            ways += place(player + 1)
            groups.pop()
        return ways

    print(place(0))


main()
