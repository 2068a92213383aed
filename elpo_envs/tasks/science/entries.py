"""The kinds of entries that the reference tables are made of; each is one short passage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Constant:
    """A physical constant.

    Attributes:
        key: how formulas and templates name it.
        name: its full name.
        value: in `unit`.
        exact: by definition, as opposed to measured.
    """

    key: str
    name: str
    value: float
    unit: str
    exact: bool = False

    @property
    def title(self) -> str:
        return self.name

    @property
    def text(self) -> str:
        kind = "exact by definition" if self.exact else "CODATA 2022 recommended value"
        return f"{self.name}: {self.key} = {f'{self.value!r} {self.unit}'.strip()} ({kind})."


@dataclass(frozen=True)
class UnitFactor:
    """A unit outside the SI.

    Attributes:
        key: how templates name it; `name`: its full name; `symbol`: how it is written.
        value: one of it in `unit`.
        measures: the quantity it is a unit of.
    """

    key: str
    name: str
    symbol: str
    value: float
    unit: str
    measures: str

    @property
    def title(self) -> str:
        return f"Unit of {self.measures}: {self.name} ({self.symbol})"

    @property
    def text(self) -> str:
        return f"1 {self.name} (1 {self.symbol}) = {self.value!r} {self.unit}."


@dataclass(frozen=True)
class Element:
    """A chemical element; `molar_mass` in g/mol, `charge` the usual charge of its ion in electrolysis (0: none)."""

    symbol: str
    name: str
    number: int
    molar_mass: float
    charge: int = 0

    @property
    def title(self) -> str:
        return f"Element {self.name} ({self.symbol})"

    @property
    def text(self) -> str:
        ion = f" Its usual ion is {self.symbol}{self.charge}+." if self.charge else ""
        return f"{self.name} ({self.symbol}), atomic number {self.number}. Molar mass {self.molar_mass!r} g/mol.{ion}"


_LINES = {
    "molar_mass": ("molar mass", "g/mol"),
    "density": ("density", "g/cm^3"),
    "specific_heat": ("specific heat capacity", "J/(g K)"),
    "melting_point": ("melting point", "°C"),
    "boiling_point": ("boiling point", "°C"),
    "fusion": ("specific heat of fusion", "J/g"),
    "vaporisation": ("specific heat of vaporisation", "J/g"),
    "resistivity": ("electrical resistivity", "ohm m"),
    "refractive_index": ("refractive index", ""),
    "work_function": ("work function", "eV"),
}


@dataclass(frozen=True)
class Substance:
    """A pure substance or material; what is not tabulated is None. Values near 20 °C and 101.325 kPa.

    Attributes:
        name, formula: "" for a mixture such as glass.
        group: "metal", "liquid", "salt", "gas" or "solid".
        molar_mass: g/mol, the sum over `formula`.
        density: g/cm^3; `specific_heat`: J/(g K); `melting_point`, `boiling_point`: °C.
        fusion, vaporisation: J/g; `resistivity`: ohm m; `refractive_index`: for yellow light (589 nm).
        work_function: eV.
    """

    name: str
    formula: str
    group: str
    molar_mass: float | None = None
    density: float | None = None
    specific_heat: float | None = None
    melting_point: float | None = None
    boiling_point: float | None = None
    fusion: float | None = None
    vaporisation: float | None = None
    resistivity: float | None = None
    refractive_index: float | None = None
    work_function: float | None = None

    @property
    def label(self) -> str:
        """The name, so that a search for sodium metal does not end at sodium chloride."""
        return f"{self.name} metal" if self.group == "metal" else self.name

    @property
    def title(self) -> str:
        return f"Properties of {self.label}"

    @property
    def text(self) -> str:
        head = f"{self.label} ({self.formula})" if self.formula else self.label
        values = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name in _LINES]
        lines = [f"{_LINES[n][0]} {v!r} {_LINES[n][1]}".strip() for n, v in values if v is not None]
        return f"{head}: {', '.join(lines)}."


@dataclass(frozen=True)
class Isotope:
    """A radioactive isotope; `molar_mass` in g/mol (rounded to its mass number), `half_life` in days."""

    name: str
    molar_mass: int
    half_life: float

    @property
    def title(self) -> str:
        return f"Isotope {self.name}"

    @property
    def text(self) -> str:
        return f"{self.name}: half-life {self.half_life!r} days, molar mass {self.molar_mass!r} g/mol."


@dataclass(frozen=True)
class Body:
    """A planet or moon; `gravity` is the acceleration of free fall at its surface in m/s^2."""

    name: str
    gravity: float

    @property
    def title(self) -> str:
        return f"Gravity on {self.name}"

    @property
    def text(self) -> str:
        return f"The acceleration of free fall at the surface of {self.name} is {self.gravity!r} m/s^2."


@dataclass(frozen=True)
class Formula:
    """A law with its symbols explained."""

    name: str
    law: str
    where: str

    @property
    def title(self) -> str:
        return f"Formula: {self.name}"

    @property
    def text(self) -> str:
        return f"{self.name}: {self.law}, where {self.where}."


Entry = Constant | UnitFactor | Element | Substance | Isotope | Body | Formula

_GROUP = re.compile(r"\(([A-Za-z0-9]+)\)(\d*)")
_ATOM = re.compile(r"([A-Z][a-z]?)(\d*)")


def formula_mass(formula: str, molar_masses: Mapping[str, float]) -> float:
    """The molar mass in g/mol of a formula such as "Ca(OH)2", rounded to 3 decimals.

    Raises KeyError for an element that `molar_masses` lacks.
    """
    flat = _GROUP.sub(lambda found: found[1] * int(found[2] or 1), formula)
    return round(sum(molar_masses[symbol] * int(count or 1) for symbol, count in _ATOM.findall(flat)), 3)
