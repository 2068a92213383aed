"""Grading programs by tests that they cannot see: a loaded program, and a branch of its session for each test.

The verdict is made in the host, from values, for tests of input and output; for test code, in a session of its own
that never runs anything of the program. The program's process gets inputs and arguments, and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from elpo_envs.grading.code.compare import same_output, same_value
from elpo_envs.grading.code.forms import AssertionTests, CodeTests, StdinTests, ValueTests, read_tests
from elpo_envs.grading.code.in_session.message import TOO_LARGE, Message
from elpo_envs.grading.code.in_session.values import encode
from elpo_envs.grading.code.outcome import CodeGrade, CodeLimits, TestOutcome
from elpo_envs.grading.code.rounds import Rounds, UnsendableError
from elpo_envs.grading.code.wire import Reply, SandboxFailedError, Session
from elpo_envs.sandbox import Isolation, SandboxError, SandboxSnapshot

_SOLUTION = ("message", "values", "threads", "solution")
_TESTS = ("message", "values", "stand_ins")
_ATTEMPTS = 2
_NOTE_CHARS = 200
_MOST_BYTES = 8 << 20  # of an input or an output: what a sandbox lets be written to a file
_SURELY_SENT = 500_000  # characters that fit into a reply, whatever they are
_UNREADABLE = TestOutcome("invalid", "its reply cannot be read")
_OVER = TestOutcome("timeout", "the time for all tests was over")


class CodeGrader:
    """Grades programs one after the other, in sessions that it keeps. Not thread-safe; use one for each thread.

    Args:
        limits: bounds on each program.
        sandbox, isolation: which sandbox, as for `elpo_envs.sandbox.make_sandbox`. The language layer is off.

    Raises:
        ValueError: there is no such sandbox.
        SandboxError: it does not work here.
    """

    def __init__(
        self,
        limits: CodeLimits | None = None,
        *,
        sandbox: str = "auto",
        isolation: Isolation = "preferred",
    ) -> None:
        self.limits = CodeLimits() if limits is None else limits
        self._solution = Session(_SOLUTION, self.limits, sandbox, isolation)
        self._tests = Session(_TESTS, self.limits, sandbox, isolation)
        self._prepared: tuple[Any, SandboxSnapshot] | None = None  # the latest test code, for the next program

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sessions. Idempotent; the next program starts new ones."""
        self._prepared = None
        self._solution.close()
        self._tests.close()

    def grade(self, program: str, tests: Mapping[str, Any], *, stop_at_first_failure: bool = True) -> CodeGrade:
        """Grade a program.

        Args:
            program: Python source. For tests of the form "humaneval" also the body alone, as it continues the prompt.
            tests: one of the forms of `forms.read_tests`.
            stop_at_first_failure: whether tests after the first that does not pass are left out.

        Raises:
            ValueError: `tests` is malformed. Nothing in `program` raises.
        """
        form = read_tests(tests)
        n_tests = len(form.units) if isinstance(form, AssertionTests) else len(form.cases)
        failure = ""
        for _ in range(_ATTEMPTS):
            try:
                outcomes = self._run(program, form, n_tests, stop_at_first_failure)
            except (SandboxFailedError, SandboxError) as error:
                self.close()
                failure = str(error)[:_NOTE_CHARS]
            except UnsendableError as error:
                failure = str(error)[:_NOTE_CHARS]
                break
            else:
                passed = sum(outcome.outcome == "passed" for outcome in outcomes)
                return CodeGrade(passed == n_tests, form.method, passed, n_tests, tuple(outcomes))
        return CodeGrade(False, form.method, 0, n_tests, failed_infrastructure=True, note=failure)

    def _run(self, program: str, form: CodeTests, n_tests: int, stop: bool) -> list[TestOutcome]:
        deadline = time.monotonic() + self.limits.total_s

        def expired() -> bool:
            return time.monotonic() >= deadline

        loaded = self._load(program, form)
        if loaded.failure is not None:
            return [loaded.failure] * (1 if stop else n_tests)
        if isinstance(form, AssertionTests):
            self._prepare(form, loaded)
            return Rounds(self._tests, self._solution, expired, stop).run(n_tests)
        outcomes = []
        for outcome in self._outcomes(form, expired):
            outcomes.append(outcome)
            if stop and outcome.outcome != "passed":
                break
        return outcomes

    def _load(self, program: str, form: CodeTests) -> Reply:
        """Load the program; the content of the reply is the list of names and kinds."""
        instead, before, hidden, kept = None, "", "", list[str]()
        if isinstance(form, AssertionTests):
            before, hidden = form.before, form.hidden
            instead = before + program if hidden else None
            kept = [name for name, source in form.names.items() if source == "program"]
        kind = {"stdin": "script", "functional": "leetcode"}.get(form.method, "module")
        self._solution.begin()
        reply = self._solution.ask("load", [program, instead, before, hidden, kind, kept])
        match reply.content:
            case ("loaded", list(kinds)):
                return Reply(tuple(kinds))
            case ("failed", str(name), str(text)):
                return Reply(failure=_raised(name, text))
            case _:
                return Reply(failure=reply.failure or _UNREADABLE)

    def _prepare(self, form: AssertionTests, loaded: Reply) -> None:
        """Put the test code into its session, with stand-ins of the kinds that the program says its names have."""
        classes = [pair[0] for pair in loaded.content if isinstance(pair, list) and pair[1:] == ["class"]]
        names = {
            name: source if source != "program" else "class" if name in classes else "function"
            for name, source in form.names.items()
        }
        code = [[form.before], form.after, form.units, names, form.always]
        if self._prepared is not None and self._prepared[0] == code:
            self._tests.go(self._prepared[1])
            return
        self._tests.begin()
        reply = self._tests.ask("prepare", code)
        if reply.failure is not None:
            raise SandboxFailedError(f"the test code could not be prepared: {reply.failure.note}")
        self._prepared = code, self._tests.here()

    def _outcomes(self, form: StdinTests | ValueTests, expired: Callable[[], bool]) -> Iterator[TestOutcome]:
        loaded = self._solution.here()
        for number, (given, expected) in enumerate(form.cases):
            if expired():
                yield _OVER
                continue
            if number:
                self._solution.go(loaded)
            if isinstance(form, StdinTests):
                _check_texts(number, str(given), expected)
                yield _judge_output(self._solution.ask("run", [given]), expected)
            else:
                _check_reply(number, json.dumps(["value", encode(expected), []]))
                entry = json.dumps(["call", form.entry_point, given, []])
                yield _judge_value(self._solution.ask("call", [0, [entry]]), expected)


def _check_texts(number: int, given: str, expected: str) -> None:
    """Raises UnsendableError where a right program could not pass."""
    for what, text in (("input", given), ("output", expected)):
        if (size := len(text.encode("utf-8", "surrogatepass"))) > _MOST_BYTES:
            raise UnsendableError(f"the {what} of test {number} has {size} bytes; at most {_MOST_BYTES} can be sent")
    _check_reply(number, expected)


def _check_reply(number: int, text: str) -> None:
    """Raises UnsendableError where a right program's reply to a test would be too large."""
    if len(text) > _SURELY_SENT and repr(Message([text])) == repr(Message([TOO_LARGE])):
        raise UnsendableError(f"what test {number} expects is too large to be sent")


def _judge_output(reply: Reply, expected: str) -> TestOutcome:
    match reply.content:
        case ("printed", str(text), None):
            return (
                TestOutcome("passed") if same_output(text, expected) else TestOutcome("wrong", "it printed otherwise")
            )
        case ("printed", str(), [str(name), str(text)]):
            return _raised(name, text)
        case _:
            return reply.failure or _UNREADABLE


def _judge_value(reply: Reply, expected: Any) -> TestOutcome:
    match reply.content:
        case ("answers", str(answer)):
            pass
        case _:
            return reply.failure or _UNREADABLE
    try:
        content = json.loads(answer, object_pairs_hook=lambda _: None)
    except (ValueError, RecursionError):
        return _UNREADABLE
    match content:
        case ["value", tree, _]:
            return (
                TestOutcome("passed") if same_value(tree, expected) else TestOutcome("wrong", "it returned otherwise")
            )
        case ["object"]:
            return TestOutcome("invalid", "it returned an object of its own")
        case ["invalid", str(why)]:
            return TestOutcome("invalid", why)
        case ["raised", [str(name), *_], str(text)]:
            return _raised(name, text)
        case _:
            return _UNREADABLE


def _raised(name: str, text: str) -> TestOutcome:
    return TestOutcome("memory" if name == "MemoryError" else "error", f"{name}: {text}")


def grade_code(
    program: str,
    tests: Mapping[str, Any],
    *,
    limits: CodeLimits | None = None,
    stop_at_first_failure: bool = True,
) -> CodeGrade:
    """Grade one program in sessions of its own; see `CodeGrader`, which is quicker for many."""
    with CodeGrader(limits) as grader:
        return grader.grade(program, tests, stop_at_first_failure=stop_at_first_failure)
