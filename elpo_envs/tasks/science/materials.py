"""Elements, substances and isotopes."""

from __future__ import annotations

from elpo_envs.tasks.science.entries import Element, Isotope, Substance, formula_mass

# Abridged standard atomic weights, IUPAC 2021.
ELEMENTS = (
    Element("H", "hydrogen", 1, 1.008),
    Element("He", "helium", 2, 4.0026),
    Element("Li", "lithium", 3, 6.94, 1),
    Element("Be", "beryllium", 4, 9.0122, 2),
    Element("B", "boron", 5, 10.81),
    Element("C", "carbon", 6, 12.011),
    Element("N", "nitrogen", 7, 14.007),
    Element("O", "oxygen", 8, 15.999),
    Element("F", "fluorine", 9, 18.998),
    Element("Ne", "neon", 10, 20.18),
    Element("Na", "sodium", 11, 22.99, 1),
    Element("Mg", "magnesium", 12, 24.305, 2),
    Element("Al", "aluminium", 13, 26.982, 3),
    Element("Si", "silicon", 14, 28.085),
    Element("P", "phosphorus", 15, 30.974),
    Element("S", "sulfur", 16, 32.06),
    Element("Cl", "chlorine", 17, 35.45),
    Element("Ar", "argon", 18, 39.95),
    Element("K", "potassium", 19, 39.098, 1),
    Element("Ca", "calcium", 20, 40.078, 2),
    Element("Ti", "titanium", 22, 47.867),
    Element("V", "vanadium", 23, 50.942),
    Element("Cr", "chromium", 24, 51.996, 3),
    Element("Mn", "manganese", 25, 54.938, 2),
    Element("Fe", "iron", 26, 55.845, 2),
    Element("Co", "cobalt", 27, 58.933, 2),
    Element("Ni", "nickel", 28, 58.693, 2),
    Element("Cu", "copper", 29, 63.546, 2),
    Element("Zn", "zinc", 30, 65.38, 2),
    Element("Ga", "gallium", 31, 69.723, 3),
    Element("Br", "bromine", 35, 79.904),
    Element("Kr", "krypton", 36, 83.798),
    Element("Rb", "rubidium", 37, 85.468, 1),
    Element("Sr", "strontium", 38, 87.62, 2),
    Element("Ag", "silver", 47, 107.87, 1),
    Element("Cd", "cadmium", 48, 112.41, 2),
    Element("Sn", "tin", 50, 118.71, 2),
    Element("I", "iodine", 53, 126.9),
    Element("Cs", "caesium", 55, 132.91, 1),
    Element("Ba", "barium", 56, 137.33, 2),
    Element("W", "tungsten", 74, 183.84),
    Element("Pt", "platinum", 78, 195.08),
    Element("Au", "gold", 79, 196.97),
    Element("Hg", "mercury", 80, 200.59),
    Element("Pb", "lead", 82, 207.2, 2),
    Element("U", "uranium", 92, 238.03),
)

_MASSES = {element.symbol: element.molar_mass for element in ELEMENTS}
_METAL_COLUMNS = (
    "density", "specific_heat", "melting_point", "boiling_point", "fusion", "resistivity", "work_function",
)  # fmt: skip
_LIQUID_COLUMNS = ("density", "specific_heat", "melting_point", "boiling_point", "vaporisation", "refractive_index")


def _substance(name: str, formula: str, group: str, **values: float | None) -> Substance:
    mass = formula_mass(formula, _MASSES) if formula else None
    return Substance(name, formula, group, molar_mass=mass, **values)


def _rows(
    group: str, columns: tuple[str, ...], rows: tuple[tuple[str, str, tuple[float | None, ...]], ...]
) -> tuple[Substance, ...]:
    return tuple(_substance(n, f, group, **dict(zip(columns, v, strict=True))) for n, f, v in rows)


# Handbook values, rounded; work functions of polycrystalline metals.
METALS = _rows(
    "metal",
    _METAL_COLUMNS,
    (
        ("aluminium", "Al", (2.7, 0.897, 660.3, 2519, 397, 2.65e-8, 4.28)),
        ("copper", "Cu", (8.96, 0.385, 1084.6, 2562, 209, 1.68e-8, 4.65)),
        ("iron", "Fe", (7.87, 0.449, 1538, 2861, 247, 9.61e-8, 4.5)),
        ("lead", "Pb", (11.34, 0.129, 327.5, 1749, 23, 2.08e-7, 4.25)),
        ("silver", "Ag", (10.5, 0.235, 961.8, 2162, 105, 1.59e-8, 4.26)),
        ("gold", "Au", (19.3, 0.129, 1064.2, 2856, 63.7, 2.21e-8, 5.1)),
        ("zinc", "Zn", (7.13, 0.388, 419.5, 907, 112, 5.9e-8, 4.33)),
        ("tin", "Sn", (7.29, 0.227, 231.9, 2602, 60.2, 1.15e-7, 4.42)),
        ("nickel", "Ni", (8.9, 0.444, 1455, 2913, 298, 6.93e-8, 5.15)),
        ("tungsten", "W", (19.25, 0.132, 3422, 5555, None, 5.28e-8, 4.55)),
        ("platinum", "Pt", (21.45, 0.133, 1768.3, 3825, 114, 1.05e-7, 5.65)),
        ("magnesium", "Mg", (1.74, 1.023, 650, 1090, 349, 4.39e-8, 3.66)),
        ("titanium", "Ti", (4.51, 0.523, 1668, 3287, 296, None, 4.33)),
        ("sodium", "Na", (0.968, 1.228, 97.8, 883, 113, 4.77e-8, 2.75)),
        ("potassium", "K", (0.862, 0.757, 63.5, 759, 59.3, 7.2e-8, 2.3)),
        ("calcium", "Ca", (1.54, 0.647, 842, 1484, 213, 3.36e-8, 2.87)),
    ),
)

LIQUIDS = _rows(
    "liquid",
    _LIQUID_COLUMNS,
    (
        ("water", "H2O", (0.998, 4.184, 0, 100, 2257, 1.333)),
        ("ethanol", "C2H6O", (0.789, 2.44, -114.1, 78.4, 837, 1.361)),
        ("methanol", "CH4O", (0.792, 2.53, -97.6, 64.7, 1099, 1.329)),
        ("acetone", "C3H6O", (0.79, 2.16, -94.7, 56.1, 501, 1.359)),
        ("benzene", "C6H6", (0.877, 1.74, 5.5, 80.1, 394, 1.501)),
        ("toluene", "C7H8", (0.867, 1.71, -95, 110.6, 360, 1.497)),
        ("glycerol", "C3H8O3", (1.261, 2.43, 18, 290, None, 1.473)),
        ("hexane", "C6H14", (0.659, 2.26, -95, 68.7, 335, 1.375)),
        ("acetic acid", "C2H4O2", (1.049, 2.05, 16.6, 118, None, 1.372)),
        ("mercury", "Hg", (13.546, 0.14, -38.8, 356.7, 295, None)),
    ),
)

SALTS = _rows(
    "salt",
    ("density",),
    (
        ("sodium chloride", "NaCl", (2.17,)),
        ("potassium chloride", "KCl", (1.98,)),
        ("sodium hydroxide", "NaOH", (2.13,)),
        ("glucose", "C6H12O6", (1.54,)),
        ("sucrose", "C12H22O11", (1.59,)),
        ("copper(II) sulfate", "CuSO4", (3.6,)),
        ("silver nitrate", "AgNO3", (4.35,)),
        ("magnesium sulfate", "MgSO4", (2.66,)),
        ("calcium chloride", "CaCl2", (2.15,)),
        ("ammonium nitrate", "NH4NO3", (1.72,)),
        ("sodium carbonate", "Na2CO3", (2.54,)),
        ("potassium nitrate", "KNO3", (2.11,)),
        ("potassium permanganate", "KMnO4", (2.7,)),
        ("calcium nitrate", "Ca(NO3)2", (2.5,)),
    ),
)

GASES = _rows(
    "gas",
    ("boiling_point",),
    (
        ("hydrogen gas", "H2", (-252.9,)),
        ("helium gas", "He", (-268.9,)),
        ("nitrogen gas", "N2", (-195.8,)),
        ("oxygen gas", "O2", (-183,)),
        ("carbon dioxide", "CO2", (None,)),
        ("carbon monoxide", "CO", (-191.5,)),
        ("methane", "CH4", (-161.5,)),
        ("propane", "C3H8", (-42.1,)),
        ("ammonia", "NH3", (-33.3,)),
        ("neon gas", "Ne", (-246,)),
        ("argon gas", "Ar", (-185.8,)),
        ("chlorine gas", "Cl2", (-34,)),
        ("sulfur dioxide", "SO2", (-10,)),
    ),
)

SOLIDS = (
    _substance("crown glass", "", "solid", density=2.5, specific_heat=0.84, refractive_index=1.52),
    _substance("flint glass", "", "solid", density=3.6, specific_heat=0.5, refractive_index=1.62),
    _substance("diamond", "C", "solid", density=3.51, specific_heat=0.509, refractive_index=2.417),
    _substance("fused quartz", "SiO2", "solid", density=2.2, specific_heat=0.74, refractive_index=1.458),
    _substance("sapphire", "Al2O3", "solid", density=3.98, specific_heat=0.76, refractive_index=1.768),
    _substance("calcium carbonate", "CaCO3", "solid", density=2.71),
)

SUBSTANCES = (*METALS, *LIQUIDS, *SALTS, *GASES, *SOLIDS)

ISOTOPES = (
    Isotope("phosphorus-32", 32, 14.27),
    Isotope("phosphorus-33", 33, 25.3),
    Isotope("sulfur-35", 35, 87.4),
    Isotope("chromium-51", 51, 27.7),
    Isotope("iron-59", 59, 44.5),
    Isotope("cobalt-58", 58, 70.9),
    Isotope("zinc-65", 65, 243.9),
    Isotope("iodine-125", 125, 59.4),
    Isotope("iodine-131", 131, 8.025),
    Isotope("cerium-141", 141, 32.5),
    Isotope("iridium-192", 192, 73.8),
    Isotope("gold-198", 198, 2.694),
    Isotope("mercury-203", 203, 46.6),
    Isotope("polonium-210", 210, 138.4),
    Isotope("radon-222", 222, 3.82),
)
