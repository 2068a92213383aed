import sys

n, m, *ends = (int(word) for word in sys.stdin.read().split())
# Vertex v on side 0 is v - 1, on side 1 it is n + v - 1.
parent = list(range(2 * n))


def root(vertex: int) -> int:
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


for a, b in zip(ends[:m], ends[m:], strict=True):
    parent[root(a - 1)] = root(n + b - 1)
    parent[root(n + a - 1)] = root(b - 1)
print("Yes" if all(root(vertex) != root(n + vertex) for vertex in range(n)) else "No")
