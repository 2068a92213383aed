"""Tools of elpo/Math-v0: the Python tool's sessions and manners, and a tool of a third party."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from _episodes import call, small

from elpo_envs.sandbox import Execution, SandboxError, SandboxSnapshot
from elpo_envs.tools import BaseTool, PythonTool, ToolResult


class ScriptedSandbox:
    """Counts what is asked of it; fails on "boom"."""

    fidelity = "exact"
    alive = True

    def __init__(self, name: str = "scripted") -> None:
        self.name = name
        self.log: list[Any] = []

    def open(self, seed: int) -> None:
        self.log.append(("open", seed))

    def run(self, code: str) -> Execution:
        if code == "boom":
            raise SandboxError("no processes left")
        self.log.append(("run", code))
        return Execution("", "empty")

    def snapshot(self) -> SandboxSnapshot:
        return SandboxSnapshot(0, ("a",), "d", "exact", live=self)

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        self.log.append(("restore", snapshot.live is not None, reseed))

    def close(self) -> None:
        self.log.append("close")


def test_the_python_tool_starts_and_restores_sessions_only_when_needed() -> None:
    sandbox = ScriptedSandbox()
    tool = PythonTool(sandbox)
    tool.open(7)
    unused = tool.snapshot()
    assert sandbox.log == [] and unused == {"seed": 7}
    assert tool.call({"code": "x"}) == ToolResult("(no output)", "empty")
    state = tool.snapshot()
    assert state.fidelity == "exact"
    sandbox.alive = False
    assert state.fidelity == "replay"
    other = ScriptedSandbox()
    second = PythonTool(other)
    second.restore(state)
    assert second.snapshot() == state and other.log == []
    second.call({"code": "y"})
    second.restore(state, reseed=3)
    second.call({"code": "y"})
    assert other.log == [("restore", True, None), ("run", "y"), ("restore", True, 3), ("run", "y")]
    foreign = ScriptedSandbox("other")
    third = PythonTool(foreign)
    third.restore(state)
    third.call({"code": "y"})
    third.restore(json.loads(json.dumps(state.to_json())))
    third.call({"code": "y"})
    assert [entry for entry in foreign.log if entry[0] == "restore"] == [("restore", False, None)] * 2
    third.restore(unused)
    failed = ToolResult("The Python sandbox failed: no processes left", "sandbox_failure")
    assert third.call({"code": "boom"}) == failed
    assert foreign.log[-1] == ("open", 7)
    with pytest.raises(ValueError, match="cannot restore a state of type list"):
        third.restore([1])


def test_a_third_partys_tool() -> None:
    class Adder(BaseTool):
        name = "add"
        description = "Add two integers."
        parameters: Mapping[str, Any] = {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        }

        def call(self, arguments: Mapping[str, Any]) -> ToolResult:
            return ToolResult(str(arguments["a"] + arguments["b"]))

    made = small(extra_tools=(Adder,))
    made.reset(seed=1)
    assert [t["function"]["name"] for t in made.tools] == ["python", "add"]
    obs, *_ = made.step('<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>')
    assert obs == "5"
    obs, *_ = made.step('<tool_call>{"name": "add", "arguments": {"a": "2", "b": 3}}</tool_call>')
    assert "at $.a: '2' is not of type 'integer'" in obs

    class Broken(Adder):
        parameters: Mapping[str, Any] = {"type": "objekt"}

    with pytest.raises(ValueError, match=r"schema of tool 'add' has no valid function\.parameters"):
        small(extra_tools=(Broken,))


def test_a_tool_timeout_is_the_one_asked_for() -> None:
    made = small(tool_timeout_s=1.0)
    made.reset(seed=1)
    made.step(call("x = 41"))
    start = time.perf_counter()
    _, _, _, truncated, info = made.step(call("while True: pass"))
    assert time.perf_counter() - start < 3.0
    assert info["error_kind"] == "timeout" and not truncated and info["valid"]
    assert made.step(call("x + 1"))[0] == "42"
    made.close()


def test_interpreter_manners() -> None:
    made = small(max_turns=20)
    made.reset(seed=1)
    obs, *_ = made.step(call("import sys\nprint('out')\nprint('err', file=sys.stderr)"))
    assert "out" in obs and "err" in obs
    assert made.step(call("x = 5"))[0] == "(no output)"
    made.step(call("exit()"))
    assert made.step(call("x"))[0] == "5"
    made.step(call("y = 1\nraise ValueError('é')"))
    assert made.step(call("(x, y)"))[0] == "(5, 1)"
    made.close()
