"""Whole evaluations through chat completions: every environment, faults on the way, resumption."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

pytest.importorskip("httpx2")

from _command_line import command_line, said
from _every_id import arguments_of, turns
from _openai_models import Experts, TinyChat, in_api_form
from _openai_server import Reply, Request, Server, error, message, serving
from _runs import EASY, REPOSITORY, WORKED, records, write_rows

import elpo_envs
from elpo_agent.engines.openai.chat import ChatModel
from elpo_agent.engines.openai.http import Endpoint
from elpo_agent.engines.openai.settings import EndpointConfig
from elpo_agent.evaluation.chat_episodes import ChatLimits, PlayedEpisode, evaluate_chat
from elpo_agent.interrupts import run_coroutine
from elpo_agent.rollout.runner import TaskRef


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def evaluate(server: Server, *options: str, url: bool = True) -> int:
    where = ["--base-url", server.url] if url else []
    return command_line("eval", "--engine", "openai", *where, "--model", "some/model", *options)


def figures(shown: str) -> dict[str, str]:
    return dict(re.findall(r"│ (\S[^│]*?) +│ +(\S[^│]*?) +│", shown))


def math_env(**kwargs: Any) -> gym.Env[str, str]:
    env: gym.Env[str, str] = gym.make("elpo/Math-v0", **{**EASY, "split": "test", **kwargs})
    return env


def test_an_evaluation_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "attempts.jsonl"
    options = ["--tasks", "6", "--samples", "2", "--env.kwargs", json.dumps(EASY), "--output", str(out), "--seed", "5"]
    with serving(Experts(math_env(), range(6))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert evaluate(server, *options, "--endpoint.extra", "{top_p: 0.9}", url=False) == 0
    shown = capsys.readouterr().out
    table = figures(shown)
    assert (table["tasks"], table["attempts"], table["pass@1"], table["pass@2"]) == ("6", "12", "100.0%", "100.0%")
    assert "some/model on elpo/Math-v0" in shown and f"attempts: {out}" in shown
    lines = records(out)
    assert [r["task_id"] for r in lines] == [f"generated/test/0-3-3/{i}" for i in range(6) for _ in range(2)]
    assert all(r["tokens"] == 7 * r["turns"] for r in lines)
    for r in lines:
        roles = [m["role"] for m in r["messages"]]
        assert roles.count("assistant") == r["turns"] and roles.count("tool") == r["tool_calls"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["attempts.jsonl"]
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("some/model", 256, 1.0, 0.9)
    assert [t["function"]["name"] for t in body["tools"]] == ["python"]
    assert len({b["seed"] for b in server.bodies}) == len(server.bodies) and all(b["seed"] >= 0 for b in server.bodies)


def test_faults_change_nothing(tmp_path: Path) -> None:
    """Every third request fails in one way or another; attempts are what they are without failures."""
    faults = [error(429, "slow", Retry_After="0"), error(500, "oops"), Reply(cut=-1), Reply(b'{"choi'), Reply({}),
              Reply({"choices": [{"message": None}]}), Reply({"choices": []}, cut=4)]  # fmt: skip
    options = ["--tasks", "4", "--samples", "2", "--env.kwargs", json.dumps(EASY), "--batch", "8"]
    experts = Experts(math_env(), range(4))
    outputs = []
    for answer in (experts, lambda r: experts(r) if r.number % 3 else faults[r.number // 3 % len(faults)]):
        out = tmp_path / f"{len(outputs)}.jsonl"
        with serving(answer) as server:
            assert evaluate(server, *options, "--output", str(out)) == 0
        outputs.append(out.read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("protocol", ["hermes", "openai", "fences", "python_tags"])
def test_every_protocol(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    kwargs = {**EASY, "protocol": protocol}
    native = protocol in ("hermes", "openai")

    def write_turn(text: str) -> dict[str, Any]:
        if protocol == "openai":
            said = json.loads(text)
            return message(said["content"], said.get("tool_calls"))
        return in_api_form(text) if native else message(text)

    with serving(Experts(math_env(protocol=protocol), range(3), write_turn)) as server:
        assert evaluate(server, "--tasks", "3", "--env.kwargs", json.dumps(kwargs)) == 0
    assert figures(capsys.readouterr().out)["pass@1"] == "100.0%"
    assert all(("tools" in body) == native for body in server.bodies)


def test_calls_written_as_text_by_a_server_that_parses_none(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Experts(math_env(), range(3), message)) as server:
        assert evaluate(server, "--tasks", "3", "--env.kwargs", json.dumps(EASY)) == 0
    assert figures(capsys.readouterr().out)["pass@1"] == "100.0%"


QUICK = ("elpo/Math-v0", "elpo/ExactChain-v0")


def test_tools_as_text_for_servers_that_know_none(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Experts(math_env(), range(3), message)) as server:
        options = ["--tasks", "3", "--env.kwargs", json.dumps(EASY), "--endpoint.tools", "text"]
        assert evaluate(server, *options) == 0
    assert figures(capsys.readouterr().out)["pass@1"] == "100.0%"
    for body in server.bodies:
        assert "tools" not in body
        assert {m["role"] for m in body["messages"]} <= {"system", "user", "assistant"}
        system = body["messages"][0]["content"]
        assert '"name": "python"' in system and "<tool_call>" in system
    question = server.bodies[0]["messages"]
    assert [m["role"] for m in question] == ["system", "user"]
    results = [m["content"] for m in server.bodies[-1]["messages"] if m["role"] == "user"][1:]
    assert results and all(re.fullmatch(r"<tool_response>\n.*\n</tool_response>", r) for r in results)


@pytest.mark.parametrize(
    "env_id", [e if e in QUICK else pytest.param(e, marks=pytest.mark.slow) for e in elpo_envs.env_ids()]
)
def test_every_id(env_id: str, tmp_path: Path) -> None:
    """The same turns through an endpoint and played directly, mistakes of form among them."""
    kwargs = arguments_of(env_id, tmp_path)
    env = gym.make(env_id, **kwargs)
    _, info = env.reset(options={"index": 0})
    script = turns(env)
    for turn in script:
        _, _, terminated, truncated, info = env.step(turn)
    env.close()
    assert terminated or truncated

    def answer(request: Request) -> Reply:
        return Reply(in_api_form(script[sum(m["role"] == "assistant" for m in request.body["messages"])]))

    (episode,) = play(answer, lambda: gym.make(env_id, **kwargs), 1)
    attempt = episode.attempt
    assert (attempt.success, attempt.answer, attempt.truncated) == (info["is_correct"], info["answer"], truncated)
    assert (attempt.tool_calls, attempt.tool_errors) == (info["n_tool_calls"], info["n_tool_errors"])
    assert others(episode.messages) == others(info["messages"])


def others(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [m for m in messages if m["role"] != "assistant"]


def play(
    answer: Callable[[Request], Reply],
    make_env: Callable[[], Any],
    tasks: int,
    *,
    samples: int = 1,
    max_context: int = 10**6,
    **changes: Any,
) -> list[PlayedEpisode]:
    with serving(answer) as server:

        async def run() -> list[PlayedEpisode]:
            async with Endpoint(EndpointConfig(base_url=server.url)) as endpoint:
                model = ChatModel(endpoint, "m", temperature=0.0, max_tokens=64)
                limits = ChatLimits(8, 2, max_context)
                refs = [TaskRef(i) for i in range(tasks)]
                return await evaluate_chat(model, make_env, refs, samples=samples, seed=0, limits=limits, **changes)

        return run_coroutine(run)


def test_the_shipped_model_scores_as_it_does_in_process(tmp_path: Path) -> None:
    options = ["--tasks", "3", "--temperature", "0", "--env.kwargs", json.dumps(EASY)]
    local, remote = tmp_path / "local.jsonl", tmp_path / "remote.jsonl"
    assert command_line("eval", "--model.path", "tiny", *options, "--output", str(local)) == 0
    with serving(TinyChat()) as server:
        assert evaluate(server, *options, "--output", str(remote)) == 0
    here, there = records(local), records(remote)
    keys = ("task_id", "success", "answer", "truncated", "tool_calls", "tool_errors", "turns")
    assert [[r[k] for k in keys] for r in here] == [[r[k] for k in keys] for r in there]
    assert [others(r["messages"]) for r in here] == [others(r["messages"]) for r in there]
    assert any(r["success"] for r in here)


def test_a_conversation_that_grows_too_long_is_truncated() -> None:
    experts = Experts(math_env(), range(4))
    full = Reply({"error": {"message": "This model's maximum context length is 9 tokens.", "code": 400}}, 400)

    def crowded(request: Request) -> Reply:
        return full if any(m["role"] == "tool" for m in request.body["messages"]) else experts(request)

    def counted(request: Request) -> Reply:
        reply = experts(request)
        return Reply({**reply.body, "usage": {"prompt_tokens": 900, "completion_tokens": 50}})

    for answer, max_context in ((crowded, 10**6), (counted, 1000)):
        for episode in play(answer, math_env, 4, max_context=max_context):
            a = episode.attempt
            assert (a.truncated, a.success, a.valid, a.turns, a.tool_calls) == (True, False, True, 1, 1)
            assert [m["role"] for m in episode.messages][-1] == "tool"


class Breaking(gym.Wrapper[str, str, str, str]):
    """Its second step fails as a broken sandbox does, in the first environment that is made."""

    made = 0

    def __init__(self, env: gym.Env[str, str]) -> None:
        super().__init__(env)
        type(self).made += 1
        self._breaks = type(self).made == 1
        self.steps = 0

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self._breaks and self.steps == 2:
            raise BrokenPipeError("the sandbox is gone")
        return self.env.step(action)


def test_an_environment_that_fails_costs_its_attempt_only() -> None:
    Breaking.made = 0
    episodes = play(Experts(math_env(), range(6)), lambda: Breaking(math_env()), 6)
    assert sorted(e.attempt.valid for e in episodes) == [False] + [True] * 5
    assert all(e.attempt.success for e in episodes if e.attempt.valid)
    (broken,) = [e for e in episodes if not e.attempt.valid]
    assert [m["role"] for m in broken.messages][-2:] == ["tool", "assistant"]


def test_a_bug_in_an_environment_surfaces() -> None:
    class Buggy(gym.Wrapper[str, str, str, str]):
        def step(self, action: str) -> Any:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        play(Experts(math_env(), range(3)), lambda: Buggy(math_env()), 3)


# --- failures and resumption ------------------------------------------------------------------------------------------


def test_a_final_failure_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tasks", "2", "--env.kwargs", json.dumps(EASY)]
    with serving(lambda request: error(404, "The model `some/model` does not exist.")) as server:
        assert evaluate(server, *options) == 1
    expected = (
        f"elpo eval: POST {server.url}/chat/completions failed: HTTP 404: The model `some/model` does not exist.\n"
    )
    assert said(capsys) == expected
    assert command_line("eval", "--engine", "openai", "--model", "m") == 1
    assert "endpoint.base_url is empty and OPENAI_BASE_URL is not set" in said(capsys)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--base-url", "http://h/v1"], "uses no endpoint; add --engine openai"),
        (["--engine", "openia"], "engine.name='openia' is unknown; choose transformers, vllm or openai"),
        (["--engine", "openai", "--engine.options", "{a: 1}"], "engine.name='openai' takes none"),
        (["--engine", "openai", "--endpoint.concurrency", "0"], "endpoint.concurrency=0 must be at least 1"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line("eval", *options) == 2
    assert text in said(capsys)


def test_training_through_an_endpoint_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line("train", "--engine.name", "openai") == 2
    assert "engine.name='openai' cannot train" in said(capsys)


def test_an_evaluation_that_broke_off_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experts = Experts(math_env(), range(6))
    out, whole = tmp_path / "attempts.jsonl", tmp_path / "whole.jsonl"
    options = ["--tasks", "6", "--samples", "2", "--env.kwargs", json.dumps(EASY), "--batch", "2"]
    out.write_text("old\n")
    with serving(experts) as server:
        assert evaluate(server, *options, "--output", str(whole)) == 0
        all_requests = len(server.requests)
    cut = all_requests // 2
    with serving(lambda r: experts(r) if r.number < cut else error(401, "the key has expired")) as server:
        assert evaluate(server, *options, "--output", str(out)) == 1
    assert "the key has expired; what was finished is kept beside" in said(capsys)
    assert out.read_text() == "old\n"
    journal = tmp_path / ".attempts.jsonl.unfinished"
    kept = len(journal.read_bytes().splitlines()) - 1
    assert 2 <= kept < 12
    with journal.open("ab") as file:
        file.write(b'{"position": 5, "sam')  # a crash in the middle of a line
    with serving(experts) as server:
        assert evaluate(server, *options, "--output", str(out), "--seed", "1") == 1
        assert "unfinished evaluation with another seed; delete it or choose another output" in said(capsys)
        assert not server.requests
        assert evaluate(server, *options, "--output", str(out)) == 0
        assert 0 < len(server.requests) < all_requests - 2 * kept
    assert f"{kept} attempts of an evaluation that broke off are taken over" in capsys.readouterr().out
    assert out.read_bytes() == whole.read_bytes()
    assert not journal.exists()


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on(tmp_path: Path) -> None:
    experts = Experts(math_env(), range(4))
    out = tmp_path / "attempts.jsonl"
    stuck = threading.Event()

    def answer(request: Request) -> Reply:
        if request.number < 10:
            return experts(request)
        stuck.set()
        return Reply(delay_s=600)

    with serving(answer) as server:
        options = ["--engine", "openai", "--base-url", server.url, "--model", "some/model", "--batch", "1"]
        options += ["--tasks", "4", "--env.kwargs", json.dumps(EASY), "--output", str(out)]
        command = [sys.executable, "-m", "elpo_agent.cli.main", "eval", *options]
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert stuck.wait(120)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    told = f"interrupted; what was finished is kept beside {out}, and the same command goes on from there\n"
    assert (process.returncode, err) == (130, told)
    assert [p.name for p in tmp_path.iterdir()] == [".attempts.jsonl.unfinished"]


def test_a_file_that_is_no_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".a.jsonl.unfinished").write_text("hello\n")
    with serving(lambda request: Reply()) as server:
        assert evaluate(server, "--tasks", "1", "--output", str(tmp_path / "a.jsonl")) == 1
    assert ".a.jsonl.unfinished is no journal of an evaluation; delete it" in said(capsys)


def test_data_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "worked.jsonl", WORKED)
    env: Any = gym.make("elpo/Math-v0", dataset=str(data), split="test")
    with serving(Experts(env, range(5))) as server:
        assert evaluate(server, "--data", str(data), "--tasks", "0") == 0
    table = figures(capsys.readouterr().out)
    assert (table["tasks"], table["attempts"]) == ("5", "5")
