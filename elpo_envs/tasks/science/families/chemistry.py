"""Chemistry: moles and masses, solutions, gases, electrolysis."""

from __future__ import annotations

from elpo_envs.tasks.science.materials import ELEMENTS
from elpo_envs.tasks.science.move import Family, Kind, Move, Num
from elpo_envs.tasks.science.tables import substances_with

_SALTS = substances_with(group="salt")
_GASES = substances_with(group="gas")
_COMPOUNDS = (*_SALTS, *substances_with(group="liquid"))
_PLATED = tuple(element for element in ELEMENTS if element.charge >= 2)

_AMOUNT = Kind("amount of substance", "mol", 0.001, 500)
_MASS = Kind("mass", "g", 0.05, 50_000)
_PERCENT = Num(35, 92)

MOLES = Family(
    "moles",
    (
        Move(
            "weighed", None, _AMOUNT,
            "A chemist weighs out {n} g of {s.name}; find its amount of substance.",
            "{n} / {s.molar_mass}",
            (("{n} / {w.molar_mass}", "the molar mass of {w.name}"),
             ("{s.molar_mass} / {n}", "the fraction upside down")),
            _COMPOUNDS, n=Num(105, 4995, 1),
        ),
        Move(
            "counted", None, _AMOUNT,
            "A sample of {s.name} consists of {n} * 10^22 atoms; find its amount of substance.",
            "{n} * 1e22 / {N_A}",
            (("{n} * 1e23 / {N_A}", "a power of ten too many"),
             ("{n} * 1e22 / {N_A} * {s.number}", "atomic number as a factor")),
            ELEMENTS[2:], n=Num(105, 9995, 2),
        ),
        Move(
            "reaction", _AMOUNT, _AMOUNT,
            "A reaction uses up {n} mol of it for every {m} mol of product; find the amount of product that all "
            "of it gives.",
            "{x} * {m} / {n}",
            (("{x} * {n} / {m}", "the ratio upside down"), ("{x}", "the coefficients left out")),
            n=Num(1, 5), m=Num(1, 5), needs="{n} != {m}",
        ),
        Move(
            "yield", _AMOUNT, _AMOUNT,
            "Only {n}% of this amount is recovered; find the amount recovered.",
            "{x} * {n} / 100",
            (("{x} * (1 - {n} / 100)", "the part lost"), ("{x} / ({n} / 100)", "divided by the yield")),
            n=_PERCENT,
        ),
        Move(
            "to mass", _AMOUNT, _MASS,
            "Find the mass of the same amount of {s.name}.",
            "{x} * {s.molar_mass}",
            (("{x} * {w.molar_mass}", "the molar mass of {w.name}"),
             ("{x} / {s.molar_mass}", "divided by the molar mass")),
            _COMPOUNDS,
        ),
        Move(
            "to amount", _MASS, _AMOUNT,
            "Find the amount of substance in the same mass of {s.name}.",
            "{x} / {s.molar_mass}",
            (("{x} / {w.molar_mass}", "the molar mass of {w.name}"),
             ("{s.molar_mass} / {x}", "the fraction upside down")),
            _COMPOUNDS,
        ),
        Move(
            "filter", _MASS, _MASS,
            "On drying, it loses {n}% of its mass; find the mass left.",
            "{x} * (1 - {n} / 100)",
            (("{x} * {n} / 100", "the part lost"),),
            n=Num(8, 42),
        ),
        Move(
            "solution", _MASS, _MASS,
            "All of it goes into a solution in which it makes up {n}% of the mass; find the mass of the solution.",
            "{x} / ({n} / 100)",
            (("{x} * {n} / 100", "multiplied by the share"), ("{x} * (1 + {n} / 100)", "the share added")),
            n=Num(4, 38),
        ),
    ),
)  # fmt: skip

_CONCENTRATION = Kind("concentration", "mol/L", 0.0005, 15)
_SOLUTE = Kind("amount of solute", "mol", 0.00001, 50)
_SOLUTE_MASS = Kind("mass", "g", 0.005, 5_000)
_TITRANT = Kind("volume", "mL", 0.5, 50_000)

SOLUTIONS = Family(
    "solutions",
    (
        Move(
            "dissolve", None, _CONCENTRATION,
            "{n} g of {s.name} is dissolved in water to make {m} mL of solution; find its concentration.",
            "{n} / {s.molar_mass} / ({m} / 1000)",
            (
                ("{n} / {s.molar_mass} / {m}", "the volume left in mL"),
                ("{n} / ({m} / 1000)", "mass instead of amount"),
                ("{n} / {w.molar_mass} / ({m} / 1000)", "the molar mass of {w.name}"),
            ),
            _SALTS, n=Num(21, 899, 1), m=Num(100, 950),
        ),
        Move(
            "dilute", _CONCENTRATION, _CONCENTRATION,
            "{n} mL of a solution of this concentration is filled up with water to {m} mL; find the new concentration.",
            "{x} * {n} / {m}",
            (("{x} * {n} / ({n} + {m})", "the final volume taken as water added"), ("{x} * {m} / {n}", "upside down")),
            n=Num(20, 90), m=Num(100, 400),
        ),
        Move(
            "add water", _CONCENTRATION, _CONCENTRATION,
            "{n} mL of a solution of this concentration is mixed with {m} mL of water (volumes add up); "
            "find the new concentration.",
            "{x} * {n} / ({n} + {m})",
            (("{x} * {n} / {m}", "the water taken as the final volume"), ("{x} * ({n} + {m}) / {n}", "upside down")),
            n=Num(20, 90), m=Num(30, 180),
        ),
        Move(
            "portion", _CONCENTRATION, _SOLUTE,
            "Find the amount of solute in {n} mL of a solution of this concentration.",
            "{x} * {n} / 1000",
            (("{x} * {n}", "the volume left in mL"), ("{x} / ({n} / 1000)", "divided by the volume")),
            n=Num(12, 480),
        ),
        Move(
            "dissolve amount", _SOLUTE, _CONCENTRATION,
            "This amount is put in water to make {n} mL of another solution; find its concentration.",
            "{x} / ({n} / 1000)",
            (("{x} / {n}", "the volume left in mL"), ("{x} * {n} / 1000", "multiplied by the volume")),
            n=Num(15, 480),
        ),
        Move(
            "solute mass", _SOLUTE, _SOLUTE_MASS,
            "Find the mass of the same amount of {s.name}.",
            "{x} * {s.molar_mass}",
            (("{x} * {w.molar_mass}", "the molar mass of {w.name}"),
             ("{x} / {s.molar_mass}", "divided by the molar mass")),
            _SALTS,
        ),
        Move(
            "mass to solution", _SOLUTE_MASS, _CONCENTRATION,
            "The same mass of {s.name} is made up to {n} mL of solution; find its concentration.",
            "{x} / {s.molar_mass} / ({n} / 1000)",
            (
                ("{x} / {s.molar_mass} / {n}", "the volume left in mL"),
                ("{x} / ({n} / 1000)", "mass instead of amount"),
                ("{x} / {w.molar_mass} / ({n} / 1000)", "the molar mass of {w.name}"),
            ),
            _SALTS, n=Num(10, 480),
        ),
        Move(
            "titrate", _SOLUTE, _TITRANT,
            "Each mol of it reacts with {m} mol of a reagent that comes as a solution of {n} mol/L; "
            "find the volume of reagent solution that all of it needs.",
            "{x} * {m} / {n} * 1000",
            (("{x} / {m} / {n} * 1000", "the ratio upside down"), ("{x} / {n} * 1000", "the ratio left out")),
            n=Num(5, 250, 2), m=Num(2, 3),
        ),
        Move(
            "volume to amount", _TITRANT, _SOLUTE,
            "Find the amount of solute in this volume of a solution of {n} mol/L.",
            "{x} / 1000 * {n}",
            (("{x} * {n}", "the volume left in mL"), ("{x} / 1000 / {n}", "divided by the concentration")),
            n=Num(12, 180, 2),
        ),
    ),
)  # fmt: skip

_GAS = Kind("amount of gas", "mol", 0.001, 500)
_PRESSURE = Kind("pressure", "kPa", 5, 5_000)
_VOLUME = Kind("volume", "L", 0.05, 10_000)
_GAS_MASS = Kind("mass", "g", 0.005, 20_000)
_CELSIUS = Num(5, 95)
_R = "{R} * ({m} + {T0})"
_KELVIN = "°C taken as K"

GASES = Family(
    "gases",
    (
        Move(
            "flask", None, _GAS,
            "A flask of {n} L holds a gas at {m} °C and {r} kPa; find the amount of gas.",
            f"{{r}} * {{n}} / ({_R})",
            (("{r} * {n} / ({R} * {m})", _KELVIN), (f"{{r}} * 1000 * {{n}} / ({_R})", "L not turned into m^3")),
            n=Num(12, 480, 1), m=_CELSIUS, r=Num(70, 600),
        ),
        Move(
            "filled", None, _PRESSURE,
            "{r} g of {s.name} fills a cylinder of {n} L at {m} °C; find the pressure.",
            f"{{r}} / {{s.molar_mass}} * {_R} / {{n}}",
            (
                ("{r} / {s.molar_mass} * {R} * {m} / {n}", _KELVIN),
                (f"{{r}} * {_R} / {{n}}", "mass instead of amount"),
                (f"{{r}} / {{w.molar_mass}} * {_R} / {{n}}", "the molar mass of {w.name}"),
            ),
            _GASES, n=Num(12, 480, 1), m=_CELSIUS, r=Num(21, 999, 1),
        ),
        Move(
            "tank", _GAS, _PRESSURE,
            "This amount of gas is put into an empty tank of {n} L at {m} °C; find the pressure in the tank.",
            f"{{x}} * {_R} / {{n}}",
            (("{x} * {R} * {m} / {n}", _KELVIN), (f"{{x}} * {_R} / {{n}} / 1000", "Pa taken as kPa twice")),
            n=Num(12, 900, 1), m=_CELSIUS,
        ),
        Move(
            "balloon", _GAS, _VOLUME,
            "Find the volume of this amount of gas at {m} °C and {r} kPa.",
            f"{{x}} * {_R} / {{r}}",
            (("{x} * {R} * {m} / {r}", _KELVIN), (f"{{x}} * {_R} / ({{r}} * 1000)", "m^3 taken as L")),
            m=_CELSIUS, r=Num(60, 400),
        ),
        Move(
            "compress", _PRESSURE, _PRESSURE,
            "At constant temperature, gas at this pressure goes from {n} L to {m} L; find the new pressure.",
            "{x} * {n} / {m}",
            (("{x} * {m} / {n}", "the ratio upside down"),),
            n=Num(12, 95, 1), m=Num(12, 95, 1),
        ),
        Move(
            "heat", _PRESSURE, _PRESSURE,
            "A closed rigid vessel holds gas at this pressure and {n} °C; find the pressure after heating to {m} °C.",
            "{x} * ({m} + {T0}) / ({n} + {T0})",
            (("{x} * {m} / {n}", _KELVIN), ("{x} * ({n} + {T0}) / ({m} + {T0})", "the ratio upside down")),
            n=Num(5, 35), m=Num(70, 320),
        ),
        Move(
            "expand", _VOLUME, _VOLUME,
            "A gas fills this volume at {n} °C; find its volume after heating to {m} °C at constant pressure.",
            "{x} * ({m} + {T0}) / ({n} + {T0})",
            (("{x} * {m} / {n}", _KELVIN), ("{x} * ({n} + {T0}) / ({m} + {T0})", "the ratio upside down")),
            n=Num(5, 35), m=Num(70, 320),
        ),
        Move(
            "mass of gas", _GAS, _GAS_MASS,
            "Find the mass of the same amount of {s.name}.",
            "{x} * {s.molar_mass}",
            (("{x} * {w.molar_mass}", "the molar mass of {w.name}"),
             ("{x} / {s.molar_mass}", "divided by the molar mass")),
            _GASES,
        ),
        Move(
            "amount of gas", _GAS_MASS, _GAS,
            "Find the amount of gas in the same mass of {s.name}.",
            "{x} / {s.molar_mass}",
            (("{x} / {w.molar_mass}", "the molar mass of {w.name}"),
             ("{s.molar_mass} / {x}", "the fraction upside down")),
            _GASES,
        ),
        Move(
            "sample", _PRESSURE, _GAS,
            "A bulb of {n} L is filled with gas at this pressure and {m} °C; find the amount of gas in the bulb.",
            f"{{x}} * {{n}} / ({_R})",
            (("{x} * {n} / ({R} * {m})", _KELVIN), (f"{{x}} / ({{n}} * {_R})", "divided by the volume")),
            n=Num(12, 95, 1), m=_CELSIUS,
        ),
        Move(
            "contents", _VOLUME, _GAS,
            "Find the amount of gas in the same volume at {m} °C and {r} kPa.",
            f"{{r}} * {{x}} / ({_R})",
            (("{r} * {x} / ({R} * {m})", _KELVIN), (f"{{r}} * 1000 * {{x}} / ({_R})", "L not turned into m^3")),
            m=_CELSIUS, r=Num(60, 400),
        ),
    ),
)  # fmt: skip

_CHARGE = Kind("charge", "C", 50, 10_000_000)
_DEPOSIT = Kind("mass", "g", 0.02, 10_000)
_DURATION = Kind("time", "min", 0.5, 100_000)
_CELL_ENERGY = Kind("energy", "kJ", 0.05, 1_000_000)

ELECTROLYSIS = Family(
    "electrolysis",
    (
        Move(
            "plating", None, _DEPOSIT,
            "A current of {n} A flows for {m} min through a melt with {s.symbol}{s.charge}+ ions; "
            "find the mass of {s.name} deposited.",
            "{n} * {m} * 60 / ({s.charge} * {F}) * {s.molar_mass}",
            (
                ("{n} * {m} * 60 / {F} * {s.molar_mass}", "the charge of the ion left out"),
                ("{n} * {m} / ({s.charge} * {F}) * {s.molar_mass}", "minutes taken as seconds"),
                ("{n} * {m} * 60 * {s.charge} / {F} * {s.molar_mass}", "multiplied by the charge of the ion"),
            ),
            _PLATED, n=Num(8, 250, 1), m=Num(12, 240),
        ),
        Move(
            "recover", _DEPOSIT, _DEPOSIT,
            "Only {n}% of this mass is obtained in practice; find the mass obtained.",
            "{x} * {n} / 100",
            (("{x} * (1 - {n} / 100)", "the part lost"), ("{x} / ({n} / 100)", "divided by the share")),
            n=_PERCENT,
        ),
        Move(
            "charge needed", _DEPOSIT, _CHARGE,
            "Find the charge that deposits the same mass of {s.name} from a melt with {s.symbol}{s.charge}+ ions.",
            "{x} / {s.molar_mass} * {s.charge} * {F}",
            (
                ("{x} / {s.molar_mass} * {F}", "the charge of the ion left out"),
                ("{x} / {s.molar_mass} / {s.charge} * {F}", "divided by the charge of the ion"),
                ("{x} / {w.molar_mass} * {s.charge} * {F}", "the molar mass of {w.name}"),
            ),
            _PLATED,
        ),
        Move(
            "deposit", _CHARGE, _DEPOSIT,
            "Find the mass of {s.name} that this charge deposits from a melt with {s.symbol}{s.charge}+ ions.",
            "{x} / ({s.charge} * {F}) * {s.molar_mass}",
            (
                ("{x} / {F} * {s.molar_mass}", "the charge of the ion left out"),
                ("{x} * {s.charge} / {F} * {s.molar_mass}", "multiplied by the charge of the ion"),
            ),
            _PLATED,
        ),
        Move(
            "duration", _CHARGE, _DURATION,
            "Find the time in which a current of {n} A carries this charge.",
            "{x} / {n} / 60",
            (("{x} / {n}", "seconds taken as minutes"), ("{x} * {n} / 60", "multiplied by the current")),
            n=Num(6, 180, 1),
        ),
        Move(
            "carried", _DURATION, _CHARGE,
            "Find the charge that a current of {n} A carries in this time.",
            "{x} * 60 * {n}",
            (("{x} * {n}", "minutes taken as seconds"), ("{x} * 60 / {n}", "divided by the current")),
            n=Num(6, 180, 1),
        ),
        Move(
            "energy spent", _CHARGE, _CELL_ENERGY,
            "Find the energy to drive this charge through a cell at {n} V.",
            "{x} * {n} / 1000",
            (("{x} * {n}", "J taken as kJ"), ("{x} / {n} / 1000", "divided by the voltage")),
            n=Num(15, 95, 1),
        ),
        Move(
            "driven", _CELL_ENERGY, _CHARGE,
            "Find the charge that this energy drives through another cell at {n} V.",
            "{x} * 1000 / {n}",
            (("{x} / {n}", "kJ taken as J"), ("{x} * 1000 * {n}", "multiplied by the voltage")),
            n=Num(15, 95, 1),
        ),
    ),
)  # fmt: skip
