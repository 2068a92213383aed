class Solution:
    def findIntersectionValues(self, nums1: list[int], nums2: list[int]) -> list[int]:
        first, second = set(nums1), set(nums2)
        return [sum(number in second for number in nums1), sum(number in first for number in nums2)]
