"""What a Python session has to read: its libraries, and nothing that belongs to a user or a project."""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")
_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
)


def read_paths() -> tuple[str, ...]:
    """The standard library, installed packages, shared libraries, time zones and harmless devices that exist here.

    Folders come from how Python was installed, never from `sys.path`: that also holds the working directory, the
    script's folder and projects installed for editing. Symbolic links are followed; none lies below another.
    """
    schemes = sysconfig.get_paths()
    wanted = [schemes[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    wanted += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        wanted.append(site.getusersitepackages())
    wanted += [str(Path(sys.base_prefix) / folder) for folder in ("lib", "lib64")]
    wanted += [*_LIBRARIES, *_FILES]
    found = {Path(path).resolve() for path in wanted if Path(path).exists()}
    return tuple(sorted(str(path) for path in found if not found.intersection(path.parents)))
