"""What user code may import."""

from __future__ import annotations

import functools
from dataclasses import dataclass

_DEFAULT = """
    __future__ abc array ast base64 binascii bisect bz2 calendar cmath codecs collections colorsys contextlib
    contextvars copy csv dataclasses datetime decimal difflib enum errno fnmatch fractions functools glob graphlib
    gzip hashlib heapq hmac html io ipaddress itertools json keyword locale logging lzma math numbers operator
    pathlib pprint queue random re reprlib secrets shlex statistics string struct sys tempfile textwrap time timeit
    token tokenize tomllib traceback types typing unicodedata urllib.parse uuid warnings weakref zlib zoneinfo
    astropy cvxpy dateutil gmpy2 matplotlib more_itertools mpl_toolkits mpmath networkx numpy pandas pint pulp pytz
    scipy seaborn shapely sklearn sortedcontainers statsmodels sympy tabulate typing_extensions uncertainties z3
"""
DEFAULT_IMPORTS: tuple[str, ...] = tuple(_DEFAULT.split())
"""Modules that compute, read text and keep to the files of the session. `sys` is a stand-in of ours."""

_WELL_KNOWN = """
    bisect collections copy csv datetime decimal fractions functools heapq itertools json math mpmath networkx numpy
    operator pandas pathlib random re scipy statistics string sympy sys time typing
"""
_MAX_SHOWN = 30
_SHOWN_FIRST = frozenset(_WELL_KNOWN.split())

# Parts of allowed packages that load code, run programs or reach the network.
_REFUSED_PARTS = frozenset(
    {
        "logging.config",
        "logging.handlers",
        "matplotlib.sphinxext",
        "numpy.ctypeslib",
        "numpy.distutils",
        "numpy.f2py",
        "pandas.compat.pickle_compat",
        "pandas.io.clipboard",
        "pandas.io.pickle",
        "pandas.io.sql",
        "scipy.datasets",
        "sympy.external.importtools",
        "sympy.interactive",
        "sympy.testing",
        "sympy.utilities.autowrap",
        "sympy.utilities.source",
        "sympy.utilities.tmpfiles",
    }
)


@dataclass(frozen=True)
class LanguagePolicy:
    """What user code may import.

    Attributes:
        allowed_imports: names of modules, such as "math" or "urllib.parse"; a name allows its submodules.

    Raises:
        ValueError: an entry is not the name of a module.
    """

    allowed_imports: tuple[str, ...] = DEFAULT_IMPORTS

    def __post_init__(self) -> None:
        for name in self.allowed_imports:
            if not (isinstance(name, str) and all(part.isidentifier() for part in name.split("."))):
                raise ValueError(
                    "LanguagePolicy.allowed_imports must hold module names such as 'math' or 'urllib.parse', "
                    f"not {name!r}"
                )

    def allows(self, module: str) -> bool:
        """Whether the module of that dotted name may be imported."""
        prefixes = _prefixes(module)
        listed = [name for name in prefixes if name in self._listed]
        refused = [name for name in prefixes if name in _REFUSED_PARTS]
        return bool(listed) and (not refused or refused[-1] in listed)

    @functools.cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(self.allowed_imports)

    def leads_to_allowed(self, package: str) -> bool:
        """Whether a submodule of `package` is allowed by its own name."""
        return any(name.startswith(package + ".") for name in self.allowed_imports)

    def refusal(self, module: str) -> str:
        """The message for an import of `module`, with what could be imported instead."""
        names = {name.partition(".")[0] for name in self.allowed_imports} - {"__future__"}
        shown = sorted(names if len(names) <= _MAX_SHOWN else names & _SHOWN_FIRST or names)[:_MAX_SHOWN]
        more = len(names) - len(shown)
        listing = ", ".join(shown) + (f" and {more} more" if more else "")
        return f"import of {module!r} is not allowed; allowed: {listing or 'nothing'}"


def _prefixes(module: str) -> list[str]:
    """`a`, `a.b`, `a.b.c` for `a.b.c`."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
