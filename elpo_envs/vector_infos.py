"""The infos of several environments as one, in the form of Gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def batch_infos(infos: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Gymnasium's vector form of single infos, and these themselves under "per_env"."""
    batched = _batch_dicts(infos)
    batched["per_env"], batched["_per_env"] = _objects(infos), np.array([info is not None for info in infos])
    return batched


def _batch_dicts(dicts: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    batched: dict[str, Any] = {}
    for key in dict.fromkeys(key for d in dicts if d is not None for key in d):
        mask = np.array([d is not None and key in d for d in dicts])
        values = [d.get(key) if d is not None else None for d in dicts]
        kinds = {type(v) for v, present in zip(values, mask, strict=True) if present}
        if dict in kinds and kinds <= {dict, type(None)}:
            batched[key] = _batch_dicts(values)
            mask = np.array([v is not None for v in values])
        else:
            batched[key] = _array(values, mask, kinds)
        batched[f"_{key}"] = mask
    return batched


def _array(values: Sequence[Any], mask: NDArray[np.bool_], kinds: set[type]) -> NDArray[Any]:
    """Zeros of the values' own type where all are numbers of one type, else an object array of None."""
    (kind,) = kinds if len(kinds) == 1 else (object,)
    if not issubclass(kind, (bool, int, float, np.number)):
        return _objects(values)
    array = np.zeros(len(values), dtype=kind)
    try:
        array[mask] = [v for v, present in zip(values, mask, strict=True) if present]
    except OverflowError:  # an integer beyond 64 bits
        return _objects(values)
    return array


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.full(len(values), None, dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array
