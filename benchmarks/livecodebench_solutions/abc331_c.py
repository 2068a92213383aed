from bisect import bisect_right
from itertools import accumulate

n = int(input())
numbers = list(map(int, input().split()))
ordered = sorted(numbers)
upto = [0, *accumulate(ordered)]
print(" ".join(str(upto[-1] - upto[bisect_right(ordered, number)]) for number in numbers))
