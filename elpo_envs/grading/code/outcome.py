"""What grading a program gives: one outcome for each test, and the limits under which it ran."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

_NOTE_CHARS = 200

Outcome = Literal["passed", "wrong", "error", "timeout", "memory", "invalid"]


@dataclass(frozen=True)
class CodeLimits:
    """Bounds on grading one program.

    Attributes:
        per_test_s: seconds of processor time for one test, to the next whole second. So that a busy machine
            fails no program, up to `wall_factor` times as much may pass on the clock. Loading the program has as
            much; so has each round of calls, where test code makes them depend on each other.
        total_s: seconds on the clock for all tests together; a test is not begun after them.
        memory_mb: address space of the program's process, in MiB.
        wall_factor: seconds on the clock for each second of `per_test_s`, at least 1.

    Raises:
        ValueError: a bound is not a positive number.
    """

    per_test_s: float = 6.0
    total_s: float = 60.0
    memory_mb: int = 1024
    wall_factor: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"CodeLimits.{name} must be a positive finite number, not {value!r}")
        if self.wall_factor < 1:
            raise ValueError(f"CodeLimits.wall_factor must be at least 1, not {self.wall_factor!r}")
        if not isinstance(self.memory_mb, int):
            raise ValueError(f"CodeLimits.memory_mb must be a whole number, not {self.memory_mb!r}")


@dataclass(frozen=True)
class TestOutcome:
    """How one test ended.

    Attributes:
        outcome: "passed"; "wrong" (it ended with another result); "error" (the program raised or ended its
            process); "timeout"; "memory"; "invalid" (it gave no plain data, or a reply that is none).
        note: a short text for people, "" where passed. It never holds what was expected.
    """

    __test__ = False  # no test case of pytest's

    outcome: Outcome
    note: str = ""

    def __post_init__(self) -> None:
        # Of a program's own words only so many, and none that no file could hold.
        shown = self.note[:_NOTE_CHARS].encode("utf-8", "backslashreplace").decode()
        object.__setattr__(self, "note", shown)


@dataclass(frozen=True)
class CodeGrade:
    """The grade of one program.

    Attributes:
        correct: whether every test passed.
        method: the form of the tests: "humaneval", "asserts", "stdin", "functional" or "calls".
        n_passed: how many tests passed.
        n_tests: how many there are, also where not all of them were run.
        outcomes: one for each test that was run, in order.
        failed_infrastructure: the sandbox itself failed, or the tests cannot be run in it: the grade says nothing
            about the program. `note` says why.
        note: "" unless `failed_infrastructure`.
    """

    correct: bool
    method: str
    n_passed: int
    n_tests: int
    outcomes: tuple[TestOutcome, ...] = ()
    failed_infrastructure: bool = False
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "outcomes": [asdict(outcome) for outcome in self.outcomes]}
