"""Test code and solution in two sessions that cannot speak to each other: calls and answers go by the host, in rounds.

In a round the tests' session runs every open test with the answers so far and says which calls come next; then the
solution's session makes these, for each test on a branch of its own from the loaded program. The host passes entries
and answers on as text, unread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from elpo_envs.grading.code.outcome import Outcome, TestOutcome
from elpo_envs.grading.code.wire import Reply, Session
from elpo_envs.sandbox import SandboxSnapshot

MAX_ROUNDS = 3_000
MAX_CALLS = 20_000
_OUTCOMES: dict[str, Outcome] = {
    "passed": "passed",
    "wrong": "wrong",
    "error": "error",
    "memory": "memory",
    "invalid": "invalid",
}


class UnsendableError(Exception):
    """A test has something that cannot be sent, too large or no plain data; nothing is known of the program."""


@dataclass
class _Test:
    """One test under way.

    Attributes:
        index: its number.
        log: entries and their answers, as text.
        guess: whether the test code may go on as if assertions held, to ask for several calls at once.
        start: how many entries had been answered before the latest batch of calls, and the solution's session then.
        end: the solution's session after the log.
        outcome: once it is known.
        rounds: how many times the test code was run.
    """

    index: int
    start: tuple[int, SandboxSnapshot]
    end: SandboxSnapshot
    log: list[tuple[str, str]] = field(default_factory=list)
    guess: bool = True
    outcome: TestOutcome | None = None
    rounds: int = 0


class Rounds:
    """The tests of one program.

    Args:
        tests: the tests' session, prepared.
        solution: the solution's session, with the program loaded.
        expired: whether the time for all tests is over.
        stop_at_first_failure: whether what comes after a failure is left out.
    """

    def __init__(
        self, tests: Session, solution: Session, expired: Callable[[], bool], stop_at_first_failure: bool
    ) -> None:
        self._tests, self._solution = tests, solution
        self._prepared, self._loaded = tests.here(), solution.here()
        self._expired = expired
        self._stop = stop_at_first_failure

    def run(self, n_tests: int) -> list[TestOutcome]:
        """The outcomes of the tests, in order, up to the first failure if that is the last one wanted.

        Raises:
            SandboxFailedError: one of the sessions failed.
            UnsendableError: the test code passes something that cannot be sent.
        """
        tests = [_Test(index, (0, self._loaded), self._loaded) for index in range(n_tests)]
        while pending := [test for test in tests if test.outcome is None]:
            if self._expired():
                for test in pending:
                    test.outcome = TestOutcome("timeout", "the time for all tests was over")
            else:
                self._round(pending)
            tests = self._wanted(tests)
        return [test.outcome for test in tests if test.outcome is not None]

    def _wanted(self, tests: list[_Test]) -> list[_Test]:
        """Without what comes after the first failure, where that is not wanted."""
        for at, test in enumerate(tests):
            if self._stop and test.outcome is not None and test.outcome.outcome != "passed":
                return tests[: at + 1]
        return tests

    def _round(self, pending: list[_Test]) -> None:
        for test, reply in zip(pending, self._ask(pending), strict=True):
            if reply.failure is not None:
                test.outcome = reply.failure
            elif reply.content[0] == "asks":
                _, matched, asked = reply.content
                self._answer(test, matched, asked)
            elif reply.content[0] == "unsendable":
                raise UnsendableError(f"the test code passes what cannot be sent: {reply.content[1]}")
            else:
                status, note = reply.content
                test.outcome = TestOutcome(_OUTCOMES[status], note)
            if self._stop and test.outcome is not None and test.outcome.outcome != "passed":
                return

    def _ask(self, pending: list[_Test]) -> list[Reply]:
        """What the test code says now: all tests in one call, or each in its own where that fails."""
        for test in pending:
            test.rounds += 1
        self._tests.go(self._prepared)
        reply = self._tests.ask("run", [[test.index, test.log, test.guess] for test in pending])
        if reply.failure is None:
            return [Reply(tuple(said)) for said in reply.content[1:]]
        if len(pending) > 1:
            return [self._ask([test])[0] for test in pending]
        (test,) = pending
        if test.guess and not self._expired():
            test.guess = False  # what was guessed may have led it astray
            return self._ask(pending)
        if reply.failure.outcome == "invalid" and not test.log:
            raise UnsendableError("the test code passes more than can be sent")
        return [reply]

    def _answer(self, test: _Test, matched: int, asked: list[str]) -> None:
        """Have the calls made that the test asks for, after the first `matched` of its log."""
        if matched + len(asked) > MAX_CALLS or test.rounds > MAX_ROUNDS:
            test.outcome = TestOutcome("timeout", f"the test makes more than {MAX_CALLS} calls")
            return
        if matched < len(test.log):  # what was guessed was not what came
            count, state = test.start if matched >= test.start[0] else (0, self._loaded)
        else:
            count, state = len(test.log), test.end
        calls = [entry for entry, _ in test.log[count:matched]] + asked
        self._solution.go(state)
        reply = self._solution.ask("call", [count, calls])
        if reply.failure is not None and test.guess and len(asked) > 1 and not self._expired():
            test.guess = False  # only what is sure to be asked may fail the program
            self._answer(test, matched, asked[:1])
            return
        if reply.failure is not None:
            test.outcome = reply.failure
            return
        kind, *answers = reply.content or ("",)
        if kind != "answers" or len(answers) != len(calls) or not all(isinstance(each, str) for each in answers):
            test.outcome = TestOutcome("invalid", "its reply cannot be read")
            return
        test.start, test.end = (count, state), self._solution.here()
        test.log = [*test.log[:count], *zip(calls, answers, strict=True)]
