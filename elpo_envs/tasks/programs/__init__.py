"""Endless programming tasks with expert traces and a difficulty knob: write, predict, repair."""

from elpo_envs.tasks.programs.families import FUNCTION_FAMILIES, PRINTING_FAMILIES
from elpo_envs.tasks.programs.source import KINDS, ProgramSource, split_of

__all__ = ["FUNCTION_FAMILIES", "KINDS", "PRINTING_FAMILIES", "ProgramSource", "split_of"]
