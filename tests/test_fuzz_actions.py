"""Hostile turns in every registered id and protocol: nothing raises, every step is in order, and nothing is left.

`ELPO_FUZZ_ACTIONS=20000 pytest -m slow -s tests/test_fuzz_actions.py` plays that many turns in each id (100,000 by
default) and prints figures as it goes; with ELPO_FUZZ_SEED=1, 2, ... it plays others.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from _benchmark_fixtures import PUBLISHED, lines, put
from _fork_watch import needs_fork
from _fuzz_play import Figures, Left, Player, fuzz_id
from _fuzz_turns import EXPERT, Turn, plain
from test_benchmark_files_sealed import FUNCTIONAL, GPQA_CSV, STDIN

import elpo_envs
from elpo_envs.protocols import PROTOCOLS
from elpo_envs.tasks.benchmarks import BENCHMARKS

pytestmark = needs_fork

HANG_S = 15.0
QUICK_ACTIONS = 200
SLOW_ACTIONS = int(os.environ.get("ELPO_FUZZ_ACTIONS", "100000"))
SEED = int(os.environ.get("ELPO_FUZZ_SEED", "0"))

# Benchmarks without a file in the data folder of ours, or without one of this split: they have fixtures always.
_WITHOUT_DATA = frozenset({"gpqa_diamond", "arc_easy", "math"})


def protocols(env_id: str) -> tuple[str, ...]:
    """Those that the id takes: where a fenced block is a program, it can be no call, nor where there is no python."""
    if "Exact" in str(gym.spec(env_id).entry_point):
        return ("hermes", "openai")
    program = "Code" in str(gym.spec(env_id).entry_point)
    return tuple(name for name in PROTOCOLS if not (program and name == "fences"))


def arguments(env_id: str, folder: Path) -> dict[str, Any]:
    """Where the id reads its tasks: real data where there is some, or else a file of ours in the published form."""
    name = gym.spec(env_id).kwargs.get("dataset")
    if name is None or (os.environ.get("ELPO_DATA") and name not in _WITHOUT_DATA):
        return {}
    assert name in BENCHMARKS
    if name == "gpqa_diamond":
        path = put(folder / "gpqa_diamond.csv", GPQA_CSV)
    elif name == "livecodebench":
        path = put(folder / "test.jsonl", lines(STDIN, FUNCTIONAL))
    else:
        path = folder / name
        PUBLISHED[name][0](path)
    return {"dataset_options": {"path": str(path)}}


@pytest.mark.parametrize("env_id", elpo_envs.env_ids())
def test_hostile_turns(env_id: str, tmp_path: Path) -> None:
    figures, left = fuzz_id(env_id, protocols(env_id), arguments(env_id, tmp_path), QUICK_ACTIONS, shrink=True)
    assert figures.actions >= QUICK_ACTIONS
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("env_id", elpo_envs.env_ids())
def test_very_many_hostile_turns(env_id: str, tmp_path: Path) -> None:
    def say(figures: Figures) -> None:
        print(f"\n{env_id}: {figures.line()}", end="", flush=True)

    where = arguments(env_id, tmp_path)
    figures, left = fuzz_id(env_id, protocols(env_id), where, SLOW_ACTIONS, number=SEED, tell=say)
    print(
        f"\n{env_id}: of each kind {dict(figures.kinds.most_common())}; left behind: {left or 'nothing'}; {Left.now()}"
    )
    assert figures.actions >= SLOW_ACTIONS
    assert left == []


LONG = (
    *("```python\n", "```py \n```\n", "```output\n", "<tool_call>", "<tool_call>{}</tool_call>", "<tool_response>"),
    *("\\boxed{", "\\boxed{1}", "\\boxed{1} or ", "The answer is (A) or ", "<python>\n", "\n", "((", "{}", '{"role": '),
)


@pytest.mark.parametrize("env_id", ["elpo/Math-v0", "elpo/ScienceQA-v0", "elpo/CodeExec-v0"])
def test_long_turns_take_linear_time(env_id: str) -> None:
    """A guard against hangs: twice as many openings of a program that never ends once took four times as long."""
    env = gym.make(env_id, max_tool_calls=2, max_chars=500_000)
    kind = None
    for index in range(40):
        env.reset(options={"index": index})
        kind = env.unwrapped.task.metadata.get("kind")
        if kind in (None, "program", "math", "number"):
            break
    assert kind != "output"
    for body in LONG:
        env.reset(options={"index": index})
        started = time.monotonic()
        env.step(body * (200_000 // len(body)))
        assert time.monotonic() - started < HANG_S, body
    env.close()


def test_the_player_finds_what_is_wrong() -> None:
    """An environment that breaks a rule fails: the checks can."""
    player = Player("elpo/Math-v0", "hermes", {}, Figures())
    player.play(0, [plain("tokens", "hm"), Turn(EXPERT, (("", 0),))])
    assert player.figures.actions == 2
    step = player.env.unwrapped.step
    for spoil in (
        lambda o, r, t, u, i: (o, r, True, True, i),
        lambda o, r, t, u, i: (None, r, t, u, i),
        lambda o, r, t, u, i: (o, 0.5, t, u, i),
        lambda o, r, t, u, i: (o, r, t, u, {k: v for k, v in i.items() if k != "grade"}),
        lambda o, r, t, u, i: (o, r, t, u, {**i, "error_kind": "unheard of"}),
        lambda o, r, t, u, i: (o, r, t, u, {**i, "messages": i["messages"][:-2]}),
    ):
        player.env.unwrapped.step = lambda action, spoil=spoil: spoil(*step(action))  # type: ignore[method-assign]
        with pytest.raises(AssertionError):
            player.play(0, [plain("tokens", "hm")])
    player.env.close()
