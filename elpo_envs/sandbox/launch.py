"""How session programs are started: their command line and all that they see of the host's environment."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# The memory allocator that pyarrow, and with it pandas, brings along would start a thread.
NO_BACKGROUND_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


def command(program: str | Path, *arguments: str) -> list[str]:
    """A command line that runs the file `program`: as isolated as `python -I`, except that PYTHONHASHSEED is heeded."""
    user_site = [] if site.ENABLE_USER_SITE else ["-s"]
    return [sys.executable, "-P", *user_site, str(program), *arguments]


def environment() -> dict[str, str]:
    """The environment variables of session processes: of the host's only search paths and numbers of threads.

    Hashes, text encoding and language are the same on every host.
    """
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    threads = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    # More threads than asked for would not fit into the address space of a session on a large machine.
    threads = dict.fromkeys(_THREAD_VARIABLES, "1") | threads
    user = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
    fixed = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LANG": "C.UTF-8", **NO_BACKGROUND_THREADS}
    return kept | threads | user | fixed
