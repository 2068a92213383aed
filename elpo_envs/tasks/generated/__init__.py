"""Endless multi-step word problems with expert traces and a difficulty knob."""

from elpo_envs.tasks.generated.families import FAMILIES
from elpo_envs.tasks.generated.source import GeneratedSource
from elpo_envs.tasks.generated.traces import MistakeRates, expert_trace, student_trace

__all__ = ["FAMILIES", "GeneratedSource", "MistakeRates", "expert_trace", "student_trace"]
