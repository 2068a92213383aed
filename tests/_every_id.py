"""Every registered id with something to read, things to say in it, and the wrappers to put around it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from _benchmark_fixtures import (
    ARC_HUB,
    HUMANEVAL,
    MATH500,
    MBPP_SANITIZED,
    PUBLISHED,
    csv_bytes,
    lines,
    put,
)
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, TimeLimit

from elpo_envs.exact import REPAIRABLE
from elpo_envs.registration import _ENTRIES
from elpo_envs.tasks.base import ExpertTurn, ToolCall
from elpo_envs.tasks.benchmarks import BENCHMARKS
from elpo_envs.wrappers import (
    ChatObservation,
    DemyAgentReward,
    FormatPenalty,
    OverlongPenalty,
    PerTurnReward,
    PlusMinusReward,
    RecordTraces,
    TokenBudget,
    ToolBonus,
    TranscriptObservation,
)

Env = gym.Env[Any, Any]

# --- data -------------------------------------------------------------------------------------------------------------

_GPQA = csv_bytes(
    ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Record ID"],
    *([f"Made question {n}?", f"right {n}", "wrong a", "wrong b", "wrong c", f"rec{n}"] for n in range(3)),
)


def _sum_problem(number: int) -> dict[str, Any]:
    def cases(*numbers: int) -> str:
        return json.dumps([{"input": f"{n}\n", "output": f"{n + 1}\n", "testtype": "stdin"} for n in numbers])

    return {
        "question_title": "Sum",
        "question_content": f"Read n and print n + 1 (problem {number}).",
        "platform": "made",
        "question_id": f"q{number}",
        "contest_id": "c1",
        "contest_date": "2024-08-10T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": cases(1),
        "private_test_cases": cases(2, 3),
        "metadata": "{}",
    }


# Files of at least two tasks, for the ids whose published form in `PUBLISHED` has but one, or none.
_LARGER: dict[str, tuple[str, bytes]] = {
    "math500": (
        "test.jsonl",
        lines(*({**MATH500[0], "unique_id": f"test/algebra/{n}.json", "problem": f"What is ${n}+6$?"} for n in (3, 4))),
    ),
    "aime24": ("test.jsonl", lines(*({"id": n, "problem": f"Find ${n}$.", "answer": f"0{n}"} for n in (60, 61)))),
    "amc23": ("test.jsonl", lines(*({"id": n, "problem": f"How many of {n}?", "answer": 27.0} for n in (0, 1)))),
    "arc_easy": ("ARC-Easy-Test.jsonl", lines(*({**ARC_HUB[0], "id": f"M{n}", "question": f"{n}?"} for n in (1, 2)))),
    "humaneval": (
        "HumanEval.jsonl.gz",
        lines(
            *(
                {**HUMANEVAL[0], "task_id": f"HumanEval/{n}", "prompt": HUMANEVAL[0]["prompt"] + f"    # {n}\n"}
                for n in (0, 1)
            )
        ),
    ),
    "mbpp_sanitized": (
        "sanitized-mbpp.json",
        json.dumps(
            [{**MBPP_SANITIZED[0], "task_id": n, "prompt": f"Write half, version {n}."} for n in (82, 83)]
        ).encode(),
    ),
    "gpqa_diamond": ("dataset/gpqa_diamond.csv", _GPQA),
    "livecodebench": ("made.jsonl", lines(_sum_problem(1), _sum_problem(2))),
}


def arguments_of(env_id: str, folder: Path) -> dict[str, Any]:
    """What `gym.make` needs besides the id: nothing where the real files are in ELPO_DATA, else a file of our own."""
    given = _ENTRIES[env_id].arguments
    if not given:
        return {}
    benchmark = BENCHMARKS[given["dataset"]]
    if os.environ.get("ELPO_DATA"):
        try:
            benchmark.locate(given["split"])
        except FileNotFoundError:
            pass  # not every benchmark is in every data folder
        else:
            return {}
    place = folder / benchmark.name
    if benchmark.name in _LARGER:
        name, data = _LARGER[benchmark.name]
        path = put(place / name, data)
        return {"dataset_options": {"path": str(path if benchmark.name == "livecodebench" else place)}}
    PUBLISHED[benchmark.name][0](place)
    return {"dataset_options": {"path": str(place)}}


# --- turns ------------------------------------------------------------------------------------------------------------


def _call(name: str, **arguments: Any) -> ExpertTurn:
    return ExpertTurn("", (ToolCall(name, arguments),))


def turns(env: Env) -> list[str]:
    """A call that is remembered, a mistake of form, a use of the domain's own tools, a mistake, the right answer."""
    base: Any = env.unwrapped
    if base.domain == "exact":
        return _choices(base)
    about, answer = base.task.metadata, base.task.answer
    python = _call("python", code="kept = [6 * 7]\nprint('é', kept)\nkept[0]")
    wrong = _call("python", code="kept.append(1 / 0)")
    boxed = f"{answer} {about.get('unit', '')}".strip()
    own: dict[str, list[ExpertTurn]] = {
        "math": [],
        "science": [
            _call("search", query="density of water", k=2),
            _call("calculator", operation="evaluate", expression="2+3"),
        ],
        "code": [_call("run_tests", code=answer or "print(1)")],
    }
    last = ExpertTurn(f"\\boxed{{{boxed}}}")
    if about.get("kind") == "program":
        last = _call("submit", code=answer or "n = int(input())\nprint(n + 1)")
    said = [
        base.protocol.render(turn) for turn in (python, *own[base.domain], wrong, _call("python", code="len(kept)"))
    ]
    return [said[0], "<tool_call>{", *said[1:], "Hm, é.", base.protocol.render(last)]


def _choices(base: Any) -> list[str]:
    """Good choices with a mistake of form, one that needs a repair, and a turn that is none."""
    world, good = base.world, base.expert_turns()
    contexts = world.contexts[base.task.index]
    at = next(n for n, c in enumerate(contexts) if n and REPAIRABLE in world.kinds[c])
    wrong = int((world.kinds[contexts[at]] == REPAIRABLE).argmax())
    repair = int(world.good[world.n_contexts + contexts[at]])
    mistake = [base.write_turn(_call("act", choice=choice)) for choice in (wrong, repair)]
    return [good[0], "<tool_call>{", *good[1:at], *mistake, "Hm, é.", *good[at + 1 :]]


# --- wrappers ---------------------------------------------------------------------------------------------------------

Stack = Callable[[Env, Path], Env]


def _rewarded(env: Env) -> Env:
    env = PlusMinusReward(FormatPenalty(ToolBonus(env)))
    env = PerTurnReward(env, {"ok": 0.25, "error": -0.5, "no_action": -0.125})
    return OverlongPenalty(DemyAgentReward(env), 10, 200)


def _guarded(env: Env, folder: Path) -> Env:
    return PassiveEnvChecker(OrderEnforcing(RecordEpisodeStatistics(TimeLimit(env, 4))))


STACKS: Mapping[str, Stack] = {
    "gymnasiums": _guarded,
    "rewards": lambda env, folder: _rewarded(TokenBudget(env, 20_000)),
    "chat": lambda env, folder: RecordEpisodeStatistics(ChatObservation(TokenBudget(env, 20_000))),
    "transcript": lambda env, folder: TranscriptObservation(FormatPenalty(TimeLimit(env, 40))),
    "cut_transcript": lambda env, folder: OrderEnforcing(TranscriptObservation(PlusMinusReward(env), 200)),
    "recorded": lambda env, folder: RecordTraces(_rewarded(TokenBudget(env, 20_000)), str(folder / "traces.jsonl")),
    "everything": lambda env, folder: RecordTraces(
        RecordEpisodeStatistics(ChatObservation(_rewarded(TokenBudget(TimeLimit(env, 5), 20_000)))),
        str(folder / "traces.jsonl"),
    ),
}
"""By name, from an environment and a folder for what is written; what can end an episode is inside."""
ENDS_EARLY = frozenset({"gymnasiums", "everything"})
"""Stacks whose `TimeLimit` ends episodes, which Gymnasium lets one step on with."""
