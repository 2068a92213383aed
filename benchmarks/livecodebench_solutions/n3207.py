class Solution:
    def findMinimumOperations(self, s1: str, s2: str, s3: str) -> int:
        common = 0
        while common < min(map(len, (s1, s2, s3))) and s1[common] == s2[common] == s3[common]:
            common += 1
        return len(s1) + len(s2) + len(s3) - 3 * common if common else -1
