class Solution:
    def minExtraChar(self, s: str, dictionary: list[str]) -> int:
        words = set(dictionary)
        fewest = [0]
        for end in range(1, len(s) + 1):
            covered = [fewest[start] for start in range(end) if s[start:end] in words]
            fewest.append(min([fewest[-1] + 1, *covered]))
        return fewest[-1]
