class Solution:
    def constructProductMatrix(self, grid: list[list[int]]) -> list[list[int]]:
        cells = [cell for row in grid for cell in row]
        n = len(cells)
        after = [1] * (n + 1)
        for at in range(n - 1, -1, -1):
            after[at] = after[at + 1] * cells[at] % 12345
        before = 1
        products = []
        for at, cell in enumerate(cells):
            products.append(before * after[at + 1] % 12345)
            before = before * cell % 12345
        width = len(grid[0])
        return [products[start : start + width] for start in range(0, n, width)]
