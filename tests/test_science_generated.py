"""The science generator and its tables: right values, right laws, solvable tasks, mistakes that show."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy
from _science_laws import FIELD_UNITS, LAWS
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs.grading.choice import grade_choice
from elpo_envs.grading.quantity import grade_quantity
from elpo_envs.tasks.base import ExpertTurn, Task
from elpo_envs.tasks.generated.source import split_of
from elpo_envs.tasks.science import FAMILIES, ScienceSource, corrupt, tables
from elpo_envs.tasks.science.constants import CONSTANTS, UNITS
from elpo_envs.tasks.science.entries import formula_mass
from elpo_envs.tasks.science.materials import ELEMENTS, ISOTOPES, METALS, SUBSTANCES
from elpo_envs.tasks.science.problem import far, significant
from elpo_envs.tools.search import SearchTool

SPLITS = ("train", "validation", "test")
_BOXED = re.compile(r"\\boxed\{(.*)\}")


def run_trace(turns: tuple[ExpertTurn, ...]) -> float:
    """What the last calculation of a trace prints, by plain execution of its code."""
    scope: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for turn in turns[1:-1]:
            for call in turn.tool_calls:
                assert call.name == "python"
                exec(call.arguments["code"], scope)
    return float(printed.getvalue().split()[-1])


def boxed(turns: tuple[ExpertTurn, ...]) -> str:
    assert not turns[-1].tool_calls
    found = _BOXED.search(turns[-1].content)
    assert found is not None
    return found[1]


def number(text: str) -> float:
    """The number of "12.3 kJ/mol"."""
    return float(text.split(" ")[0])


def check_expert(task: Task) -> None:
    value = run_trace(task.expert)
    assert 1e-12 <= value <= 1e12
    answer = boxed(task.expert)
    assert scores(task, task.expert[-1].content)
    if task.metadata["kind"] == "number":
        assert answer == f"{task.answer} {task.metadata['unit']}"
        assert task.answer == significant(value)
    else:
        assert answer == task.answer
        assert task.metadata["choices"]["ABCD".index(answer)].startswith(significant(value) + " ")


def scores(task: Task, response: str) -> bool:
    """What the graders say."""
    if task.metadata["kind"] == "choice":
        return grade_choice(response, task.answer, task.metadata["choices"]).correct
    return grade_quantity(response, task.answer, task.metadata["unit"], task.metadata["tolerance"]).correct


def check_options(task: Task) -> None:
    choices = task.metadata["choices"]
    assert len(choices) == 4
    assert all(far(number(a), number(b)) for a, b in combinations(choices, 2))
    assert all(1e-12 <= number(choice) <= 1e12 for choice in choices)
    assert task.question.split("\n")[1:] == [f"{letter}. {c}" for letter, c in zip("ABCD", choices, strict=True)]


def check_corruptions(task: Task) -> int:
    """Checks every single-step corruption; how many there are."""
    seen = 0
    for step in range(task.metadata["steps"]):
        turns = corrupt(task, step)
        if turns is None:
            continue
        seen += 1
        differing = [i for i, (a, b) in enumerate(zip(turns, task.expert, strict=True)) if a != b]
        assert differing == [step + 1, len(turns) - 1]
        wrong = run_trace(turns)
        answer = boxed(turns)
        assert not scores(task, turns[-1].content)
        if task.metadata["kind"] == "number":
            assert answer == f"{significant(wrong)} {task.metadata['unit']}"
            assert abs(number(answer) / float(task.answer) - 1) > 0.045
        else:
            assert answer in "ABCD"
            assert answer != task.answer
            choices = [number(choice) for choice in task.metadata["choices"]]
            assert answer == "ABCD"[int(np.argmin([abs(math.log(choice / wrong)) for choice in choices]))]
    return seen


def check_family(family: str, kind: str, count: int) -> None:
    source = ScienceSource("train", min_steps=2, max_steps=8, families=[family], kinds=[kind])
    passages = dict(tables())
    steps = corrupted = 0
    for index in range(count):
        task = source.get(index)
        assert task.metadata["family"] == family
        assert task.metadata["kind"] == kind
        assert 2 <= task.metadata["steps"] == len(task.expert) - 2 == len(task.metadata["pitfalls"]) <= 8
        assert json.loads(json.dumps(task.metadata)) == task.metadata
        check_expert(task)
        if kind == "choice":
            check_options(task)
        searches = [call.arguments["query"] for call in task.expert[0].tool_calls]
        assert searches == task.metadata["lookups"]
        assert searches
        assert all(title in passages for title in searches)
        steps += task.metadata["steps"]
        corrupted += check_corruptions(task)
    assert corrupted == steps if kind == "number" else corrupted > 0.65 * steps


@pytest.mark.parametrize("kind", ["choice", "number"])
@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_right_and_their_corruptions_wrong(family: str, kind: str) -> None:
    check_family(family, kind, 20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["choice", "number"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_thousand_experts_are_right_and_their_corruptions_wrong(family: str, kind: str) -> None:
    check_family(family, kind, 1000)


@cache
def registry() -> Any:
    return pytest.importorskip("pint", reason="pint, which checks the units, is not installed").UnitRegistry()


def entry_of(words: Mapping[str, str], slot: str, pool: Sequence[object]) -> object:
    """The entry of the pool that the sentence and its expression were filled from."""
    fields = {name[2:]: word for name, word in words.items() if name.startswith(f"{slot}.")}
    return next(entry for entry in pool if all(str(getattr(entry, f)) == word for f, word in fields.items()))


def quantity(u: Any, entry: object) -> SimpleNamespace:
    values = {f: getattr(entry, f) for f in FIELD_UNITS if isinstance(getattr(entry, f, None), int | float)}
    return SimpleNamespace(**{field: u.Quantity(value, FIELD_UNITS[field]) for field, value in values.items()})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_move_follows_its_law_with_the_right_units(family: str) -> None:
    """Each step again, with pint's units, factors and constants, from a formula written apart."""
    u = registry()
    assert set(LAWS[family]) == {move.name for move in FAMILIES[family].moves}
    source = ScienceSource("train", min_steps=8, max_steps=8, families=[family], kinds=["number"])
    met: Counter[str] = Counter()
    for index in range(40):
        before: Any = None
        for step in source.problem(index).steps:
            move = step.move
            met[move.name] += 1
            scope = {slot: float(step.words[slot]) for slot in "nmr"} | {"u": u, "x": before}
            pools = {"s": move.pool, "t": FAMILIES[family].theme}
            scope |= {slot: quantity(u, entry_of(step.words, slot, pool)) for slot, pool in pools.items() if pool}
            scope["log2"] = lambda ratio: math.log2(ratio.to("").magnitude)
            value = u.Quantity(eval(LAWS[family][move.name], scope)).to(move.target.unit)
            assert value.magnitude == pytest.approx(step.value, rel=1e-7), (move.name, step.words)
            before = u.Quantity(step.value, move.target.unit)
    assert set(met) == set(LAWS[family])


def test_the_openings_need_the_tables() -> None:
    for family in FAMILIES.values():
        for move in family.moves:
            if move.source is None:
                slots = set(re.findall(r"\{([\w.]+)\}", move.expr)) - {"n", "m", "r"}
                assert slots, (family.name, move.name)
            else:
                assert "{x}" in move.expr


def test_moves_lead_on_and_have_names_of_their_own() -> None:
    assert len(FAMILIES) >= 10
    for family in FAMILIES.values():
        sources = [move.source for move in family.moves]
        assert all(move.target in sources for move in family.moves)
        assert len({move.name for move in family.moves}) == len(family.moves)


def test_the_values_stated_are_those_of_the_passages() -> None:
    source = ScienceSource("train", min_steps=2, max_steps=4)
    passages = dict(tables())
    for index in range(300):
        for step in source.problem(index).steps:
            text = " ".join(passages[title] for title in step.lookups)
            code = step.code(step.move.expr)
            stated = {step.words[slot] for slot in "nmr"}
            fixed = set(re.findall(r"[\d.]+(?:e[+-]?\d+)?", re.sub(r"\{.*?\}", " ", step.move.expr + " q1")))
            used = re.findall(r"(?<![\w.])\d[\d.]*(?:e[+-]?\d+)?", code.replace("log2", ""))
            missing = [v for v in used if v not in stated | fixed and v not in text]
            assert not missing, (step.move.name, missing, text)


def test_each_step_depends_on_the_one_before() -> None:
    source = ScienceSource("train", min_steps=8, max_steps=8)
    for index in range(50):
        for before, step in pairwise(source.problem(index).steps):
            assert before.variable in step.code(step.move.expr)
            assert before.move is not step.move


@pytest.mark.parametrize("steps", range(2, 9))
def test_the_difficulty_knob_is_exact(steps: int) -> None:
    source = ScienceSource("test", min_steps=steps, max_steps=steps)
    assert all(source.get(i).metadata["steps"] == steps for i in range(20))


def test_all_numbers_of_steps_kinds_and_families_occur_evenly() -> None:
    tasks = [ScienceSource("train").get(i) for i in range(600)]
    assert set(Counter(t.metadata["family"] for t in tasks)) == set(FAMILIES)
    for field, n in (("steps", 3), ("kind", 2), ("family", 12)):
        counts = Counter(t.metadata[field] for t in tasks)
        assert len(counts) == n
        assert all(abs(c - 600 / n) < 5 * math.sqrt(600 / n) for c in counts.values()), counts


def test_neither_letters_nor_ranks_give_the_answer_away() -> None:
    source = ScienceSource("train", kinds=["choice"])
    letters: Counter[str] = Counter()
    ranks: Counter[int] = Counter()
    for index in range(800):
        task = source.get(index)
        letters[task.answer] += 1
        values = [number(choice) for choice in task.metadata["choices"]]
        ranks[sorted(values).index(values["ABCD".index(task.answer)])] += 1
    for counts in (letters, ranks):
        assert len(counts) == 4
        assert sum((c - 200) ** 2 / 200 for c in counts.values()) < 16.3  # chi-squared, 3 degrees, p = 0.001


@given(st.integers(0, 2**31 - 1), st.integers(0, 5), st.sampled_from(SPLITS))
@settings(max_examples=30, deadline=None)
def test_a_task_is_a_pure_function_of_its_index(index: int, seed: int, split: str) -> None:
    a = ScienceSource(split, min_steps=2, max_steps=6, seed=seed)
    b = ScienceSource(split, min_steps=2, max_steps=6, seed=seed, families=[*reversed(FAMILIES), "heat"])
    task = a.get(index)
    assert b.get(index) == task
    assert a.by_id(task.task_id) == task
    assert ScienceSource.from_id(task.task_id).get(index) == task


def test_an_id_names_all_that_its_task_depends_on() -> None:
    whole = ScienceSource("train")
    some = ScienceSource("train", families=["waves", "heat"], kinds=["number"], seed=3)
    assert whole.get(7).task_id == "science/train/0-2-4-choice+number/7"
    assert some.get(7).task_id == "science/train/3-2-4-number-heat+waves/7"
    assert ScienceSource.from_id(some.get(7).task_id).get(7) == some.get(7)


def test_splits_never_overlap_and_questions_rarely_repeat() -> None:
    questions: dict[str, set[str]] = {}
    for split, count in zip(SPLITS, (2000, 60, 60), strict=True):
        source = ScienceSource(split, min_steps=2, max_steps=2)
        stems = [source.problem(i).question for i in range(count)]
        questions[split] = set(stems)
        assert all(split_of(stem) == split for stem in stems)
        assert len(questions[split]) >= 0.995 * count
    for a, b in combinations(SPLITS, 2):
        assert not questions[a] & questions[b]


def test_tasks_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "import hashlib; from elpo_envs.tasks.science import ScienceSource, tables\n"
        "s = ScienceSource('validation', min_steps=2, max_steps=8)\n"
        "print(hashlib.sha256(repr([[s.get(i) for i in range(12)], tables()]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_generation_leaves_the_global_generators_alone() -> None:
    state = np.random.get_state()[1].tolist()
    ScienceSource("train", min_steps=8, max_steps=8).get(0)
    assert np.random.get_state()[1].tolist() == state


def test_quantities_stay_within_the_bounds_of_their_kinds() -> None:
    source = ScienceSource("train", min_steps=8, max_steps=8)
    for index in range(100):
        for step in source.problem(index).steps:
            assert step.move.target.low <= step.value <= step.move.target.high
    for family in FAMILIES.values():
        for kind in {move.target for move in family.moves}:
            assert 0 < kind.low < kind.high
            if kind.unit in ("m/s", "km/s"):
                assert kind.high * (1000 if kind.unit == "km/s" else 1) < 0.05 * 299792458


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"split": "dev"}, "split='dev'"),
        ({"min_steps": 1}, "min_steps=1"),
        ({"max_steps": 9}, "max_steps=9"),
        ({"min_steps": 5, "max_steps": 4}, "min_steps=5"),
        ({"families": ["alchemy"]}, "alchemy"),
        ({"families": []}, "families"),
        ({"kinds": ["essay"]}, "essay"),
        ({"kinds": []}, "kinds"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        ScienceSource(**kwargs)


@pytest.mark.parametrize(
    "task_id",
    [
        "gsm8k/train/3",
        "science/train/0-2-4/3",
        "science/train/0-2-4-number+choice/3",
        "science/train/0-2-4-number-alchemy/3",
        "science/train/0-2-4-choice+number/x",
        "science/train/0-2-4-choice+number/03",
        "science/train/0-2-4-choice+number/2147483648",
        "science/train/0-2-4-choice+number/" + "9" * 5000,
        "science/train/00-2-4-choice+number/3",
        "other/train/0-2-4-choice+number/3",
    ],
)
def test_foreign_ids_are_refused(task_id: str) -> None:
    with pytest.raises(KeyError, match=re.escape(task_id)):
        ScienceSource("train").by_id(task_id)
    with pytest.raises(KeyError, match=re.escape(task_id)):
        ScienceSource.from_id(task_id).by_id(task_id)


def test_indices_and_steps_out_of_range_are_refused() -> None:
    source = ScienceSource("train")
    with pytest.raises(IndexError, match="-1"):
        source.get(-1)
    with pytest.raises(IndexError, match="step=9"):
        corrupt(source.get(0), 9)


def test_titles_are_unique_and_passages_short() -> None:
    titles = [title for title, _ in tables()]
    assert len(set(titles)) == len(titles) > 200
    assert all(0 < len(text) < 400 for _, text in tables())
    assert len(ELEMENTS) >= 40
    assert len(SUBSTANCES) >= 30


def test_the_search_tool_finds_every_passage_by_its_title() -> None:
    tool = SearchTool()
    tool.open(0)
    for title, text in tables():
        assert text in tool.call({"query": title, "k": 1}).text, title


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("c", "speed of light in vacuum"),
        ("h", "Planck constant"),
        ("e", "elementary charge"),
        ("N_A", "Avogadro constant"),
        ("k_B", "Boltzmann constant"),
        ("R", "molar gas constant"),
        ("F", "Faraday constant"),
        ("G", "Newtonian constant of gravitation"),
        ("g", "standard acceleration of gravity"),
        ("atm", "standard atmosphere"),
        ("m_e", "electron mass"),
        ("m_p", "proton mass"),
        ("m_n", "neutron mass"),
        ("u", "atomic mass constant"),
        ("eps_0", "vacuum electric permittivity"),
        ("mu_0", "vacuum mag. permeability"),
        ("sigma", "Stefan-Boltzmann constant"),
        ("b", "Wien wavelength displacement law constant"),
        ("R_inf", "Rydberg constant"),
        ("a_0", "Bohr radius"),
        ("alpha", "fine-structure constant"),
    ],
)
def test_constants_are_those_of_scipy(key: str, name: str) -> None:
    if tuple(int(part) for part in scipy.__version__.split(".")[:2]) < (1, 15):
        pytest.skip("this scipy has the constants of CODATA 2018")
    value, _, _ = scipy.constants.physical_constants[name]
    ours = next(constant for constant in CONSTANTS if constant.key == key)
    assert ours.value == pytest.approx(value, rel=1e-9)


def test_every_constant_is_compared_with_scipy_but_one() -> None:
    compared = {mark.args[1][i][0] for mark in test_constants_are_those_of_scipy.pytestmark for i in range(21)}  # type: ignore[attr-defined]
    assert {constant.key for constant in CONSTANTS} - compared == {"T0"}
    assert scipy.constants.zero_Celsius == 273.15


def test_units_are_those_of_pint() -> None:
    u = registry()
    theirs = {"gallon": "US_liquid_gallon", "horsepower": "horsepower", "mmHg": "mmHg", "tonne": "metric_ton"}
    theirs["acre"] = "4840 * yard**2"  # the international one; pint's is that of the US survey
    for unit in UNITS:
        value = u(theirs.get(unit.key, unit.key)).to(unit.unit).magnitude
        assert unit.value == pytest.approx(value, rel=1e-6), unit.name


@pytest.mark.parametrize(
    ("formula", "mass"),
    [("H2O", 18.015), ("Ca(NO3)2", 164.086), ("C12H22O11", 342.297), ("NaCl", 58.44), ("Al2O3", 101.961)],
)
def test_molar_masses_follow_from_the_elements(formula: str, mass: float) -> None:
    masses = {element.symbol: element.molar_mass for element in ELEMENTS}
    assert formula_mass(formula, masses) == pytest.approx(mass, abs=0.0005)


def test_the_tables_hang_together() -> None:
    assert all(a.number < b.number for a, b in pairwise(ELEMENTS))
    assert all(
        s.melting_point is None or s.boiling_point is None or s.melting_point < s.boiling_point for s in SUBSTANCES
    )
    # Dulong and Petit: the molar heat capacity of metals is near 3 R.
    for metal in METALS:
        assert metal.specific_heat is not None
        assert metal.molar_mass is not None
        assert 0.85 < metal.specific_heat * metal.molar_mass / (3 * 8.314) < 1.25, metal.name
    assert all(isotope.half_life > 0 and isotope.name.endswith(str(isotope.molar_mass)) for isotope in ISOTOPES)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.345678, "12.35"),
        (0.00012345, "0.0001234"),
        (0.000012345, "1.234e-5"),
        (123456.0, "123500"),
        (999950.0, "1.000e6"),
        (1234567.0, "1.235e6"),
        (2.0, "2.000"),
    ],
)
def test_answers_have_four_significant_figures(value: float, text: str) -> None:
    assert significant(value) == text
