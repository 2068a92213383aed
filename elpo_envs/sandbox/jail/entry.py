"""Puts a process into the jail, layer by layer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from . import landlock, process, profiles, seccomp
from .kernel import explained
from .probe import LAYERS
from .process import Bounds
from .syscalls import machine, no_machine

# Without one of these a hostile program could reach beyond the jail. ("fork_grants" only where it could fork.)
ISOLATING = frozenset({"landlock", "seccomp", "fork_grants", "no_new_privs", "capabilities", "rlimits"})


@dataclass(frozen=True)
class JailSpec:
    """What a jailed process keeps.

    Attributes:
        read: files and folders that may be read, with all below them, and libraries mapped from them.
        write: folders below which files and folders may be made, read, written, moved and removed; no links, device
            nodes, sockets or fifos, and nothing in them can be executed.
        keep: descriptors that stay open besides 0, 1 and 2. No datagram sockets: those reach other addresses.
        bounds: resource limits.
        profile: "python", or "node" for a process that goes on to execute Node.js: it may have threads but no other
            processes.
        disabled: layers to leave out, for tests.
        execute: with profile "node", the only files that may be executed: Node.js and the dynamic loader.
    """

    read: tuple[str, ...]
    write: tuple[str, ...]
    keep: tuple[int, ...]
    bounds: Bounds
    profile: str = "python"
    disabled: frozenset[str] = frozenset()
    execute: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.profile not in profiles.PROFILES:
            raise ValueError(f"JailSpec.profile is {self.profile!r}; give one of {', '.join(profiles.PROFILES)}")
        for name in sorted(self.disabled.difference(LAYERS)):
            raise ValueError(f"JailSpec.disabled holds {name!r}; the layers are {', '.join(LAYERS)}")
        for path in self.write:
            if not Path(path).is_dir():
                raise ValueError(f"JailSpec.write holds {path!r}, which is no folder; make it first")
        if self.execute and self.profile != "node":
            raise ValueError(f"JailSpec.execute is {self.execute!r}; leave it empty unless the profile is 'node'")


@dataclass(frozen=True)
class JailReport:
    """What `enter` achieved. "namespaces" is not in it: that is the launcher's, see `unshare`.

    Attributes:
        active: the layers that hold, in order.
        missing: layer to why it does not hold. With the profile "node", "fork_grants" is in neither: it cannot fork.
        listener: the descriptor for `ForkGrants` if "fork_grants" is active. Send it to the supervisor, then close it.
    """

    active: tuple[str, ...]
    missing: Mapping[str, str]
    listener: int | None = None

    @property
    def isolated(self) -> bool:
        """Whether the layers hold without which a hostile program could reach beyond the jail."""
        return ISOLATING.isdisjoint(self.missing) and "seccomp" in self.active


def enter(spec: JailSpec) -> JailReport:
    """Jail this process and all that it forks, for good. A layer that cannot be had is reported, never raised.

    Only for processes with a single thread: others would stay outside.
    """
    if sys.platform != "linux":
        reason = f"this system is {sys.platform}, not Linux"
        return JailReport((), MappingProxyType({layer: reason for layer in LAYERS if layer != "namespaces"}))
    active: list[str] = []
    missing: dict[str, str] = {}

    def put_on(layer: str, action: Callable[[], None]) -> None:
        if layer in spec.disabled:
            missing[layer] = "switched off"
            return
        try:
            action()
        except OSError as error:
            missing[layer] = explained(error)
        else:
            active.append(layer)

    put_on("descriptors", lambda: process.close_descriptors(spec.keep))
    put_on("environment", process.clear_environment)
    put_on("rlimits", lambda: process.limit_resources(spec.bounds))
    put_on("capabilities", process.drop_capabilities)
    put_on("no_new_privs", process.refuse_new_privileges)
    put_on("death_signal", process.set_death_signal)
    put_on("undumpable", process.make_undumpable)
    put_on("landlock", lambda: landlock.restrict(spec.read, spec.write, spec.execute))
    listener = _filter(spec, active, missing)
    return JailReport(tuple(active), MappingProxyType(missing), listener)


def _filter(spec: JailSpec, active: list[str], missing: dict[str, str]) -> int | None:
    """Install the filter, with a listener if it can be had; without one forks go uncounted."""
    forks = spec.profile == "python"
    if "seccomp" in spec.disabled:
        missing["seccomp"] = "switched off"
        if forks:
            missing["fork_grants"] = "seccomp is switched off"
        return None
    name = machine()
    if name is None:
        missing["seccomp"] = no_machine()
        if forks:
            missing["fork_grants"] = no_machine()
        return None
    attempts = [True, False] if forks and "fork_grants" not in spec.disabled else [False]
    if forks and "fork_grants" in spec.disabled:
        missing["fork_grants"] = "switched off"
    for notify in attempts:
        rules = profiles.rules(name, spec.profile, landlock="landlock" in active, notify=notify)
        try:
            listener = seccomp.install(rules, profiles.DEFAULT_ACTION, listener=notify)
        except OSError as error:
            missing["fork_grants" if notify else "seccomp"] = explained(error)
        else:
            active.append("seccomp")
            if notify:
                active.append("fork_grants")
            return listener
    return None
