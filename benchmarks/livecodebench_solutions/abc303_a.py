input()
first, second = (input().replace("1", "l").replace("0", "o") for _ in range(2))
print("Yes" if first == second else "No")
