class Solution:
    def findWordsContaining(self, words: list[str], x: str) -> list[int]:
        return [at for at, word in enumerate(words) if x in word]
