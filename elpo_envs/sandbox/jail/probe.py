"""The layers of the jail: their names, what each is for, and which of them this machine can be expected to have."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType

from . import landlock, namespaces, seccomp

LAYER_MEANING: Mapping[str, str] = MappingProxyType(
    {
        "namespaces": "Without it a session shares the machine's network, process numbers and mounts.",
        "descriptors": "Without it a session can use files and connections that its parent had open.",
        "environment": "Without it a session can read the environment variables of the host.",
        "rlimits": "Without it a session can take all memory, CPU time and disk space.",
        "capabilities": "Without it a session of the root user has root's powers.",
        "no_new_privs": "Without it a session can gain rights by executing a set-user-id program.",
        "death_signal": "Without it a session can outlive its supervisor.",
        "undumpable": "Without it other processes of this user can look into a session, and it can leave core dumps.",
        "landlock": "Without it a session can read every file that this user can read.",
        "seccomp": "Without it a session can use the whole of the kernel: network, programs, signals to others.",
        "fork_grants": "Without it a session can make any number of processes.",
    }
)
"""Layer to one sentence about what is open when it is missing."""

LAYERS: tuple[str, ...] = tuple(LAYER_MEANING)
"""The layers in the order in which they are put on."""


def probe() -> dict[str, str | None]:
    """For each layer why it is not to be expected here, or None if it is. Cheap, and changes nothing.

    About namespaces, and about an outer listener that takes away "fork_grants", only the attempt tells for sure.
    """
    if sys.platform != "linux":
        return dict.fromkeys(LAYERS, f"this system is {sys.platform}, not Linux")
    found: dict[str, str | None] = dict.fromkeys(LAYERS)
    found["namespaces"] = namespaces.missing()
    found["landlock"] = landlock.missing()
    found["seccomp"] = seccomp.missing()
    found["fork_grants"] = found["seccomp"] or seccomp.notification_missing()
    return found
