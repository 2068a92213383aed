"""Values that may leave a session: plain data, as JSON arrays with tags.

None, booleans, strings, integers below 2**63 and finite floats stand for themselves. Everything else is an array
whose first item is a tag. Types are compared exactly: an object of a program's own class, a subclass of `int` or of
`str`, is no value, so that nothing that a program defined decides what equals what.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Any

MAX_DEPTH = 200
MAX_ITEMS = 1_000_000
_BIG = 1 << 63

_SEQUENCES: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z", deque: "q"}
_MAPPINGS: dict[type, str] = {dict: "d", defaultdict: "d", OrderedDict: "O", Counter: "C"}
_VIEWS: dict[type, str] = {type({}.keys()): "K", type({}.values()): "V", type({}.items()): "I"}
_SOURCES: tuple[Iterable[Any], ...] = ([], (), {}, set(), "", b"", range(0), {}.values(), {}.items())
_ITERATORS: frozenset[type] = frozenset(
    (
        *(map, filter, zip, enumerate, reversed, chain, islice, type(_ for _ in ())),
        *(type(iter(source)) for source in _SOURCES),
        *(type(reversed([])), type(reversed({}))),
    )
)
_CONTAINERS = frozenset((*_SEQUENCES, *_MAPPINGS, *_VIEWS, *_ITERATORS))
_TYPES: tuple[type, ...] = (
    int,
    float,
    str,
    bool,
    list,
    tuple,
    dict,
    set,
    frozenset,
    bytes,
    complex,
    object,
    type(None),
)
_NAMED_TYPES = {kind.__name__: kind for kind in _TYPES}
_MAKE: dict[str, Callable[[Iterable[Any]], Any]] = {
    **{"l": list, "t": tuple, "s": set, "z": frozenset, "q": deque, "r": iter},
    **{"d": dict, "O": OrderedDict, "C": lambda pairs: Counter(dict(pairs))},
    **{"K": lambda keys: dict.fromkeys(keys).keys(), "I": lambda pairs: dict(pairs).items()},
    "V": lambda values: dict(enumerate(values)).values(),
}


class NotAValueError(TypeError):
    """An object that is not plain data, or too large or too deep to be sent."""


def encode(value: Any, other: Callable[[Any], Any] | None = None) -> Any:
    """`value` as JSON values.

    Args:
        value: anything.
        other: encodes what is not plain data, or raises NotAValueError; None: such things are no values.

    Raises:
        NotAValueError: some part of it is no value, lies deeper than `MAX_DEPTH`, or is one too many.
    """
    return _Encoder(other).encode(value, 0)


def is_container(value: Any) -> bool:
    """Whether `value` is of a type that is plain data if its items are."""
    return type(value) in _CONTAINERS


class _Encoder:
    def __init__(self, other: Callable[[Any], Any] | None) -> None:
        self._other = other
        self._left = MAX_ITEMS

    def encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return value
        if kind is int:
            return value if -_BIG < value < _BIG else ["i", hex(value)]
        if kind is float:
            return value if value - value == 0.0 else ["f", repr(value)]
        if depth > MAX_DEPTH:
            raise NotAValueError("it is nested too deeply")
        if kind in _SEQUENCES:
            return [_SEQUENCES[kind], *self._items(value, depth)]
        if kind in _MAPPINGS:
            return [_MAPPINGS[kind], *self._pairs(value.items(), depth)]
        if kind is range:
            return ["g", *(self.encode(bound, depth + 1) for bound in (value.start, value.stop, value.step))]
        if kind is bytes or kind is bytearray:
            return ["y" if kind is bytes else "Y", value.hex()]
        if kind is complex:
            return ["c", self.encode(value.real, depth), self.encode(value.imag, depth)]
        if kind in _VIEWS:
            tag = _VIEWS[kind]
            return [tag, *(self._pairs(value, depth) if tag == "I" else self._items(value, depth))]
        if kind in _ITERATORS:
            return ["r", *self._items(value, depth)]
        if isinstance(value, type) and _NAMED_TYPES.get(value.__name__) is value:
            return ["T", value.__name__]
        return self._library(value, kind, depth)

    def _items(self, values: Iterable[Any], depth: int) -> list[Any]:
        encoded = []
        for value in values:
            self._left -= 1
            if self._left < 0:
                raise NotAValueError("it has too many items")
            encoded.append(self.encode(value, depth + 1))
        return encoded

    def _pairs(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> list[Any]:
        return [self._items(pair, depth) for pair in pairs]

    def _library(self, value: Any, kind: type, depth: int) -> Any:
        """Values of libraries that were imported."""
        for tag, (module, name) in _LIBRARY.items():
            if kind is getattr(sys.modules.get(module), name, None):
                return [tag, value.isoformat() if module == "datetime" else str(value)]
        numpy = sys.modules.get("numpy")
        if numpy is not None and kind.__module__ == "numpy" and isinstance(value, numpy.generic):
            plain = value.item()
            if type(plain) is not kind:
                return self.encode(plain, depth + 1)
        if self._other is not None:
            return self._other(value)
        raise NotAValueError(f"an object of type {kind.__name__} is not plain data")


_LIBRARY = {
    "D": ("decimal", "Decimal"),
    "Q": ("fractions", "Fraction"),
    "a": ("datetime", "date"),
    "A": ("datetime", "datetime"),
}


def decode(tree: Any, other: Callable[[Any], Any] | None = None) -> Any:
    """The inverse of `encode`; `other` decodes the tags it does not know.

    Raises:
        ValueError, TypeError, LookupError: it is not what `encode` gives.
    """
    if not isinstance(tree, list):
        return tree
    tag, *parts = tree
    if tag in ("d", "O", "C", "I"):
        return _MAKE[tag]([(decode(key, other), decode(value, other)) for key, value in parts])
    if tag in _MAKE:
        return _MAKE[tag]([decode(part, other) for part in parts])
    if tag == "i":
        return int(parts[0], 16)
    if tag == "f":
        return float(parts[0])
    if tag == "g":
        return range(*(decode(part) for part in parts))
    if tag in ("y", "Y"):
        return (bytes if tag == "y" else bytearray).fromhex(parts[0])
    if tag == "c":
        return complex(decode(parts[0]), decode(parts[1]))
    if tag == "T":
        return _NAMED_TYPES[parts[0]]
    if tag in _LIBRARY:
        module, name = _LIBRARY[tag]
        __import__(module)
        kind = getattr(sys.modules[module], name)
        return kind.fromisoformat(parts[0]) if module == "datetime" else kind(parts[0])
    if other is not None:
        return other(tree)
    raise ValueError(f"there is no value with the tag {tag!r}")
