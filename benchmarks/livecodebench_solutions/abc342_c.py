import sys
from string import ascii_lowercase

_size, text, _count, *changes = sys.stdin.read().split()
now = {letter: letter for letter in ascii_lowercase}
for old, new in zip(changes[::2], changes[1::2], strict=True):
    for letter, shown in now.items():
        if shown == old:
            now[letter] = new
print("".join(now[letter] for letter in text))
