"""What is drawn for the rows of a running batch: their uniforms, and the tokens and statistics so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elpo_agent.engines.decoding import draw, uniforms
from elpo_agent.policy import SampledTurn


@dataclass(frozen=True, eq=False)
class Row:
    """One sample to draw, at most `limit` tokens long.

    Attributes:
        request: number of the request that it belongs to.
        sample: its number among the request's samples; with `seed` it fixes the row's uniforms.
    """

    request: int
    sample: int
    prefix: tuple[int, ...]
    limit: int
    seed: int
    temperature: float


class Draws:
    """Row r is that of row r of the batch; R rows at most have room, and S tokens of each.

    Args:
        stop: (n,) int64, ids that end a turn; its device is used for everything.
    """

    def __init__(self, stop: Tensor) -> None:
        self._stop = stop
        self._stop_ids = frozenset(stop.tolist())
        self._allocate(0, 0)

    def _allocate(self, rows: int, steps: int) -> None:
        device = self._stop.device
        self._uniforms = torch.zeros((rows, steps), dtype=torch.float64, device=device)
        self._ids = torch.zeros((rows, steps), dtype=torch.long, device=device)
        self._stats = torch.zeros((2, rows, steps), device=device)
        self._taken = torch.zeros(rows, dtype=torch.long, device=device)
        self._limits = torch.zeros(rows, dtype=torch.long, device=device)
        self._temperature = torch.zeros(rows, device=device)
        self._index = torch.arange(rows, device=device)

    def add(self, rows: Sequence[Row], first: int) -> None:
        """Begin with `rows` as rows `first`, `first + 1`, ...; those before are kept."""
        last, steps = first + len(rows), max(row.limit for row in rows)
        self._reserve(first, last, steps)
        # A row's uniforms never depend on other rows: those beyond its own limit are not read.
        own = np.zeros((len(rows), steps))
        for r, row in enumerate(rows):
            own[r, : row.limit] = uniforms(row.seed, row.sample, row.limit)
        self._uniforms[first:last, :steps] = torch.from_numpy(own)
        self._taken[first:last] = 0
        self._limits[first:last] = torch.tensor([row.limit for row in rows])
        self._temperature[first:last] = torch.tensor([row.temperature for row in rows], dtype=torch.float32)

    def _reserve(self, keep: int, rows: int, steps: int) -> None:
        held, width = self._ids.shape
        if rows <= held and steps <= width:
            return
        old = (self._uniforms, self._ids, self._stats, self._taken, self._limits, self._temperature)
        self._allocate(rows if rows <= held or not keep else max(rows, 2 * held), max(steps, width))
        for new, before in zip((self._uniforms, self._ids), old[:2], strict=True):
            new[:keep, :width] = before[:keep]
        self._stats[:, :keep, :width] = old[2][:, :keep]
        for new, before in zip((self._taken, self._limits, self._temperature), old[3:], strict=True):
            new[:keep] = before[:keep]

    def step(self, logits: Tensor) -> tuple[Tensor, NDArray[np.bool_]]:
        """Draw the next token of the first B rows.

        Args:
            logits: (B, V).
        Returns:
            The tokens (B,) int64, and on the host which rows end with them (B,).
        """
        n = len(logits)
        index, taken = self._index[:n], self._taken[:n]
        token, logp, entropy = draw(logits, self._temperature[:n], self._uniforms[index, taken])
        self._ids[index, taken] = token
        self._stats[0, index, taken] = logp
        self._stats[1, index, taken] = entropy
        taken += 1
        ended: NDArray[np.bool_] = (torch.isin(token, self._stop) | (self._limits[:n] == taken)).cpu().numpy()
        return token, ended

    def turns(self, rows: NDArray[np.int64]) -> list[SampledTurn]:
        """What was drawn for each of `rows` (n,), n >= 1.

        Raises:
            ValueError: the logits were NaN.
        """
        index = torch.from_numpy(rows).to(self._stop.device)
        counts = self._taken[index].cpu().numpy()
        longest = int(counts.max())
        ids, stats = self._ids[index, :longest].cpu().numpy(), self._stats[:, index, :longest].cpu().numpy()
        return [self._turn(ids[i, :n], stats[:, i, :n].copy()) for i, n in enumerate(counts.tolist())]

    def _turn(self, ids: NDArray[np.int64], stats: NDArray[np.float32]) -> SampledTurn:
        if not np.isfinite(stats[0]).all():
            raise ValueError("the model's logits are NaN or infinite, so no token can be drawn; check its weights")
        own: tuple[int, ...] = tuple(ids.tolist())
        return SampledTurn(own, stats[0], stats[1], "stop" if own[-1] in self._stop_ids else "length")

    def count(self, row: int) -> int:
        """Tokens drawn for a row so far."""
        return int(self._taken[row])

    def move(self, source: Tensor, target: Tensor) -> None:
        """Put rows `source` (n,) int64 in the places of rows `target` (n,)."""
        for values in (self._uniforms, self._ids, self._taken, self._limits, self._temperature):
            values[target] = values[source]
        self._stats[:, target] = self._stats[:, source]
