"""The last resort of the grader: symbolic comparison in a child process, with a hard bound on the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from elpo_envs.json_worker import JsonWorkers, Reply, WorkerUnavailableError, WorkLimitError

Kind = Literal["value", "equation"]


class Asked(Protocol):
    """`JsonWorker`, or several."""

    def ask(self, question: Mapping[str, Any], limit_s: float) -> Reply: ...


class SymbolicUnavailableError(RuntimeError):
    """The symbolic stage cannot run on this machine (its packages are missing or the process cannot
    start)."""


@dataclass(frozen=True)
class Verdict:
    """Outcome of one comparison.

    Attributes:
        equal: None when a side could not be read or the bound was reached.
        timed_out: the bound was reached, or the worker died of this question.
        overdue: the machine was too busy to work as long as the bound allows, so that nothing is known.
        note: why `equal` is None.
        work_s: seconds the worker spent; 0 for a remembered outcome.
    """

    equal: bool | None
    timed_out: bool = False
    note: str = ""
    work_s: float = 0.0
    overdue: bool = False


_WORKERS = JsonWorkers(Path(__file__).with_name("worker.py"))


def compare_symbolically(a: str, b: str, kind: Kind, limit_s: float, worker: Asked = _WORKERS) -> Verdict:
    """Whether `a` and `b` (normalised LaTeX) are equal; at most `limit_s` seconds of work. Thread-safe.

    Raises SymbolicUnavailableError where the child process cannot be started, and for nothing else.
    """
    try:
        reply = worker.ask({"a": a, "b": b, "kind": kind}, limit_s)
    except WorkLimitError as error:
        return Verdict(None, True, str(error), limit_s, overdue=error.cause == "clock")
    except WorkerUnavailableError as error:
        raise SymbolicUnavailableError(f"{error} (`import latex2sympy2_extended` comes with math-verify)") from error
    return Verdict(reply.content["equal"], False, reply.content["note"], reply.work_s)
