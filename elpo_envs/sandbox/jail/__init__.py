"""The jail: what the operating system can do to confine a process that runs a program nobody has checked.

Only Linux has one. Elsewhere the package can be imported, and everything reports that it is missing. It runs in
processes without the rest of the project, so it imports nothing from outside its folder but the standard library.
"""

from .clone import fork_sibling, prepare_fork
from .entry import ISOLATING, JailReport, JailSpec, enter
from .namespaces import Unshared, mount_tmpfs, unmount, unshare
from .notify import ForkGrants
from .paths import read_paths
from .probe import LAYER_MEANING, LAYERS, probe
from .process import Bounds, adopt_orphans, set_death_signal
from .syscalls import machine

__all__ = [
    "ISOLATING",
    "LAYERS",
    "LAYER_MEANING",
    "Bounds",
    "ForkGrants",
    "JailReport",
    "JailSpec",
    "Unshared",
    "adopt_orphans",
    "enter",
    "fork_sibling",
    "machine",
    "mount_tmpfs",
    "prepare_fork",
    "probe",
    "read_paths",
    "set_death_signal",
    "unmount",
    "unshare",
]
