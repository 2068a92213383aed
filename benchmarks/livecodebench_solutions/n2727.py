class Solution:
    def countSeniors(self, details: list[str]) -> int:
        return sum(int(each[11:13]) > 60 for each in details)
