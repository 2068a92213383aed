_ = input()
zeros = ones = total = 0
for digit in input():
    if digit == "0":
        zeros, ones = 1, zeros + ones
    else:
        zeros, ones = ones, zeros + 1
    total += ones
print(total)
