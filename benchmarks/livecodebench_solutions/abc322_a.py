input()
at = input().find("ABC")
print(at + 1 if at >= 0 else -1)
