_, text = open(0).read().split()  # noqa: SIM115  as contestants write it
print("".join(letter * 2 for letter in text))
