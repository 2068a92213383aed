"""Which nodes of a tree a relaxed clip bound reaches."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elpo_agent.tree import checked_parents, children_of


def first_all_failed(parent: ArrayLike, failed: Collection[int], ignored: Collection[int] = ()) -> dict[int, int]:
    """For each failed leaf, the earliest node on its path below which every sampled leaf failed.

    The root is no candidate, its children are. A leaf counts as below itself, so each failed leaf has a node.
    The FW counters of the paper's Figure 4 add up to this assignment.

    Args:
        parent: integers (n,); `parent[0] == -1` is the root and `0 <= parent[i] < i`.
        failed: childless nodes that failed. Every other childless node succeeded, unless ignored.
        ignored: childless nodes that count as neither (infrastructure failures).

    Returns:
        failed leaf -> node, in index order of the leaves.

    Raises:
        ValueError: the tree is malformed, or a node of `failed` or `ignored` is not a leaf, or is in both.
    """
    children = children_of(parent)
    lost, unknown = set(failed), set(ignored)
    for name, leaves in (("failed", lost), ("ignored", unknown)):
        for leaf in leaves:
            if not 0 < leaf < len(children) or children[leaf]:
                raise ValueError(f"{name} names node {leaf}, which is not a leaf; give childless nodes only")
    if lost & unknown:
        raise ValueError(f"node {min(lost & unknown)} is both in failed and in ignored; give it in one of them")
    n = len(children)
    success_below = [False] * n
    for i in range(n - 1, -1, -1):
        if children[i]:
            success_below[i] = any(success_below[c] for c in children[i])
        else:
            success_below[i] = i not in lost and i not in unknown
    first = [0] * n  # 0: no such node on the path yet
    for i, group in enumerate(children):
        for c in group:
            first[c] = first[i] or (0 if success_below[c] else c)
    return {leaf: first[leaf] for leaf in sorted(lost)}


def at_or_below(parent: ArrayLike, roots: Iterable[int]) -> NDArray[np.bool_]:
    """bool (n,): the nodes of the subtrees under `roots`, the roots included."""
    up = np.maximum(checked_parents(parent), 0)
    inside = np.zeros(len(up), dtype=np.bool_)
    inside[list(roots)] = True
    while True:  # by 1, 2, 4, ... generations
        inside |= inside[up]
        if not (inside.any() and up.any()):
            return inside
        up = up[up]
