import math


def best_product(digits: list[int]) -> int:
    smallest = digits.index(min(digits))
    return math.prod(digit + (at == smallest) for at, digit in enumerate(digits))


def main() -> None:
    for _ in range(int(input())):
        input()
        print(best_product([int(word) for word in input().split()]))


if __name__ == "__main__":
    main()
