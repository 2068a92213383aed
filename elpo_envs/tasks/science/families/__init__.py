"""The families: fields of physics and chemistry with their moves and typical mistakes."""

from __future__ import annotations

from elpo_envs.tasks.science.families.bodies import FLUIDS, MOTION, UNITS
from elpo_envs.tasks.science.families.chemistry import ELECTROLYSIS, GASES, MOLES, SOLUTIONS
from elpo_envs.tasks.science.families.energy import CIRCUITS, HEAT, WORK
from elpo_envs.tasks.science.families.quanta import DECAY, WAVES
from elpo_envs.tasks.science.move import Family

FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (MOLES, SOLUTIONS, GASES, ELECTROLYSIS, HEAT, WORK, CIRCUITS, MOTION, FLUIDS, UNITS, WAVES, DECAY)
}
