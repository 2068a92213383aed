for _ in range(int(input())):
    row = input().strip()
    moved = sum(card != home for card, home in zip(row, "abc", strict=True))
    print("YES" if moved <= 2 else "NO")
