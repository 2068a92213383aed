"""Large pages under the zygote's heap, so that forks cost less. Standard library only.

A fork copies one table entry for every page of anonymous memory, and the end of a process looks at each again; with
numpy and sympy imported that is a good part of what a branch costs. The system goes through the entries of one large
page together.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import cast

_LARGE = 2 << 20
_SMALL = 4 << 10
_MADV_POPULATE_WRITE = 23  # Linux 5.14
_MADV_COLLAPSE = 25  # Linux 6.1


def enlarge_pages() -> tuple[int, ...]:
    """Put large pages in place of small ones wherever whole ones fit in this process's heap; returns where.

    The tuple is empty where the system cannot.
    """
    advise, enlarged = _madvise(), []
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:  # no /proc here; forks cost more, and that is all
        return ()
    for line in mapped.splitlines():
        addresses, mode, _, _, _, *name = line.split()
        if mode == "rw-p" and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in addresses.split("-"))
            for place in range(-(-start // _LARGE) * _LARGE, end - _LARGE + 1, _LARGE):
                if advise(place, _LARGE, _MADV_COLLAPSE) == 0:
                    enlarged.append(place)
    return tuple(enlarged)


def divide_tables(pages: tuple[int, ...]) -> None:
    """In a fork of that process: give each large page a table of small ones, which its own forks will need.

    They write to nearly all of them, and the first write does this; here it is done once for all.
    """
    advise = _madvise()
    for place in pages:
        advise(place, _SMALL, _MADV_POPULATE_WRITE)  # as a write does, but changes nothing


def _madvise() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return cast("Callable[[int, int, int], int]", function)
