"""Conversations that share prefixes as one sequence in which every token stands once.

The rows' ids make a trie; in depth-first order its tokens are one packed sequence. What a token may see are its
ancestors, which lie in the rows' order of positions whatever stands between them. Nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

Packing = Literal["auto", "always", "never"]
"""Whether rows are packed; "auto": where it pays."""

# What an attention call costs, and each of its keys beside it, in pairs of query and key (both directions, one layer).
# Measured on a CPU with heads of 32: a call costs about 0.15 ms, a key that is copied 1 us, a pair 0.08 us.
_CALL_PAIRS = 2000.0
_KEY_PAIRS = 10.0

# Runs below other tokens are cut at this length, since up to half of what a masked block computes is hidden.
_SEGMENT_TOKENS = 256

# Rows of 30 to 1,000 tokens, 4 to 40 of them: packed, they are as fast up to 0.9, and at 0.7 faster by 1.2 to 1.4.
_PAYING_SHARE = 0.85


@dataclass(frozen=True)
class Block:
    """Consecutive packed tokens, and what they attend to in one call.

    Attributes:
        start, stop: the tokens, start <= i < stop.
        keys: the segments that hold what they see, in packed order: their path, then their own.
        visible: bool (stop - start, number of tokens in `keys`), True where the query sees the key; None where all
            is plainly causal.
    """

    start: int
    stop: int
    keys: tuple[int, ...]
    visible: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Packed:
    """U packed tokens of rows of ids.

    Attributes:
        ids: int64 (U,).
        positions: int64 (U,), depth in the trie: where the token stands in its rows.
        parents: int64 (U,), packed index of the token before it, -1 for a row's first.
        places: for each row, int64 (T_i,): the packed index of each of its tokens.
    """

    ids: Ids
    positions: Ids
    parents: Ids
    places: tuple[Ids, ...]

    @cached_property
    def segments(self) -> NDArray[np.int64]:
        """First token of each segment, (S,), in packed order: a run without branches.

        The longest, but below other tokens at most `_SEGMENT_TOKENS`: there, attention computes what a mask hides.
        """
        every = np.arange(len(self.ids))
        children = np.bincount(self.parents + 1, minlength=len(self.ids) + 1)
        begins = (self.parents != every - 1) | (children[self.parents + 1] > 1)
        begins[:1] = True
        first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
        return np.flatnonzero(begins | ((self.parents[first] >= 0) & ((every - first) % _SEGMENT_TOKENS == 0)))

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """For each token the end of its subtree, (U,): j is i itself or an ancestor of i where j <= i < ends[j]."""
        segments = _Segments.of(self)
        bounds = np.append(self.segments, len(self.ids))
        return np.repeat(bounds[segments.last], segments.lengths)

    def ancestors(self) -> NDArray[np.bool_]:
        """The whole mask, bool (U, U): [i, j] is True where token i sees token j."""
        return _visible(0, len(self.ids), self.ends)

    def blocks(self) -> list[Block]:
        """Attention in blocks, which together cover every token once, in packed order.

        A segment alone, all that branches off it together, or both in one: whatever costs least by the constants
        above, where nothing that a mask hides is free.
        """
        segments = _Segments.of(self)
        bounds = np.append(self.segments, len(self.ids))
        return [_block(self, segments, bounds, first, last) for first, last in segments.cheapest()]


def pack(rows: Sequence[Ids]) -> Packed:
    """The trie of `rows` in depth-first order; equal prefixes are shared whoever's they are, empty rows have nothing.

    Args:
        rows: int64 (T_i,) each.
    """
    places: list[Ids] = [np.zeros(0, dtype=np.int64)] * len(rows)
    ids, positions, parents = [], [], []
    path, count = np.zeros(0, dtype=np.int64), 0
    for i, shared in _prefix_order(rows):
        own = rows[i][shared:]
        new = np.arange(count, count + len(own))
        path = np.concatenate([path[:shared], new])
        places[i] = path
        ids.append(own)
        positions.append(np.arange(shared, shared + len(own)))
        parents.append(path[shared - 1 : -1] if shared else np.append(-1, new)[: len(own)])
        count += len(own)

    def joined(parts: list[Ids]) -> Ids:
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    return Packed(joined(ids), joined(positions), joined(parents), tuple(places))


def packs(rows: Sequence[Ids], max_tokens: int) -> tuple[list[list[int]], int]:
    """Indices of rows that are packed together, each pack at most `max_tokens` packed tokens (one row at least).

    Rows of one prefix stay together as far as that goes.

    Returns:
        The packs, and the number of packed tokens of all together.
    """
    groups: list[list[int]] = []
    total = held = 0
    for i, shared in _prefix_order(rows):
        own = len(rows[i]) - shared
        if groups and held + own <= max_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
            held, own = 0, len(rows[i])
        held += own
        total += own
    return groups, total


def pays(computed: int, padded: int) -> bool:
    """Whether packing rows into `computed` tokens is faster than computing their `padded` ones; measured."""
    return computed <= _PAYING_SHARE * padded


def predicting(ids: Ids, mask: NDArray[np.bool_]) -> Ids:
    """The tokens of a row that its agent tokens need, (T',): those before the last one."""
    agent = np.flatnonzero(mask[1:])
    return ids[: agent[-1] + 1] if len(agent) else ids[:0]


def _prefix_order(rows: Sequence[Ids]) -> list[tuple[int, int]]:
    """Rows in lexical order, each with the number of leading tokens that it shares with the one before."""
    keys = [np.ascontiguousarray(row, dtype=">i8").tobytes() for row in rows]
    order = sorted(range(len(rows)), key=lambda i: keys[i])
    shared = [0] + [_common(rows[a], rows[b]) for a, b in pairwise(order)]
    return list(zip(order, shared, strict=False))


def _common(a: Ids, b: Ids) -> int:
    n = min(len(a), len(b))
    differing = np.flatnonzero(a[:n] != b[:n])
    return int(differing[0]) if len(differing) else n


def _visible(start: int, stop: int, ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[i, j]: whether j is i itself or one of its ancestors, among the tokens from `start` to `stop`."""
    i = np.arange(start, stop)[:, None]
    return (i >= i.T) & (i < ends[None, start:stop])


@dataclass(frozen=True)
class _Segments:
    """The trie of S segments in packed order.

    Attributes:
        lengths: tokens of each, (S,).
        parents: segment above, -1 for none.
        last: one past the last segment below it.
        depths: tokens above it.
        sizes: its tokens and those of all below it.
    """

    lengths: list[int]
    parents: list[int]
    last: list[int]
    depths: list[int]
    sizes: list[int]

    @staticmethod
    def of(packed: Packed) -> _Segments:
        first = packed.segments
        lengths = np.diff(np.append(first, len(packed.ids))).tolist()
        above = packed.parents[first]
        parents = np.where(above < 0, -1, np.searchsorted(first, above, side="right") - 1).tolist()
        count = len(lengths)
        last, sizes, depths = [s + 1 for s in range(count)], list(lengths), [0] * count
        for s in range(count):
            if parents[s] >= 0:
                depths[s] = depths[parents[s]] + lengths[parents[s]]
        for s in reversed(range(count)):
            if parents[s] >= 0:
                last[parents[s]] = max(last[parents[s]], last[s])
                sizes[parents[s]] += sizes[s]
        return _Segments(lengths, parents, last, depths, sizes)

    def path(self, segment: int) -> list[int]:
        """The segments above it, from the first."""
        out: list[int] = []
        while (segment := self.parents[segment]) >= 0:
            out.append(segment)
        return out[::-1]

    def cheapest(self) -> list[tuple[int, int]]:
        """Ranges of segments that make a block each, in packed order."""
        count = len(self.lengths)
        best, below = [0.0] * count, [0.0] * (count + 1)
        together, rest_together = [False] * count, [False] * count
        for s in reversed(range(count)):
            n, depth, size = self.lengths[s], self.depths[s], self.sizes[s]
            leaf = self.last[s] == s + 1
            rest = 0.0 if leaf else _cost(size - n, depth + n)
            rest_together[s] = rest < below[s]
            alone = _cost(n, depth, plain=depth == 0) + min(rest, below[s])
            whole = _cost(size, depth, plain=leaf and depth == 0)
            together[s] = whole <= alone
            best[s] = min(whole, alone)
            below[self.parents[s]] += best[s]  # the last entry is for those with nothing above
        if count > 1 and _cost(sum(self.lengths), 0) < below[-1]:
            return [(0, count)]
        out: list[tuple[int, int]] = []
        s = 0
        while s < count:
            if together[s]:
                out.append((s, self.last[s]))
                s = self.last[s]
            elif rest_together[s]:
                out += [(s, s + 1), (s + 1, self.last[s])]
                s = self.last[s]
            else:
                out.append((s, s + 1))
                s += 1
        return out


def _cost(queries: int, above: int, *, plain: bool = False) -> float:
    """Of one call, in pairs; `plain` is causal with nothing above, where only half of the pairs is computed."""
    keys = above + queries
    return _CALL_PAIRS + _KEY_PAIRS * keys + queries * keys * (0.5 if plain else 1.0)


def _block(packed: Packed, segments: _Segments, bounds: Ids, first: int, last: int) -> Block:
    start, stop = int(bounds[first]), int(bounds[last])
    path = segments.path(first)
    keys = (*path, *range(first, last))
    if not path and last - first == 1:
        return Block(start, stop, keys, None)
    above = np.ones((stop - start, segments.depths[first]), dtype=bool)
    return Block(start, stop, keys, np.concatenate([above, _visible(start, stop, packed.ends)], axis=1))
