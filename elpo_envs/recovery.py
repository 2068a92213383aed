r"""Whether a conversation can still be solved: the exact answer, from the model behind a generated task.

A prefix of an episode is *recoverable* if there is a continuation within what is left of every budget that ends with
a right answer. What there is depends on who continues:

- "omniscient": knows the answer and may give it in the next turn, whatever was said and computed before. For it a
  prefix is lost only where the episode is over without success, or where not even the answer fits any more.
- "expert": works as the task's expert does, one step of the expert's plan a turn, and gives the answer only once the
  plan's results stand. A step is done while what it is for stands: its variable has the right value in the interpreter
  now, a function there gives the right results, a passage or an output was shown. So a wrong step that overwrites a
  variable costs another turn, and a wrong step that leaves the right values alone costs only itself.

With `max_turns` at the number of the expert's turns plus a slack of s, the first irrecoverable turn for "expert" is the
one that wastes turn s + 1: ground truth for error localization. For "omniscient" it is the wrong answer, or the last
turn that the budgets allow. For both, turns of the expert's kind, right or wrong, never make a lost prefix recoverable
again. A turn of another kind can, for "expert", if it computes several steps at once.

Nothing is estimated: the fewest turns that are left to do are played to their graded end on a copy, which budgets may
cut short. Characters are counted as the expert writes its turns; a shorter wording of the answer is not looked for.
"""

from __future__ import annotations

import ast
import importlib
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import gymnasium as gym
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeLimit

from elpo_envs.env import ConversationEnv
from elpo_envs.episode import Episode
from elpo_envs.protocols import ParsedCall
from elpo_envs.tasks.base import Task
from elpo_envs.tasks.plans import Evidence, Holds, Plan, PlanStep, Shown

if TYPE_CHECKING:
    from elpo_envs.task_env import TaskEnv

Policy = Literal["omniscient", "expert"]

_PLANS = {  # what a generated task's id begins with -> the module that knows its plan
    "generated": "elpo_envs.tasks.generated.plan",
    "science": "elpo_envs.tasks.science.plan",
    "programs": "elpo_envs.tasks.programs.plan",
}
_NUMBERED = re.compile(r"\[\d+\] ")


class ContinuableEnv(ConversationEnv):
    """An environment that knows itself how its conversations can go on to a right answer."""

    @abstractmethod
    def continuation(self, policy: Policy, affordable: Callable[[Sequence[str]], bool]) -> list[str] | None:
        """See `elpo_envs.recovery.continuation`."""


def check_policy(policy: Policy) -> None:
    """Raises ValueError, naming the choices, for an unknown policy."""
    if policy not in get_args(Policy):
        raise ValueError(f"policy={policy!r} is unknown; choose {' or '.join(get_args(Policy))}")


def recoverable(env: gym.Env[Any, Any], policy: Policy = "omniscient") -> bool:
    """Whether `env` can still be solved within its budgets and those of its wrappers; it is left as it is.

    `env.unwrapped.recoverable(policy)` says the same without the wrappers. Of these, Gymnasium's `TimeLimit` and every
    wrapper with a method `affords(turns)`, such as `TokenBudget`, have a budget.

    Raises:
        TypeError: the base is no environment of this package.
        ResetNeeded: no episode has begun.
        ValueError: the task is not a generated one, the policy is unknown, or the environment's protocol cannot call
            a tool that the expert uses.
        RuntimeError: the sandbox failed, or its session does not repeat, so that nothing is known.
    """
    from elpo_envs.task_env import TaskEnv  # which uses this module

    base = env.unwrapped
    if not isinstance(base, TaskEnv | ContinuableEnv):
        raise TypeError(f"{type(base).__name__} has no tasks that this package knows; its base must be a TaskEnv")
    return continuation(base, policy, lambda turns: all(_affords(w, turns) for w in _wrappers(env))) is not None


def continuation(
    env: TaskEnv | ContinuableEnv,
    policy: Policy = "omniscient",
    affordable: Callable[[Sequence[str]], bool] = lambda turns: True,
) -> list[str] | None:
    """The shortest continuation of the policy that ends with a right answer, as raw turns, or None if there is none.

    It is empty where the episode is over and was solved. What it raises: see `recoverable`.

    Args:
        env: left as it is.
        affordable: whether turns keep within further budgets.
    """
    check_policy(policy)
    if isinstance(env, ContinuableEnv):
        return env.continuation(policy, affordable)
    plan = _plan_of(env.task)
    state = env.freeze()
    episode = state.episode
    if episode.over:
        return [] if episode.terminated and episode.is_correct else None
    branch = env.clone()
    try:
        branch.render_mode = None
        if policy == "omniscient":
            candidates = [[branch.write_turn(answer)] for answer in plan.answers]
        else:
            branch.thaw(state)
            candidates = [[branch.write_turn(turn) for turn in plan.remaining(_watcher(branch, episode))]]
        for turns in candidates:
            if episode.turn + len(turns) > env.budgets.max_turns or not affordable(turns):
                continue
            branch.thaw(state)
            if _solves(branch, turns):
                return turns
        return None
    finally:
        branch.close()


def first_irrecoverable_turn(
    env: TaskEnv | ContinuableEnv, turns: Sequence[str], policy: Policy = "expert"
) -> int | None:
    """The first of `turns`, from 1, after which the conversation cannot be solved any more; None if it always can.

    They are taken from where `env` is now, on a copy; 0 says that it is lost already. Turns after the end of the
    episode are not looked at. What it raises: see `recoverable`.
    """
    if continuation(env, policy) is None:
        return 0
    branch = env.clone()
    try:
        branch.render_mode = None
        branch.thaw(env.freeze())
        for number, turn in enumerate(turns, 1):
            if branch._current().over:
                return None
            branch.step(turn)
            if continuation(branch, policy) is None:
                return number
        return None
    finally:
        branch.close()


def _plan_of(task: Task) -> Plan:
    module = _PLANS.get(task.task_id.partition("/")[0])
    refusal = (
        f"task {task.task_id!r} has no model that could say whether it is recoverable; "
        "only tasks of dataset='generated' have one"
    )
    if module is None:
        raise ValueError(refusal)
    try:
        plan: Plan = importlib.import_module(module).plan(task)
    except KeyError as error:
        raise ValueError(refusal) from error
    return plan


def _watcher(branch: TaskEnv, episode: Episode) -> Callable[[PlanStep], bool]:
    """Tells which steps are done. `branch` is in the state in question; its interpreter is used to look."""
    answered = list(_answered(branch, episode))

    def shows(evidence: Evidence) -> bool:
        if isinstance(evidence, Holds):
            return any(call.name == "python" for call, _ in answered) and _holds(branch, evidence)
        if isinstance(evidence, Shown):
            return any(call.name in evidence.tools and _has_line(text, evidence.line) for call, text in answered)
        made = evidence.call
        return any(call.name == made.name and call.arguments == made.arguments for call, _ in answered)

    return lambda step: any(shows(evidence) for evidence in step.evidence)


def _answered(env: TaskEnv, episode: Episode) -> Iterator[tuple[ParsedCall, str]]:
    """Every well-formed call so far and what the model was shown of it."""
    calls: list[Any] = []
    for message in episode.messages:
        if message.role == "assistant":
            calls = list(env.protocol.parse(message.content).calls)
        elif message.role == "tool" and calls:
            call = calls.pop(0)
            if isinstance(call, ParsedCall):
                yield call, message.content


def _has_line(text: str, line: str) -> bool:
    lines = text.splitlines()
    return line in lines or any(_NUMBERED.sub("", shown, count=1) == line for shown in lines)


def _holds(branch: TaskEnv, evidence: Holds) -> bool:
    for expression, value in evidence.results:
        result = branch.look_up(expression)
        if result is None:
            return False
        try:
            found = ast.literal_eval(result)
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # not the text of a plain value
            return False
        if not _same(found, value, evidence.relative):
            return False
    return True


def _same(found: Any, value: Any, relative: float) -> bool:
    if isinstance(value, Fraction):
        is_number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
        return is_number and Fraction(found) == value
    if isinstance(value, float) and relative:
        return isinstance(found, int | float) and math.isclose(found, value, rel_tol=relative)
    return bool(_as_json(found) == value)


def _as_json(value: Any) -> Any:
    """The value with tuples as lists, as JSON has it."""
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in value]
    return {key: _as_json(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _solves(branch: TaskEnv, turns: Sequence[str]) -> bool:
    for turn in turns:
        *_, terminated, truncated, info = branch.step(turn)
        if not info["valid"]:
            raise RuntimeError(
                "whether the conversation is recoverable cannot be told: the sandbox failed in a copy of it: "
                f"{info['messages'][-1]['content'][:200]}"
            )
        if terminated or truncated:
            return bool(terminated and info["is_correct"])
    return False


def _wrappers(env: gym.Env[Any, Any]) -> Iterator[gym.Wrapper[Any, Any, Any, Any]]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def _affords(wrapper: gym.Wrapper[Any, Any, Any, Any], turns: Sequence[str]) -> bool:
    if isinstance(wrapper, TimeLimit):
        if wrapper._elapsed_steps is None:
            raise ResetNeeded("no episode has begun; call reset() or restore() first")
        return bool(wrapper._elapsed_steps + len(turns) <= wrapper._max_episode_steps)
    if hasattr(type(wrapper), "affords"):
        affords: Callable[[Sequence[str]], bool] = wrapper.affords  # type: ignore[attr-defined]
        return affords(turns)
    return True
