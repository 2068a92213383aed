"""Constants of nature, units outside the SI, and gravity on other worlds."""

from __future__ import annotations

from elpo_envs.tasks.science.entries import Body, Constant, UnitFactor

# CODATA 2022 (National Institute of Standards and Technology); standard gravity and the zero of the Celsius
# scale are conventions.
CONSTANTS = (
    Constant("c", "Speed of light in vacuum", 299792458, "m/s", exact=True),
    Constant("h", "Planck constant", 6.62607015e-34, "J s", exact=True),
    Constant("e", "Elementary charge", 1.602176634e-19, "C", exact=True),
    Constant("N_A", "Avogadro constant", 6.02214076e23, "1/mol", exact=True),
    Constant("k_B", "Boltzmann constant", 1.380649e-23, "J/K", exact=True),
    Constant("R", "Molar gas constant", 8.314462618, "J/(mol K)"),
    Constant("F", "Faraday constant", 96485.33212, "C/mol"),
    Constant("G", "Newtonian constant of gravitation", 6.6743e-11, "m^3/(kg s^2)"),
    Constant("g", "Standard acceleration of gravity", 9.80665, "m/s^2", exact=True),
    Constant("T0", "Zero of the Celsius scale", 273.15, "K", exact=True),
    Constant("atm", "Standard atmosphere", 101325, "Pa", exact=True),
    Constant("m_e", "Electron mass", 9.1093837139e-31, "kg"),
    Constant("m_p", "Proton mass", 1.67262192595e-27, "kg"),
    Constant("m_n", "Neutron mass", 1.67492750056e-27, "kg"),
    Constant("u", "Atomic mass constant", 1.66053906892e-27, "kg"),
    Constant("eps_0", "Vacuum electric permittivity", 8.8541878188e-12, "F/m"),
    Constant("mu_0", "Vacuum magnetic permeability", 1.25663706127e-6, "N/A^2"),
    Constant("sigma", "Stefan-Boltzmann constant", 5.670374419e-8, "W/(m^2 K^4)"),
    Constant("b", "Wien wavelength displacement law constant", 2.897771955e-3, "m K"),
    Constant("R_inf", "Rydberg constant", 10973731.568157, "1/m"),
    Constant("a_0", "Bohr radius", 5.29177210544e-11, "m"),
    Constant("alpha", "Fine-structure constant", 7.2973525643e-3, ""),
)

UNITS = (
    UnitFactor("inch", "inch", "in", 0.0254, "m", "length"),
    UnitFactor("foot", "foot", "ft", 0.3048, "m", "length"),
    UnitFactor("yard", "yard", "yd", 0.9144, "m", "length"),
    UnitFactor("mile", "mile", "mi", 1609.344, "m", "length"),
    UnitFactor("nautical_mile", "nautical mile", "nmi", 1852, "m", "length"),
    UnitFactor("astronomical_unit", "astronomical unit", "au", 149597870700, "m", "length"),
    UnitFactor("light_year", "light year", "ly", 9.4607304725808e15, "m", "length"),
    UnitFactor("acre", "acre", "ac", 4046.8564224, "m^2", "area"),
    UnitFactor("hectare", "hectare", "ha", 10000, "m^2", "area"),
    UnitFactor("gallon", "US gallon", "gal", 3.785411784, "L", "volume"),
    UnitFactor("pound", "pound", "lb", 0.45359237, "kg", "mass"),
    UnitFactor("ounce", "ounce", "oz", 0.028349523125, "kg", "mass"),
    UnitFactor("tonne", "tonne", "t", 1000, "kg", "mass"),
    UnitFactor("pound_force", "pound-force", "lbf", 4.4482216152605, "N", "force"),
    UnitFactor("psi", "pound-force per square inch", "psi", 6894.757293168, "Pa", "pressure"),
    UnitFactor("bar", "bar", "bar", 100000, "Pa", "pressure"),
    UnitFactor("mmHg", "millimetre of mercury", "mmHg", 133.322387415, "Pa", "pressure"),
    UnitFactor("calorie", "calorie", "cal", 4.184, "J", "energy"),
    UnitFactor("BTU", "British thermal unit", "BTU", 1055.05585262, "J", "energy"),
    UnitFactor("kWh", "kilowatt hour", "kWh", 3600000, "J", "energy"),
    UnitFactor("eV", "electronvolt", "eV", 1.602176634e-19, "J", "energy"),
    UnitFactor("horsepower", "mechanical horsepower", "hp", 745.69987158227, "W", "power"),
)

PREFIXES = (
    ("pico", "p", "1e-12"),
    ("nano", "n", "1e-9"),
    ("micro", "µ", "1e-6"),
    ("milli", "m", "1e-3"),
    ("centi", "c", "1e-2"),
    ("kilo", "k", "1e3"),
    ("mega", "M", "1e6"),
    ("giga", "G", "1e9"),
    ("tera", "T", "1e12"),
)

BODIES = (
    Body("the Moon", 1.62),
    Body("Mars", 3.71),
    Body("Mercury", 3.7),
    Body("Venus", 8.87),
    Body("Titan", 1.35),
)
