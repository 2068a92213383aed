n = int(input())
people = [(name, int(age)) for name, age in (input().split() for _ in range(n))]
youngest = min(range(n), key=lambda at: people[at][1])
for at in range(n):
    print(people[(youngest + at) % n][0])
