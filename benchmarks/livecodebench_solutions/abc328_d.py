kept: list[str] = []
for letter in input().strip():
    kept.append(letter)
    if kept[-3:] == ["A", "B", "C"]:
        del kept[-3:]
print("".join(kept))
