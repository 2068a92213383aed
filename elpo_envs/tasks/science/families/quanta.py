"""Waves and photons, and radioactive decay."""

from __future__ import annotations

from elpo_envs.tasks.science.materials import ISOTOPES
from elpo_envs.tasks.science.move import Family, Kind, Move, Num
from elpo_envs.tasks.science.tables import substances_with

_WAVELENGTH = Kind("wavelength", "nm", 20, 20_000)
_INSIDE = Kind("wavelength in the medium", "nm", 10, 15_000)
_FREQUENCY = Kind("frequency", "THz", 15, 15_000)
_PHOTON = Kind("photon energy", "eV", 0.05, 60)
_ELECTRON = Kind("kinetic energy", "eV", 0.05, 60)
_VELOCITY = Kind("speed of the electron", "km/s", 50, 6_000)
_MATTER = Kind("de Broglie wavelength", "nm", 0.02, 20)
_MOLAR = Kind("molar energy", "kJ/mol", 4, 8_000)
_MEDIA = substances_with("refractive_index")
_EMITTERS = substances_with("work_function")

WAVES = Family(
    "waves",
    (
        Move(
            "light", None, _FREQUENCY,
            "Light has a wavelength of {n} nm in vacuum; find its frequency.",
            "{c} / ({n} * 1e-9) / 1e12",
            (("{n} * 1e-9 / {c} * 1e12", "the fraction upside down"), ("{c} / {n} / 1e12", "nm taken as m"),
             ("{c} / ({n} * 1e-9) / 1e9", "GHz in place of THz")),
            n=Num(1105, 19995, 1),
        ),
        Move(
            "photon", None, _PHOTON,
            "A photon has a wavelength of {n} nm in vacuum; find its energy.",
            "{h} * {c} / ({n} * 1e-9) / {e}",
            (("{h} * {c} / ({n} * 1e-10) / {e}", "a power of ten lost"),
             ("{h} * {n} * 1e-9 / {e}", "wavelength as frequency"),
             ("{h} * {c} / (2 * math.pi) / ({n} * 1e-9) / {e}", "the reduced Planck constant")),
            n=Num(605, 9995, 1),
        ),
        Move(
            "accelerated", None, _VELOCITY,
            "An electron at rest is accelerated by a voltage of {n} V; find its speed (not relativistic).",
            "math.sqrt(2 * {n} * {e} / {m_e}) / 1000",
            (
                ("math.sqrt({n} * {e} / {m_e}) / 1000", "the factor 2 left out"),
                ("math.sqrt(2 * {n} * {e} / {m_p}) / 1000", "the mass of the proton"),
                ("math.sqrt(2 * {n} * {e} / {m_e})", "m/s taken as km/s"),
            ),
            n=Num(105, 5995, 2),
        ),
        Move(
            "quantum", _FREQUENCY, _PHOTON,
            "A crystal turns it into light of {n} times this frequency; find the energy of one photon of the "
            "new light.",
            "{h} * {n} * {x} * 1e12 / {e}",
            (("{h} * {n} * {x} * 1e9 / {e}", "THz taken as GHz"),
             ("{h} * {x} / {n} * 1e12 / {e}", "divided by the multiple"),
             ("{h} / (2 * math.pi) * {n} * {x} * 1e12 / {e}", "the reduced Planck constant")),
            n=Num(2, 4),
        ),
        Move(
            "wave", _PHOTON, _WAVELENGTH,
            "A dye takes it in and gives off a photon with {n}% of its energy; find the wavelength of that "
            "photon in vacuum.",
            "{h} * {c} / ({x} * {n} / 100 * {e}) * 1e9",
            (("{h} * {c} / ({x} * {e}) * {n} / 100 * 1e9", "the share taken of the wavelength"),
             ("{h} * {c} / ({x} * {n} / 100 * {e}) * 1e10", "angstrom in place of nm"),
             ("{h} * {c} / (2 * math.pi) / ({x} * {n} / 100 * {e}) * 1e9", "the reduced Planck constant")),
            n=Num(55, 93),
        ),
        Move(
            "oscillation", _WAVELENGTH, _FREQUENCY,
            "A redshift stretches this wavelength by {n}%; find the frequency of the light that arrives.",
            "{c} / ({x} * (1 + {n} / 100) * 1e-9) / 1e12",
            (("{c} / ({x} * {n} / 100 * 1e-9) / 1e12", "the change in place of the new wavelength"),
             ("{c} / ({x} * (1 - {n} / 100) * 1e-9) / 1e12", "the wavelength shortened"),
             ("{c} / ({x} * (1 + {n} / 100) * 1e-9) / 1e9", "GHz in place of THz")),
            n=Num(6, 80),
        ),
        Move(
            "enter", _WAVELENGTH, _INSIDE,
            "Light of this wavelength in vacuum enters {s.name}; find its wavelength in {s.name}.",
            "{x} / {s.refractive_index}",
            (("{x} * {s.refractive_index}", "multiplied by the index"),
             ("{x} / {s.refractive_index} ** 2", "the index used twice")),
            _MEDIA,
        ),
        Move(
            "leave", _INSIDE, _WAVELENGTH,
            "Light that has this wavelength in {s.name} comes out into vacuum; find its wavelength in vacuum.",
            "{x} * {s.refractive_index}",
            (("{x} / {s.refractive_index}", "divided by the index"), ("{x} * {s.refractive_index} ** 2", "used twice")),
            _MEDIA,
        ),
        Move(
            "eject", _PHOTON, _ELECTRON,
            "A photon of this energy frees an electron from {s.name}; find the electron's greatest kinetic energy.",
            "{x} - {s.work_function}",
            (("{x} + {s.work_function}", "the work function added"), ("{x}", "the work function left out")),
            _EMITTERS, needs="{x} > 1.1 * {s.work_function}",
        ),
        Move(
            "speed", _ELECTRON, _VELOCITY,
            "Find the speed of an electron of this kinetic energy (not relativistic).",
            "math.sqrt(2 * {x} * {e} / {m_e}) / 1000",
            (("math.sqrt({x} * {e} / {m_e}) / 1000", "the factor 2 left out"),
             ("math.sqrt(2 * {x} * {e} / {m_p}) / 1000", "the mass of the proton")),
        ),
        Move(
            "matter", _VELOCITY, _MATTER,
            "Find the de Broglie wavelength of an electron at this speed.",
            "{h} / ({m_e} * {x} * 1000) * 1e9",
            (("{h} / ({m_e} * {x}) * 1e9", "km/s taken as m/s"), ("{h} / ({m_e} * {x} * 1000) * 1e10", "angstrom")),
        ),
        Move(
            "momentum", _MATTER, _ELECTRON,
            "Find the kinetic energy of an electron with {n} times this de Broglie wavelength (not relativistic).",
            "({h} / ({n} * {x} * 1e-9)) ** 2 / (2 * {m_e}) / {e}",
            (("({h} / ({n} * {x} * 1e-9)) ** 2 / {m_e} / {e}", "the factor 2 left out"),
             ("({h} * {n} / ({x} * 1e-9)) ** 2 / (2 * {m_e}) / {e}", "the momentum multiplied")),
            n=Num(11, 29, 1),
        ),
        Move(
            "tube", _ELECTRON, _PHOTON,
            "{n}% of this energy becomes the energy of one photon; find the photon's energy.",
            "{x} * {n} / 100",
            (("{x} * (1 - {n} / 100)", "the part lost"), ("{x} / ({n} / 100)", "divided by the share")),
            n=Num(25, 94),
        ),
        Move(
            "bond", _PHOTON, _MOLAR,
            "Find the energy of one mole of photons of this energy.",
            "{x} * {e} * {N_A} / 1000",
            (("{x} * {e} * {N_A}", "J taken as kJ"),
             ("{x} * {N_A} / 1000 * 1e-19", "the electronvolt taken as 1e-19 J")),
        ),
        Move(
            "break", _MOLAR, _WAVELENGTH,
            "Find the wavelength in vacuum of photons of which {n} mol has as much energy as one mole of those.",
            "{n} * {h} * {c} * {N_A} / ({x} * 1000) * 1e9",
            (
                ("{h} * {c} * {N_A} / ({n} * {x} * 1000) * 1e9", "divided by the number of moles"),
                ("{n} * {h} * {c} * {N_A} / {x} * 1e9", "kJ taken as J"),
                ("{n} * {h} * {c} * {N_A} / ({x} * 1000) * 1e10", "angstrom in place of nm"),
            ),
            n=Num(12, 39, 1),
        ),
    ),
)  # fmt: skip

_NUCLIDE = Kind("mass", "mg", 0.0001, 100_000)
_ACTIVITY = Kind("activity", "TBq", 0.01, 10_000_000)
_NUCLEI = Kind("amount of substance", "µmol", 0.001, 1_000_000)
_WAIT = Kind("time", "days", 0.2, 5_000)
_LAW = "math.log(2) / ({t.half_life} * 86400)"

DECAY = Family(
    "decay",
    (
        Move(
            "store", None, _NUCLIDE,
            "{n} mg of {t.name} is stored for {m} days; find the mass of {t.name} left.",
            "{n} * 0.5 ** ({m} / {t.half_life})",
            (
                ("{n} * (1 - 0.5 ** ({m} / {t.half_life}))", "the part decayed"),
                ("{n} * math.exp(-{m} / {t.half_life})", "half-life taken as mean life"),
                ("{n} * (1 - 0.5 * {m} / {t.half_life})", "linear decay"),
            ),
            n=Num(105, 9995, 1), m=Num(12, 990, 1), needs="0.15 * {t.half_life} < {m} < 4 * {t.half_life}",
        ),
        Move(
            "measure", None, _ACTIVITY,
            "A fresh source is {n} mg of {t.name}; find its activity.",
            f"{{n}} * 1e-3 / {{t.molar_mass}} * {{N_A}} * {_LAW} / 1e12",
            (
                ("{n} * 1e-3 / {t.molar_mass} * {N_A} / ({t.half_life} * 86400) / 1e12", "ln 2 left out"),
                (f"{{n}} / {{t.molar_mass}} * {{N_A}} * {_LAW} / 1e12", "mg taken as g"),
                ("{n} * 1e-3 / {t.molar_mass} * {N_A} * math.log(2) / ({t.half_life} * 3600) / 1e12",
                 "3600 s in a day"),
            ),
            n=Num(105, 9995, 1),
        ),
        Move(
            "activity", _NUCLIDE, _ACTIVITY,
            "Find the activity of this mass of {t.name}.",
            f"{{x}} * 1e-3 / {{t.molar_mass}} * {{N_A}} * {_LAW} / 1e12",
            (
                ("{x} * 1e-3 / {t.molar_mass} * {N_A} / ({t.half_life} * 86400) / 1e12", "ln 2 left out"),
                (f"{{x}} / {{t.molar_mass}} * {{N_A}} * {_LAW} / 1e12", "mg taken as g"),
            ),
        ),
        Move(
            "fade", _ACTIVITY, _ACTIVITY,
            "It is left to decay for {m} days; find the activity then.",
            "{x} * 0.5 ** ({m} / {t.half_life})",
            (
                ("{x} * (1 - 0.5 ** ({m} / {t.half_life}))", "the part decayed"),
                ("{x} * math.exp(-{m} / {t.half_life})", "half-life taken as mean life"),
            ),
            m=Num(12, 990, 1), needs="0.15 * {t.half_life} < {m} < 4 * {t.half_life}",
        ),
        Move(
            "mass", _ACTIVITY, _NUCLIDE,
            "Find the mass of {t.name} in a source that has {n}% of this activity.",
            f"{{n}} / 100 * {{x}} * 1e12 / ({_LAW}) / {{N_A}} * {{t.molar_mass}} * 1000",
            (
                ("{n} / 100 * {x} * 1e12 * {t.half_life} * 86400 / {N_A} * {t.molar_mass} * 1000", "ln 2 left out"),
                (f"{{n}} / 100 * {{x}} * 1e12 / ({_LAW}) / {{N_A}} * {{t.molar_mass}}", "g in place of mg"),
            ),
            n=Num(5, 92),
        ),
        Move(
            "amount", _NUCLIDE, _NUCLEI,
            "Find the amount of substance of this mass of {t.name}.",
            "{x} / {t.molar_mass} * 1000",
            (("{x} * {t.molar_mass} / 1000", "multiplied by the molar mass"),
             ("{x} / {t.molar_mass}", "mmol in place of µmol")),
        ),
        Move(
            "decays", _NUCLEI, _NUCLEI,
            "Find the amount of it that decays in the next {m} days.",
            "{x} * (1 - 0.5 ** ({m} / {t.half_life}))",
            (
                ("{x} * 0.5 ** ({m} / {t.half_life})", "the part left"),
                ("{x} * (1 - math.exp(-{m} / {t.half_life}))", "half-life taken as mean life"),
            ),
            m=Num(12, 990, 1), needs="0.15 * {t.half_life} < {m} < 4 * {t.half_life}",
        ),
        Move(
            "source", _NUCLEI, _ACTIVITY,
            "Find the activity of the same amount of fresh {t.name}.",
            f"{{x}} * 1e-6 * {{N_A}} * {_LAW} / 1e12",
            (
                ("{x} * 1e-6 * {N_A} / ({t.half_life} * 86400) / 1e12", "ln 2 left out"),
                (f"{{x}} * 1e-3 * {{N_A}} * {_LAW} / 1e12", "µmol taken as mmol"),
            ),
        ),
        Move(
            "wait", _ACTIVITY, _WAIT,
            "Find the time after which it has fallen to {n} TBq.",
            "{t.half_life} * math.log2({x} / {n})",
            (
                ("{t.half_life} * math.log({x} / {n})", "the natural logarithm in place of that to base 2"),
                ("{t.half_life} * {x} / {n} / 2", "linear decay"),
            ),
            n=Num(1, 9000), needs="{x} / 20 < {n} < {x} / 1.2",
        ),
        Move(
            "rest", _WAIT, _NUCLIDE,
            "Find the mass that is left of {n} mg of {t.name} after the same time.",
            "{n} * 0.5 ** ({x} / {t.half_life})",
            (
                ("{n} * (1 - 0.5 ** ({x} / {t.half_life}))", "the part decayed"),
                ("{n} * math.exp(-{x} / {t.half_life})", "half-life taken as mean life"),
            ),
            n=Num(105, 9995, 1),
        ),
    ),
    theme=ISOTOPES,
)  # fmt: skip
