from itertools import product


def mex(values: tuple[int, ...]) -> int:
    return min({0, 1, 2, 3} - set(values))


n = int(input())
values = [int(word) for word in input().split()]
letters = input()
left, middle, right = [0] * 3, [0] * 3, [0] * 3
pairs = [[0] * 3 for _ in range(3)]
triples = dict.fromkeys(product(range(3), repeat=3), 0)
for value, letter in zip(values, letters, strict=True):
    if letter == "M":
        left[value] += 1
    elif letter == "E":
        for first in range(3):
            pairs[first][value] += left[first]
    else:
        for first in range(3):
            for second in range(3):
                triples[first, second, value] += pairs[first][second]
print(sum(mex(key) * count for key, count in triples.items()))
