import sys
from collections import Counter

lines = sys.stdin.read().splitlines()
answers = []
for sizes, word in zip(lines[1::2], lines[2::2], strict=True):
    removed = int(sizes.split()[1])
    odd = sum(count % 2 for count in Counter(word).values())
    answers.append("YES" if odd <= removed + 1 else "NO")
sys.stdout.write("\n".join(answers))
