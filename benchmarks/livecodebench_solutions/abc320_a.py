a, b = (int(word) for word in input().split())
print(a**b + b**a)
