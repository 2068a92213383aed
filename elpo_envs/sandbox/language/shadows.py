"""Libraries that evaluate text or read attributes for their callers, made to do it under the policy."""

from __future__ import annotations

import builtins
import pickle
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from .attributes import Attributes
from .evaluation import Evaluation

_ABSENT = object()
_FOLDER = str(Path(__file__).parent)

# numpy's readers of files, by their names before and since version 2.
_UNPICKLING = (
    "numpy.lib.format",
    "numpy.lib.npyio",
    "numpy.lib._format_impl",
    "numpy.lib._npyio_impl",
)


class _WriteOnlyPickle:
    """Stands in for `pickle`: reading a pickle runs what it says."""

    dump = staticmethod(pickle.dump)
    dumps = staticmethod(pickle.dumps)
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(*_: Any, **__: Any) -> NoReturn:
        raise ValueError("reading pickled objects is not allowed; save arrays of numbers, or text such as JSON")

    loads = load


class Shadows:
    """Names put into the namespaces of library modules, over the builtins that those modules use."""

    def __init__(self, evaluation: Evaluation, attributes: Attributes, namespace: dict[str, Any]) -> None:
        evaluate, run, compile_, read = (
            evaluation.library_eval,
            evaluation.library_exec,
            evaluation.compile,
            attributes.getattr,
        )
        table = types.ModuleType("builtins")
        table.__dict__.update(namespace)
        both = {"eval": evaluate, "exec": run, "compile": compile_}
        walks = [walk for walk in ("walk_tb", "_walk_tb_with_full_positions") if hasattr(traceback, walk)]
        self._names: Mapping[str, Mapping[str, Any]] = {
            "functools": {"getattr": read},
            "string": {"getattr": read},
            "timeit": {**both, "_globals": dict},
            "traceback": {walk: _without_our_frames(getattr(traceback, walk)) for walk in walks},
            "typing": {"eval": evaluate, "compile": compile_},
            "mpmath.identification": {"eval": evaluate},
            **{name: {"pickle": _WriteOnlyPickle} for name in _UNPICKLING},
            "pandas.core.computation.expr": {"getattr": read},
            "pandas.core.computation.scope": {"getattr": read},
            "patsy.eval": {"eval": evaluate, "compile": compile_},
            "sympy.parsing.ast_parser": {"eval": evaluate, "compile": compile_},
            "sympy.parsing.sympy_parser": {"eval": evaluate, "compile": compile_, "builtins": table},
            "sympy.plotting.experimental_lambdify": {"eval": evaluate, "exec": run},
            "sympy.utilities.lambdify": {**both, "builtins": table},
        }
        self._before: dict[str, dict[str, Any]] = {}

    def over_builtins(self) -> list[Any]:
        """What is put into libraries under the names of builtins, which the libraries do not hold themselves."""
        return [value for names in self._names.values() for key, value in names.items() if hasattr(builtins, key)]

    def put(self) -> None:
        """Shadow the names in the modules that are imported by now."""
        for name, shadows in self._names.items():
            module = sys.modules.get(name)
            if module is not None and name not in self._before:
                namespace = module.__dict__
                self._before[name] = {key: namespace.get(key, _ABSENT) for key in shadows}
                namespace.update(shadows)

    def remove(self) -> None:
        """Undo `put`."""
        for name, before in self._before.items():
            namespace = sys.modules[name].__dict__
            for key, value in before.items():
                if value is _ABSENT:
                    namespace.pop(key, None)
                else:
                    namespace[key] = value
        self._before.clear()


def _without_our_frames(walk: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    """`walk`, which yields the frames of a traceback, without those of the language layer."""

    def user_frames(trace: Any) -> Iterator[Any]:
        return (item for item in walk(trace) if not item[0].f_code.co_filename.startswith(_FOLDER))

    return user_frames
