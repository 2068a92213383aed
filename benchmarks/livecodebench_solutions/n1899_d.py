from collections import Counter

for _ in range(int(input())):
    input()
    # Equal exponents always agree; otherwise k * 2**l = l * 2**k holds for 1 and 2 alone.
    counts = Counter(map(int, input().split()))
    same = sum(count * (count - 1) // 2 for count in counts.values())
    print(same + counts[1] * counts[2])
