"""Assembles a seccomp filter, which is a classic BPF program, from rules about system calls."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
NOTIFY = 0x7FC00000
ALLOW = 0x7FFF0000

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_LOAD = 0x20
_AND = 0x54
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_JUMP_AT_LEAST = 0x35
_RETURN = 0x06

_NUMBER_AT = 0
_ARCH_AT = 4
_ARGUMENTS_AT = 16
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Check:
    """Holds when `argument & mask` is one of `values`.

    Attributes:
        argument: which argument of the system call, 0 to 5.
        values: what may be found there; each below 2**32.
        mask: bits that are looked at; a mask of 32 bits looks at an `int` argument as the kernel does.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = _LOW


WHOLE = 0xFFFFFFFF_FFFFFFFF
"""The mask for an argument that the kernel reads in full: a pointer, a `long`, or flags of that size."""


@dataclass(frozen=True)
class Rule:
    """What happens to the system call `number`: `action` if all `checks` hold.

    Else the next rule for that call decides, and after the last one the filter's default.
    """

    number: int
    action: int = ALLOW
    checks: tuple[Check, ...] = ()


def program(machine: str, rules: Sequence[Rule], default: int) -> bytes:
    """The filter's instructions, 8 bytes each. A foreign system call table (32-bit, x32) kills the process."""
    code = [
        _instruction(_LOAD, _ARCH_AT),
        _instruction(_JUMP_EQUAL, AUDIT_ARCH[machine], yes=1),
        _instruction(_RETURN, KILL_PROCESS),
        _instruction(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [_instruction(_JUMP_AT_LEAST, _X32_BIT, no=1), _instruction(_RETURN, KILL_PROCESS)]
    # The kernel remembers which calls are always allowed and skips the program for them, so the others go first.
    for number in dict.fromkeys(rule.number for rule in sorted(rules, key=lambda rule: not rule.checks)):
        body = [part for rule in rules if rule.number == number for part in _alternative(rule)]
        body.append(_instruction(_RETURN, default))
        code += [_instruction(_JUMP_EQUAL, number, no=len(body)), *body]
    code.append(_instruction(_RETURN, default))
    return b"".join(code)


def _alternative(rule: Rule) -> list[bytes]:
    """Return the rule's action if its checks hold; else come out at the end."""
    steps = [step for check in rule.checks for step in _check(check)]
    steps.append(_instruction(_RETURN, rule.action))
    return [step or _instruction(_JUMP, len(steps) - place - 1) for place, step in enumerate(steps)]


def _check(check: Check) -> list[bytes | None]:
    """Go on if the check holds; None stands where the rule is given up."""
    low = _ARGUMENTS_AT + 8 * check.argument
    code: list[bytes | None] = [_instruction(_LOAD, low), _instruction(_AND, check.mask & _LOW)]
    for place, value in enumerate(check.values):
        code.append(_instruction(_JUMP_EQUAL, value, yes=len(check.values) - place))
    code.append(None)
    if check.mask > _LOW:
        code += [
            _instruction(_LOAD, low + 4),
            _instruction(_AND, check.mask >> 32),
            _instruction(_JUMP_EQUAL, 0, yes=1),
            None,
        ]
    return code


def _instruction(code: int, operand: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, operand)
