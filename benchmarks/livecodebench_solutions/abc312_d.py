text = input().strip()
modulus = 998244353
ways = [1]
for letter in text:
    size = len(ways)
    fresh = [0] * (size + 1)
    if letter != ")":
        for depth in range(size):
            fresh[depth + 1] = ways[depth]
    if letter != "(":
        for depth in range(1, size):
            fresh[depth - 1] = (fresh[depth - 1] + ways[depth]) % modulus
    ways = fresh
print(ways[0])
