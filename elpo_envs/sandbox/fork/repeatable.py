"""Whether code that runs again from the same state is known to lead to the same state again."""

from __future__ import annotations

import re

_CHANCE = re.compile(
    r"""
    \b(?:import|from)\b [^\n;]* \b (?:  # modules with a clock, with entropy of their own, or of the world outside
        asyncio|concurrent|ctypes|cvxpy|datetime|gc|getpass|importlib|logging|multiprocessing|os|platform|psutil|pulp|
        resource|sched|secrets|select|selectors|signal|socket|ssl|subprocess|tempfile|threading|time|timeit|
        tracemalloc|uuid|weakref|z3
    )\b
    | \b (?: __import__|SystemRandom|getrandom|import_module|now|perf_counter|st_[acm]time|today|urandom ) \b
    | \b (?: hash|id|lstat|stat ) \(
    | \b (?: MT19937|PCG64|PCG64DXSM|Philox|Random|RandomState|SFC64|SeedSequence|default_rng|seed ) \b
      (?! \s* \( \s* (?!None\b) [^\s)] )  # seeded by the system, or under another name
    | / (?:dev|proc|sys) \b
    """,
    re.VERBOSE,
)


def is_repeatable(code: str) -> bool:
    """Whether nothing in `code` reads a clock, fresh entropy, a memory address, or what is outside its session.

    Told by names alone, so that it takes microseconds: False for much that is harmless, and True for code that hides
    what it does.
    """
    return _CHANCE.search(code) is None
