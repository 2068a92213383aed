"""Brute force beside `recoverable("expert")`: every turn an expert may take, right or wrong, tried on the environment.

The rules below say what a policy with the expert's plan may do, from the transcript alone: it calculates only with
values it has looked up, and answers only with what its tools showed it. They know nothing of `elpo_envs.tasks.plans`.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Hashable, Iterator
from typing import Any, Protocol

from elpo_envs import restore, snapshot
from elpo_envs.code_env import CodeExecEnv
from elpo_envs.math_env import MathEnv
from elpo_envs.protocols import ParsedCall
from elpo_envs.science_env import ScienceQAEnv
from elpo_envs.task_env import TaskEnv
from elpo_envs.tasks import ExpertTurn, ToolCall
from elpo_envs.tasks.generated import GeneratedSource
from elpo_envs.tasks.programs import ProgramSource
from elpo_envs.tasks.science import ScienceSource

History = list[tuple[ParsedCall, str]]


class Rules(Protocol):
    """What the policy may do in a task."""

    env: TaskEnv

    def turns(self) -> list[str]:
        """Every turn of the plan's kind, right or wrong, allowed now or not."""

    def allowed(self) -> list[str]:
        """Those that the policy may take now, the answer among them."""

    def state(self) -> Hashable:
        """What the allowed turns and their results depend on, the budgets apart."""


def history(env: TaskEnv) -> History:
    """The calls so far and what was shown of each."""
    done: History = []
    waiting: Iterator[Any] = iter(())
    for message in env._current().messages:
        if message.role == "assistant":
            waiting = iter(env.protocol.parse(message.content).calls)
        elif message.role == "tool":
            done.append((next(waiting), message.content))
    return done


def latest_values(env: TaskEnv) -> dict[str, str]:
    """What the last successful assignment to each variable showed."""
    values = {}
    for call, text in history(env):
        assigned = re.search(r"^(\w+) = ", str(call.arguments.get("code", "")), re.MULTILINE)
        if assigned and re.fullmatch(r"[-+.\de]+", text):
            values[assigned[1]] = text
    return values


class MathRules:
    def __init__(self, env: MathEnv) -> None:
        self.env = env
        source = GeneratedSource.from_id(env.task.task_id)
        self._last = source.problem(env.task.index).steps[-1].variable
        *self._right, _ = env.expert_turns()
        self._wrong = []
        for i in range(len(self._right)):
            first, *_ = source.corruptions(env.task, i) or [None]
            if first is not None:
                self._wrong.append(env.write_turn(first[i]))

    def turns(self) -> list[str]:
        return [*self._right, *self._wrong]

    def allowed(self) -> list[str]:
        shown = latest_values(self.env).get(self._last)
        return [*([] if shown is None else [f"\\boxed{{{shown}}}"]), *self.turns()]

    def state(self) -> Hashable:
        return tuple(sorted(latest_values(self.env).items()))


class ScienceRules:
    def __init__(self, env: ScienceQAEnv) -> None:
        self.env = env
        source = ScienceSource.from_id(env.task.task_id)
        self._problem = source.problem(env.task.index)
        searches, *right, _ = env.task.expert
        self._searches = dict(zip(self._problem.lookups, searches.tool_calls, strict=True))
        self._right = [env.write_turn(turn) for turn in right]
        self._wrong = [
            env.write_turn(trace[i + 1]) for i in range(len(right)) for trace in source.corruptions(env.task, i)[:1]
        ]
        self._reads = [set(step.lookups) for step in self._problem.steps]

    def _seen(self) -> set[str]:
        found = "\n".join(text for call, text in history(self.env) if call.name == "search").splitlines()
        return {title for title in self._searches if any(line.endswith(f"] {title}") for line in found)}

    def _searching(self, titles: list[str]) -> str:
        return self.env.write_turn(ExpertTurn("", tuple(self._searches[title] for title in titles)))

    def turns(self) -> list[str]:
        singles = [self._searching([title]) for title in self._searches]
        together = [self._searching(list(self._searches))] if len(singles) > 1 else []
        return [*together, *singles, *self._right, *self._wrong]

    def allowed(self) -> list[str]:
        seen = self._seen()
        shown = latest_values(self.env).get(self._problem.steps[-1].variable)
        moves = [] if shown is None else [self._answer(float(shown))]
        for calculations in (self._right, self._wrong):
            moves += [turn for turn, reads in zip(calculations, self._reads, strict=False) if reads <= seen]
        missing = [title for title in self._searches if title not in seen]
        sets = [missing[i : j + 1] for i in range(len(missing)) for j in range(i, len(missing))]
        return [*moves, *(self._searching(titles) for titles in sets)]

    def _answer(self, value: float) -> str:
        about = self.env.task.metadata
        if about["kind"] == "number":
            return f"\\boxed{{{value:.6g} {about['unit']}}}"
        options = [float(text.split(" ")[0]) for text in about["choices"]]
        nearest = min(range(len(options)), key=lambda i: abs(math.log(options[i] / value)))
        return f"\\boxed{{{'ABCD'[nearest]}}}"

    def state(self) -> Hashable:
        return tuple(sorted(latest_values(self.env).items())), tuple(sorted(self._seen()))


class ProgramRules:
    """May submit what it tried last; may try a repair once it saw the bug; may box what a program printed."""

    def __init__(self, env: CodeExecEnv) -> None:
        self.env = env
        source = ProgramSource.from_id(env.task.task_id)
        self._kind = env.task.metadata["exercise"]
        wrong = [source.corrupt(env.task, i) for i in range(env.task.metadata["steps"])]
        traces = [env.task.expert, *(trace for trace in wrong if trace is not None)][:3]
        self._sight = self._write(traces[0][0]) if self._kind == "repair" else None
        self._trials = [self._write(trace[-2]) for trace in traces]
        self._finals = [self._write(trace[-1]) for trace in traces]

    def _write(self, turn: ExpertTurn) -> str:
        return self.env.write_turn(turn)

    def _runs(self) -> list[str]:
        """The turns that were taken to run something, as this environment writes them."""
        calls = [call for call, _ in history(self.env) if call.name == "python"]
        return [self._write(ExpertTurn("", (ToolCall(call.name, call.arguments),))) for call in calls]

    def turns(self) -> list[str]:
        return [*([] if self._sight is None else [self._sight]), *self._trials]

    def allowed(self) -> list[str]:
        runs = self._runs()
        trials = self._trials if self._sight is None or self._sight in runs else []
        sights = [] if self._sight is None else [self._sight]
        answers = runs if self._kind == "output" else runs[-1:]
        known = [final for trial, final in zip(self._trials, self._finals, strict=True) if trial in answers]
        return [*known, *trials, *sights]

    def state(self) -> Hashable:
        runs = self._runs()
        return tuple(sorted(set(runs))), tuple(runs[-1:])


Memo = dict[Hashable, bool]


def solvable(rules: Rules, memo: Memo, *, by_chars: bool = False) -> bool:
    """Whether some sequence of allowed turns from here ends with a right answer; the environment is left as it is."""
    env, episode = rules.env, rules.env._current()
    if episode.over:
        return episode.terminated and episode.is_correct
    key = (episode.turn, episode.n_tool_calls, episode.chars if by_chars else 0, rules.state())
    if key not in memo:
        here = snapshot(env)
        memo[key] = False
        for turn in rules.allowed():
            env.step(turn)
            memo[key] = solvable(rules, memo, by_chars=by_chars)
            restore(env, here)
            if memo[key]:
                break
    return memo[key]


def walk(rules: Rules, rng: random.Random, wander: float) -> Iterator[None]:
    """Play one episode: the expert's next turn, or with the chance `wander` another one, allowed or not."""
    expert = rules.env.expert_turns()
    at = 0
    while not rules.env._current().over:
        if rng.random() < wander or at == len(expert):
            rules.env.step(rng.choice([*rules.turns(), *rules.turns(), "hm", "\\boxed{-7}"]))
        else:
            rules.env.step(expert[at])
            at += 1
        yield
