class Solution:
    def minLength(self, s: str) -> int:
        stack: list[str] = []
        for letter in s:
            if stack and stack[-1] + letter in ("AB", "CD"):
                stack.pop()
            else:
                stack.append(letter)
        return len(stack)
