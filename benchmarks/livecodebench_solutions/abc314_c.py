n, m = map(int, input().split())
text = list(input())
places: list[list[int]] = [[] for _ in range(m + 1)]
for at, colour in enumerate(input().split()):
    places[int(colour)].append(at)
for group in places[1:]:
    letters = [text[at] for at in group]
    for at, letter in zip(group, letters[-1:] + letters[:-1], strict=True):
        text[at] = letter
print("".join(text))
