# ruff: noqa: RUF001 (the signs that people write are the matter here)
"""The grader of numbers with units: notations, conversion, tolerance, bounds, threads, and the real data."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs.grading.dimension import atom
from elpo_envs.grading.quantity import Quantity, grade_quantity, read_quantity

# The number that a box writes, without a unit.
NUMBERS = [
    ("5", 5.0),
    ("+5", 5.0),
    ("-5.0", -5.0),
    ("−2", -2.0),
    ("5.", 5.0),
    (".5", 0.5),
    ("1,234", 1234.0),
    ("1,234,567.5", 1234567.5),
    ("1{,}234", 1234.0),
    (r"1\,234", 1234.0),
    ("1\u202f234", 1234.0),
    ("1.6e-19", 1.6e-19),
    ("1.6E-19", 1.6e-19),
    (r"1.6 \times 10^{-19}", 1.6e-19),
    (r"1.6\times10^{-19}", 1.6e-19),
    (r"1.6 \cdot 10^{-19}", 1.6e-19),
    ("1.6 × 10⁻¹⁹", 1.6e-19),
    ("1.6*10^-19", 1.6e-19),
    ("1.6*10**-19", 1.6e-19),
    ("1.6 x 10^-19", 1.6e-19),
    ("1.6x10^{-19}", 1.6e-19),
    ("1.6 10^{-19}", 1.6e-19),
    ("10^{6}", 1e6),
    (r"-10^6", -1e6),
    (r"\frac{3}{4}", 0.75),
    (r"\dfrac{3}{4}", 0.75),
    (r"\frac34", 0.75),
    (r"-\frac{3}{4}", -0.75),
    ("3/4", 0.75),
    ("1 1/2", 1.5),
    (r"1\frac{1}{2}", 1.5),
    ("2½", 2.5),
    (r"\frac{\pi}{2}", math.pi / 2),
    (r"2\pi", 2 * math.pi),
    (r"2\sqrt{3}", 2 * math.sqrt(3)),
    (r"\sqrt{2}", math.sqrt(2)),
    ("2π", 2 * math.pi),
    (r"\frac{1}{2\pi}", 1 / (2 * math.pi)),
    ("$5$", 5.0),
    (r"\text{5}", 5.0),
    ("(5)", 5.0),
    ("２５", 25.0),
    ("3 × 2", 6.0),
    ("2^{10}", 1024.0),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_number(text: str, value: float) -> None:
    read = read_quantity(text)
    assert isinstance(read, Quantity), read
    assert read.value == pytest.approx(value, rel=1e-12)
    assert read.units == ()


# Answer, gold, unit of the gold; right.
RIGHT = [
    ("5 m", "5", "m"),
    ("5", "5", "m"),
    (r"5\text{ m}", "5", "m"),
    (r"5~\mathrm{m}", "5", "m"),
    ("5m", "5", "m"),
    ("500 cm", "5", "m"),
    ("0.005 km", "5", "m"),
    (r"9.8\text{ m/s}^2", "9.8", "m/s^2"),
    ("9.8 m/s²", "9.8", "m/s^2"),
    ("9.8 m s⁻²", "9.8", "m/s^2"),
    ("9.8 m·s^-2", "9.8", "m/s^2"),
    ("9.8 m s-2", "9.8", "m/s^2"),
    ("9.8 m/s/s", "9.8", "m/s^2"),
    (r"9.8\,\frac{\text{m}}{\text{s}^2}", "9.8", "m/s^2"),
    ("9.8 meters per second squared", "9.8", "m/s^2"),
    ("9.8 m/s squared", "9.8", "m/s^2"),
    ("9.8 N/kg", "9.8", "m/s^2"),
    ("980 cm/s^2", "9.8", "m/s^2"),
    ("36 km/h", "10", "m/s"),
    ("22.37 mph", "10", "m/s"),
    (r"-285.8\ \mathrm{kJ\,mol^{-1}}", "-285.8", "kJ/mol"),
    ("-285800 J/mol", "-285.8", "kJ/mol"),
    ("-68.31 kcal/mol", "-285.8", "kJ/mol"),
    (r"8.314\,\mathrm{JK}^{-1}\mathrm{mol}^{-1}", "8.314", "J/(mol K)"),
    ("8.314 J/mol K", "8.314", r"$\mathrm{J} \mathrm{K}^{-1} \mathrm{~mol}^{-1}$"),
    ("8.314 J/mol·K", "8.314", "J K^-1 mol^-1"),
    ("8.314 J/K/mol", "8.314", "J/(mol*K)"),
    (r"47~\Omega", "47", "ohm"),
    (r"4.7\,\mathrm{k}\Omega", "4700", "Ω"),
    (r"4.7\,k\Omega", "4700", r"$\Omega$"),
    ("4.7 kΩ", "4700", "ohm"),
    (r"3.0\,\mu\mathrm{C}", "3.0", "µC"),
    ("3.0 μC", "3.0", r"$\mu \mathrm{C}$"),
    ("3.0e-6 C", "3.0", "µC"),
    ("25 °C", "298.15", "K"),
    (r"25^\circ\text{C}", "298.15", "K"),
    (r"25^{\circ}\mathrm{C}", "25", r"${ }^{\circ} \mathrm{C}$"),
    ("298.15 K", "25", "°C"),
    ("77 °F", "25", "°C"),
    ("77 degrees Fahrenheit", "25", "°C"),
    ("25 degrees Celsius", "25", "°C"),
    ("25 ℃", "25", "°C"),
    (r"4.18\ \text{J/(g °C)}", "4.18", "J/(g K)"),
    (r"30^\circ", "30", r"$^{\circ}$"),
    ("30 degrees", "30", "°"),
    (r"\frac{\pi}{6}", "0.5236", "rad"),
    (r"\frac{\pi}{6} \text{ rad}", "30", "°"),
    ("50%", "50", "%"),
    (r"50\%", "50", "%"),
    ("50", "50", "%"),
    ("50%", "0.5", ""),
    ("50%", "50", ""),
    (r"30^\circ", "30", ""),
    (r"1.91\times10^{-47}\ \mathrm{kg\,m^2}", "1.91", r"$10^{-47} \mathrm{~kg} \mathrm{~m}^2$"),
    ("1.91", "1.91", r"$10^{-47} \mathrm{~kg} \mathrm{~m}^2$"),
    ("1.91e-47", "1.91", r"$10^{-47} \mathrm{~kg} \mathrm{~m}^2$"),
    ("1.4 kJ", "1.4", " 10^3 J"),
    ("1400", "1.4", " 10^3 J"),
    ("2000 km", "2", "$10^6$ m"),
    ("$89,034.79", "89,034.79", "$"),
    (r"\$89,034.79", "89034.79", r"$\$$"),
    ("89034.79 dollars", "89034.79", "$"),
    (r"-\$5", "-5", "$"),
    ("30 psi", "30", r"$\mathrm{lb} \mathrm{in}^{-2}$"),
    ("12 ft-lb", "12", r"$\mathrm{ft-lb}$"),
    ("16.27 J", "12", "ft-lb"),
    ("2 kg", "4.409", "lb"),
    ("10 N", "2.248", "lb"),
    ("3 Nm", "3", "N m"),
    (r"3\text{ N}\cdot\text{m}", "3", "J"),
    ("1.5 Å", "0.15", "nm"),
    ("1 atm", "101.325", "kPa"),
    ("760 torr", "1", "atm"),
    ("1 L", "1000", "cm^3"),
    ("1 dm^3", "1", "L"),
    ("5 cubic meters", "5", "m^3"),
    ("5 square kilometers", "5e6", "m^2"),
    ("13.6 eV", "2.179e-18", "J"),
    ("1 Debye", "1", r"$\mathrm{D}$"),
    ("1 AU", "1.496e11", "m"),
    ("1.0 M", "1.0", "mol/L"),
    ("1.5 x 10^{15} photons/s", "1.5e15", "s^-1"),
    ("0.6 c", "1.8e8", "m/s"),
    ("5 million years", "5e6", "years"),
    ("60 Joules", "60", "J"),
    ("1 day", "24", "hours"),
    ("20 dB", "20", "dB"),
    ("v = 5 m/s", "5", "m/s"),
    (r"v \approx 5.0\ \text{m/s}", "5", "m/s"),
    (r"F_{\text{net}} = 5\text{ N}", "5", "N"),
    ("5 m/s = 18 km/h", "5", "m/s"),
    (r"\text{v = 5 m/s}", "5", "m/s"),
    ("5.04 m", "5", "m"),
    ("-5.04 m", "-5", "m"),
    ("0", "0", "m"),
    (r"5\,\text{N}\,\hat{\mathrm{i}}", "5", r"$\mathrm{~N} \hat{\mathrm{i}}$"),
    (r"1.3\times10^{-18}\ \text{J}", "1.3", r"$10^{-18} \mathrm{~J} / \alpha \text {-particle}$"),
    ("5 blorps", "5", "blorps"),
    ("5", "5", "blorps"),
    ("5 m/s east.", "5", "m/s"),
    (r"\(5\ \si{m/s}\)", "5", "m/s"),
    ("1 T", "1e4", "gauss"),
    ("0.0821 L·atm/(mol·K)", "8.319", "J/(mol K)"),
    ("5 W/(m^2·K)", "5", "W m^-2 K^-1"),
    (r"\text{5.0 m/s}", "5", "m/s"),
    (r"5 \, {\rm m/s}", "5", "m/s"),
    ("5 MeV/c^2", "8.913e-30", "kg"),
    ("5 times 10^3", "5000", ""),
    (r"6.67\times10^{-11}\,\mathrm{N\cdot m^2/kg^2}", "6.67e-11", "m^3 kg^-1 s^-2"),
]

WRONG = [
    ("5.06 m", "5", "m", "number"),
    ("-5 m", "5", "m", "number"),
    ("5 cm", "5", "m", "converted"),
    ("5 s", "5", "m", "units"),
    ("5 MW", "5", "mW", "converted"),
    ("5 mW", "5", "MW", "converted"),
    ("5 blorps", "5", "m", "units"),
    ("5 m", "5", "blorps", "units"),
    ("5 m", "5", "", "units"),
    ("5x", "5", "", "units"),
    ("5e^{-3}", "5", "", "units"),
    ("0.5", "50", "%", "number"),
    ("3,14", "3.14", "", "unreadable"),
    ("3,14", "314", "", "unreadable"),
    ("0,123", "123", "", "unreadable"),
    ("1,2345", "12345", "", "unreadable"),
    ("1,00,000", "100000", "", "unreadable"),
    ("1.234.567", "1234567", "", "unreadable"),
    ("1.6 x 10-19", "1.6e-19", "", "unreadable"),
    ("5, 6", "5", "", "unreadable"),
    ("5 or 6", "5", "", "unreadable"),
    ("5 m and 6 m", "5", "m", "unreadable"),
    ("5 6", "5", "", "unreadable"),
    ("3 + 2", "5", "", "unreadable"),
    (r"5 \pm 1", "5", "", "unreadable"),
    ("nan", "5", "", "unreadable"),
    ("inf", "5", "", "unreadable"),
    (r"\infty", "5", "", "unreadable"),
    ("five", "5", "", "unreadable"),
    ("m", "5", "m", "unreadable"),
    ("1e999", "5", "", "too_large"),
    ("10^{999999999}", "5", "", "too_large"),
    ("10^{10^{10}}", "5", "", "unreadable"),
    ("9^{300}^{300}", "5", "", "unreadable"),
    ("9" * 350, "5", "", "too_large"),
    ("5" + " " * 500 + "m", "5", "m", "too_long"),
    ("1/0", "5", "", "unreadable"),
    (r"\frac{1}{0}", "5", "", "unreadable"),
    (r"\sqrt{-1}", "1", "", "unreadable"),
    ("5 m^{99}", "5", "m", "unreadable"),
    ("5 = 7", "5", "", "number"),
    ("7 = 5", "5", "", "number"),
    ("x =", "5", "", "unreadable"),
    ("x != 5", "5", "", "unreadable"),
    ("x >= 5", "5", "", "unreadable"),
    (r"x \ne 5", "5", "", "unreadable"),
    ("> 5", "5", "", "unreadable"),
    ("5-6", "5", "", "unreadable"),
    ("5 (not 6)", "5", "", "units"),
    ("5 m/s = 5 km/h", "5", "m/s", "converted"),
    ("1.91 kg m^2", "1.91", "10^{-47} kg m^2", "converted"),
    ("25 K", "25", "°C", "converted"),
    ("25 °C", "25", "°F", "converted"),
    ("5 $", "5", "€", "units"),
    ("20 dB", "20", "", "units"),
    ("__import__('os').system('true')", "5", "", "unreadable"),
    ("5 __class__", "5", "", "unreadable"),
    (r"5 \text{m", "5", "m", "no_answer"),
    ("1e-8", "0", "m", "number"),
    ("5", "five", "m", "bad_gold"),
    ("5", "5", "m^{99}", "bad_gold"),
]


@pytest.mark.parametrize(("answer", "gold", "unit"), RIGHT)
def test_right(answer: str, gold: str, unit: str) -> None:
    grade = grade_quantity(rf"So \boxed{{{answer}}}.", gold, unit)
    assert grade.correct, grade
    assert grade.method in ("number", "converted")


@pytest.mark.parametrize(("answer", "gold", "unit", "method"), WRONG)
def test_wrong(answer: str, gold: str, unit: str, method: str) -> None:
    grade = grade_quantity(rf"So \boxed{{{answer}}}.", gold, unit)
    assert not grade.correct, grade
    assert grade.method == method, grade


@pytest.mark.parametrize(
    ("response", "correct", "method"),
    [
        ("It is 5 m.", False, "no_answer"),
        (r"\boxed{}", False, "no_answer"),
        (r"\boxed{5 m} and \boxed{500 cm}", True, "number"),
        (r"\boxed{5 m} and \boxed{5}", True, "number"),
        (r"\boxed{5 m} and \boxed{6 m}", False, "ambiguous"),
        (r"\boxed{6 m} and \boxed{5 m}", False, "ambiguous"),
        (r"\boxed{5 m} and \boxed{5 s}", False, "ambiguous"),
        (r"\boxed{5 m} and \boxed{about five}", False, "ambiguous"),
        (r"\boxed{7 m} and \boxed{700 cm}", False, "number"),
        (r"<tool_response>\boxed{5 m}</tool_response>", False, "no_answer"),
        (r"<tool_call>\boxed{5 m}</tool_call> \boxed{6 m}", False, "number"),
    ],
)
def test_turn(response: str, correct: bool, method: str) -> None:
    grade = grade_quantity(response, "5", "m")
    assert (grade.correct, grade.method) == (correct, method)


def test_tolerances() -> None:
    def right(answer: str, gold: str, relative: float, absolute: float = 0.0) -> bool:
        return grade_quantity(rf"\boxed{{{answer}}}", gold, "m", relative, absolute).correct

    assert right("101", "100", 0.01)
    assert right("99", "100", 0.01)
    assert not right("101.01", "100", 0.01)
    assert right("-101", "-100", 0.01)
    assert not right("-101.01", "-100", 0.01)
    assert right("100", "100", 0.0)
    assert right("0.1", "0.10", 0.0)
    assert not right("100.0001", "100", 0.0)
    assert right("100.4", "100", 0.0, 0.5)
    assert right("40 cm", "0", 0.01, 0.5)
    assert not right("60 cm", "0", 0.01, 0.5)
    assert right("1e-10", "0", 0.01)
    assert not right("1e-8", "0", 0.01)
    with pytest.raises(ValueError, match="relative_tolerance"):
        right("1", "1", -0.1)
    with pytest.raises(ValueError, match="absolute_tolerance"):
        right("1", "1", 0.1, math.nan)


def test_case_matters_and_pint_is_asked_for_single_names() -> None:
    assert atom("MW").factor / atom("mW").factor == pytest.approx(1e9)
    assert atom("Pa").dimension != atom("PA").dimension
    with pytest.raises(ValueError, match="not a known unit"):
        atom("boltzmann")


_UNITS = [
    "m",
    "km/h",
    "kJ mol^{-1}",
    r"\mathrm{J} / (\mathrm{kg K})",
    "µC",
    "°C",
    "ohm",
    "N/C",
    "10^{-3} m",
    "lb",
    "%",
    "",
]
_DRESSES = [
    "{:.6e}",
    r"{m} \times 10^{{{e}}}",
    "{m} × 10^{e}",
    "{m}*10^{e}",
    "{m}e{e}",
    "{m} x 10^{{{e}}}",
    r"{m}\cdot10^{{{e}}}",
]


@settings(max_examples=120, deadline=None)
@given(st.floats(1, 9.99), st.integers(-25, 25), st.booleans(), st.sampled_from(_DRESSES), st.sampled_from(_UNITS))
def test_every_notation_and_unit_grades_right_against_itself(
    mantissa: float, exponent: int, negative: bool, dress: str, unit: str
) -> None:
    number = f"{'-' if negative else ''}{mantissa:.6f}"
    gold = f"{number}e{exponent}"
    answer = dress.format(float(gold), m=number, e=exponent)
    assert grade_quantity(rf"\boxed{{{answer}}}", gold, unit, 1e-5).correct
    if not unit.startswith("10"):
        spelled = unit.replace("%", r"\%")
        assert grade_quantity(rf"\boxed{{{answer}\ {spelled}}}", gold, unit, 1e-5).correct
    wrong = dress.format(float(gold) * 1.1, m=f"{float(number) * 1.1:.6f}", e=exponent)
    assert not grade_quantity(rf"\boxed{{{wrong}}}", gold, unit, 1e-5).correct


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.001, 1000),
    st.sampled_from([("m", "ft"), ("J", "eV"), ("Pa", "atm"), ("kg", "lb"), ("s", "yr"), ("K", "°F")]),
)
def test_conversion_is_symmetric(value: float, pair: tuple[str, str]) -> None:
    here, there = (atom("degree_Fahrenheit" if name == "°F" else name) for name in pair)
    other = (value * here.factor + here.offset - there.offset) / there.factor
    assert grade_quantity(rf"\boxed{{{other!r} {pair[1]}}}", repr(value), pair[0], 1e-6, 1e-6).correct
    assert grade_quantity(rf"\boxed{{{value!r} {pair[0]}}}", repr(other), pair[1], 1e-6, 1e-6).correct


_PIECES = st.sampled_from(
    [*r"0123456789.,-+/*^(){}$%=\ eExXmskgJKNΩµ°⁻²½", r"\frac", r"\text{", r"\sqrt", r"\times", "10^", "per"]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=25).map("".join)), st.text(max_size=8))
def test_never_raises(text: str, unit: str) -> None:
    assert grade_quantity(text, text, unit).correct in (True, False)
    for answer, gold, measure in ((text, "5", "m"), ("5 m", text, "m"), ("5 m", "5", text), (text, "5", unit)):
        grade = grade_quantity(rf"\boxed{{{answer}}}", gold, measure)
        assert grade.correct in (True, False)


def test_many_threads_give_the_same_verdicts() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from elpo_envs.grading.quantity import grade_quantity\n"
        "units = ['km', 'mile', 'inch', 'foot', 'yard', 'parsec', 'cm', 'mm', 'nm', 'angstrom', 'furlong', 'fathom']\n"
        "run = lambda u: grade_quantity(r'\\boxed{1 %s}' % u, '1000', 'm')\n"
        "with ThreadPoolExecutor(8) as pool: first = list(pool.map(run, units * 8))\n"
        "assert first == [run(u) for u in units * 8]\n"
        "print([g.correct for g in first[:12]].count(True), {g.method for g in first})\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.strip() == "1 {'converted'}"  # the first questions of a fresh registry, all at once
    cases = [(rf"\boxed{{{answer}}}", gold, unit) for answer, gold, unit in RIGHT] * 4
    with ThreadPoolExecutor(8) as pool:
        assert all(grade.correct for grade in pool.map(lambda case: grade_quantity(*case), cases))


def test_hostile_answers_take_little_time() -> None:
    grade_quantity(r"\boxed{1 m}", "1", "m")
    hostile = [
        "(" * 399, "{" * 200 + "}" * 200, r"\frac{1}{" * 40 + "1" + "}" * 40, r"\sqrt{" * 50 + "2" + "}" * 50,
        "9^9" * 130, "1 " + "m*" * 190 + "m", "1 " + "(" * 190 + "m" + ")" * 190, "1" + "/1" * 190, "1," * 199,
        "$" * 399,
        "1 " + "a" * 390, "1 " + "J/K " * 90, "^{" * 190, r"\text{" * 60, "=" * 390, "1=" * 190, "1" * 399, "µ" * 399,
    ]  # fmt: skip
    started = time.perf_counter()
    for answer in hostile:
        grade_quantity(rf"\boxed{{{answer}}}", "5", "m")
    for answer in (rf"\boxed{{{'1=' * 500_000}}}", r"\boxed{" * 150_000, "1 " * 500_000):
        assert not grade_quantity(answer, "5", "m").correct
    assert time.perf_counter() - started < 5.0


def test_scibench() -> None:
    folder = os.environ.get("ELPO_DATA")
    if folder is None:
        pytest.skip("ELPO_DATA is not set; it names a folder with the real data sets")
    with gzip.open(Path(folder) / "scibench.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    missed = []
    for row in rows:
        unit = row.get("unit") or ""
        for answer in (row["answer"], f"{row['answer']} {unit}"):
            grade = grade_quantity(rf"\boxed{{{answer}}}", row["answer"], unit)
            if not grade.correct:
                missed.append((row["id"], answer, grade.method, grade.note))
        number = float(row["answer"].replace(",", "").replace("−", "-"))
        assert not grade_quantity(rf"\boxed{{{number * 1.05 + 1e-7!r} {unit}}}", row["answer"], unit).correct
    assert len(missed) <= 0.01 * len(rows), missed
