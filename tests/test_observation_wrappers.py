"""The whole conversation as observation, the token budget, and recorded traces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from _episodes import OneTask, call, small
from _wrapped import Wrap, check_snapshots_at_every_turn, check_without_warnings
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeLimit

from elpo_envs import fork, restore, snapshot
from elpo_envs.conformance import Subject, conformance_tests
from elpo_envs.math_env import MathEnv
from elpo_envs.tasks import Task
from elpo_envs.wrappers import (
    ChatObservation,
    ChatSpace,
    PlusMinusReward,
    RecordTraces,
    TokenBudget,
    TraceWriteError,
    TranscriptObservation,
    estimate_tokens,
    read_traces,
)
from elpo_envs.wrappers.traces import append_line

TURNS = ["hm é☃\ud83d", call("print('é' * 40)") + call("1", "nope"), call("x = 1"), "\\boxed{5}"]

ALL: dict[str, Wrap] = {
    "chat": ChatObservation,
    "transcript": TranscriptObservation,
    "short transcript": lambda env: TranscriptObservation(env, 150),
    "token budget": lambda env: TokenBudget(env, 5000),
}


TestChatConforms = conformance_tests(Subject(lambda: ChatObservation(gym.make("elpo/Math-v0")), seeds=(0,)))


def words(text: str) -> int:
    """A tokenizer for tests."""
    return len(text.split())


@pytest.mark.parametrize("wrap", ALL.values(), ids=ALL)
def test_gymnasiums_checker_has_nothing_to_say(wrap: Wrap) -> None:
    check_without_warnings(wrap(gym.make("elpo/Math-v0")))


@pytest.mark.parametrize("wrap", ALL.values(), ids=ALL)
def test_snapshots_at_every_turn(wrap: Wrap) -> None:
    check_snapshots_at_every_turn(lambda: wrap(small()), TURNS)


def test_gymnasiums_checker_has_nothing_to_say_of_recording(tmp_path: Path) -> None:
    check_without_warnings(RecordTraces(gym.make("elpo/Math-v0"), str(tmp_path / "traces.jsonl")))


# ---------------------------------------------------------------- observations


def test_the_chat_is_the_infos_messages() -> None:
    env = ChatObservation(small())
    obs, info = env.reset(seed=1)
    for turn in TURNS:
        assert obs == tuple(info["messages"]) and obs in env.observation_space
        obs, *_, info = env.step(turn)
    assert obs == tuple(info["messages"]) and obs in env.observation_space
    assert obs[-1] == {"role": "assistant", "content": "\\boxed{5}"}
    obs[-1]["content"] = "changed by its reader"
    assert env.observation(None)[-1]["content"] == "\\boxed{5}"


def test_the_chat_space() -> None:
    space = ChatSpace(10, seed=1)
    user, tool = {"role": "user", "content": ""}, {"role": "tool", "name": "python", "content": "é"}
    assert all(chat in space for chat in ((), (user,), (user, tool)))
    for other in (
        [user], (user, "x"), ({"role": "user"},), ({"role": "owner", "content": ""},), ({**user, "content": 1},),
        ({**user, "content": "x" * 11},), ({**user, "name": "python"},), ({**user, "more": ""},),
        ({**tool, "name": 1},), ({"role": [], "content": ""},),
    ):  # fmt: skip
        assert other not in space
    samples = [space.sample() for _ in range(50)]
    assert all(s in space for s in samples) and len({len(s) for s in samples}) > 1
    assert len({m["role"] for s in samples for m in s}) == 4
    again = space.from_jsonable(json.loads(json.dumps(space.to_jsonable([*samples, (user, tool)]))))
    assert again == [*samples, (user, tool)]
    assert ChatSpace(10, seed=1).sample() == samples[0]
    assert space == ChatSpace(10) and space != ChatSpace(11)
    assert repr(space) == "ChatSpace(10)"


def test_the_transcript_is_the_whole_conversation() -> None:
    env = TranscriptObservation(small(system_prompt="Solve."))
    obs, _ = env.reset(seed=1)
    assert obs == "[system] Solve.\n[user] What is 2 + 3?"
    obs, *_ = env.step(call("6 * 7"))
    assert obs == f"[system] Solve.\n[user] What is 2 + 3?\n[assistant] {call('6 * 7')}\n[tool python] 42"
    last, *_ = env.step("\\boxed{5}")
    assert last == obs + "\n[assistant] \\boxed{5}"


def test_the_transcripts_bound_holds_at_the_worst() -> None:
    env = TranscriptObservation(small(max_chars=900, max_turns=40, max_tool_calls=9, system_prompt=""))
    obs, _ = env.reset(seed=1)
    truncated = False
    while not truncated:
        assert obs in env.observation_space
        obs, *_, truncated, _ = env.step(call("", "n" * 500) if "n" * 64 not in obs else "")
    assert obs in env.observation_space


@pytest.mark.parametrize("longest", [100, 101, 500])
def test_a_long_transcript_loses_its_middle(longest: int) -> None:
    whole, env = TranscriptObservation(small()), TranscriptObservation(small(), longest)
    whole.reset(seed=1)
    env.reset(seed=1)
    for turn in ("x" * 2000, "y" * 20):
        text, shown = whole.step(turn)[0], env.step(turn)[0]
        assert longest - 10 <= len(shown) <= longest and shown in env.observation_space
        head, count, tail = (
            shown.replace(" characters left out", "").replace("\n[... ", "|").replace(" ...]\n", "|").split("|")
        )
        assert text.startswith(head) and text.endswith(tail) and len(head) + len(tail) + int(count) == len(text)
    assert len(TranscriptObservation(small(), 100_000).reset(seed=1)[0]) < 1000


@pytest.mark.parametrize("wrap", [ChatObservation, TranscriptObservation, lambda env: RecordTraces(env, "t.jsonl")])
def test_other_environments_are_refused(wrap: Wrap) -> None:
    with pytest.raises(TypeError, match="CartPoleEnv is no ConversationEnv, which this wrapper needs"):
        wrap(gym.make("CartPole-v1"))


def test_a_reset_from_a_snapshot_shows_the_conversation() -> None:
    for wrap in (ChatObservation, TranscriptObservation):
        env, other = wrap(small()), wrap(small())
        env.reset(seed=1)
        obs, *_ = env.step(call("x = 4"))
        assert other.reset(options={"snapshot": snapshot(env)})[0] == obs
        assert "5" in str(other.step(call("x + 1"))[0][-1])


# ---------------------------------------------------------------- token budget


def test_the_estimate() -> None:
    for text, n in (
        ("", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("é", 1),
        ("é☃\ud800", 3),
        ("abcdé", 2),
        ("12345678", 2),
    ):
        assert estimate_tokens(text) == n


def test_the_turn_that_exceeds_the_budget_is_neither_run_nor_graded() -> None:
    env = TokenBudget(small(), 10, words)
    assert env.reset(seed=1)[1]["token_budget"] == {"used": 0, "max": 10}
    *_, info = env.step("one two three")
    assert info["token_budget"] == {"used": 3, "max": 10}
    *_, terminated, truncated, info = env.step("four five six seven eight nine 10")
    assert not terminated and not truncated and info["token_budget"] == {"used": 10, "max": 10}
    snap = snapshot(env)
    for last in ("\\boxed{5}", call("1"), "x"):
        obs, reward, terminated, truncated, info = env.step(last)
        assert (obs, reward, terminated, truncated) == ("", 0.0, False, True)
        assert (info["error_kind"], info["is_correct"], info["answer"], info["n_tool_calls"]) == (
            "char_budget",
            False,
            None,
            0,
        )
        assert info["token_budget"]["used"] > 10 and info["messages"][-1] == {"role": "assistant", "content": last}
        with pytest.raises(ResetNeeded):
            env.step("more")
        restore(env, snap)
    assert env.unwrapped.budgets.max_chars == 200_000
    assert env.step("")[2:4] == (False, False)
    env.reset(seed=1)
    assert env.step("a b c d e f g h i \\boxed{5}")[1] == 1.0
    env.close()


def test_a_budget_within_other_wrappers_and_in_forks() -> None:
    env: Any = ChatObservation(TokenBudget(TimeLimit(PlusMinusReward(small()), 9), 6, words))
    env.reset(seed=1)
    env.step("a b c")
    for branch in [env, *fork(env, 2)]:
        assert branch.step("d e f")[4]["token_budget"]["used"] == 6
        chat, reward, terminated, truncated, _ = branch.step("\\boxed{5}")
        assert (reward, terminated, truncated) == (-1.0, False, True)
        assert chat[-1]["content"] == "\\boxed{5}"
        branch.close()


def test_a_counter_by_name() -> None:
    env = TokenBudget(gym.make("elpo/Math-v0"), 30, "elpo_envs.wrappers:estimate_tokens")
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    again.reset(seed=1)
    assert again.step("x" * 121)[3]
    for value, message in (
        ("nowhere:f", r"count='nowhere:f' must name a function as 'module:function'"),
        ("elpo_envs.wrappers:f", "must name a function"),
        ("elpo_envs", "must name a function"),
        (3, "count=3 must be a function"),
    ):
        with pytest.raises(ValueError, match=message):
            TokenBudget(small(), 30, value)
    for wrong in (0, True, 2.5, "9"):
        with pytest.raises(ValueError, match=r"max_tokens=.* must be an integer of at least 1"):
            TokenBudget(small(), wrong)
    env = TokenBudget(small(), 30, lambda text: np.nan)
    env.reset(seed=1)
    with pytest.raises(ValueError, match="count gave nan for a text"):
        env.step("x")
    with pytest.raises(TypeError, match="action must be a str"):
        env.step(3)


# ---------------------------------------------------------------- traces


def test_a_trace_has_all_that_grading_needs(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    env = RecordTraces(PlusMinusReward(gym.make("elpo/Math-v0", max_turns=3)), str(path))
    env.reset(seed=1)
    env.step("hm é \ud83d\u2028")
    assert not path.exists()
    *_, first = env.step("\\boxed{nothing}")
    env.reset(options={"index": 7})
    for turn in env.unwrapped.expert_turns()[-1:]:
        *_, second = env.step(turn)
    assert path.read_bytes().isascii() and path.read_bytes().count(b"\n") == 2
    wrong, right = read_traces(path)
    for trace, info in ((wrong, first), (right, second)):
        for key in (
            "task_id",
            "index",
            "split",
            "messages",
            "answer",
            "is_correct",
            "grade",
            "error_kind",
            "valid",
            "turn",
        ):
            assert trace[key] == info[key]
        assert trace["format"] == 1 and trace["env_id"] == "elpo/Math-v0"
        assert trace["budgets"] == {"max_turns": 3, "max_tool_calls": 32, "max_chars": 200_000}
        assert (trace["terminated"], trace["truncated"], trace["protocol"]) == (True, False, "hermes")
    assert (wrong["reward"], wrong["rewards"], right["reward"], right["is_correct"]) == (-1.0, [0.0, -1.0], 1.0, True)
    spec = gym.envs.registration.EnvSpec.from_json(json.dumps(right["env_spec"]))
    again = gym.make(spec)
    assert again.reset(options={"task_id": right["task_id"]})[0] == right["question"]
    assert again.unwrapped.task.answer == right["gold"] and again.unwrapped.task.metadata == right["metadata"]
    env.close()
    again.close()


def test_an_episode_cut_short_is_recorded_and_an_abandoned_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    env = RecordTraces(small(max_turns=2), str(path))
    env.reset(seed=1)
    env.step("hm")
    env.reset(seed=1)
    env.step("hm")
    env.step("hm")
    env.reset(seed=1)
    (trace,) = read_traces(path)
    assert (trace["terminated"], trace["truncated"], trace["error_kind"], trace["turn"]) == (
        False,
        True,
        "turn_budget",
        2,
    )
    assert trace["env_spec"] is None and trace["env_id"] is None and trace["gold"] == "5"


def test_branches_write_a_line_each_with_the_turns_before(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    check_snapshots_at_every_turn(lambda: RecordTraces(PlusMinusReward(small()), str(path)), TURNS)
    traces = list(read_traces(path))
    # Two original episodes, and five branches of each of the four unfinished prefixes.
    assert len(traces) == 2 + 5 * 4
    assert all(t == traces[0] for t in traces) and traces[0]["rewards"] == [0.0, 0.0, 0.0, 1.0]


class Program(OneTask):
    def get(self, index: int) -> Task:
        metadata = {"kind": "program", "tests": {"cases": ["x" * 1000]}, "public_tests": {"cases": ["y"]}}
        return Task("code/test/0", 0, "test", "?", "5", (), metadata)


def test_tests_of_programs_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    for wanted in (False, True):
        path = tmp_path / f"{wanted}.jsonl"
        env = RecordTraces(MathEnv(task_source=Program()), str(path), include_tests=wanted)
        env.reset(seed=1)
        env.step("\\boxed{5}")
        (trace,) = read_traces(path)
        assert set(trace["metadata"]) == ({"kind", "tests", "public_tests"} if wanted else {"kind"})


def test_python_only_arguments_do_not_stop_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    env = RecordTraces(gym.make("elpo/Math-v0", task_source=OneTask()), str(path))
    env.reset(seed=1)
    env.step("\\boxed{5}")
    (trace,) = read_traces(path)
    assert trace["env_id"] == "elpo/Math-v0" and trace["env_spec"] is None


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere/t.jsonl' is in a folder that does not exist"):
        RecordTraces(small(), str(tmp_path / "nowhere" / "t.jsonl"))
    with pytest.raises(ValueError, match="is no regular file; choose another"):
        RecordTraces(small(), str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_reading_says_which_line_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b'{"format": 1}\n{"format": 1, "messa')
    assert list(read_traces(path)) == [{"format": 1}]
    path.write_bytes(b'{"format": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"traces.jsonl, line 2, is no JSON"):
        list(read_traces(path))
    path.write_bytes(b'{"format": 2}\n')
    with pytest.raises(ValueError, match=r"line 1, has format=2; this package reads 1"):
        list(read_traces(path))
    path.write_bytes(b"[]\n")
    with pytest.raises(ValueError, match="format=None"):
        list(read_traces(path))


# ---------------------------------------------------------------- traces: whole lines, whatever happens


@pytest.mark.parametrize("left", [b"", b"{}\n", b"{}\n{}\n"])
@pytest.mark.parametrize("torn", [b'{"a', b"x" * 200_000, b"\x00"])
def test_half_a_line_of_a_killed_writer_is_cut_off(tmp_path: Path, left: bytes, torn: bytes) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(left + torn)
    append_line(path, b"[1]")
    assert path.read_bytes() == left + b"[1]\n"


WRITER = """
import sys
from pathlib import Path
from elpo_envs.wrappers.traces import append_line
name, n = sys.argv[2], int(sys.argv[3])
for i in range(n):
    append_line(Path(sys.argv[1]), (name * 50_000 + str(i)).encode())
    if i == 0:
        print("writing", flush=True)
"""


def writer(path: Path, name: str, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lines_of(path: Path) -> list[bytes]:
    lines = path.read_bytes().split(b"\n")
    assert all(line[:50_000] == line[:1] * 50_000 and line[50_000:].isdigit() for line in lines[:-1])
    return lines


def test_processes_and_threads_that_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    processes = [writer(path, name, 40) for name in "ab"]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: append_line(path, b"c" * 50_000 + str(i).encode()), range(40)))
    assert [p.wait(60) for p in processes] == [0, 0]
    lines = lines_of(path)
    assert lines[-1] == b"" and len(set(lines)) == 3 * 40 + 1


def test_killed_writers_leave_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    for i in range(3):
        process = writer(path, "abc"[i], 100_000)
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        time.sleep(0.03 * i)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
    append_line(path, b"d" * 50_000 + b"0")
    lines = lines_of(path)
    assert lines[-1] == b"" and {line[:1] for line in lines[:-1]} == {b"a", b"b", b"c", b"d"}


NO_ROOM = """
import resource, signal, sys
from pathlib import Path
from elpo_envs.wrappers.traces import TraceWriteError, append_line
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
append_line(path, b"x" * 999)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
try:
    append_line(path, b"y" * 999)
except TraceWriteError as error:
    print(error)
print(path.stat().st_size)
append_line(path, b"z" * 99)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no file size limits on Windows")
def test_what_does_not_fit_is_taken_back_and_told(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    done = subprocess.run([sys.executable, "-c", NO_ROOM, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith(f"an episode was not recorded: {path} cannot be written: File too large.")
    assert done.stdout.endswith("\n1000\n")
    assert path.read_bytes() == b"x" * 999 + b"\n" + b"z" * 99 + b"\n"


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    try:
        env = RecordTraces(small(), str(disk / "traces.jsonl"))
        env.reset(seed=1)
        env.step("\\boxed{5}")
        env.reset(seed=1)
        env.step("x" * 100_000)
        with pytest.raises(TraceWriteError, match=r"the disk that holds .*traces.jsonl is full; make room"):
            env.step("\\boxed{5}")
        env.reset(seed=1)
        env.step("\\boxed{6}")
        assert [t["answer"] for t in read_traces(disk / "traces.jsonl")] == ["5", "6"]
    finally:
        subprocess.run(["umount", disk], check=True)
