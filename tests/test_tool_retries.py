"""Calls that fail for reasons that are not the model's: made once more, and only then the episode is void."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from _episodes import Flaky, call, small
from _fork_watch import launcher, needs_fork, nodes, zygote

from elpo_envs.code_env import CodeExecEnv
from elpo_envs.sandbox import Limits, make_sandbox
from elpo_envs.tasks import Task
from elpo_envs.tools import BaseTool, PythonTool, ToolResult

if TYPE_CHECKING:
    from elpo_envs.sandbox.fork.pool import Pool

# As many pools as one call of the sandbox uses up by itself.
_OF_ONE_CALL = 3
SLOW = "import time; time.sleep(2.0); x += 1; print(x)"


class Killer:
    """Kills the zygote, and with it all sessions, of every pool in which a call is under way; `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit, self._over = limit, threading.Event()
        self._pools: list[Pool] = []  # kept, so that no other one gets the id of one that is gone
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def killed(self) -> int:
        return len(self._pools)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        from elpo_envs.sandbox.fork.pools import running_pool

        while self.killed < self._limit and not self._over.wait(0.01):
            pool = running_pool()
            if pool is None or any(pool is known for known in self._pools) or not nodes(pool):
                continue
            time.sleep(0.25)  # into the call, which sleeps for longer
            self._pools.append(pool)
            for pid in (zygote(pool), launcher(pool)):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def quick_pools() -> Iterator[None]:
    """Sessions that import nothing ahead, so that a pool is there at once."""
    from elpo_envs.sandbox.fork.pools import DEFAULT_PRELOAD, preload

    preload("json")
    yield
    preload(*DEFAULT_PRELOAD)


@needs_fork
def test_a_call_whose_sandbox_was_killed_is_made_once_more(quick_pools: None) -> None:
    made = small(sandbox="fork", max_turns=6)
    made.reset(seed=1)
    made.step(call("x = 41"))
    with Killer(_OF_ONE_CALL) as killer:
        text, _, terminated, truncated, info = made.step(call(SLOW))
    assert killer.killed == _OF_ONE_CALL
    assert (text, terminated, truncated, info["valid"], info["error_kind"]) == ("42", False, False, True, None)
    assert [c["kind"] for c in info["tool_calls"]] == ["ok"] and info["n_tool_calls"] == 2
    assert made.step(call("x"))[0] == "42"  # once, not twice
    _, reward, terminated, _, info = made.step("\\boxed{5}")
    assert (reward, terminated, info["valid"]) == (1.0, True, True)
    made.close()


@needs_fork
def test_two_failures_in_a_row_void_the_episode(quick_pools: None) -> None:
    made = small(sandbox="fork", max_turns=6)
    made.reset(seed=1)
    made.step(call("x = 41"))
    with Killer(2 * _OF_ONE_CALL) as killer:
        _, reward, terminated, truncated, info = made.step(call(SLOW))
    assert killer.killed == 2 * _OF_ONE_CALL
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["valid"], info["error_kind"], info["is_correct"], info["answer"], info["grade"]) == (
        *(False, "sandbox_failure", False),
        *(None, {}),
    )
    made.reset(seed=2)  # and the machine is well again
    made.step(call("x = 1"))
    assert made.step(call("x + 1"))[0] == "2"
    made.close()


class OneProgram:
    """A source of one programming task whose hidden test takes a second."""

    name, split, size = "one", "test", 1

    def get(self, index: int) -> Task:
        cases = [{"args": [2], "expected": 4}]
        tests = {"type": "calls", "entry_point": "double", "cases": cases}
        return Task("one/test/0", 0, "test", "Write double(n).", "", (), {"kind": "program", "tests": tests})

    def by_id(self, task_id: str) -> Task:
        return self.get(0)


PROGRAM = "import time\ndef double(n):\n    time.sleep(2.0)\n    return 2 * n\n"


@needs_fork
@pytest.mark.parametrize(("limit", "ending"), [(_OF_ONE_CALL, "right"), (2 * _OF_ONE_CALL, "void")])
def test_a_program_whose_grading_was_killed(quick_pools: None, limit: int, ending: str) -> None:
    made = CodeExecEnv(sandbox="fork", task_source=OneProgram())
    made.reset(seed=1)
    with Killer(limit) as killer:
        _, reward, terminated, truncated, info = made.step(f"```python\n{PROGRAM}```")
    assert killer.killed == limit
    if ending == "right":
        assert (reward, terminated, truncated, info["valid"]) == (1.0, True, False, True)
    else:
        assert (reward, terminated, truncated, info["valid"]) == (0.0, False, True, False)
        assert (info["error_kind"], info["is_correct"]) == ("sandbox_failure", False)
    made.close()


MISTAKES = {
    "exit": "import os\nos._exit(3)",
    "memory": "data = 'x' * (2 << 30)",
    "time": "while True: pass",
    "raise": "1 / 0",
}


@pytest.mark.parametrize("backend", [pytest.param("fork", marks=needs_fork), "replay"])
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore:sandbox 'replay' does not isolate")
def test_a_models_own_mistake_is_neither_retried_nor_excused(
    backend: str, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    retried: list[Any] = []
    monkeypatch.setattr(PythonTool, "retry", lambda *given: retried.append(given))
    options = {"restricted": False, "memory_mb": 512}
    made = small(sandbox=backend, tool_timeout_s=2.0, sandbox_options=options)
    made.reset(seed=1)
    made.step(call("x = 1"))
    _, _, _, truncated, info = made.step(call(MISTAKES[mistake]))
    assert [c["kind"] for c in info["tool_calls"]] == ["timeout" if mistake == "time" else "error"]
    assert info["valid"] and not truncated and not retried
    assert made.step(call("x"))[0] == "1"
    _, _, terminated, _, info = made.step("\\boxed{6}")
    assert terminated and info["valid"] and not info["is_correct"]
    made.close()


class FailsAtFirst(BaseTool):
    """A tool with state whose machine fails a given number of times."""

    name = "counter"
    description = "Counts its calls."
    parameters: Mapping[str, Any] = {"type": "object"}

    def __init__(self, failures: int, kind: Any = "sandbox_failure") -> None:
        self.failures, self.count, self.calls, self._kind = failures, 0, 0, kind

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            return ToolResult("no machine", self._kind)
        self.count += 1
        return ToolResult(str(self.count))


COUNT = '<tool_call>{"name": "counter", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(("failures", "valid", "text"), [(0, True, "1"), (1, True, "1"), (2, False, "no machine")])
def test_any_tool_is_asked_once_more(failures: int, valid: bool, text: str) -> None:
    tool = FailsAtFirst(failures)
    made = small(extra_tools=(lambda: tool,))
    made.reset(seed=1)
    observation, _, _, truncated, info = made.step(COUNT)
    assert (observation, info["valid"], truncated) == (text, valid, not valid)
    assert tool.calls == min(failures, 1) + 1
    made.close()


@pytest.mark.parametrize("kind", ["error", "timeout", "empty"])
def test_other_kinds_are_not_asked_again(kind: str) -> None:
    tool = FailsAtFirst(1, kind)
    made = small(extra_tools=(lambda: tool,))
    made.reset(seed=1)
    assert made.step(COUNT)[4]["valid"] and tool.calls == 1
    made.close()


def test_a_tool_says_itself_how_it_is_asked_once_more() -> None:
    class GivesUp(FailsAtFirst):
        def retry(self, arguments: Mapping[str, Any]) -> ToolResult:
            return ToolResult("what it held is gone", "sandbox_failure")

    tool = GivesUp(1)
    made = small(extra_tools=(lambda: tool,))
    made.reset(seed=1)
    observation, *_, info = made.step(COUNT)
    assert (observation, info["valid"], tool.calls) == ("what it held is gone", False, 1)
    made.close()


def test_a_tool_that_derives_from_nothing_needs_no_retry() -> None:
    class Bare:
        name = "bare"
        schema = {"type": "function", "function": {"name": "bare", "parameters": {"type": "object"}}}  # noqa: RUF012
        calls = 0

        def open(self, seed: int) -> None: ...
        def call(self, arguments: Mapping[str, Any]) -> ToolResult:
            self.calls += 1
            return ToolResult(
                "now" if self.calls == 2 else "no machine", "ok" if self.calls == 2 else "sandbox_failure"
            )

        def snapshot(self) -> None: ...
        def restore(self, state: Any, reseed: int | None = None) -> None: ...
        def close(self) -> None: ...

    made = small(extra_tools=(Bare,))
    made.reset(seed=1)
    assert made.step('<tool_call>{"name": "bare", "arguments": {}}</tool_call>')[0] == "now"
    made.close()


def test_what_was_not_retried_successfully_ends_the_turn() -> None:
    made = small(extra_tools=(Flaky, lambda: FailsAtFirst(0)))
    made.reset(seed=1)
    *_, info = made.step('<tool_call>{"name": "flaky", "arguments": {}}</tool_call>' + COUNT)
    assert [c["kind"] for c in info["tool_calls"]] == ["sandbox_failure"]
    made.close()


@pytest.mark.parametrize("backend", [pytest.param("fork", marks=needs_fork), "replay"])
@pytest.mark.filterwarnings("ignore:sandbox 'replay' does not isolate")
def test_a_retry_begins_with_the_state_before_the_call(backend: str) -> None:
    """Whatever half of the call was done: the session is built anew from the calls before it."""
    draw = {"code": "x += 1; (x, random.random())"}
    tools = [PythonTool(make_sandbox(backend, Limits(wall_s=20.0, cpu_s=20.0))) for _ in range(2)]
    for tool in tools:
        tool.open(3)
        tool.call({"code": "import random; x = 0; random.random()"})
    first = tools[0].call(draw)
    assert first.kind == "ok" and first.text.startswith("(1, ")
    assert tools[1].retry(draw) == first
    assert tools[1].call(draw) == tools[0].call(draw)
    for tool in tools:
        tool.close()
