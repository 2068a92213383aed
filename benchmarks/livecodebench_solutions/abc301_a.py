n = int(input())
s = input()
wins = s.count("T"), s.count("A")
if wins[0] != wins[1]:
    print("T" if wins[0] > wins[1] else "A")
else:
    print("A" if s[-1] == "T" else "T")
