with open(0) as file:
    _count, *numbers = file.read().split()
for number in numbers:
    print("Second" if int(number) % 3 == 0 else "First")
