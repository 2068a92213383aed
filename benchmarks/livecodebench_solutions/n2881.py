class Solution:
    def splitWordsBySeparator(self, words: list[str], separator: str) -> list[str]:
        return [part for word in words for part in word.split(separator) if part]
