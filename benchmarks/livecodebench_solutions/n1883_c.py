def fewest_steps(numbers: list[int], k: int) -> int:
    """Each factor can be brought up to a multiple of k alone; 4 may also be made of two even numbers."""
    alone = min(-number % k for number in numbers)
    if k != 4:
        return alone
    evens = sum(number % 2 == 0 for number in numbers)
    return min(alone, max(0, 2 - evens))


for _ in range(int(input())):
    _n, k = map(int, input().split())
    print(fewest_steps([int(word) for word in input().split()], k))
