"""What confines the `pyodide` backend: ways out of WebAssembly, the jail around Node.js, its end; and what it finds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from _pyodide import INSTALLED, NOT_INSTALLED, cache, fresh_box, own_cache, shared_box  # noqa: F401

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.pyodide import PyodideSandbox, installation, process

needs_pyodide = pytest.mark.skipif(not INSTALLED, reason=NOT_INSTALLED)
needs_jail = pytest.mark.skipif(
    sys.platform != "linux" or not (INSTALLED and PyodideSandbox().capabilities.isolated),
    reason="Pyodide is not installed, or there is no jail: not Linux, or a kernel without Landlock or seccomp",
)


# --- from Python to JavaScript ------------------------------------------------------------------------------

BACK_TO_PYODIDE = """
import sys
del sys.meta_path[0:2]
import _pyodide_core
try:
    import pyodide.ffi
except ModuleNotFoundError:
    from pyodide.ffi import to_js
"""


@needs_pyodide
@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("import os; os.system('id')", "-1"),
        ("import js", "ModuleNotFoundError: No module named 'js'"),
        ("import pyodide_js", "ModuleNotFoundError: No module named 'pyodide_js'"),
        ("from pyodide.code import run_js", "ModuleNotFoundError: No module named 'pyodide'"),
        ("import subprocess; subprocess.run(['id'])", "emscripten does not support processes."),
        ("import os; os.fork()", "OSError: [Errno 52] Function not implemented"),
        ("import socket; socket.socket()", "PermissionError: [Errno 63] Operation not permitted"),
        ("open('/etc/passwd')", "FileNotFoundError: [Errno 44] No such file or directory: '/etc/passwd'"),
        ("import os; sorted(os.environ)", "['HOME', 'LANG', 'PWD', 'TMPDIR']"),
        (BACK_TO_PYODIDE + "import js", "ModuleNotFoundError: No module named 'js'"),
        (
            BACK_TO_PYODIDE + "to_js([1]).constructor.constructor('return process')()",
            "EvalError: Code generation from strings disallowed for this context",
        ),
        (
            "import gc; [o for o in gc.get_objects() if type(o).__name__ == 'JsProxy' and 'process' in dir(o)]",
            "[]",
        ),
    ],
)
def test_ways_to_javascript_are_shut(box: PyodideSandbox, code: str, answer: str) -> None:
    text = box.run(code).text
    assert text.endswith(answer), text


# --- the jail around Node.js --------------------------------------------------------------------------------

ATTEMPTS = """
const fs = require("fs"), net = require("net"), dgram = require("dgram"), { spawnSync } = require("child_process");
const attempts = {
  program: () => { const { error, status } = spawnSync("/bin/true"); if (error) throw error; return status; },
  itself: () => { const { error } = spawnSync(process.execPath, ["--version"]); if (error) throw error; },
  passwords: () => fs.readFileSync("/etc/passwd").length,
  environment: () => fs.readFileSync("/proc/self/environ").length,
  project: () => fs.readFileSync(PROJECT).length,
  list: () => fs.readdirSync("/").length,
  write: () => fs.writeFileSync(TARGET, "x"),
  remove: () => fs.unlinkSync(OLD),
  signal: () => process.kill(process.ppid, 0),
  connect: () => new Promise((resolve, reject) => {
    net.connect(1, "127.0.0.1").on("error", (e) => (e.code === "ECONNREFUSED" ? resolve(e.code) : reject(e)));
  }),
  listen: () => new Promise((resolve, reject) => {
    net.createServer().on("error", reject).listen(0, () => resolve("listening"));
  }),
  datagram: () => new Promise((resolve, reject) => {
    dgram.createSocket("udp4").on("error", reject).bind(0, () => resolve("bound"));
  }),
  local: () => new Promise((resolve, reject) => {
    net.createServer().on("error", reject).listen("\\0elpo-test", () => resolve("listening"));
  }),
};
(async () => {
  const results = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try { await attempt(); results[name] = "worked"; }
    catch (error) { results[name] = error.code ?? String(error); }
  }
  fs.writeSync(1, JSON.stringify(results));
  process.exit(0);
})();
"""


def _attempt(tmp_path: Path, jailed: bool) -> dict[str, str]:
    """The results of ATTEMPTS in Node.js, started as a session's process is, or just started."""
    (tmp_path / "old").touch()
    paths = {"PROJECT": __file__, "TARGET": str(tmp_path / "new"), "OLD": str(tmp_path / "old")}
    script = f"const {{ PROJECT, TARGET, OLD }} = {json.dumps(paths)};\n{ATTEMPTS}"
    setup = process.Setup(installation.find(), {}, {}, (), 1 << 30, 1 << 30, 1 << 20)
    line, variables = process._jailed(setup, None)
    options: dict[str, Any] = json.loads(line.pop())
    node = options["command"][0]
    options["command"] = [node, "-e", script]
    if jailed:
        line.append(json.dumps(options))
    else:
        line = options["command"]
    out = subprocess.run(line, env=variables, capture_output=True, timeout=60)
    told = out.stdout[4 + int.from_bytes(out.stdout[:4]) :] if jailed else out.stdout
    results: dict[str, str] = json.loads(told or out.stderr)
    return results


@needs_jail
def test_the_jail_holds_javascript(tmp_path: Path) -> None:
    free, held = _attempt(tmp_path, False), _attempt(tmp_path, True)
    assert set(free.values()) == {"worked"}  # so each attempt is one that can succeed
    assert held.keys() == free.keys()
    assert set(held.values()) <= {"EPERM", "EACCES"}, held


@needs_jail
def test_the_jail_is_on(box: PyodideSandbox) -> None:
    box.run("1")
    assert box.capabilities.isolated
    assert box._process is not None
    status = Path(f"/proc/{box._process._process.pid}/status").read_text()
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (told["NoNewPrivs"], told["Seccomp"], int(told["CapEff"], 16)) == ("1", "2", 0)


@needs_jail
def test_required_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    held = PyodideSandbox(isolation_required=True)
    held.open(1)
    assert held.run("1 + 1").text == "2"
    held.close()
    monkeypatch.setattr(process, "_NO_JAIL", {"isolated": False, "missing": {"landlock": "no such thing"}})
    monkeypatch.setattr(process.sys, "platform", "elsewhere")
    free = PyodideSandbox(isolation_required=True)
    free.open(1)
    execution = free.run("1 + 1")
    assert execution.kind == "sandbox_failure"
    assert execution.text == "SandboxError: isolation='required', but the jail lacks landlock (no such thing)"
    free.close()


HOST = """
import sys, time
from elpo_envs.sandbox.base import Limits
from elpo_envs.sandbox.pyodide import PyodideSandbox, heap_file
from pathlib import Path
heap_file._cache = lambda: Path(sys.argv[1])
box = PyodideSandbox(Limits(wall_s=300.0, cpu_s=300.0))
box.open(1)
box.run("1")
print(box._process._process.pid, flush=True)
box.run(sys.argv[2])
time.sleep(300)
"""


@needs_pyodide
@pytest.mark.parametrize(
    "code",
    [
        "1",
        pytest.param("while True: pass", marks=[needs_jail, pytest.mark.slow]),
        pytest.param("sum(range(10**12))", marks=needs_jail),
    ],
)
def test_the_process_ends_with_its_host(request: pytest.FixtureRequest, code: str) -> None:
    line = [sys.executable, "-c", textwrap.dedent(HOST), str(cache(request.config)), code]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        time.sleep(0.2)
        host.send_signal(signal.SIGKILL)
    for _ in range(200):
        if not _runs(pid):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("Node.js still ran 10 s after its host was killed")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # a process that nobody waited for has ended too
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


# --- what is found ------------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path) -> str:
    """Something that says it is Node.js."""
    if sys.platform == "win32":
        pytest.skip("needs a system where a script with a first line for its interpreter is a program")
    path = tmp_path / "programs" / "node"
    path.parent.mkdir()
    path.touch(0o755)
    _claim(path, "20.1.0")
    return str(path)


def _claim(node: Path, version: str) -> None:
    """Make `node` say that it is that version of Node.js."""
    node.write_text(f"#!/bin/sh\necho '{json.dumps([version, str(node), []])}'\n")
    installation._examine.cache_clear()


def _package(folder: Path, version: str = "1.2.3") -> Path:
    package = folder / "pyodide"
    package.mkdir(parents=True)
    (package / "pyodide.mjs").touch()
    (package / "package.json").write_text(json.dumps({"version": version}))
    return package


def test_where_pyodide_is_looked_for(tmp_path: Path, node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _package(tmp_path / "given" / "node_modules")
    named = _package(tmp_path / "named" / "node_modules")
    above = _package(tmp_path / "work" / "node_modules")
    beside = _package(tmp_path / "lib" / "node_modules")
    work = tmp_path / "work" / "some" / "where"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv(installation.VARIABLE, str(named.parent.parent))
    for package in (given, given.parent, given.parent.parent):
        assert installation.find(package, node).pyodide == given
    assert installation.find(node=node).pyodide == named
    monkeypatch.delenv(installation.VARIABLE)
    assert installation.find(node=node) == installation.Installation(Path(node), (), above, "1.2.3")
    monkeypatch.chdir(tmp_path)
    assert installation.find(node=node).pyodide == beside


def test_missing_programs_are_named(tmp_path: Path, node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(installation.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(SandboxError, match=r"ELPO_PYODIDE is .*nowhere.*run 'npm install pyodide'"):
        installation.find(node=node)
    with pytest.raises(SandboxError, match=r"package is .*run 'npm install pyodide'"):
        installation.find(tmp_path, node)
    with pytest.raises(SandboxError, match=r"Node.js was not found as 'nonode'; install version 20"):
        installation.find(_package(tmp_path), "nonode")
    assert not PyodideSandbox.installed(tmp_path / "nowhere", node)
    _claim(Path(node), "18.0.0")
    with pytest.raises(SandboxError, match=r"Node.js 18 .* is too old; version 20"):
        installation.find(tmp_path, node)


def test_packages_must_be_written_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.locate_packages(["no_such_package"]) == {}
    assert installation.locate_packages(["mpmath"])["mpmath"].endswith("mpmath")
    with pytest.raises(ValueError, match=r"packages holds 'numpy', which is not written in Python alone"):
        installation.locate_packages(["numpy"])
    with pytest.raises(ValueError, match=r"top-level packages such as 'sympy', not 'sympy.core'"):
        installation.locate_packages(["sympy.core"])
    (tmp_path / "alone.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert installation.locate_packages(["alone"]) == {"alone.py": str(tmp_path / "alone.py")}


@needs_pyodide
def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="copies_mb must be a whole number of 0 or more, not -1"):
        PyodideSandbox(copies_mb=-1)
