"""The tool with which an agent goes through a prompt of an exact world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from elpo_envs.exact.dynamics import RolloutState, step
from elpo_envs.exact.world import World
from elpo_envs.tools.base import BaseTool, ToolResult


@dataclass(frozen=True)
class ChainState:
    """Where one rollout is, and its luck; JSON values.

    Attributes:
        prompt: in [0, P).
        position: contexts passed, 0 to K.
        spare: spare steps left, 0 to S.
        in_repair: whether the next choice is one of a repair.
        alive: whether no choice so far was fatal; the agent is not shown this.
        steps: choices made.
        first_unsolvable: the choice, from 1, after which nobody could succeed any more; -1 where there is none.
        noise_seed: what the noise comes from.
        noise_draws: choices made since the noise was seeded.
        noise_began: the noise's first seed in this episode.
    """

    prompt: int
    position: int
    spare: int
    in_repair: bool
    alive: bool
    steps: int
    first_unsolvable: int
    noise_seed: int
    noise_draws: int
    noise_began: int

    @staticmethod
    def begin(world: World, prompt: int, noise_seed: int) -> ChainState:
        """The beginning of that prompt."""
        return ChainState(prompt, 0, world.spare, False, True, 0, -1, noise_seed, 0, noise_seed)

    def as_rollout(self) -> RolloutState:
        """The same as arrays of one rollout."""
        return RolloutState(
            np.array([self.position]), np.array([self.spare]), np.array([self.in_repair]), np.array([self.alive])
        )

    def over(self, world: World) -> bool:
        """Whether every context is passed, or spare steps are used up in a repair."""
        return self.position == world.steps or (self.in_repair and self.spare == 0)

    def solvable(self, world: World) -> bool:
        """Whether somebody could still succeed, or has done so."""
        return self.alive and not (self.in_repair and self.spare == 0)

    def row(self, world: World) -> int:
        """The policy's row of the next choice; -1 where the rollout is over."""
        if self.over(world):
            return -1
        return int(world.contexts[self.prompt, self.position]) + (world.n_contexts if self.in_repair else 0)

    def after(self, world: World, choice: int, *, noisy: bool = True) -> ChainState:
        """The state after one choice in [0, A), which must not be made where the rollout is over.

        Args:
            noisy: False has no good choice fail.
        """
        luck = noise_uniform(self.noise_seed, self.noise_draws) if noisy and world.family.noise > 0.0 else 1.0
        there = step(world, np.array([self.prompt]), self.as_rollout(), np.array([choice]), np.array([luck]))
        state = replace(
            self,
            position=int(there.position[0]),
            spare=int(there.spare[0]),
            in_repair=bool(there.in_repair[0]),
            alive=bool(there.alive[0]),
            steps=self.steps + 1,
            noise_draws=self.noise_draws + 1,
        )
        lost_now = self.first_unsolvable < 0 and not state.solvable(world)
        return replace(state, first_unsolvable=state.steps) if lost_now else state


def noise_uniform(seed: int, draw: int) -> float:
    """The uniform number in [0, 1) of that draw, from 0, of the noise with that seed."""
    return float(np.random.default_rng(np.random.SeedSequence([seed, draw])).random())


def good_choices(world: World, state: ChainState, *, noisy: bool) -> tuple[int, ...] | None:
    """The good choices from `state` to the end; None where they do not succeed.

    Args:
        noisy: whether good choices may fail by the noise that is to come, which is known; else none does.
    """
    choices = []
    while not state.over(world):
        choices.append(int(world.good[state.row(world)]))
        state = state.after(world, choices[-1], noisy=noisy)
    return tuple(choices) if state.position == world.steps and state.alive else None


class ActTool(BaseTool):
    """`act(choice)`: one choice in the present context or repair.

    The feedback names what comes next. It shows errors that need a repair, but no fatal ones.

    Args:
        world: where the choices are made.
        noisy: False has no good choice fail, whatever the family's noise.
    """

    name = "act"
    description = "Make one choice in the present context or repair, and learn which one comes next."

    def __init__(self, world: World, *, noisy: bool = True) -> None:
        self._world = world
        self.noisy = noisy
        self._last = world.n_actions - 1
        self.state = ChainState.begin(world, 0, 0)
        # No bounds in the schema: a choice out of range is the tool's own error, like any other choice that is wrong.
        self.parameters = {
            "type": "object",
            "properties": {"choice": {"type": "integer", "description": f"0 to {self._last}."}},
            "required": ["choice"],
            "additionalProperties": False,
        }

    @property
    def over(self) -> bool:
        """Whether no more choice can be made."""
        return self.state.over(self._world)

    @property
    def asked(self) -> str:
        """The present context or repair, as the agent is shown it."""
        return f"{_place(self._world, self.state)}. Choose 0-{self._last}."

    def take_up(self, prompt: int) -> None:
        """The prompt of the next `open`."""
        self.state = replace(self.state, prompt=prompt)

    def open(self, seed: int) -> None:
        self.state = ChainState.begin(self._world, self.state.prompt, seed)

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        choice = arguments["choice"]
        if self.over:
            return ToolResult("Error: there is nothing left to choose.", "error")
        if not 0 <= choice <= self._last:
            return ToolResult(f"Error: choice must be 0 to {self._last}. {self.asked}", "error")
        before = self.state
        self.state = before.after(self._world, int(choice), noisy=self.noisy)
        if self.state.in_repair:
            what = "the repair failed" if before.in_repair else "that needs a repair"
            if self.over:
                return ToolResult(f"Error: {what}, and no repair steps are left.", "error")
            return ToolResult(f"Error: {what}. {self.asked}", "error")
        done = "Repaired. " if before.in_repair else ""
        return ToolResult(f"{done}{'That was the last context.' if self.over else self.asked}")

    def snapshot(self) -> dict[str, Any]:
        return asdict(self.state)

    def restore(self, state: Any, reseed: int | None = None) -> None:
        try:
            restored = ChainState(**state)
        except TypeError as error:
            raise ValueError(f"the state of the tool act has an unexpected form: {error}") from error
        self.state = restored if reseed is None else replace(restored, noise_seed=reseed, noise_draws=0)


def first_question(world: World, prompt: int) -> str:
    """What the agent is asked at the beginning of a prompt."""
    begin = ChainState.begin(world, prompt, 0)
    return (
        f"Pass {world.steps} contexts; at most {world.spare} repair steps can be taken.\n"
        f"{_place(world, begin)}. Choose 0-{world.n_actions - 1}."
    )


def _place(world: World, state: ChainState) -> str:
    context = int(world.contexts[state.prompt, state.position])
    return f"{'Repair' if state.in_repair else 'Context'} {context}"
