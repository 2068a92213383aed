"""Keys and values of token prefixes, shared by all sequences that start with them: a radix tree with LRU."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(eq=False)
class _Edge:
    """A run of tokens below a common prefix. `kv` is (layers, 2, kv_heads, len(ids), head_dim)."""

    ids: tuple[int, ...]
    kv: Tensor
    parent: _Edge | None
    used: int
    children: dict[int, _Edge] = field(default_factory=dict)


def _common(a: tuple[int, ...], b: tuple[int, ...], start: int, limit: int) -> int:
    """How many leading tokens of `a` equal `b[start:limit]`."""
    n = min(len(a), limit - start)
    if a[:n] == b[start : start + n]:
        return n
    return next(i for i in range(n) if a[i] != b[start + i])


def _shared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many leading tokens two sequences have in common."""
    return _common(a, b, 0, len(b))


class PrefixCache:
    """Keys and values keyed by the exact token ids that produced them.

    A causal model's keys and values at a position depend only on the tokens up to it, so any cached prefix
    can be reused at any cut. Tokens that several sequences share are held once.

    Whoever will ask for what follows a prefix says so with `hold`, and with `release` that it is over: then the
    prefix goes, with everything that begins with it, but for what other held prefixes have in common with it.
    Holding keeps nothing from `evict`, and `clear` leaves the holds as they are.

    Args:
        max_tokens: bound on the tokens held after `evict`; least recently used runs go first. >= 0.
    """

    def __init__(self, max_tokens: int) -> None:
        if max_tokens < 0:
            raise ValueError(f"prefix_cache_tokens={max_tokens} is negative; give 0 to keep nothing")
        self.max_tokens = max_tokens
        self.tokens = 0
        self._clock = 0
        self._root: dict[int, _Edge] = {}
        self._held: Counter[tuple[int, ...]] = Counter()

    def match(self, ids: tuple[int, ...], limit: int) -> tuple[int, list[Tensor]]:
        """The longest cached prefix of `ids[:limit]`: its length, and its keys and values in pieces."""
        self._clock += 1
        depth, pieces, children = 0, [], self._root
        while depth < limit and (edge := children.get(ids[depth])) is not None:
            n = _common(edge.ids, ids, depth, limit)
            edge.used = self._clock
            pieces.append(edge.kv[..., :n, :])
            depth += n
            if n < len(edge.ids):
                break
            children = edge.children
        return depth, pieces

    def insert(self, ids: tuple[int, ...], kv: Tensor, start: int) -> None:
        """Hold the keys and values of `ids`.

        Args:
            ids: a whole sequence from its first token.
            kv: (layers, 2, kv_heads, len(ids) - start, head_dim), those of `ids[start:]`; copied.
            start: `ids[:start]` must be cached already.
        Raises:
            ValueError: `ids[:start]` is not cached.
        """
        self._clock += 1
        depth, parent, children = 0, None, self._root
        while depth < len(ids) and (edge := children.get(ids[depth])) is not None:
            n = _common(edge.ids, ids, depth, len(ids))
            if n < len(edge.ids) and depth + n < len(ids):
                edge = self._split(edge, n)
            edge.used = self._clock
            depth += n
            parent, children = edge, edge.children
            if n < len(edge.ids):
                break
        if depth < start:
            raise ValueError(f"start={start}, but only the first {depth} tokens are cached; insert those before")
        if depth < len(ids):
            children[ids[depth]] = _Edge(ids[depth:], kv[..., depth - start :, :].clone(), parent, self._clock)
            self.tokens += len(ids) - depth

    def evict(self) -> None:
        """Drop least recently used runs, from the ends of sequences inwards, until the bound holds."""
        if self.tokens <= self.max_tokens:
            return
        stack, leaves = list(self._root.values()), []
        while stack:
            edge = stack.pop()
            stack.extend(edge.children.values())
            if not edge.children:
                leaves.append((edge.used, id(edge), edge))
        heapq.heapify(leaves)
        while self.tokens > self.max_tokens:
            _, _, edge = heapq.heappop(leaves)
            siblings = self._root if edge.parent is None else edge.parent.children
            del siblings[edge.ids[0]]
            self.tokens -= len(edge.ids)
            if edge.parent is not None and not siblings:
                heapq.heappush(leaves, (edge.parent.used, id(edge.parent), edge.parent))

    def hold(self, ids: tuple[int, ...]) -> None:
        """Somebody needs what begins with `ids`, cached by now or not."""
        self._held[ids] += 1

    def release(self, ids: tuple[int, ...]) -> None:
        """Take back a `hold`; after the last one of `ids`, drop what nobody needs of what begins with them.

        Kept of that is what is, begins with, or is the beginning of another held prefix. Sequences that share only a
        part of `ids` stay with that part, held or not.

        Raises:
            ValueError: `ids` are not held.
        """
        if not self._held[ids]:
            raise ValueError(f"a prefix of {len(ids)} tokens is released that is not held; hold it first")
        self._held[ids] -= 1
        if self._held[ids]:
            return
        del self._held[ids]
        shared = [_shared(held, ids) for held in self._held]
        if any(n == len(held) for n, held in zip(shared, self._held, strict=True)):
            return  # `ids` begin with a held prefix
        path: list[_Edge] = []
        depth, children = 0, self._root
        while depth < len(ids) and (edge := children.get(ids[depth])) is not None:
            n = _common(edge.ids, ids, depth, len(ids))
            depth += n
            if n < len(edge.ids):
                if depth < len(ids):
                    return  # somebody else's run goes on where these ids were, which are not here any more
                edge = self._split(edge, n)
            path.append(edge)
            children = edge.children
        if depth == len(ids) and depth:
            self._prune(children, [held[depth:] for held in self._held if held[:depth] == ids])
        while path and not path[-1].children and depth > max(shared, default=0):
            edge = path.pop()
            kept = max(0, max(shared, default=0) - (depth - len(edge.ids)))
            depth -= len(edge.ids)
            self._cut(edge, kept)

    def _prune(self, children: dict[int, _Edge], held: Sequence[tuple[int, ...]]) -> None:
        """Drop from below a node all that is neither beginning nor continuation of one of `held`, none of them ()."""
        for edge in list(children.values()):
            common = [_shared(ids, edge.ids) for ids in held]
            if any(n == len(ids) for n, ids in zip(common, held, strict=True)):
                continue
            longest = max(common, default=0)
            if longest == len(edge.ids):
                self._prune(edge.children, [ids[longest:] for ids in held if ids[:longest] == edge.ids])
                continue
            below = list(edge.children.values())
            edge.children = {}
            while below:
                gone = below.pop()
                below.extend(gone.children.values())
                self.tokens -= len(gone.ids)
            self._cut(edge, longest)

    def _cut(self, edge: _Edge, keep: int) -> None:
        """Shorten a run without children to its first `keep` tokens; drop it where that is none."""
        self.tokens -= len(edge.ids) - keep
        if keep:
            edge.ids, edge.kv = edge.ids[:keep], edge.kv[..., :keep, :].clone()
        else:
            siblings = self._root if edge.parent is None else edge.parent.children
            del siblings[edge.ids[0]]

    def clear(self) -> None:
        """Forget everything."""
        self._root = {}
        self.tokens = 0

    def _split(self, edge: _Edge, n: int) -> _Edge:
        """Cut `edge` after its first `n` tokens; returns the upper half, with the lower one as its child."""
        siblings = self._root if edge.parent is None else edge.parent.children
        # Clones, so that evicting the lower half frees its memory.
        upper = _Edge(edge.ids[:n], edge.kv[..., :n, :].clone(), edge.parent, edge.used)
        edge.ids, edge.kv, edge.parent = edge.ids[n:], edge.kv[..., n:, :].clone(), upper
        upper.children[edge.ids[0]] = edge
        siblings[upper.ids[0]] = upper
        return upper
