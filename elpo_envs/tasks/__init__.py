"""Tasks and where they come from."""

from elpo_envs.tasks.base import ExpertTurn, Task, TaskSource, ToolCall

__all__ = ["ExpertTurn", "Task", "TaskSource", "ToolCall"]
