"""A text space for what language models read and write."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

PRINTABLE = "".join(chr(c) for c in range(32, 127)) + "\n"
_SAMPLE_LENGTH = 256


class UnicodeText(spaces.Text):
    """Every Unicode string of at most `max_length` characters, the empty one included.

    `spaces.Text` checks each character against a fixed set, which rejects "" and "é" and takes milliseconds
    on a long conversation; here membership is a type and a length check. Samples are printable ASCII and at
    most 256 characters long, since uniform lengths up to `max_length` would be megabytes.

    Args:
        max_length: longest member, in characters; >= `min_length`.
        min_length: shortest member, in characters; >= 0.
        seed: seed or generator for `sample`.
    """

    def __init__(self, max_length: int, *, min_length: int = 0, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(max_length, min_length=min_length, charset=PRINTABLE, seed=seed)

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string within the length bounds."""
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length

    def sample(
        self,
        mask: tuple[int | None, NDArray[np.int8] | None] | None = None,
        probability: tuple[int | None, NDArray[np.float64] | None] | None = None,
    ) -> str:
        """A printable member; without a length in `mask` or `probability`, at most 256 characters long."""
        if mask is not None or probability is not None:
            return super().sample(mask=mask, probability=probability)
        longest = max(self.min_length, min(self.max_length, _SAMPLE_LENGTH))
        length = int(self.np_random.integers(self.min_length, longest + 1))
        return super().sample(mask=(length, None))

    @property
    def is_np_flattenable(self) -> bool:
        """False: characters outside the sampling set have no index."""
        return False

    def __eq__(self, other: object, /) -> bool:
        return (
            isinstance(other, UnicodeText)
            and self.min_length == other.min_length
            and self.max_length == other.max_length
        )

    def __repr__(self) -> str:
        return f"UnicodeText({self.min_length}, {self.max_length})"
