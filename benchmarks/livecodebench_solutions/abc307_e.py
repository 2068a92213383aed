n, m = map(int, input().split())
modulus = 998244353
# The chromatic polynomial of a cycle.
print((pow(m - 1, n, modulus) + (-1) ** n * (m - 1)) % modulus)
