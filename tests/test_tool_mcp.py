"""Tools of MCP servers: results, state, snapshots, and every way in which a server fails."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from _episodes import OneTask, small

import elpo_envs
from elpo_envs.math_env import MathEnv
from elpo_envs.tools.mcp import McpServer, McpServerError, McpTool, attach
from elpo_envs.vector import ConversationVectorEnv

pytest.importorskip("mcp", reason="the tests need the official client: pip install 'elpo[mcp]'")

HERE = Path(__file__).parent
NOTES = [sys.executable, str(HERE / "_mcp_server.py")]
LATE = ("garble", "surrogate", "nothing")


def official(**more: Any) -> dict[str, Any]:
    """A server made with the official package, which takes seconds to start."""
    return {"command": NOTES, "call_limit_s": 20.0, **more}


def plain(how: str = "notes", **more: Any) -> dict[str, Any]:
    """A server that starts at once."""
    command = [sys.executable, str(HERE / "_mcp_plain_server.py"), how]
    return {"command": command, "call_limit_s": 1.0 if how in LATE else 20.0, "start_limit_s": 30.0, **more}


def tools_of(server: dict[str, Any]) -> dict[str, McpTool]:
    return {tool.name: tool for tool in attach(McpServer.from_json(server))}


def say(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def children() -> set[int]:
    """This process's children, those included that have ended and were not waited for."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def clients() -> int:
    """Threads that speak to servers."""
    return sum(thread.name == "elpo-mcp" for thread in threading.enumerate())


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are counted in Linux's /proc")


@pytest.fixture(scope="module")
def shared() -> Iterator[dict[str, McpTool]]:
    """The tools of one running server, for tests that leave it as it is."""
    tools = tools_of(official(stateless=True))
    yield tools
    tools["add"].close()


# --- results --------------------------------------------------------------------------------------------------------


def test_the_tools_are_those_of_the_server(shared: dict[str, McpTool]) -> None:
    assert {"add", "note", "fail", "draw"} <= set(shared)
    function = shared["add"].schema["function"]
    assert function["description"] == "The sum of two numbers."
    assert function["parameters"]["required"] == ["a", "b"]
    assert function["parameters"]["properties"]["a"]["type"] == "integer"


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "text"),
    [
        ("add", {"a": 40, "b": 2}, "ok", "42"),
        ("draw", {}, "ok", "before\n[image, image/png, not shown]\nafter"),
        ("nothing", {}, "empty", "(no output)"),
        ("fail", {"why": "out of ink"}, "error", "Error executing tool fail"),
        ("add", {"a": "forty", "b": 2}, "error", "valid integer"),
        ("add", {"a": "\ud800", "b": 2}, "error", "arguments cannot be sent: they have a lone surrogate"),
    ],
)
def test_results(shared: dict[str, McpTool], name: str, arguments: dict[str, Any], kind: str, text: str) -> None:
    result = shared[name].call(arguments)
    assert result.kind == kind and text in result.text
    assert shared[name].retry({}) == result if name in ("draw", "nothing") else True


def test_arguments_that_cannot_be_sent_leave_the_server_alone(shared: dict[str, McpTool]) -> None:
    before = shared["process"].call({}).text
    deep: Any = "end"
    for _ in range(2000):
        deep = [deep]
    for hostile in (deep, "\udfff", 10**5000, float("nan"), {"\ud800": 1}, "x" * 1_000_000):
        assert shared["add"].call({"a": hostile, "b": 1}).kind == "error"
    assert shared["process"].call({}).text == before


def test_long_results_lose_their_middle(shared: dict[str, McpTool]) -> None:
    text = shared["long"].call({"characters": 5000}).text
    assert len(text) <= 4000 and "characters omitted" in text and text.endswith("x")


def test_some_of_the_tools_under_other_names() -> None:
    tools = tools_of(plain(tools=["note"], prefix="my_"))
    assert list(tools) == ["my_note"] and tools["my_note"].call({"text": "a"}).text == "a"
    tools["my_note"].close()


# --- episodes -------------------------------------------------------------------------------------------------------


@needs_proc
def test_an_environment_with_a_servers_tools() -> None:
    before, running = children(), clients()
    made = gym.make("elpo/Math-v0", extra_tools=[{"mcp": plain(tools=["note", "process"])}])
    assert made.spec is not None
    env = gym.make(gym.envs.registration.EnvSpec.from_json(made.spec.to_json()))
    made.close()
    env.reset(seed=1)
    assert [t["function"]["name"] for t in env.get_wrapper_attr("tools")] == ["python", "note", "process"]
    assert children() == before  # nothing runs before it is needed
    assert env.step(say("note", text="one") + say("note", text="two"))[0] == "one\none, two"
    assert elpo_envs.snapshot(env).fidelity == "messages"
    (server,) = children() - before
    assert env.step(say("process"))[0] == str(server)
    snap = elpo_envs.snapshot(env)
    env.reset(seed=1)
    assert elpo_envs.snapshot(env).fidelity == "exact"
    assert env.step(say("note", text="three"))[0] == "three"  # nothing of the last episode
    elpo_envs.restore(env, elpo_envs.Snapshot.from_bytes(snap.to_bytes()))
    assert env.step(say("note", text="four"))[0] == "four"  # what the server held is lost, as the snapshot says
    assert elpo_envs.snapshot(env).fidelity == "messages"
    env.close()
    env.close()
    assert children() == before
    assert clients() == running


def test_a_stateless_server_is_kept_and_exact() -> None:
    made = small(extra_tools=[{"mcp": plain(stateless=True, tools=["process"])}])
    pids = []
    for seed in range(2):
        made.reset(seed=seed)
        pids.append(made.step(say("process"))[0])
        snap = elpo_envs.snapshot(made)
        assert snap.fidelity == "exact" and elpo_envs.Snapshot.from_bytes(snap.to_bytes()).fidelity == "exact"
        elpo_envs.restore(made, snap)
        pids.append(made.step(say("process"))[0])
    assert len(set(pids)) == 1
    made.close()


def test_each_environment_of_a_vector_has_a_server_of_its_own() -> None:
    vector = ConversationVectorEnv(
        lambda: MathEnv(task_source=OneTask(), extra_tools=[{"mcp": plain(tools=["note", "process"])}]), 2
    )
    vector.reset(seed=1)
    assert vector.step([say("note", text="a"), say("note", text="b")])[0] == ("a", "b")
    assert vector.step([say("note", text="c"), None])[0][0] == "a, c"
    first, second = vector.step([say("process")] * 2)[0]
    assert first != second
    vector.close()


def test_a_state_of_another_kind_is_refused(shared: dict[str, McpTool]) -> None:
    for state in (None, 3, [], {}, {"calls": "1"}, {"calls": True}):
        with pytest.raises(ValueError, match="cannot restore a state"):
            shared["add"].restore(state)


@needs_proc
def test_a_forgotten_environment_leaves_no_server() -> None:
    before = children()
    made = small(extra_tools=[{"mcp": plain("noise")}])
    made.reset(seed=1)
    assert made.step(say("act"))[0] == "heard"
    assert children() - before
    del made
    gc.collect()
    assert children() <= before


@needs_proc
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_lets_go_of_its_parents_server() -> None:
    tools = tools_of(plain("noise", stateless=True))
    assert tools["act"].call({}).text == "heard"
    if (child := os.fork()) == 0:
        try:
            tools["act"].close()  # must neither wait for a thread that is not here nor end the server
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert tools["act"].call({}).text == "heard"
    tools["act"].close()


@needs_proc
def test_episodes_leave_nothing_behind() -> None:
    made = small(extra_tools=[{"mcp": plain()}])

    def episode(seed: int) -> tuple[int, int, int]:
        made.reset(seed=seed)
        assert made.step(say("note", text="one"))[0] == "one"
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(children())

    counts = [episode(seed) for seed in range(8)]
    assert counts[-1] == counts[1]
    made.close()


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_call_has_a_time_limit() -> None:
    tools = tools_of(plain(call_limit_s=1.0))
    tools["note"].call({"text": "kept"})
    started = time.monotonic()
    late = tools["silent"].call({})
    assert (late.kind, late.text) == ("timeout", "Error: no result within 1 s")
    assert tools["note"].call({"text": "too"}).text == "kept, too"  # the server still answered, and lost nothing
    late = tools["hang"].call({})
    assert late.kind == "timeout" and late.text.endswith("what earlier calls left in it is gone")
    assert tools["note"].call({"text": "new"}).text == "new"
    assert time.monotonic() - started < 30
    tools["note"].close()


def test_the_time_limit_is_the_environments_unless_the_server_has_its_own() -> None:
    for own, limit in (({}, "0.5"), ({"call_limit_s": 0.25}, "0.25")):
        server = {"command": plain()["command"], "tools": ["silent"], **own}
        made = small(tool_timeout_s=0.5, extra_tools=[{"mcp": server}])
        made.reset(seed=1)
        assert made.step(say("silent"))[0].startswith(f"Error: no result within {limit} s")
        made.close()


def test_arguments_are_checked_before_a_server_is_started() -> None:
    made = small(extra_tools=[{"mcp": official(stateless=True)}])
    made.reset(seed=1)
    running = clients()
    info = made.step(say("add", a="x", b=1) + say("add", a=1))[4]
    assert [c["kind"] for c in info["tool_calls"]] == ["invalid_arguments"] * 2 and clients() == running
    made.close()


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("shape", "sandbox_failure", "valid list"),
        ("nested", "sandbox_failure", "ValidationError"),
        ("empty", "sandbox_failure", "ValidationError"),
        ("internal", "sandbox_failure", "out of order"),
        ("refuse", "error", "Error: act does not like x"),
        ("own", "error", "Error: not on Sundays"),
        ("garble", "sandbox_failure", "wrote what is no message"),
        ("surrogate", "sandbox_failure", "wrote what is no message"),
        ("nothing", "timeout", "no result within 1 s"),
        ("end", "sandbox_failure", "Connection closed"),
        ("noise", "ok", "heard"),
    ],
)
def test_whatever_a_server_answers(how: str, kind: str, text: str) -> None:
    (tool,) = attach(McpServer.from_json(plain(how)))
    result = tool.call({})
    assert result.kind == kind and text in result.text
    tool.close()


def test_a_server_that_crashes_once_is_asked_again(tmp_path: Path) -> None:
    made = small(extra_tools=[{"mcp": plain(tools=["crash"])}])
    made.reset(seed=1)
    text, _, _, truncated, info = made.step(say("crash", once=str(tmp_path / "crashed")))
    assert (text, truncated, info["valid"], info["error_kind"]) == ("survived", False, True, None)
    made.close()


def test_a_server_that_crashes_again_voids_the_episode() -> None:
    made = small(extra_tools=[{"mcp": plain("end")}])
    made.reset(seed=1)
    _, reward, terminated, truncated, info = made.step(say("act"))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["valid"], info["error_kind"], info["is_correct"]) == (False, "sandbox_failure", False)
    made.reset(seed=2)
    assert made.step("\\boxed{5}")[1] == 1.0
    made.close()


@pytest.mark.parametrize("stateless", [False, True])
def test_a_retry_never_goes_on_without_what_earlier_calls_left(stateless: bool, tmp_path: Path) -> None:
    made = small(extra_tools=[{"mcp": plain(tools=["crash", "note"], stateless=stateless)}])
    made.reset(seed=1)
    made.step(say("note", text="held"))
    *_, info = made.step(say("crash", once=str(tmp_path / "crashed")))
    assert (info["valid"], info["tool_calls"][0]["kind"]) == ((True, "ok") if stateless else (False, "sandbox_failure"))
    made.close()


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (plain("dead"), "_mcp_plain_server.py could not be started: MCPError: Connection closed"),
        (plain("mute", start_limit_s=0.5), "did not answer within 0.5 s"),
        ({"command": ["no-such-program-anywhere"]}, "could not be started: FileNotFoundError"),
        ({"url": "http://localhost:1/mcp", "start_limit_s": 20.0}, "http://localhost:1/mcp could not be started"),
    ],
)
def test_a_server_that_does_not_start(server: dict[str, Any], message: str) -> None:
    running = clients()
    with pytest.raises(McpServerError, match=re.escape(message)):
        small(extra_tools=[{"mcp": server}])
    assert clients() == running


def test_schemas_that_lead_elsewhere_are_refused() -> None:
    with pytest.raises(ValueError, match=r"refers to 'http://localhost:1/schema\.json', which is not part of it"):
        attach(McpServer.from_json(plain("reference")))
    assert attach(McpServer.from_json(plain("reference", tools=[]))) == ()
    with pytest.raises(ValueError, match=r"has no tool 'play'; it has: act"):
        attach(McpServer.from_json(plain("reference", tools=["play"])))


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({}, "needs one of command and url"),
        ({"command": ["a"], "url": "http://b"}, "needs one of command and url"),
        ({"url": "ftp://b"}, "must begin with http"),
        ({"command": "python server.py"}, "must be a list of texts"),
        ({"command": ["a"], "env": {"A": 1}}, "must be an object of texts"),
        ({"command": ["a"], "headers": {"A": "b"}}, "headers is for MCP servers with a url only"),
        ({"url": "http://b", "cwd": "/"}, "cwd is for MCP servers with a command only"),
        ({"command": ["a"], "cwd": 3}, "must be a text"),
        ({"command": ["a"], "call_limit_s": 0}, "must be greater than 0 seconds"),
        ({"command": ["a"], "start_limit_s": "5"}, "must be greater than 0 seconds"),
        ({"command": ["a"], "output_chars": 5}, "must be a whole number of at least 100"),
        ({"command": ["a"], "stateless": 1}, "must be true or false"),
        ({"command": ["a"], "statelss": True}, "the field 'statelss' of an MCP server is unknown; give some of call_"),
    ],
)
def test_wrong_fields_are_refused(server: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(extra_tools=[{"mcp": server}])


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elpo\[mcp\]'"):
        small(extra_tools=[{"mcp": {"command": ["never-started"]}}])


def test_what_the_command_logs_can_be_kept(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with pytest.raises(McpServerError):
        attach(McpServer.from_json({"command": [sys.executable, "-c", "1 / 0"], "log": str(log)}))
    assert "ZeroDivisionError" in log.read_text()


# --- HTTP -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def url() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([*NOTES, "http", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.kill()
        process.wait()


def test_a_server_at_a_url(url: tuple[str, subprocess.Popen[bytes]]) -> None:
    (address, process), running = url, clients()
    server = {"url": address, "headers": {"X-Key": "k"}, "call_limit_s": 10.0, "start_limit_s": 10.0, "stateless": True}
    made = small(extra_tools=[{"mcp": {**server, "tools": ["add", "process", "sleep"]}}])
    made.reset(seed=1)
    assert made.step(say("add", a=20, b=22))[0] == "42"
    assert made.step(say("process"))[0] == str(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, reward, _, truncated, info = made.step(say("add", a=1, b=1))
    assert (reward, truncated, info["valid"], info["error_kind"]) == (0.0, True, False, "sandbox_failure")
    made.close()
    assert clients() == running
