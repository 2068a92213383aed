"""Energy: heat and temperature, mechanical work, electric circuits."""

from __future__ import annotations

from elpo_envs.tasks.science.constants import BODIES
from elpo_envs.tasks.science.move import Family, Kind, Move, Num
from elpo_envs.tasks.science.tables import substances_with

_METALS = substances_with("specific_heat", group="metal")
_LIQUIDS = substances_with("specific_heat", group="liquid")
_WARMED = (*_METALS, *_LIQUIDS)
_MELTED = substances_with("fusion")
_BOILED = substances_with("vaporisation")

_HEAT = Kind("energy", "J", 5, 50_000_000)
_MASS = Kind("mass", "g", 0.05, 1_000_000)
_RISE = Kind("rise in temperature", "K", 0.2, 30)
_TIME = Kind("time", "min", 0.05, 10_000)
_SHARE = Num(35, 92)
_EFFICIENCY = (("{x} * {n} / 100", "multiplied by the efficiency"), ("{x} * (2 - {n} / 100)", "the loss added"))

HEAT = Family(
    "heat",
    (
        Move(
            "warm", None, _HEAT,
            "{n} g of {s.name} is warmed from {m} °C to {r} °C; find the energy this takes.",
            "{n} * {s.specific_heat} * ({r} - {m})",
            (
                ("{n} * {s.specific_heat} * {r}", "the final temperature in place of the rise"),
                ("{n} / 1000 * {s.specific_heat} * ({r} - {m})", "g taken for kg"),
                ("{n} * {w.specific_heat} * ({r} - {m})", "the specific heat of {w.name}"),
            ),
            _WARMED, n=Num(105, 9995, 1), m=Num(20, 27), r=Num(32, 50),
        ),
        Move(
            "melt", None, _HEAT,
            "{n} g of {s.name}, already at its melting point, is melted; find the energy this takes.",
            "{n} * {s.fusion}",
            (("{n} * {s.specific_heat}", "specific heat capacity in place of heat of fusion"),
             ("{n} / {s.fusion}", "divided by the heat of fusion")),
            tuple(s for s in _MELTED if s.specific_heat), n=Num(105, 9995, 1),
        ),
        Move(
            "efficiency", _HEAT, _HEAT,
            "A heater passes on only {n}% of the energy it draws, and it supplies this energy; find the energy "
            "it draws.",
            "{x} / ({n} / 100)", _EFFICIENCY, n=_SHARE,
        ),
        Move(
            "mass warmed", _HEAT, _MASS,
            "Find the mass of {s.name} that this energy warms by {n} K, starting at 20 °C.",
            "{x} / ({s.specific_heat} * {n})",
            (
                ("{x} / {s.specific_heat}", "the rise in temperature left out"),
                ("{x} * {s.specific_heat} / {n}", "multiplied by the specific heat"),
                ("{x} / ({w.specific_heat} * {n})", "the specific heat of {w.name}"),
            ),
            _WARMED, n=Num(20, 280, 1),
        ),
        Move(
            "mass boiled", _HEAT, _MASS,
            "Find the mass of {s.name}, already at its boiling point, that this energy turns into vapour.",
            "{x} / {s.vaporisation}",
            (
                ("{x} / {s.specific_heat}", "specific heat capacity in place of heat of vaporisation"),
                ("{x} / {w.vaporisation}", "the heat of vaporisation of {w.name}"),
            ),
            _BOILED,
        ),
        Move(
            "rise", _HEAT, _RISE,
            "All of this energy goes into {n} kg of {s.name} at 20 °C; find its rise in temperature.",
            "{x} / ({n} * 1000 * {s.specific_heat})",
            (
                ("{x} / ({n} * {s.specific_heat})", "kg taken as g"),
                ("{x} * {s.specific_heat} / ({n} * 1000)", "multiplied by the specific heat"),
                ("{x} / ({n} * 1000 * {w.specific_heat})", "the specific heat of {w.name}"),
            ),
            _WARMED, n=Num(2, 950, 1),
        ),
        Move(
            "by rise", _RISE, _HEAT,
            "Find the energy that gives the same rise in temperature to {n} kg of {s.name} at 20 °C.",
            "{x} * {n} * 1000 * {s.specific_heat}",
            (
                ("{x} * {n} * {s.specific_heat}", "kg taken as g"),
                ("({x} + {T0}) * {n} * 1000 * {s.specific_heat}", "a difference turned from °C to K"),
            ),
            _WARMED, n=Num(2, 95, 1),
        ),
        Move(
            "time", _HEAT, _TIME,
            "Find the time in which a source of {n} W gives this energy.",
            "{x} / {n} / 60",
            (("{x} / {n}", "seconds taken as minutes"), ("{x} / {n} / 3600", "hours taken as minutes")),
            n=Num(40, 990),
        ),
        Move(
            "in time", _TIME, _HEAT,
            "Find the energy that a source of {n} W gives in this time.",
            "{n} * {x} * 60",
            (("{n} * {x}", "minutes taken as seconds"), ("{n} * {x} * 3600", "minutes taken as hours")),
            n=Num(40, 990),
        ),
        Move(
            "warmed mass", _MASS, _HEAT,
            "Find the energy that warms the same mass of {s.name} from 20 °C by {n} K.",
            "{x} * {s.specific_heat} * {n}",
            (
                ("{x} * {s.specific_heat} * ({n} + {T0})", "a difference turned from °C to K"),
                ("{x} / 1000 * {s.specific_heat} * {n}", "g taken for kg"),
                ("{x} * {w.specific_heat} * {n}", "the specific heat of {w.name}"),
            ),
            _WARMED, n=Num(20, 280, 1),
        ),
    ),
)  # fmt: skip

_WORK = Kind("energy", "J", 1, 5_000_000)
_SPEED = Kind("speed", "m/s", 0.3, 150)
_HEIGHT = Kind("height", "m", 0.1, 1_500)
_FORCE = Kind("force", "N", 0.5, 500_000)
_LOAD = Kind("mass", "kg", 0.1, 50_000)
_POWER = Kind("power", "W", 0.1, 1_000_000)

WORK = Family(
    "work",
    (
        Move(
            "lift", None, _WORK,
            "A crate of {n} kg is lifted by {m} m on Earth; find the energy this takes.",
            "{n} * {g} * {m}",
            (("{n} * {m}", "gravity left out"), ("{n} * {g} * {m} / 2", "the half of kinetic energy")),
            n=Num(21, 995, 1), m=Num(12, 250, 1),
        ),
        Move(
            "abroad", None, _FORCE,
            "A probe has a mass of {n} kg; find its weight on {s.name} as a force.",
            "{n} * {s.gravity}",
            (("{n} * {g}", "gravity on Earth"), ("{n} / {s.gravity}", "divided by gravity")),
            BODIES, n=Num(210, 9950, 1),
        ),
        Move(
            "drawn", _WORK, _WORK,
            "A motor passes on {n}% of the energy it draws, and it supplies this energy; find the energy it draws.",
            "{x} / ({n} / 100)", _EFFICIENCY, n=_SHARE,
        ),
        Move(
            "launch", _WORK, _SPEED,
            "A body of {n} kg at rest receives all of it as kinetic energy; find its speed.",
            "math.sqrt(2 * {x} / {n})",
            (("math.sqrt({x} / {n})", "the factor 2 left out"), ("2 * {x} / {n}", "the root left out")),
            n=Num(5, 900, 1),
        ),
        Move(
            "motion", _SPEED, _WORK,
            "Find the kinetic energy of a body of {n} kg that moves at this speed.",
            "{n} * {x} ** 2 / 2",
            (("{n} * {x} ** 2", "the factor one half left out"), ("{n} * {x} / 2", "the square left out")),
            n=Num(15, 900, 1),
        ),
        Move(
            "rise", _SPEED, _HEIGHT,
            "A ball is thrown straight up on {s.name} at this speed; find the greatest height it reaches, without air.",
            "{x} ** 2 / (2 * {s.gravity})",
            (("{x} ** 2 / (2 * {g})", "gravity on Earth"), ("{x} ** 2 / {s.gravity}", "the factor 2 left out")),
            BODIES,
        ),
        Move(
            "raise", _WORK, _HEIGHT,
            "Find the height by which this energy lifts {n} kg on Earth.",
            "{x} / ({n} * {g})",
            (("{x} / {n}", "gravity left out"), ("{x} * {g} / {n}", "multiplied by gravity")),
            n=Num(21, 1990, 1),
        ),
        Move(
            "height", _HEIGHT, _WORK,
            "Find the energy that lifts {n} kg by this height on {s.name}.",
            "{n} * {s.gravity} * {x}",
            (("{n} * {g} * {x}", "gravity on Earth"), ("{n} * {x}", "gravity left out")),
            BODIES, n=Num(15, 600, 1),
        ),
        Move(
            "power", _WORK, _POWER,
            "It is spent evenly in {n} min; find the power.",
            "{x} / ({n} * 60)",
            (("{x} / {n}", "minutes taken as seconds"), ("{x} * {n} * 60", "multiplied by the time")),
            n=Num(5, 250, 1),
        ),
        Move(
            "energy", _POWER, _WORK,
            "Find the energy that this power delivers in {n} min.",
            "{x} * {n} * 60",
            (("{x} * {n}", "minutes taken as seconds"), ("{x} * {n} / 60", "divided by 60")),
            n=Num(5, 250, 1),
        ),
        Move(
            "push", _WORK, _FORCE,
            "It is done by an even force along a way of {n} m; find the force.",
            "{x} / {n}",
            (("{x} * {n}", "multiplied by the way"), ("{x} / {n} / {g}", "divided by gravity")),
            n=Num(15, 900, 1),
        ),
        Move(
            "pull", _FORCE, _WORK,
            "Find the work that a force of this size does along {n} cm.",
            "{x} * {n} / 100",
            (("{x} * {n}", "cm taken as m"), ("{x} / ({n} / 100)", "divided by the way")),
            n=Num(15, 950),
        ),
        Move(
            "weigh", _FORCE, _LOAD,
            "Find the mass whose weight on {s.name} is this force.",
            "{x} / {s.gravity}",
            (("{x} / {g}", "gravity on Earth"), ("{x} * {s.gravity}", "multiplied by gravity")),
            BODIES,
        ),
        Move(
            "weight", _LOAD, _FORCE,
            "Find the weight of this mass on Earth as a force.",
            "{x} * {g}",
            (("{x} / {g}", "divided by gravity"), ("{x}", "kg taken as N")),
        ),
    ),
)  # fmt: skip

_OHM = Kind("resistance", "ohm", 0.01, 500)
_CURRENT = Kind("current", "A", 0.005, 200)
_VOLTAGE = Kind("voltage", "V", 0.05, 2_000)
_WATT = Kind("power", "W", 0.005, 100_000)
_JOULE = Kind("energy", "J", 0.5, 50_000_000)
_WIRES = substances_with("resistivity")

CIRCUITS = Family(
    "circuits",
    (
        Move(
            "wire", None, _OHM,
            "A wire of {s.name} is {n} m long and has a cross-section of {m} mm^2; find its resistance.",
            "{s.resistivity} * {n} / ({m} * 1e-6)",
            (
                ("{s.resistivity} * {n} / ({m} * 1e-3)", "mm^2 taken as 1e-3 m^2"),
                ("{s.resistivity} * {m} / {n} * 1e6", "length and cross-section swapped"),
                ("{w.resistivity} * {n} / ({m} * 1e-6)", "the resistivity of {w.name}"),
            ),
            _WIRES, n=Num(45, 900), m=Num(5, 400, 2),
        ),
        Move(
            "series", _OHM, _OHM,
            "A resistor of {n} ohm is put in series with it; find the total resistance.",
            "{x} + {n}",
            (("{x} * {n} / ({x} + {n})", "the rule for parallel resistors"),),
            n=Num(5, 900, 1), needs="{x} / 8 < {n} < {x} * 8",
        ),
        Move(
            "parallel", _OHM, _OHM,
            "A resistor of {n} ohm is put in parallel with all of it; find the total resistance.",
            "{x} * {n} / ({x} + {n})",
            (("{x} + {n}", "the rule for series resistors"), ("1 / {x} + 1 / {n}", "the reciprocal not taken")),
            n=Num(5, 900, 1), needs="{x} / 8 < {n} < {x} * 8",
        ),
        Move(
            "battery", _OHM, _CURRENT,
            "An ideal source of {n} V is connected to it; find the current.",
            "{n} / {x}",
            (("{x} / {n}", "the fraction upside down"), ("{n} * {x}", "multiplied by the resistance")),
            n=Num(15, 480, 1),
        ),
        Move(
            "drop", _CURRENT, _VOLTAGE,
            "This current flows through another resistor of {n} ohm; find the voltage across that resistor.",
            "{x} * {n}",
            (("{x} / {n}", "divided by the resistance"), ("{x} ** 2 * {n}", "power in place of voltage")),
            n=Num(5, 900, 1),
        ),
        Move(
            "current", _VOLTAGE, _CURRENT,
            "This voltage is applied to a resistor of {n} ohm; find the current through it.",
            "{x} / {n}",
            (("{x} * {n}", "multiplied by the resistance"), ("{x} ** 2 / {n}", "power in place of current")),
            n=Num(5, 900, 1),
        ),
        Move(
            "heating", _CURRENT, _WATT,
            "This current flows through another resistor of {n} ohm; find the power turned into heat there.",
            "{x} ** 2 * {n}",
            (("{x} * {n}", "the square left out"), ("{x} ** 2 / {n}", "divided by the resistance")),
            n=Num(5, 900, 1),
        ),
        Move(
            "power", _VOLTAGE, _WATT,
            "This voltage is applied to a resistor of {n} ohm; find the power it takes.",
            "{x} ** 2 / {n}",
            (("{x} / {n}", "the square left out"), ("{x} ** 2 * {n}", "multiplied by the resistance")),
            n=Num(5, 900, 1),
        ),
        Move(
            "supply", _WATT, _CURRENT,
            "A device takes this power at {n} V; find the current it draws.",
            "{x} / {n}",
            (("{x} * {n}", "multiplied by the voltage"), ("{n} / {x}", "the fraction upside down")),
            n=Num(3, 230),
        ),
        Move(
            "consumed", _WATT, _JOULE,
            "Find the energy that this power delivers in {n} min.",
            "{x} * {n} * 60",
            (("{x} * {n}", "minutes taken as seconds"), ("{x} * {n} / 60", "divided by 60")),
            n=Num(15, 900, 1),
        ),
        Move(
            "resistor", _JOULE, _OHM,
            "A resistor at {n} V turns this energy into heat in {m} min; find its resistance.",
            "{n} ** 2 * {m} * 60 / {x}",
            (("{n} ** 2 * {m} / {x}", "minutes taken as seconds"), ("{n} * {m} * 60 / {x}", "the square left out")),
            n=Num(3, 230), m=Num(5, 600, 1),
        ),
        Move(
            "coil", _VOLTAGE, _OHM,
            "At this voltage, a coil draws {n} A; find the resistance of the coil.",
            "{x} / {n}",
            (("{x} * {n}", "multiplied by the current"), ("{n} / {x}", "the fraction upside down")),
            n=Num(5, 150, 2),
        ),
    ),
)  # fmt: skip
