"""What the backend finds on this machine: Node.js, Pyodide, and the Python packages to take along."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from elpo_envs.sandbox.base import SandboxError

VARIABLE = "ELPO_PYODIDE"
OLDEST_NODE = 20

_ENTRY = "pyodide.mjs"
_START_S = 20.0
_HOW = f"run 'npm install pyodide' here, or set {VARIABLE} to the folder where you ran it"
_BINARY = (".so", ".pyd", ".dylib")


@dataclass(frozen=True)
class Installation:
    """Programs to run.

    Attributes:
        node: path of Node.js.
        libraries: files that it has in memory while it runs, its dynamic loader among them. Known on Linux only.
        pyodide: folder of the npm package, which holds `pyodide.mjs`.
        version: of Pyodide.
    """

    node: Path
    libraries: tuple[Path, ...]
    pyodide: Path
    version: str


def find(package: str | os.PathLike[str] | None = None, node: str = "node") -> Installation:
    """Look for Node.js and Pyodide; runs Node.js for a moment the first time.

    Pyodide is taken from `package`, or else from the environment variable ELPO_PYODIDE; either is the package's
    folder, one in which `npm install pyodide` was run, or a `node_modules`. Where neither is given, from a
    `node_modules` in the working directory or above it, or else from where npm installs globally.

    Args:
        package: see above.
        node: name or path of the program.

    Raises:
        SandboxError: one of them is missing or too old; says how to get it.
    """
    program, libraries = _program(node)
    folder = _folder(package, program)
    try:
        version = json.loads((folder / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SandboxError(f"the pyodide package in {folder} is damaged ({error!r}); install it again") from error
    return Installation(program, libraries, folder, str(version))


def locate_packages(names: Iterable[str]) -> dict[str, str]:
    """Where Python packages and modules of this environment lie: name of the folder or file to its path.

    Nothing is imported; names that are not installed are left out.

    Raises:
        ValueError: a name is not that of a top-level package, or the package holds binary code, which cannot run in
            WebAssembly.
    """
    found = {}
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"packages must hold names of top-level packages such as 'sympy', not {name!r}")
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        place = next(iter(spec.submodule_search_locations or ()), None) or spec.origin or ""
        path = Path(place)
        if not path.exists() or path.suffix in _BINARY or any(f.suffix in _BINARY for f in path.rglob("*")):
            raise ValueError(f"packages holds {name!r}, which is not written in Python alone; leave it out")
        found[path.name] = str(path)
    return found


def _program(node: str) -> tuple[Path, tuple[Path, ...]]:
    found = shutil.which(node)
    if found is None:
        raise SandboxError(f"Node.js was not found as {node!r}; install version {OLDEST_NODE} or later from nodejs.org")
    version, path, libraries = _examine(found)
    if version < OLDEST_NODE:
        raise SandboxError(f"Node.js {version} ({path}) is too old; version {OLDEST_NODE} or later is needed")
    return path, libraries


# What is called `node` may be a script that starts the right version, so the program itself is asked.
_QUESTION = """
const fs = require("fs"), maps = "/proc/self/maps";
const mapped = fs.existsSync(maps) ? fs.readFileSync(maps, "utf8").match(/\\/.*$/gm) : [];
console.log(JSON.stringify([process.versions.node, process.execPath, [...new Set(mapped)]]));
"""


@functools.cache
def _examine(node: str) -> tuple[int, Path, tuple[Path, ...]]:
    """The major version of the program, its real path and the files it has mapped."""
    try:
        line = [node, "-e", _QUESTION]
        told = subprocess.run(line, capture_output=True, text=True, timeout=_START_S, check=True).stdout
        version, path, mapped = json.loads(told)
        return int(version.split(".")[0]), Path(path).resolve(), tuple(Path(file) for file in mapped)
    except (OSError, ValueError, TypeError, AttributeError, subprocess.SubprocessError) as error:
        raise SandboxError(f"{node} does not run as Node.js does: {error}") from error


def _folder(package: str | os.PathLike[str] | None, node: Path) -> Path:
    given = os.environ.get(VARIABLE) if package is None else package
    if given:
        for folder in (Path(given), Path(given, "pyodide"), Path(given, "node_modules", "pyodide")):
            if (folder / _ENTRY).is_file():
                return folder.resolve()
        source = VARIABLE if package is None else "package"
        raise SandboxError(f"{source} is {os.fspath(given)!r}, in which there is no pyodide package; {_HOW}")
    for modules in _module_folders(node):
        if (modules / "pyodide" / _ENTRY).is_file():
            return (modules / "pyodide").resolve()
    raise SandboxError(f"the npm package pyodide was not found; {_HOW}")


def _module_folders(node: Path) -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / "node_modules"
    # Where npm installs globally by default: beside Node.js, on Windows in its folder and that of the user.
    yield node.parent.parent / "lib" / "node_modules"
    yield Path("/usr/local/lib/node_modules")
    yield node.parent / "node_modules"
    if "APPDATA" in os.environ:
        yield Path(os.environ["APPDATA"], "npm", "node_modules")
