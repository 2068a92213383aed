"""Bodies and fluids: kinematics, density and buoyancy, units outside the SI."""

from __future__ import annotations

from elpo_envs.tasks.science.constants import BODIES
from elpo_envs.tasks.science.move import Family, Kind, Move, Num
from elpo_envs.tasks.science.tables import substances_with

_SPEED = Kind("speed", "m/s", 0.5, 250)
_DISTANCE = Kind("distance", "m", 0.05, 100_000)
_TIME = Kind("time", "s", 0.05, 20_000)

MOTION = Family(
    "motion",
    (
        Move(
            "drop", None, _SPEED,
            "On {s.name}, a stone falls from rest through {n} m without air; find its final speed.",
            "math.sqrt(2 * {s.gravity} * {n})",
            (
                ("math.sqrt(2 * {g} * {n})", "gravity on Earth"),
                ("math.sqrt({s.gravity} * {n})", "the factor 2 left out"),
                ("2 * {s.gravity} * {n}", "the root left out"),
            ),
            BODIES, n=Num(51, 3995, 1),
        ),
        Move(
            "fall", None, _DISTANCE,
            "On {s.name}, a stone falls from rest for {n} s without air; find the distance it falls.",
            "{s.gravity} * {n} ** 2 / 2",
            (
                ("{s.gravity} * {n} ** 2", "the factor one half left out"),
                ("{g} * {n} ** 2 / 2", "gravity on Earth"),
                ("{s.gravity} * {n}", "final speed in place of distance"),
            ),
            BODIES, n=Num(110, 1990, 2),
        ),
        Move(
            "brake", _SPEED, _DISTANCE,
            "A vehicle moving at this speed brakes at {n} m/s^2 until it stands; find the distance it needs.",
            "{x} ** 2 / (2 * {n})",
            (("{x} ** 2 / {n}", "the factor 2 left out"), ("{x} / {n}", "braking time in place of distance")),
            n=Num(8, 95, 1),
        ),
        Move(
            "stop", _SPEED, _TIME,
            "A vehicle moving at this speed brakes at {n} m/s^2 until it stands; find the time it needs.",
            "{x} / {n}",
            (("{x} ** 2 / (2 * {n})", "distance in place of time"), ("{x} * {n}", "multiplied by the deceleration")),
            n=Num(8, 95, 1),
        ),
        Move(
            "throw", _SPEED, _DISTANCE,
            "On Earth, a projectile is fired straight up at this speed; find the greatest height it reaches, "
            "without air.",
            "{x} ** 2 / (2 * {g})",
            (("{x} ** 2 / {g}", "the factor 2 left out"), ("{x} / {g}", "time in place of height")),
        ),
        Move(
            "land", _DISTANCE, _SPEED,
            "On Earth, a stone falls from rest through the same distance without air; find its final speed.",
            "math.sqrt(2 * {g} * {x})",
            (("math.sqrt({g} * {x})", "the factor 2 left out"), ("2 * {g} * {x}", "the root left out")),
        ),
        Move(
            "ride", _DISTANCE, _TIME,
            "Find the time in which a train at a steady {n} km/h covers {m} times this distance.",
            "{x} * {m} / ({n} / 3.6)",
            (("{x} * {m} / {n}", "km/h taken as m/s"), ("{x} * {m} / ({n} * 3.6)", "km/h turned the wrong way")),
            n=Num(18, 290), m=Num(2, 25),
        ),
        Move(
            "cruise", _TIME, _DISTANCE,
            "Find the distance that a car covers in this time at a steady {n} km/h.",
            "{x} * {n} / 3.6",
            (("{x} * {n}", "km/h taken as m/s"), ("{x} * {n} * 3.6", "km/h turned the wrong way")),
            n=Num(18, 130),
        ),
        Move(
            "accelerate", _TIME, _SPEED,
            "From rest, a rocket sledge accelerates at {n} m/s^2 for this time; find its final speed.",
            "{n} * {x}",
            (("{n} * {x} ** 2 / 2", "distance in place of speed"), ("{x} / {n}", "divided by the acceleration")),
            n=Num(5, 95, 1),
        ),
        Move(
            "pace", _DISTANCE, _SPEED,
            "A vehicle covers this distance in {n} min; find the average speed.",
            "{x} / ({n} * 60)",
            (("{x} / {n}", "minutes taken as seconds"), ("{x} / 1000 / ({n} * 60)", "km/s in place of m/s")),
            n=Num(5, 600, 1),
        ),
    ),
)  # fmt: skip

_MASS = Kind("mass", "g", 0.5, 5_000_000)
_VOLUME = Kind("volume", "cm^3", 0.1, 5_000_000)
_BUOYANCY = Kind("force", "N", 0.005, 50_000)
_LEVEL = Kind("height", "cm", 0.5, 2_000)
_PRESSURE = Kind("pressure", "Pa", 20, 2_000_000)
_SOLIDS = (*substances_with("density", group="metal"), *substances_with("density", group="solid"))
_LIQUIDS = substances_with("density", group="liquid")

FLUIDS = Family(
    "fluids",
    (
        Move(
            "solid", None, _VOLUME,
            "A piece of {s.name} has a mass of {n} g; find its volume.",
            "{n} / {s.density}",
            (
                ("{n} * {s.density}", "multiplied by the density"),
                ("{n} / 1000 / {s.density}", "g turned into kg"),
                ("{n} / {w.density}", "the density of {w.name}"),
            ),
            _SOLIDS, n=Num(105, 9995, 1),
        ),
        Move(
            "displace", _VOLUME, _BUOYANCY,
            "A body of this volume is held below the surface of {s.name}; find the buoyant force on it on Earth.",
            "{s.density} * {x} / 1000 * {g}",
            (
                ("{s.density} * {x} * {g}", "g taken as kg"),
                ("{x} / 1000 * {g}", "the density left out"),
                ("{w.density} * {x} / 1000 * {g}", "the density of {w.name}"),
            ),
            _LIQUIDS,
        ),
        Move(
            "displaced", _BUOYANCY, _VOLUME,
            "Find the volume of a body that gets a buoyant force of this size in {s.name} on Earth.",
            "{x} / ({s.density} * {g}) * 1000",
            (
                ("{x} / ({s.density} * {g})", "kg taken as g"),
                ("{x} / {s.density} * 1000", "gravity left out"),
                ("{x} / ({w.density} * {g}) * 1000", "the density of {w.name}"),
            ),
            _LIQUIDS,
        ),
        Move(
            "cast", _VOLUME, _MASS,
            "Find the mass of the same volume of {s.name}.",
            "{x} * {s.density}",
            (("{x} / {s.density}", "divided by the density"), ("{x} * {w.density}", "the density of {w.name}")),
            (*_SOLIDS, *_LIQUIDS),
        ),
        Move(
            "volume", _MASS, _VOLUME,
            "Find the volume of the same mass of {s.name}.",
            "{x} / {s.density}",
            (("{x} * {s.density}", "multiplied by the density"), ("{x} / {w.density}", "the density of {w.name}")),
            (*_SOLIDS, *_LIQUIDS),
        ),
        Move(
            "pour", _VOLUME, _LEVEL,
            "This volume of {s.name} is poured into an upright cylinder of {n} cm inner diameter; find how high "
            "it stands.",
            "{x} / (math.pi * ({n} / 2) ** 2)",
            (("{x} / (math.pi * {n} ** 2)", "diameter taken as radius"),
             ("{x} / (math.pi * {n})", "circumference as area")),
            _LIQUIDS, n=Num(8, 400, 1),
        ),
        Move(
            "column", _LEVEL, _PRESSURE,
            "Find the pressure that a column of {s.name} of this height exerts on its base on Earth, without the air.",
            "{s.density} * 1000 * {g} * {x} / 100",
            (
                ("{s.density} * 1000 * {g} * {x}", "cm taken as m"),
                ("{s.density} * {g} * {x} / 100", "g/cm^3 taken as kg/m^3"),
                ("{w.density} * 1000 * {g} * {x} / 100", "the density of {w.name}"),
            ),
            _LIQUIDS,
        ),
        Move(
            "piston", _PRESSURE, _BUOYANCY,
            "Find the force of this pressure on a piston of {n} cm^2.",
            "{x} * {n} * 1e-4",
            (("{x} * {n} / 100", "cm^2 taken as 1e-2 m^2"), ("{x} / ({n} * 1e-4)", "divided by the area")),
            n=Num(8, 900, 1),
        ),
        Move(
            "press", _BUOYANCY, _PRESSURE,
            "A force of this size acts on a plate of {n} cm^2; find the pressure.",
            "{x} / ({n} * 1e-4)",
            (("{x} / ({n} / 100)", "cm^2 taken as 1e-2 m^2"), ("{x} * {n} * 1e-4", "multiplied by the area")),
            n=Num(8, 900, 1),
        ),
    ),
)  # fmt: skip

_AREA = Kind("area", "m^2", 1, 10_000_000)
_LITRES = Kind("volume", "L", 0.5, 100_000_000)
_KILOGRAMS = Kind("mass", "kg", 0.2, 100_000_000)
_NEWTON = Kind("force", "N", 1, 1_000_000_000)
_KPA = Kind("pressure", "kPa", 0.5, 100_000)
_METRES = Kind("length", "m", 0.05, 50_000)

UNITS = Family(
    "units",
    (
        Move(
            "field", None, _AREA,
            "A rectangular plot is {n} ft by {m} ft; find its area.",
            "{n} * {m} * {foot} ** 2",
            (("{n} * {m} * {foot}", "the factor not squared"), ("{n} * {m} * {yard} ** 2", "yards in place of feet")),
            n=Num(25, 900), m=Num(25, 900),
        ),
        Move(
            "tanker", None, _LITRES,
            "A tank holds {n} US gallons; find its volume.",
            "{n} * {gallon}",
            (("{n} / {gallon}", "divided by the factor"), ("{n} * 4.54609", "imperial gallons in place of US ones")),
            n=Num(21, 9995, 1),
        ),
        Move(
            "parcel", None, _KILOGRAMS,
            "A load consists of {n} sacks of {m} lb each; find its mass.",
            "{n} * {m} * {pound}",
            (("{n} * {m} / {pound}", "divided by the factor"), ("{n} * {m} * {ounce}", "ounces in place of pounds")),
            n=Num(12, 350), m=Num(15, 995, 1),
        ),
        Move(
            "tyre", None, _KPA,
            "A vessel stands under {n} psi; find the pressure.",
            "{n} * {psi} / 1000",
            (("{n} * {psi}", "Pa taken as kPa"), ("{n} * {mmHg} / 1000", "mmHg in place of psi")),
            n=Num(105, 9995, 2),
        ),
        Move(
            "voyage", None, _METRES,
            "A boat at {n} knots (nautical miles an hour) sails for {m} min; find the length of its way.",
            "{n} * {nautical_mile} * {m} / 60",
            (("{n} * {mile} * {m} / 60", "statute miles in place of nautical ones"),
             ("{n} * {nautical_mile} * {m}", "minutes taken as hours")),
            n=Num(30, 280, 1), m=Num(4, 50),
        ),
        Move(
            "rain", _AREA, _LITRES,
            "Rain of {n} in falls on this area; find the volume of the rain.",
            "{x} * {n} * {inch} * 1000",
            (("{x} * {n} * {inch}", "m^3 taken as L"), ("{x} * {n} * {foot} * 1000", "feet in place of inches")),
            n=Num(10, 480, 2),
        ),
        Move(
            "acres", _AREA, _AREA,
            "Find the area of a farm of {n} acres together with {m} plots of this area.",
            "{x} * {m} + {n} * {acre}",
            (("{x} * {m} + {n} * {hectare}", "hectares in place of acres"), ("{x} + {n} * {acre}", "only one plot")),
            n=Num(20, 990, 2), m=Num(2, 9), needs="{x} / 50 < {n} * {acre} < {x} * 4",
        ),
        Move(
            "freight", _LITRES, _KILOGRAMS,
            "Find the mass of this volume of {s.name}.",
            "{x} * {s.density}",
            (("{x} / {s.density}", "divided by the density"), ("{x} * {s.density} / 1000", "L taken as cm^3"),
             ("{x} * {w.density}", "the density of {w.name}")),
            _LIQUIDS,
        ),
        Move(
            "load", _KILOGRAMS, _NEWTON,
            "Find the weight of this mass on Earth as a force.",
            "{x} * {g}",
            (("{x} / {g}", "divided by gravity"), ("{x} * {pound_force}", "kg taken as lb")),
        ),
        Move(
            "footing", _NEWTON, _KPA,
            "This force acts evenly on {n} ft^2; find the pressure.",
            "{x} / ({n} * {foot} ** 2) / 1000",
            (("{x} / ({n} * {foot}) / 1000", "the factor not squared"),
             ("{x} / ({n} * {foot} ** 2)", "Pa taken as kPa")),
            n=Num(12, 990, 1),
        ),
        Move(
            "thrust", _KPA, _NEWTON,
            "Find the force of this pressure on {n} in^2.",
            "{x} * 1000 * {n} * {inch} ** 2",
            (("{x} * 1000 * {n} * {inch}", "the factor not squared"), ("{x} * {n} * {inch} ** 2", "kPa taken as Pa")),
            n=Num(20, 990, 1),
        ),
        Move(
            "depth", _KPA, _METRES,
            "Find the height of a column of {s.name} that exerts this pressure on its base on Earth, without the air.",
            "{x} * 1000 / ({s.density} * 1000 * {g})",
            (("{x} / ({s.density} * 1000 * {g})", "kPa taken as Pa"), ("{x} / {s.density}", "gravity left out"),
             ("{x} * 1000 / ({w.density} * 1000 * {g})", "the density of {w.name}")),
            _LIQUIDS,
        ),
        Move(
            "strip", _METRES, _AREA,
            "Find the area of a rectangle of this length that is {n} yd wide.",
            "{x} * {n} * {yard}",
            (("{x} * {n} * {foot}", "feet in place of yards"),
             ("{x} * {n} / {yard} ** 2", "the wrong way and squared")),
            n=Num(20, 2200, 1),
        ),
    ),
)  # fmt: skip
