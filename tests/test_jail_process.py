"""The jail, layer by layer: what a process gives up, how it forks, its namespaces, other users, Node.js."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from _jail_runs import RUNNER, SANDBOX, as_root, jailed, needs_the_jail

from elpo_envs.sandbox import jail
from elpo_envs.sandbox.jail.syscalls import machine

pytestmark = needs_the_jail

# --- what the process gives up


def test_descriptors_are_closed_but_for_those_kept() -> None:
    program = "print(json.dumps([error_of(os.fstat, descriptor) for descriptor in (DESCRIPTORS)]))"
    with socket.socket() as one, socket.socket() as two:
        open_ = [one.fileno(), two.fileno()]
        program = program.replace("DESCRIPTORS", f"{open_}")
        assert jailed(program, keep=open_[1:], popen={"pass_fds": open_}).value == ["EBADF", ""]
        assert jailed(program, disabled=["descriptors"], popen={"pass_fds": open_}).value == ["", ""]


def test_environment_is_cleared_but_for_numbers_of_threads() -> None:
    program = "print(json.dumps(sorted(os.environ)))"
    environment = {"SECRET": "x", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    assert jailed(program, popen={"env": environment}).value == ["OPENBLAS_NUM_THREADS"]
    assert "SECRET" in jailed(program, disabled=["environment"], popen={"env": environment}).value


def test_resources_are_bounded(tmp_path: Path) -> None:
    scratch = str(tmp_path)
    program = f"""
def large():
    with open({scratch + "/f"!r}, "wb", 0) as file:
        file.truncate(5000)
kinds = [resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE]
print(json.dumps([[list(resource.getrlimit(kind)) for kind in kinds], error_of(large)]))
"""
    bounds = {"address_space_bytes": 1 << 29, "cpu_s": 3, "file_bytes": 4096, "open_files": 20}
    limits, error = jailed(program, write=[scratch], bounds=bounds, disabled=["fork_grants"]).value
    assert limits == [[1 << 29, 1 << 29], [3, 4], [4096, 4096], [20, 20], [0, 0]]
    assert error == "EFBIG"
    _, error = jailed(program, write=[scratch], bounds=bounds, disabled=["fork_grants", "rlimits"]).value
    assert error == ""


def test_memory_beyond_the_bound_is_refused() -> None:
    program = """
try:
    held = bytearray(600 << 20)
except MemoryError:
    held = b""
print(len(held) >> 20)
"""
    assert jailed(program, bounds={"address_space_bytes": 1 << 29}).value == 0
    assert jailed(program, bounds={"address_space_bytes": 1 << 30}).value == 600


@as_root
def test_capabilities_are_gone(tmp_path: Path) -> None:
    scratch = str(tmp_path)
    program = f"""
path = {scratch + "/f"!r}
open(path, "w").close()
print(json.dumps([error_of(os.chown, path, 1, 1), jail.process._capabilities()]))
"""
    error, sets = jailed(program, write=[scratch], disabled=["seccomp"]).value
    assert (error, sets) == ("EPERM", [0, 0, 0])
    error, sets = jailed(program, write=[scratch], disabled=["seccomp", "capabilities"]).value
    assert error == "" and sets[0] != 0


@pytest.mark.parametrize(
    ("layer", "option", "inside", "outside"), [("no_new_privs", 39, 1, 0), ("undumpable", 3, 0, 1)]
)
def test_flags_of_the_process(layer: str, option: int, inside: int, outside: int) -> None:
    program = f"print(jail.process.prctl({option}))"
    assert jailed(program, disabled=["seccomp"]).value == inside
    # Without no_new_privs neither Landlock nor seccomp would let an ordinary user in.
    assert jailed(program, disabled=["seccomp", "landlock", layer]).value == outside


@pytest.mark.parametrize("held", [True, False])
def test_dies_with_its_supervisor(held: bool) -> None:
    program = """
import signal, time
os.write(WRITER, b"%d " % supervisor)
while os.getppid() == supervisor:
    time.sleep(0.01)
time.sleep(0.2)
os.write(WRITER, b"survived")
os._exit(0)
"""
    reader, writer = os.pipe()
    options = {"keep": [writer], "disabled": [] if held else ["death_signal"]}
    with subprocess.Popen(
        [sys.executable, "-P", str(RUNNER), str(SANDBOX), json.dumps(options)], stdin=subprocess.PIPE, pass_fds=[writer]
    ) as runner:
        os.close(writer)
        assert runner.stdin is not None
        runner.stdin.write(program.replace("WRITER", str(writer)).encode())
        runner.stdin.close()
        assert int(os.read(reader, 100)) == runner.pid
        runner.kill()
        with os.fdopen(reader, "rb") as rest:
            assert rest.read() == (b"" if held else b"survived")


# --- forks


FORK = """
import signal, threading
def fork():
    try:
        return jail.fork_sibling()
    except OSError as error:
        print(json.dumps(errno.errorcode[error.errno]), flush=True)
        return None
"""


def test_no_fork_without_a_grant() -> None:
    run = jailed(FORK + "fork(); fork()")
    assert run.lines == ['"EAGAIN"', '"EAGAIN"']
    assert run.report["asked"] == 2
    assert set(run.report["askers"]) == {run.report["child"]}
    assert run.others == []


def test_one_grant_is_one_fork_of_a_sibling() -> None:
    program = """
parent = os.getppid()
process = os.getpid()
if fork() == 0:
    jail.set_death_signal()
    print(json.dumps([os.getppid() == parent, os.getpid() != process, os.getpid() == threading.get_native_id(),
        threading.current_thread() is threading.main_thread()]), flush=True)
    fork()
    os._exit(7)
"""
    run = jailed(FORK + program, grants=1)
    assert run.lines == ["[true, true, true, true]", '"EAGAIN"']
    assert run.report["asked"] == 2
    assert run.others == [7]


def test_without_fork_grants_any_number_of_forks() -> None:
    run = jailed(FORK + "[fork() == 0 and os._exit(7) for _ in range(3)]", disabled=["fork_grants"])
    assert run.report["asked"] == 0
    assert run.others == [7, 7, 7]


def test_timers_do_not_repeat_a_granted_fork() -> None:
    program = """
signal.signal(signal.SIGALRM, lambda number, frame: None)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for _ in range(40):
    if fork() == 0:
        os._exit(7)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    run = jailed(FORK + program, grants=40)
    assert run.others == [7] * 40
    assert run.report["asked"] == 40


def test_signals_raised_in_a_fork_reach_it() -> None:
    assert jailed(FORK + "fork() == 0 and os.abort()", disabled=["seccomp"]).others == [-6]


def test_abort_ends_a_jailed_process_by_a_signal() -> None:
    assert jailed(FORK + "fork() == 0 and os.abort()", grants=1).others[0] < 0


def test_a_kernel_that_hides_the_thread_number() -> None:
    before = """
def hidden(option, *rest):
    raise OSError(errno.EINVAL, "hidden")
sys.modules["_elpo_sandbox.jail.clone"].prctl = hidden
"""
    run = jailed(FORK + "fork() == 0 and os.abort()", before=before, disabled=["seccomp"])
    assert run.others == [-6]


# --- namespaces


def namespaces_refused() -> str | None:
    reason: str | None = jailed("", unshare=True).report["unshared"][1]
    return reason


def test_namespaces_or_a_process_that_works_on() -> None:
    run = jailed("print(json.dumps(os.getpid() < 20))", unshare=True)
    active, reason = run.report["unshared"]
    assert active is (reason is None)
    assert run.value is active
    assert run.report["isolated"] is True


def test_namespaces_switched_off() -> None:
    run = jailed("print(json.dumps(os.getpid() == supervisor))", unshare=True, disabled=["namespaces"])
    assert run.report["unshared"] == [False, "switched off"]


def test_namespaces_hold_network_and_mounts(tmp_path: Path) -> None:
    scratch = str(tmp_path)
    if reason := namespaces_refused():
        pytest.skip(f"no namespaces here: {reason}")
    program = f"""
with open({scratch!r} + "/f", "w") as file:
    file.write("x")
def fill():
    with open({scratch!r} + "/g", "wb") as file:
        file.write(bytes(1 << 17))
print(json.dumps([[name for _, name in INTERFACES], error_of(fill)]))
"""
    before = "INTERFACES = socket.if_nameindex()"
    run = jailed(program, before=before, unshare=True, mount=scratch, mount_bytes=1 << 16, write=[scratch])
    assert run.report["mounted"] is True
    assert run.value == [["lo"], "ENOSPC"]
    assert os.listdir(scratch) == []  # noqa: PTH208


@pytest.mark.parametrize(("size", "inodes"), [(0, 10), (4096, 1)])
def test_mount_without_a_bound(size: int, inodes: int) -> None:
    with pytest.raises(ValueError, match="give"):
        jail.mount_tmpfs("/nowhere", size, inodes)


# --- systems that lack something


OUTER = """
def refuse(number, error):
    jail.process.prctl(38, 1)
    jail.seccomp.install([jail.bpf.Rule(number, jail.bpf.ERRNO | error)], jail.bpf.ALLOW, listener=False)
"""


def test_a_kernel_without_landlock(tmp_path: Path) -> None:
    program = f"print(json.dumps([error_of(open, {str(tmp_path)!r} + '/f', 'w'), fork()]))"
    run = jailed(FORK + program, before=OUTER + "refuse(444, errno.ENOSYS)", write=[str(tmp_path)])
    assert run.report["missing"] == {"landlock": "the kernel has no Landlock (ENOSYS)"}
    assert run.report["isolated"] is False
    assert run.value == ["EPERM", None]


def test_a_container_that_listens_already() -> None:
    before = "jail.process.prctl(38, 1); os.dup2(jail.seccomp.install([], jail.bpf.ALLOW, listener=True), 9)"
    run = jailed(FORK + "fork() == 0 and os._exit(7)", before=before, keep=[9])
    reason = "an outer filter has a listener already, as in some containers (EBUSY)"
    assert run.report["missing"] == {"fork_grants": reason}
    assert run.report["isolated"] is False
    assert "seccomp" in run.report["active"]
    assert run.others == [7]


def test_a_container_that_refuses_namespaces() -> None:
    number = 272 if machine() == "x86_64" else 97
    run = jailed("", first=OUTER + f"refuse({number}, errno.EPERM)", unshare=True)
    assert run.report["unshared"] == [False, "unshare: Operation not permitted (EPERM)"]
    assert run.report["isolated"] is True


# --- another user


@functools.cache
def interpreter_for_nobody() -> str | None:
    for candidate in (sys.executable, "/usr/bin/python3"):
        check = [candidate, "-c", "import ctypes, sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if (
                subprocess.run(check, user=65534, group=65534, extra_groups=[], cwd="/", capture_output=True).returncode
                == 0
            ):
                return candidate
        except OSError:
            continue
    return None


@as_root
@pytest.mark.parametrize("unshare", [False, True])
def test_as_a_user_who_is_not_root(unshare: bool) -> None:
    interpreter = interpreter_for_nobody()
    if interpreter is None:
        pytest.skip("no Python 3.11 here that the user 65534 may execute")
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        shutil.copytree(SANDBOX / "jail", folder / "jail", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(RUNNER, folder)
        (folder / "scratch").mkdir()
        os.chown(folder / "scratch", 65534, 65534)
        program = f"""
with open({str(folder)!r} + "/scratch/f", "w") as file:
    file.write("x")
print(json.dumps([os.getuid(), error_of(open, "/etc/passwd"), error_of(open, {str(folder)!r} + "/jail/entry.py")]))
if fork() == 0:
    os._exit(7)
"""
        run = jailed(
            FORK + program,
            interpreter=interpreter,
            sandbox=folder,
            popen={"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/", "env": {}},
            unshare=unshare,
            write=[str(folder / "scratch")],
            grants=1,
        )
    finally:
        shutil.rmtree(folder)
    assert run.report["missing"] == {}
    assert run.report["isolated"] is True
    assert run.value == [65534, "EACCES", "EACCES"]
    assert run.others == [7]


# --- Node.js


NODE = """
const { Worker } = require('worker_threads');
const tries = {
  read: () => require('fs').readFileSync('/etc/passwd'),
  spawn: () => { const done = require('child_process').spawnSync(process.execPath); if (done.error) throw done.error; },
  kill: () => process.kill(process.ppid, 0),
};
const errors = Object.values(tries).map((action) => {
  try { action(); return ''; } catch (error) { return error.code; }
});
const bytes = new WebAssembly.Memory({ initial: 9 }).buffer.byteLength;
new Worker("require('worker_threads').parentPort.postMessage(40 + 2)", { eval: true })
  .on('message', (value) => console.log(JSON.stringify([errors, value, bytes])));
"""


def test_node_runs_jailed() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on the PATH")
    node = os.path.realpath(node)
    loaders = [path for folder in ("/lib", "/lib64") for path in Path(folder).glob("ld-*.so*")]
    options: dict[str, Any] = {
        "profile": "node",
        "execute": [node, *{os.path.realpath(path) for path in loaders}],
        "bounds": {"address_space_bytes": None, "cpu_s": 20, "data_bytes": 1 << 30},
    }
    run = jailed(f'os.execve({node!r}, ["node", "-e", {NODE!r}], {{"OPENSSL_CONF": "/dev/null"}})', **options)
    assert run.report["isolated"] is True
    assert run.value == [["EACCES", "EPERM", "EPERM"], 42, 9 << 16]
    refused = jailed('print(json.dumps(error_of(os.execve, "/usr/bin/env", ["env"], {})))', **options)
    assert refused.value == "EACCES"
