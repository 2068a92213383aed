class Solution:
    def sumOfPower(self, nums: list[int]) -> int:
        total = minima = 0
        for number in sorted(nums):
            # The least members of all groups below this hero, each group once.
            total += number * number * (minima + number)
            minima = 2 * minima + number
        return total % (10**9 + 7)
