import sys

_, sellers, buyers = (list(map(int, line.split())) for line in sys.stdin.read().strip().split("\n"))
# Sorted together, X is where as many sellers as buyers above have been counted: the m-th smallest of A and B + 1.
print(sorted([*sellers, *(price + 1 for price in buyers)])[len(buyers) - 1])
