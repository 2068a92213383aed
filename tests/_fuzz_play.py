"""Playing hostile turns in an environment: what must hold at every step, and what may be left behind by all of them."""

from __future__ import annotations

import gc
import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
from _fork_watch import descendants, descriptors, resident_mb
from _fuzz_turns import EXPERT, Turn, turns
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from elpo_envs.env import ConversationEnv
from elpo_envs.episode import CALL_SUCCEEDED, CallRecord, ErrorKind
from elpo_envs.grading import grade_math
from elpo_envs.grading.code import CodeGrader
from elpo_envs.tools.calculator import CalculatorTool
from elpo_envs.tools.search import SearchTool

INFO_KEYS = {
    *("task_id", "index", "split", "turn", "messages", "tool_calls", "answer", "is_correct", "grade", "error_kind"),
    *("n_tool_calls", "n_tool_errors", "valid"),
}
MAX_CHARS = 1_500_000  # one huge turn is read, a second one ends the episode
PER_EXAMPLE = 20
EXAMPLES = 50  # of one run of Hypothesis, which remembers all that it tried
_TOOL_S = 0.5
_CACHES_MB = 16
# Threads that a process has once, from the first need of them on: of the fork backend, and of bm25s's progress bars.
_ONCE = frozenset({"elpo-sandbox-errands", "tqdm_monitor"})


def _kinds(alias: Any) -> frozenset[str]:
    """The texts of a Literal, or of a union of some."""
    return frozenset(text for one in get_args(alias) for text in (_kinds(one) if get_args(one) else (one,)))


ERROR_KINDS = _kinds(ErrorKind)


@dataclass
class Figures:
    """What was played, by kinds of turns and by what came of them."""

    actions: int = 0
    episodes: int = 0
    seconds: float = 0.0
    tool_calls: int = 0
    tools_reached: int = 0
    answers: int = 0
    right: int = 0
    invalid: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    took: Counter[str] = field(default_factory=Counter)  # seconds by kind
    slowest_s: float = 0.0
    slowest: str = ""

    @property
    def rate(self) -> float:
        """Actions a second."""
        return self.actions / self.seconds if self.seconds else 0.0

    def line(self) -> str:
        """The figures in one line."""
        errors = ", ".join(f"{kind} {n}" for kind, n in sorted(self.errors.items()))
        return (
            f"{self.actions} actions in {self.seconds:.0f} s ({self.rate:.0f}/s), {self.episodes} episodes, "
            f"{self.tools_reached} tool runs, {self.answers} answers ({self.right} right), {self.invalid} invalid; "
            f"{errors}; slowest {self.slowest_s:.1f} s: {self.slowest}"
        )


@dataclass(frozen=True)
class Left:
    """What this process holds: descriptors, threads (but for `_ONCE`), processes below it, memory in MiB."""

    descriptors: int
    threads: int
    processes: int
    zombies: int
    resident_mb: float

    @staticmethod
    def now() -> Left:
        gc.collect()
        names = [thread.name for thread in threading.enumerate()]
        threads = len(names) - len(_ONCE.intersection(names))
        return Left(descriptors(), threads, len(descendants(_me())), _zombies(), resident_mb(_me()))

    def more_than(self, before: Left, memory: float) -> list[str]:
        """What there is more of than there was, in words.

        Memory may grow by the share `memory`, and by 16 MiB: caches of bounded size fill up.
        """
        ours, theirs = asdict(self), asdict(before)
        grown = [f"{k}: {theirs[k]} -> {v}" for k, v in ours.items() if k != "resident_mb" and v > theirs[k]]
        if self.threads > before.threads:
            grown.append(f"threads are now {[thread.name for thread in threading.enumerate()]}")
        if self.resident_mb > before.resident_mb * (1 + memory) + _CACHES_MB:
            grown.append(f"memory: {before.resident_mb:.0f} MiB -> {self.resident_mb:.0f} MiB")
        return grown


def settled(before: Left, memory: float, seconds: float = 10.0) -> list[str]:
    """What is left over `before` after some time to end in."""
    deadline = time.monotonic() + seconds
    while (grown := Left.now().more_than(before, memory)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return grown


class Player:
    """Plays turns in one environment and checks every step.

    Args:
        env_id: a registered id.
        protocol: of the tool calls.
        arguments: of the environment, such as the place of its data.
        figures: counted up.
    """

    def __init__(self, env_id: str, protocol: str, arguments: Mapping[str, Any], figures: Figures) -> None:
        limits = {"grading_limits": {"per_test_s": 1, "total_s": 2}} if "Code" in _entry_point(env_id) else {}
        self.env = gym.make(
            env_id,
            disable_env_checker=True,  # it looks at the first step only, and takes the time of many
            protocol=protocol,
            tool_timeout_s=_TOOL_S,
            max_chars=MAX_CHARS,
            **limits,
            **arguments,
        )
        base = self.env.unwrapped
        assert isinstance(base, ConversationEnv)
        self.base = base
        self.keys = INFO_KEYS | {"chain" if "Exact" in _entry_point(env_id) else "sandbox"}
        self.figures = figures
        self.where = f"{env_id} {protocol}"
        names = [tool["function"]["name"] for tool in base.tools]
        self.turns = turns(protocol, names)
        self._expert: list[str] = []

    def play(self, start: int, script: list[Turn]) -> None:
        """Take the turns one after the other, beginning a new episode whenever one is over."""
        self._reset(start)
        over = False
        for at, turn in enumerate(script):
            if over:
                self._reset(start + at)
            over = self._step(turn)

    def fuzz(self, first_seed: int, n_actions: int, *, shrink: bool = False) -> None:
        """Play that many turns, drawn with seeds from `first_seed` on."""
        goal = self.figures.actions + n_actions
        number = first_seed
        while self.figures.actions < goal:
            left = -(-(goal - self.figures.actions) // PER_EXAMPLE)
            self._batch(number, min(EXAMPLES, left), shrink)
            number += 1

    def _batch(self, number: int, n_examples: int, shrink: bool) -> None:
        @seed(number)
        @settings(
            max_examples=n_examples,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.integers(0, 2**20), st.lists(self.turns, min_size=PER_EXAMPLE, max_size=PER_EXAMPLE))
        def play(start: int, script: list[Turn]) -> None:
            self.play(start, script)

        play()

    def _reset(self, number: int) -> None:
        obs, info = self.env.reset(seed=number)
        self.figures.episodes += 1
        assert obs in self.env.observation_space and set(info) == self.keys, (self.where, sorted(info))

        self._expert = _expert(self.base) or ["\\boxed{1}"]

    def _step(self, turn: Turn) -> bool:
        figures = self.figures
        text = self._expert[turn.parts[0][1] % len(self._expert)] if turn.kind == EXPERT else turn.text
        started = time.monotonic()
        obs, reward, terminated, truncated, info = self.env.step(text)
        took = time.monotonic() - started
        self._check(turn, text, obs, float(reward), terminated, truncated, info)
        figures.actions += 1
        figures.seconds += took
        figures.kinds[turn.kind] += 1
        figures.took[turn.kind] += took
        figures.errors[info["error_kind"] or "none"] += 1
        figures.tool_calls += len(info["tool_calls"])
        figures.tools_reached += sum(c["kind"] in CALL_SUCCEEDED | {"error", "timeout"} for c in info["tool_calls"])
        figures.answers += info["answer"] is not None
        figures.right += info["is_correct"]
        figures.invalid += not info["valid"]
        if took > figures.slowest_s:
            figures.slowest_s, figures.slowest = took, repr(turn)[:160]
        return terminated or truncated

    def _check(
        self, turn: Turn, text: str, obs: Any, reward: Any, terminated: Any, truncated: Any, info: dict[str, Any]
    ) -> None:
        where = (self.where, repr(turn)[:2000])
        assert obs in self.env.observation_space, where
        assert reward in (0.0, 1.0) and (reward == 1.0) == (terminated and info["is_correct"]), (where, reward, info)
        assert isinstance(terminated, bool) and isinstance(truncated, bool) and not (terminated and truncated), where
        assert set(info) == self.keys, (where, sorted(info))
        assert info["error_kind"] is None or info["error_kind"] in ERROR_KINDS, (where, info["error_kind"])
        assert info["valid"] == (info["error_kind"] != "sandbox_failure"), where
        assert isinstance(info["grade"], dict) and isinstance(info["is_correct"], bool), where
        assert (info["answer"] is None or isinstance(info["answer"], str)) and info["turn"] >= 1, where
        assert info["n_tool_errors"] <= info["n_tool_calls"] <= self.base.budgets.max_tool_calls, where
        assert [set(call) for call in info["tool_calls"]] == [set(CallRecord.__slots__)] * len(info["tool_calls"]), (
            where
        )
        spoken = [message["content"] for message in info["messages"] if message["role"] == "assistant"]
        assert spoken[-1:] == [text] and len(spoken) == info["turn"], where
        if len(text) < 5_000:  # JSON values throughout: a trace of any episode can be written down and read
            facts = {key: value for key, value in info.items() if key != "messages"}
            assert json.loads(json.dumps(facts, allow_nan=False)) == facts, (where, facts)


def fuzz_id(
    env_id: str,
    protocols: tuple[str, ...],
    arguments: Mapping[str, Any],
    n_actions: int,
    *,
    number: int = 0,
    shrink: bool = False,
    tell: Callable[[Figures], None] = lambda figures: None,
) -> tuple[Figures, list[str]]:
    """Play `n_actions`, in each protocol its share; the figures, and what was left behind after a first tenth.

    Another `number` gives other turns. The first tenth, 40 actions of each protocol at least, fills the caches; every
    environment is closed behind it and behind the rest.
    """
    start_workers()
    figures = Figures()
    generators = _global_generators()
    share = -(-n_actions // len(protocols))
    first = min(share, max(40, share // 10))
    before: Left | None = None
    for part, n in enumerate((first, share - first)):
        for protocol in protocols:
            player = Player(env_id, protocol, arguments, figures)
            try:
                player.fuzz(_seed(env_id, protocol, part, number), n, shrink=shrink)
            finally:
                player.env.close()
                player.env.close()
            tell(figures)
        before = before or Left.now()
    assert _global_generators() == generators, f"{env_id} touched a global random generator"
    assert before is not None
    return figures, settled(before, 0.05 if n_actions >= 10_000 else 0.25)


def start_workers() -> None:
    """Start what a process starts once, at the first need, and keeps: it is no leak."""
    assert CalculatorTool().call({"operation": "evaluate", "expression": "1 + 1"}).kind == "ok"
    assert grade_math(r"\lfloor 3.5 \rfloor", "3").correct
    assert SearchTool().call({"query": "mass"}).kind == "ok"
    with CodeGrader() as grader:
        cases = [{"args": [n], "expected": n} for n in range(3)]
        for _ in range(2):
            assert grader.grade("def f(n): return n", {"type": "calls", "entry_point": "f", "cases": cases}).correct


def _expert(base: ConversationEnv) -> list[str]:
    try:
        return base.expert_turns()
    except ValueError:  # the protocol cannot call one of its tools
        return []


def _seed(*parts: object) -> int:
    """A number that these parts alone decide, whatever the process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")


def _entry_point(env_id: str) -> str:
    return str(gym.spec(env_id).entry_point)


def _global_generators() -> object:
    # Hypothesis seeds these itself around each of its runs, and puts them back.
    kind, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), kind, np.asarray(keys).tobytes(), rest


def _me() -> int:
    return int(Path("/proc/self").readlink().name)


def _zombies() -> int:
    """Children of this process that have ended and that nobody has waited for."""
    found = Path(f"/proc/self/task/{_me()}/children").read_text().split()
    return sum(_state(pid) == "Z" for pid in found)


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
