"""Thousands of episodes with tools in one process, in all domains: outcomes right, and nothing left or growing.

The soak runs in a process of its own, so that what is weighed is this package and not the test runner;
`PYTHONPATH=.:tests python tests/test_episode_soak.py --episodes 10000` prints the same report as JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from _fork_watch import descendants, descriptors, needs_fork, nodes, resident_mb, wait_until

import elpo_envs
from elpo_envs.sandbox.fork.errands import errand
from elpo_envs.sandbox.fork.pools import running_pool
from elpo_envs.tools.calculator import CalculatorTool

ROOT = Path(__file__).parent.parent
WINDOW = 100  # episodes between two moments at which nothing is open
WEIGHED = 2_000  # episodes after which memory is compared, window by window
ENVS = 3  # of each domain
IDS = {"math": "elpo/Math-v0", "science": "elpo/ScienceQA-v0", "code": "elpo/CodeExec-v0"}
DOMAIN_WEIGHTS = (5, 4, 1)  # a code episode takes several times as long
WAYS = {"expert": 10, "mistakes": 6, "branch": 4, "abandon": 3, "fork": 2, "hang": 1}
IMPATIENT_S = 0.25

Env = gym.Env[str, str]


def call(name: str, **arguments: Any) -> str:
    """A turn that calls one tool."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


COMPUTE = call("python", code="kept = [i * i for i in range(1000)]\nsum(kept)")
MISTAKES: dict[str, tuple[str, ...]] = {
    "math": (
        call("python", code="1 / 0"),
        call("python", code="def f(:"),
        call("python", code="raise SystemExit(3)"),
        call("python", code="print('x' * 100_000)"),
        call("python", cod="1"),
        call("oracle", question="?"),
        '<tool_call>{"name": "python", "arguments": {"code": ',
        "Let me think about it.",
        "\ud83d \x00 </tool_call>",
    ),
    "science": (
        call("calculator", operation="evaluate", expression="1 / 0"),
        call("calculator", operation="solve", expression="x^2 = 2"),
        call("calculator", operation="evaluate", expression="2 +* 3"),
        call("search", query="density of copper", k=3),
        call("search", query="zzzzqqq"),
        call("lookup", title="speed of light"),
        call("search", query="mass", k=10_000),
    ),
    "code": (
        call("run_tests", code="def broken(:"),
        call("run_tests", code="print(open('x').read())"),
        call("run_tests", code="def solve(*arguments):\n    return None"),
        call("submit", code=""),
        call("python", code="import subprocess"),
    ),
}
WRONG = {"math": r"\boxed{123456789.5}", "science": r"\boxed{-7.25e77 furlong}", "code": call("submit", code="x = 1")}


@dataclass(frozen=True)
class Weight:
    """What the process and its helpers take when nothing is open; memory in MiB."""

    episodes: int
    descriptors: int
    threads: int
    processes: int
    zombies: int
    host_mb: float
    helpers_mb: float
    seconds: float


@dataclass
class Report:
    """What a soak did and found."""

    episodes: int = 0
    seconds: float = 0.0
    ways: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        weights = [asdict(weight) for weight in self.weights]
        return {**vars(self), "weights": weights, "episodes_per_s": self.episodes / self.seconds}


class Soak:
    """Plays episodes at random and checks how each of them ends."""

    def __init__(self, episodes: int, seed: int) -> None:
        self.report = Report()
        self._episodes = episodes
        self._chance = random.Random(seed)
        self._envs: dict[tuple[str, int], Env] = {}
        self._start = time.monotonic()

    def run(self) -> Report:
        # What is started once and kept: the calculator's worker, the grader's (for algebra), and a thread.
        CalculatorTool().call({"operation": "evaluate", "expression": "1 + 1"})
        elpo_envs.grading.grade_math(r"\sin^2(x) + \cos^2(x) + \sqrt{y^2+1}", r"1 + \sqrt{1+y^2}")
        errand(gc.collect).finish()
        while self.report.episodes < self._episodes and len(self.report.wrong) < 10:
            self._play()
            self.report.episodes += 1
            if self.report.episodes % WINDOW == 0:
                self._close_all()
                self.report.weights.append(self._weigh())
        self._close_all()
        self.report.seconds = time.monotonic() - self._start
        return self.report

    def _play(self) -> None:
        (domain,) = self._chance.choices(list(IDS), DOMAIN_WEIGHTS)
        (way,) = self._chance.choices(list(WAYS), list(WAYS.values()))
        self.report.ways[f"{domain}: {way}"] += 1
        if self._chance.random() < 0.02:
            self._close(self._chance.choice(list(self._envs) or [(domain, 0)]))
        env = self._env(domain, hang=way == "hang")
        env.reset(options={"index": self._chance.randrange(100_000)})
        turns: Sequence[str] = env.unwrapped.expert_turns()  # type: ignore[attr-defined]
        if way == "expert":
            self._finish(env, turns, 1.0)
        elif way == "mistakes":
            made = [self._chance.choice(MISTAKES[domain] + MISTAKES["math"]) for _ in range(self._chance.randrange(4))]
            self._finish(env, [*made, WRONG[domain]], 0.0)
        elif way == "abandon":
            self._step(env, COMPUTE)
        elif way == "hang":
            *_, info = self._step(env, call("python", code="while True: pass"))
            if info["valid"] and info["error_kind"] != "timeout":
                self.report.wrong.append(f"a call that hangs: {info['error_kind']}")
            self._step(env, WRONG[domain])
        elif way == "fork":
            self._step(env, COMPUTE)
            for branch in elpo_envs.fork(env, 2, reseed=self._chance.randrange(1000)):
                self._finish(branch, turns, 1.0)
                branch.close()
        else:
            self._branch(env, domain, turns)

    def _branch(self, env: Env, domain: str, turns: Sequence[str]) -> None:
        """Freeze an episode somewhere, end it, and continue it in any environment, as it is or from bytes."""
        at = self._chance.randrange(len(turns))
        for turn in turns[:at]:
            self._step(env, turn)
        frozen = elpo_envs.snapshot(env)
        self._finish(env, turns[at:], 1.0)
        if self._chance.random() < 0.2:
            frozen = elpo_envs.Snapshot.from_bytes(frozen.to_bytes())
        other = self._env(domain)
        elpo_envs.restore(other, frozen)
        self._finish(other, turns[at:], 1.0)

    def _finish(self, env: Env, turns: Sequence[str], reward: float) -> None:
        """Play the turns, the last of which must end the episode with this reward."""
        for turn in turns:
            _, got, terminated, truncated, info = self._step(env, turn)
            if terminated or truncated:
                break
        if not terminated or got != reward:
            told = {key: info[key] for key in ("task_id", "error_kind", "valid", "answer", "grade", "tool_calls")}
            self.report.wrong.append(f"{turns}: {got} instead of {reward}, {terminated=}: {told}")

    def _step(self, env: Env, turn: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        result = env.step(turn)
        self.report.kinds.update(made["kind"] for made in result[4]["tool_calls"])
        return result

    def _env(self, domain: str, hang: bool = False) -> Env:
        key = domain, -1 if hang else self._chance.randrange(ENVS)
        if key not in self._envs:
            # A busy machine must not turn a call of microseconds into a time-out, but where it is meant to hang.
            self._envs[key] = gym.make(IDS[domain], tool_timeout_s=IMPATIENT_S if hang else 60.0)
        return self._envs[key]

    def _close(self, key: tuple[str, int]) -> None:
        if (env := self._envs.pop(key, None)) is not None:
            env.close()

    def _close_all(self) -> None:
        for key in list(self._envs):
            self._close(key)
        gc.collect()
        if (pool := running_pool()) is not None:
            pool.flush()
            wait_until(lambda: not nodes(pool))
        wait_until(lambda: not zombies([os.getpid(), *descendants(os.getpid())]))  # none has just ended, that is

    def _weigh(self) -> Weight:
        helpers = descendants(os.getpid())
        return Weight(
            self.report.episodes,
            descriptors(),
            sum(1 for _ in Path("/proc/self/task").iterdir()),
            len(helpers),
            zombies([os.getpid(), *helpers]),
            resident_mb(os.getpid()),
            sum(resident_mb(pid) for pid in helpers),
            time.monotonic() - self._start,
        )


def zombies(parents: Sequence[int]) -> int:
    """Children of these processes that ended and were not waited for."""
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it is gone
        found += state == "Z" and int(parent) in parents
    return found


def soak(episodes: int, timeout_s: float) -> dict[str, Any]:
    """The report of a soak in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--episodes", str(episodes)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check(report: dict[str, Any], episodes: int) -> None:
    """Every episode ended as it should, and nothing that can be counted grew after the first window."""
    assert report["wrong"] == []
    assert report["episodes"] == episodes
    assert {way.split(": ")[1] for way in report["ways"]} == set(WAYS)
    assert {"ok", "error", "timeout", "malformed_call", "unknown_tool", "invalid_arguments"} <= set(report["kinds"])
    assert "sandbox_failure" not in report["kinds"]
    settled = report["weights"][0]
    for weight in report["weights"][1:]:
        for what in ("descriptors", "threads", "processes", "zombies"):
            assert weight[what] <= settled[what], (what, settled, weight)


@needs_fork
@pytest.mark.timeout(300)
def test_hundreds_of_episodes_leave_nothing() -> None:
    check(soak(300, 280), 300)


@needs_fork
@pytest.mark.slow
@pytest.mark.timeout(0)
def test_ten_thousand_episodes_leave_nothing_and_take_no_more_memory() -> None:
    episodes = int(os.environ.get("ELPO_SOAK_EPISODES", "10000"))
    report = soak(episodes, episodes * 2.0)
    print(json.dumps(report, indent=1))
    check(report, episodes)
    for what in ("host_mb", "helpers_mb"):
        windows = memory(report, what)
        assert len(windows) >= 2
        assert max(windows[1:]) <= 1.05 * windows[0], (what, windows)


def memory(report: dict[str, Any], what: str) -> list[float]:
    """Medians over `WEIGHED` episodes each, the first of which, the warm-up, is left out."""
    by_window: dict[int, list[float]] = {}
    for weight in report["weights"]:
        by_window.setdefault((weight["episodes"] - 1) // WEIGHED, []).append(weight[what])
    return [statistics.median(values) for window, values in sorted(by_window.items()) if window > 0]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=10_000, help="how many to play (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="what is played (default: %(default)s)")
    arguments = parser.parse_args()
    print(json.dumps(Soak(arguments.episodes, arguments.seed).run().to_json(), indent=1))


if __name__ == "__main__":
    _main()
