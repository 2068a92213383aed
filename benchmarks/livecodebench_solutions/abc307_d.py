opened: list[int] = []
kept: list[str] = []
input()
for letter in input():
    if letter == ")" and opened:
        del kept[opened.pop() :]
        continue
    if letter == "(":
        opened.append(len(kept))
    kept.append(letter)
print("".join(kept))
