"""The prompts of an exact world as tasks."""

from __future__ import annotations

from elpo_envs.exact.act import ActTool, first_question
from elpo_envs.exact.world import World
from elpo_envs.tasks.base import ExpertTurn, Task, ToolCall

PASSED, FAILED = "passed", "failed"
SPLIT = "train"


class ChainSource:
    """One task for each prompt of a world, in their order.

    Args:
        world: whose prompts they are.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.name = f"exact/{world.family.name}/{world.seed}"
        self.split = SPLIT

    @property
    def size(self) -> int:
        """P."""
        return self._world.n_prompts

    def get(self, index: int) -> Task:
        """The task of that prompt. Its expert is that of a world without noise; a noisy one has none here.

        Raises:
            IndexError: there is no such prompt.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"index={index} is out of range; {self.name} has the tasks 0 to {self.size - 1}")
        world = self._world
        choices = world.good[world.contexts[index]].tolist() if world.family.noise == 0.0 else []
        return Task(
            task_id=f"{self.name}/{index}",
            index=index,
            split=self.split,
            question=first_question(world, index),
            answer=PASSED,
            expert=tuple(act_turn(choice) for choice in choices),
            metadata={"family": world.family.name, "world_seed": world.seed, "prompt": index, "steps": world.steps},
        )

    def by_id(self, task_id: str) -> Task:
        """The task with that id. Raises KeyError naming the id."""
        name, _, number = task_id.rpartition("/")
        if name != self.name or not (number.isascii() and number.isdecimal()) or int(number) >= self.size:
            raise KeyError(f"task_id={task_id!r} is none of {self.name}/0 to {self.name}/{self.size - 1}")
        return self.get(int(number))


def act_turn(*choices: int) -> ExpertTurn:
    """The turn that makes these choices."""
    return ExpertTurn("", tuple(ToolCall(ActTool.name, {"choice": choice}) for choice in choices))
