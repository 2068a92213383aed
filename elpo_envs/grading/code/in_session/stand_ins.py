"""The tests' session: run test code in which stand-ins take the place of the program's functions and classes.

A call of a stand-in is an entry of a log. The host has entries answered in the solution's session, and the test code
is run again from its start with the answers so far. Where they end, it goes on as if every assertion held, to learn
which calls come next: a whole loop of them is asked for at once. That is only a guess, which the next run confirms or
corrects; a verdict comes from a run in which every call was answered. Nothing of the program is ever run here.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import math
import sys
import types
from typing import Any

from .message import Message
from .values import NotAValueError, decode, encode

MAX_ASKED = 2_000
_GUESSING = "__elpo_guessing__"  # names that the rewritten test code uses
_ERROR = "__elpo_error__"


class _Stop(BaseException):
    """Nothing more can be guessed."""


class _InvalidError(BaseException):
    """The program gave no plain data, or a reply that is none; not for the test code to catch."""


class _CannotSendError(Exception):
    """The test code passes something that is no plain data."""


class _Log:
    """The calls of one run of one test: those answered, and those asked for."""

    def __init__(self, entries: list[list[str]], guess: bool) -> None:
        self._entries = entries
        self._guess = guess
        self.matched = 0
        self.asked: list[str] = []
        self.raised: BaseException | None = None
        self.invalid = ""

    def guessing(self) -> bool:
        return bool(self.asked)

    def perform(self, *entry: Any, result: bool = True) -> Any:
        """What the program's session answered to this entry; a guess where it has not been asked."""
        text = json.dumps(entry)
        if not self.asked and self.matched < len(self._entries) and self._entries[self.matched][0] == text:
            self.matched += 1
            return self._read(json.loads(self._entries[self.matched - 1][1]), self.matched - 1)
        self.asked.append(text)
        if not self._guess or len(self.asked) >= MAX_ASKED:
            raise _Stop
        number = self.matched + len(self.asked) - 1
        return (Remote(self, number), []) if entry[0] == "new" else (_Unknown() if result else None, [])

    def _read(self, answer: list[Any], number: int) -> tuple[Any, list[Any]]:
        kind, *rest = answer
        if kind == "value":
            try:
                return decode(rest[0], self._refer), list(rest[1])
            except (ValueError, TypeError, LookupError, ArithmeticError):
                raise self._refuse("its reply cannot be read") from None
        if kind == "object":
            return Remote(self, number), []
        if kind == "callable":
            return None, ["callable"]
        if kind == "raised":
            error = _error(rest[0], rest[1])
        else:
            raise self._refuse(str(rest[0]) if kind == "invalid" and rest else "its reply cannot be read")
        self.raised = error
        raise error

    def _refuse(self, why: str) -> _InvalidError:
        self.invalid = why
        return _InvalidError(why)

    def _refer(self, tree: list[Any]) -> Any:
        if tree[0] != "o":
            raise ValueError(f"there is no value with the tag {tree[0]!r}")
        return Remote(self, int(tree[1]))

    def invoke(self, kind: str, target: list[Any], positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call something of the program; what the call changed in its arguments is changed here too."""
        sent = [_send(each) for each in positional], [[key, _send(each)] for key, each in named.items()]
        value, changed = self.perform(kind, *target, *sent)
        for key, tree in changed:
            argument = positional[key] if isinstance(key, int) else named[key]
            now = decode(tree, self._refer)
            if isinstance(argument, list) and isinstance(now, list):
                argument[:] = now
            elif isinstance(argument, dict | set) and type(argument) is type(now):
                argument.clear()
                argument.update(now)
        return value


def _send(value: Any) -> Any:
    try:
        return encode(value, _reference)
    except NotAValueError as error:
        raise _CannotSendError(str(error)) from None


def _reference(value: Any) -> Any:
    if isinstance(value, Remote):
        return ["o", object.__getattribute__(value, "_number")]
    if isinstance(value, _Unknown):
        raise _Stop
    raise NotAValueError(f"an object of type {type(value).__name__} is not plain data")


class _Unknown:
    """The result of a call that is yet to be made: every comparison with it is guessed to hold."""

    def _holds(self, other: object) -> Any:
        return True

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _holds
    __hash__ = object.__hash__


class Remote:
    """An object of the program, which stays in its session: attributes and methods are asked for there."""

    def __init__(self, log: _Log, number: int) -> None:
        object.__setattr__(self, "_log", log)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        log, number = object.__getattribute__(self, "_log"), object.__getattribute__(self, "_number")
        if name.startswith("__"):
            raise AttributeError(name)
        value, how = log.perform("get", number, name)
        if how != ["callable"]:
            return value
        return lambda *positional, **named: log.invoke("method", [number, name], positional, named)

    def __setattr__(self, name: str, value: Any) -> None:
        log, number = object.__getattribute__(self, "_log"), object.__getattribute__(self, "_number")
        log.perform("set", number, name, _send(value), result=False)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        log, number = object.__getattribute__(self, "_log"), object.__getattribute__(self, "_number")
        return log.invoke("method", [number, "__call__"], positional, named)


def _error(names: list[str], text: str) -> BaseException:
    """An error of the first of these types that Python has."""
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            try:
                return kind(text)
            except TypeError:
                continue
    return Exception(text)


class _Lenient(ast.NodeTransformer):
    """While the run guesses, an assertion that fails, or fails to be evaluated, is passed over."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        again = ast.If(
            ast.UnaryOp(ast.Not(), ast.Call(ast.Name(_GUESSING, ast.Load()), [], [])), [ast.Raise(None, None)], []
        )
        passed_over = ast.ExceptHandler(ast.Name(_ERROR, ast.Load()), None, [again])
        return ast.copy_location(ast.Try([node], [passed_over], [], []), node)


class Tests:
    """The test code of this session."""

    def __init__(
        self, before: list[str], after: list[str], units: list[str], names: dict[str, str], always: list[str]
    ) -> None:
        self._before = [_compile(text, f"<setup {at}>") for at, text in enumerate(before)]
        self._after = [_compile(text, f"<tests {at}>") for at, text in enumerate(after)]
        self._units = [_compile(text, f"<test {at}>") for at, text in enumerate(units)]
        self._names = names
        self._always = always

    def run(self, index: int, entries: list[list[str]], guess: bool) -> list[Any]:
        log = _Log(entries, guess)
        module = types.ModuleType("tests")
        module.__dict__.update({_GUESSING: log.guessing, _ERROR: Exception})
        sys.modules["tests"] = module
        status, note = "passed", ""
        try:
            for code in self._before:
                exec(code, module.__dict__)
            for name, kind in self._names.items():
                if name in self._always or name not in module.__dict__:
                    module.__dict__[name] = self._stand_in(log, name, kind)
            for code in (*self._after, self._units[index]):
                exec(code, module.__dict__)
        except _Stop:
            pass
        except _CannotSendError as error:
            status, note = "unsendable", str(error)
        except AssertionError as error:
            status, note = ("error", "AssertionError") if error is log.raised else ("wrong", "an assertion failed")
        except BaseException as error:
            name = type(error).__name__
            if isinstance(error, _InvalidError):
                pass
            elif error is log.raised:
                status, note = "memory" if isinstance(error, MemoryError) else "error", f"{name}: {error}"
            else:
                status, note = "wrong", f"the test met {name}"
        if log.asked:
            return ["asks", log.matched, log.asked]
        return ["invalid", log.invalid] if log.invalid else [status, note]

    @staticmethod
    def _stand_in(log: _Log, name: str, kind: str) -> Any:
        if kind == "module":
            return importlib.import_module(name)
        if kind == "isclose":
            return math.isclose
        how = "new" if kind == "class" else "call"

        def stand_in(*positional: Any, **named: Any) -> Any:
            return log.invoke(how, [name], positional, named)

        stand_in.__name__ = name
        return stand_in


def _compile(text: str, filename: str) -> types.CodeType:
    tree = ast.fix_missing_locations(_Lenient().visit(ast.parse(text, filename)))
    return compile(tree, filename, "exec", dont_inherit=True)


_prepared: list[Tests] = []


def prepare(payload: str) -> Message:
    """Take the test code: `[before, after, units, names, always]`.

    `before` runs first, then `after` and one of the units see stand-ins: `names` is an object that gives "class",
    "function", "module" or "isclose" for each, where `before` has not defined it, or the name is among `always`.
    """
    _prepared[:] = [Tests(*json.loads(payload))]
    return Message(["prepared"])


def run(payload: str) -> Message:
    """Run tests: `[[index, [[entry, answer], ...], whether to guess], ...]`.

    Replies `["ran", [status, note] or ["asks", how many entries still hold, [entry, ...]], ...]`.
    """
    return Message(["ran", *(_prepared[0].run(*each) for each in json.loads(payload))])
