"""All families by name: of functions to write or repair, and of programs whose output is to be predicted."""

from __future__ import annotations

from elpo_envs.tasks.programs.mappings import COUNTS, RECORDS
from elpo_envs.tasks.programs.numbers import NUMBER
from elpo_envs.tasks.programs.operation import Family, PrintingFamily
from elpo_envs.tasks.programs.points import POINTS
from elpo_envs.tasks.programs.printing_functions import CLOSURES, EXCEPTIONS, GENERATORS
from elpo_envs.tasks.programs.printing_objects import ALIASING, CLASSES
from elpo_envs.tasks.programs.printing_texts import DICT_ORDER, METHODS, SLICES
from elpo_envs.tasks.programs.printing_values import ARITHMETIC, CONDITIONS, LOOPS
from elpo_envs.tasks.programs.sequences import LIST, NESTED
from elpo_envs.tasks.programs.shapes import GRID, INTERVALS
from elpo_envs.tasks.programs.texts import STRING, WORDS
from elpo_envs.tasks.programs.times import TIMES

FUNCTION_FAMILIES: dict[str, Family] = {
    f.name: f for f in (LIST, STRING, NUMBER, WORDS, COUNTS, INTERVALS, GRID, RECORDS, POINTS, NESTED, TIMES)
}
PRINTING_FAMILIES: dict[str, PrintingFamily] = {
    f.name: f
    for f in (
        LOOPS,
        CONDITIONS,
        ARITHMETIC,
        SLICES,
        METHODS,
        DICT_ORDER,
        CLOSURES,
        GENERATORS,
        EXCEPTIONS,
        CLASSES,
        ALIASING,
    )
}
