"""`elpo/ExactChain-v0`: an exact world as a conversation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

from elpo_envs.env import Budgets, Verdict
from elpo_envs.episode import CallRecord
from elpo_envs.exact.act import ActTool, ChainState, good_choices
from elpo_envs.exact.build import build_world
from elpo_envs.exact.families import Family, read_family
from elpo_envs.exact.tasks import FAILED, PASSED, ChainSource, act_turn
from elpo_envs.exact.world import World
from elpo_envs.protocols import ParsedCall, TurnProtocol, get_protocol
from elpo_envs.recovery import ContinuableEnv, Policy, check_policy
from elpo_envs.tasks.base import Task
from elpo_envs.tools.extra import ExtraTool, make_extra_tools


class ExactChainEnv(ContinuableEnv):
    """One prompt of an exact world per episode: a sequence of contexts, in each of which `act` makes one choice.

    The agent sees which context it is in, or which repair, but not whether a choice was fatal. The episode ends with
    the last context, with the reward 1.0 if no choice was fatal, or in a repair without spare steps, with 0.0. The
    noise of a noisy family depends on the task and the number of the choice alone; `restore(env, snap, reseed=...)`,
    also right after a reset, gives another one.

    Values, gradients and first irrecoverable steps of the same world: `elpo_envs.exact`.

    Args:
        family: a name in `elpo_envs.exact.FAMILIES`, a mapping with the arguments of `Family.of`, such as
            {"kind": "irr", "steps": 8, "start_success": 0.06}, or (Python only) a `Family`.
        world_seed: which world of the family; >= 0.
        max_turns: see `Budgets`; None allows twice the steps of the longest rollout.
        protocol: how calls are written: "hermes" or "openai".
        render_mode: None, "ansi" or "human".
        max_tool_calls: see `Budgets`; None allows twice the steps of the longest rollout.
        max_chars: see `Budgets`.
        tool_timeout_s: seconds of one call of an MCP server among the extra tools; > 0.
        system_prompt: first message of the chat; "" leaves it out, None explains the rules.
        describe_tools: whether the first message goes on with the tools and how to call them.
        extra_tools: more tools; see `elpo_envs.tools.extra`.

    Raises:
        ValueError: any of these is unknown or out of range.
    """

    domain: ClassVar[str] = "exact"
    default_prompt: ClassVar[str] = (
        "You go through a sequence of contexts. In each of them, make one choice with the act tool; one choice is "
        "good. A wrong one may do no harm, may need a repair before you can go on, or may make success impossible, "
        "which nothing shows before the end."
    )
    no_action_text: ClassVar[str] = "Error: no tool call was found. Call act with your choice."

    def __init__(
        self,
        family: str | Mapping[str, Any] | Family = "mix_8_.2",
        world_seed: int = 0,
        max_turns: int | None = None,
        protocol: str = "hermes",
        render_mode: str | None = None,
        *,
        max_tool_calls: int | None = None,
        max_chars: int = 200_000,
        tool_timeout_s: float = 6.0,
        system_prompt: str | None = None,
        describe_tools: bool | None = None,
        extra_tools: Sequence[ExtraTool] = (),
    ) -> None:
        if not tool_timeout_s > 0:
            raise ValueError(f"tool_timeout_s={tool_timeout_s!r} must be greater than 0 seconds")
        self._arguments: dict[str, Any] = {
            "family": family,
            "world_seed": world_seed,
            "max_turns": max_turns,
            "protocol": protocol,
            "render_mode": render_mode,
            "max_tool_calls": max_tool_calls,
            "max_chars": max_chars,
            "tool_timeout_s": tool_timeout_s,
            "system_prompt": system_prompt,
            "describe_tools": describe_tools,
            "extra_tools": tuple(extra_tools),
        }
        self.world = _world(read_family(family), world_seed)
        self._act = ActTool(self.world)
        self._source = ChainSource(self.world)
        enough = 2 * self.world.family.longest
        super().__init__(
            protocol=_protocol(protocol),
            tools=[self._act, *make_extra_tools(extra_tools, tool_timeout_s)],
            budgets=Budgets(
                enough if max_turns is None else max_turns,
                enough if max_tool_calls is None else max_tool_calls,
                max_chars,
            ),
            system_prompt=self.default_prompt if system_prompt is None else system_prompt,
            identity={
                "family": asdict(self.world.family),
                "world_seed": world_seed,
                "tool_timeout_s": tool_timeout_s,
            },
            render_mode=render_mode,
            describe_tools=describe_tools,
        )

    @property
    def task_source(self) -> ChainSource:
        """The prompts of the world."""
        return self._source

    @property
    def chain_state(self) -> ChainState:
        """Where the rollout is, what the agent is not shown included. Raises ResetNeeded before the first reset."""
        self._current()
        return self._act.state

    def facts(self) -> dict[str, Any]:
        """`chain`: position, spare steps, whether in repair, and the policy's row of the next choice (-1: over)."""
        state = self._act.state
        return {
            "chain": {
                "position": state.position,
                "spare": state.spare,
                "in_repair": state.in_repair,
                "row": state.row(self.world),
            }
        }

    def take_up(self, task: Task) -> None:
        self._act.take_up(int(task.metadata["prompt"]))

    def ends_episode(self, call: ParsedCall, record: CallRecord) -> bool:
        """Whether the last choice is made, or a tool that was added hands in."""
        return self._act.over if call.name == ActTool.name else super().ends_episode(call, record)

    def grade_turn(self, task: Task, text: str) -> Verdict | None:
        """Raises ValueError: the outcome depends on every choice of the episode and its noise."""
        raise ValueError(
            f"an episode of {task.task_id!r} cannot be graded by its last turn; play it again, or take its record"
        )

    def judge(self, task: Task, text: str) -> Verdict | None:
        """None: what a turn says decides nothing."""
        return None

    def judge_submission(self, task: Task, arguments: Mapping[str, Any]) -> Verdict:
        """Whether the choices of the whole episode succeeded."""
        state = self._act.state
        correct = state.alive and state.position == self.world.steps
        grade = {
            "correct": correct,
            "method": "chain",
            "steps": state.steps,
            "first_unsolvable": state.first_unsolvable,
        }
        return Verdict(PASSED if correct else FAILED, correct, grade)

    def expert_turns(self) -> list[str]:
        """One good choice a turn from the episode's beginning, with the repairs that its noise makes needed.

        [] where that noise leaves too few spare steps.
        """
        state = self.chain_state
        begin = ChainState.begin(self.world, state.prompt, state.noise_began)
        return [self.write_turn(act_turn(c)) for c in good_choices(self.world, begin, noisy=True) or ()]

    def recoverable(self, policy: Policy = "omniscient") -> bool:
        """Whether the conversation can still be solved within the budgets of this environment; it is left as it is.

        Can, that is, with luck: noise counts as absent. "omniscient" makes all good choices in one turn, "expert" one
        a turn. Raises ValueError for another policy, and ResetNeeded before the first reset.
        """
        return self.continuation(policy) is not None

    def continuation(
        self, policy: Policy = "omniscient", affordable: Callable[[Sequence[str]], bool] = lambda turns: True
    ) -> list[str] | None:
        """The policy's shortest turns to success if no noise comes, or None; see `elpo_envs.recovery.continuation`."""
        check_policy(policy)
        state = self.freeze()
        if state.episode.over:
            return [] if state.episode.terminated and state.episode.is_correct else None
        choices = good_choices(self.world, self._act.state, noisy=False)
        if choices is None:
            return None
        made = [choices] if policy == "omniscient" else [(choice,) for choice in choices]
        turns = [self.write_turn(act_turn(*some)) for some in made]
        if state.episode.turn + len(turns) > self.budgets.max_turns or not affordable(turns):
            return None
        branch = self.clone()
        try:
            branch.render_mode = None
            branch._act.noisy = False
            branch.thaw(state)
            for turn in turns:
                branch.step(turn)
                if branch._current().over:
                    break
            return turns if branch._current().is_correct else None
        finally:
            branch.close()

    def clone(self) -> Self:
        new = type(self)(**self._arguments)
        new.spec = self.spec
        return new


@functools.lru_cache(maxsize=16)
def _world(family: Family, seed: int) -> World:
    return build_world(family, seed)


def _protocol(name: str) -> TurnProtocol:
    protocol = get_protocol(name)
    try:
        protocol.render(act_turn(0))
    except ValueError as error:
        raise ValueError(f"protocol={name!r} can call python only; choose hermes or openai") from error
    return protocol
