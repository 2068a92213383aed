"""Becomes Node.js, inside the jail. Run by path; standard library only.

The order of things: descriptors, environment, limits, privileges and Landlock, then the filter for system calls,
then `execve`. The filter has to let `execve` through, but Landlock grants execution of Node.js and of the dynamic
loader alone, and no other process can be made, so the most that code inside can execute is Node.js again, in the
same jail. Address space is not limited, since Node.js reserves terabytes of it: what is, is memory that can be
written (`RLIMIT_DATA`).

Its argument is JSON: `command` (of Node.js), `environment`, `read` and `execute` (paths), `data_bytes`,
`stack_bytes`. It writes what the jail achieved to stdout as one frame, and is Node.js from then on.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import types

if not __package__:
    # Run by path. A package of this name stands for the folder, so that the package around it is not imported.
    _folder = types.ModuleType("_elpo_sandbox")
    _folder.__path__ = [__file__.rsplit(os.sep, 2)[0]]
    sys.modules["_elpo_sandbox"] = _folder
    __package__ = "_elpo_sandbox.pyodide"

from .. import jail
from ..frames import write_frame

_OPEN_FILES = 64
_STACK_TO_SPARE = 1 << 20


def launch(
    command: list[str],
    environment: dict[str, str],
    read: list[str],
    execute: list[str],
    data_bytes: int,
    stack_bytes: int,
) -> None:
    """Enter the jail and execute `command`, with a stack of `stack_bytes` or as near as may be had."""
    stack = _raise_stack(stack_bytes)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    data = data_bytes if hard == resource.RLIM_INFINITY else min(data_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    bounds = jail.Bounds(address_space_bytes=None, cpu_s=None, open_files=_OPEN_FILES)
    spec = jail.JailSpec(tuple(read), (), (), bounds, profile="node", execute=tuple(execute))
    report = jail.enter(spec)
    told = {"active": report.active, "missing": dict(report.missing), "isolated": report.isolated}
    write_frame(1, json.dumps(told).encode())
    os.execve(command[0], [command[0], f"--stack-size={stack >> 10}", *command[1:]], environment)


def _raise_stack(wanted: int) -> int:
    """Allow the stack all that may be had; return how much of it V8 may use, in bytes, at most `wanted`."""
    # Not just as much as wanted: the stacks of all threads would be of that size, and count as memory.
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - _STACK_TO_SPARE)


if __name__ == "__main__":
    launch(**json.loads(sys.argv[1]))
