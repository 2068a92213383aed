class Solution:
    def sortVowels(self, s: str) -> str:
        vowels = iter(sorted(letter for letter in s if letter in "aeiouAEIOU"))
        return "".join(next(vowels) if letter in "aeiouAEIOU" else letter for letter in s)
