n = int(input())
behind = {int(ahead): person for person, ahead in enumerate(input().split(), start=1)}
line = [behind[-1]]
while line[-1] in behind:
    line.append(behind[line[-1]])
print(*line)
