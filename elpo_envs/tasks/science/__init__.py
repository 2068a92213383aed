"""Endless physics and chemistry questions that need reference tables and calculation."""

from elpo_envs.tasks.science.families import FAMILIES
from elpo_envs.tasks.science.source import ScienceSource, corrupt
from elpo_envs.tasks.science.tables import tables

__all__ = ["FAMILIES", "ScienceSource", "corrupt", "tables"]
