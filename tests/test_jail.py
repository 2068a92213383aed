"""The jail, from inside: what a jailed process can still read, change and ask of the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from _jail_runs import RUNNER, SANDBOX, jailed, needs_the_jail

from elpo_envs.sandbox import jail
from elpo_envs.sandbox.jail import landlock
from elpo_envs.sandbox.jail.syscalls import machine

pytestmark = needs_the_jail

# x86-64, aarch64
FORBIDDEN = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
    "openat2": (437, 437),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "setrlimit": (160, 164),
    "setuid": (105, 146),
    "fchmodat": (268, 53),
    "fchownat": (260, 54),
    "utimensat": (280, 88),
    "symlinkat": (266, 36),
    "linkat": (265, 37),
    "mknodat": (259, 33),
    "truncate": (76, 45),
    "shmget": (29, 194),
    "seccomp": (317, 277),
}


def test_everything_is_active() -> None:
    run = jailed("")
    assert run.report["missing"] == {}
    assert run.report["active"] == [layer for layer in jail.LAYERS if layer != "namespaces"]
    assert run.report["isolated"] is True


@pytest.mark.parametrize("layer", sorted(jail.ISOLATING))
def test_not_isolated_without(layer: str) -> None:
    run = jailed("", disabled=[layer])
    assert run.report["missing"].get(layer) == "switched off"
    assert layer not in run.report["active"]
    assert run.report["isolated"] is False


def test_numerical_work_with_modules_imported_inside(tmp_path: Path) -> None:
    scratch = str(tmp_path)
    program = f"""
import decimal, fractions, json, random, re, sqlite3, statistics, tempfile, time, zoneinfo
import numpy, sympy
x = sympy.symbols("x")
roots = [str(root) for root in sympy.solve(x**2 - 2, x)]
determinant = round(float(numpy.linalg.det(numpy.eye(200) * 1.01)), 3)
random.random(), time.sleep(0.001), os.urandom(4), numpy.random.default_rng().random()
os.chdir({scratch!r})
with tempfile.TemporaryFile() as file:
    file.write(b"x")
numpy.save("a.npy", numpy.arange(5))
with sqlite3.connect("base") as base:
    base.execute("create table t (a)"), base.execute("insert into t values (1)")
total = int(numpy.load("a.npy").sum())
print(json.dumps([roots, determinant, total, str(zoneinfo.ZoneInfo("Europe/Paris"))]))
"""
    run = jailed(program, write=[scratch])
    assert run.value == [["-sqrt(2)", "sqrt(2)"], 7.316, 10, "Europe/Paris"]


# --- files


FILES = """
def read(path):
    with open(path, "rb") as file:
        file.read(1)
paths = ["/etc/passwd", "/proc/self/environ", "/proc/self/maps", "/proc/1/status", FOLDER, RUNNER, sys.argv[0], "/"]
print(json.dumps([error_of(os.listdir if os.path.isdir(path) else read, path) for path in paths]))
"""


def test_files_outside_cannot_be_read() -> None:
    program = FILES.replace("FOLDER", repr(str(SANDBOX))).replace("RUNNER", repr(str(RUNNER)))
    assert jailed(program).value == ["EACCES"] * 8
    # "/proc/self/environ" and "maps" of an undumpable process belong to root.
    opened = jailed(program, disabled=["landlock", "undumpable"]).value
    assert opened == [""] * 8


def test_write_folder_takes_files_and_folders_only(tmp_path: Path) -> None:
    scratch = str(tmp_path)
    outside = Path(scratch, "outside")
    inside = Path(scratch, "inside")
    outside.mkdir()
    inside.mkdir()
    (outside / "old").write_text("old")
    program = f"""
inside, outside = {str(inside)!r}, {str(outside)!r}
os.makedirs(inside + "/a/b")
with open(inside + "/a/f", "w") as file:
    file.write("hello")
os.rename(inside + "/a/f", inside + "/a/b/g")
os.replace(inside + "/a/b/g", inside + "/h")
with open(inside + "/h", "r+") as file:
    file.truncate(2)
os.rmdir(inside + "/a/b")
with open("/dev/null", "w") as file:
    file.write("x")
print(json.dumps([sorted(os.listdir(inside)), open(inside + "/h").read(), [
    error_of(open, outside + "/new", "w"),
    error_of(open, outside + "/old", "a"),
    error_of(os.mkdir, outside + "/new"),
    error_of(os.remove, outside + "/old"),
    error_of(os.rename, inside + "/h", outside + "/h"),
    error_of(os.rename, outside + "/old", inside + "/old"),
    error_of(os.symlink, "h", inside + "/link"),
    error_of(os.link, inside + "/h", inside + "/link"),
    error_of(os.mkfifo, inside + "/fifo"),
    error_of(os.chmod, inside + "/h", 0o777),
    error_of(os.truncate, outside + "/old", 0),
    error_of(os.open, sys.argv[0], os.O_RDONLY | os.O_TRUNC),
]]))
"""
    names, text, errors = jailed(program, write=[str(inside)]).value
    assert (names, text) == (["a", "h"], "he")
    assert set(errors) <= {"EACCES", "EPERM", "EXDEV"}
    assert (outside / "old").read_text() == "old"


def test_without_landlock_no_file_can_be_changed(tmp_path: Path) -> None:
    scratch = str(tmp_path)
    program = f"""
path = {scratch!r} + "/f"
print(json.dumps([error_of(open, path, "w"), error_of(open, "/dev/null", "w"), error_of(os.mkdir, path)]))
"""
    assert jailed(program, write=[scratch], disabled=["landlock"]).value == ["EPERM"] * 3
    assert jailed(program, write=[scratch], disabled=["landlock", "seccomp"]).value == ["", "", "EEXIST"]


def test_reading_and_truncating_at_once_is_refused(tmp_path: Path) -> None:
    scratch = str(tmp_path)
    path = Path(scratch, "f")
    path.write_text("kept")
    program = f"print(json.dumps(error_of(os.open, {str(path)!r}, os.O_RDONLY | os.O_TRUNC)))"
    assert jailed(program, read=[scratch], disabled=["seccomp"]).value == "EACCES"
    assert jailed(program, write=[scratch]).value == "EPERM"
    assert path.read_text() == "kept"
    assert jailed(program, write=[scratch], disabled=["seccomp"]).value == ""
    assert path.read_text() == ""


# --- system calls


CALLS = """
import fcntl, threading
results = {name: syscall(number, *ARGUMENTS.get(name, ())) for name, number in NUMBERS.items()}
print(json.dumps(results))
"""


def forbidden_calls(**options: Any) -> dict[str, str]:
    column = 0 if machine() == "x86_64" else 1
    numbers = {name: pair[column] for name, pair in FORBIDDEN.items()}
    # Arguments with which most succeed, or fail for another reason, where nothing forbids them.
    arguments = {"socket": (1, 1), "kill": (os.getpid(), 0), "setuid": (os.geteuid(),), "fchmodat": (-100,)}
    arguments["seccomp"] = (99,)
    prelude = f"NUMBERS, ARGUMENTS = {numbers!r}, {arguments!r}\n"
    result: dict[str, str] = jailed(prelude + CALLS, **options).value
    return result


def test_forbidden_calls_are_refused() -> None:
    assert forbidden_calls() == dict.fromkeys(FORBIDDEN, "EPERM")


def test_without_seccomp_the_same_calls_are_open() -> None:
    results = forbidden_calls(disabled=["seccomp"])
    assert results["socket"] == results["setuid"] == results["unshare"] == ""
    assert list(results.values()).count("EPERM") < len(results) // 2


ARGUMENTS = """
import fcntl, mmap
reader, writer = os.pipe()
print(json.dumps({
    "owner of a pipe": error_of(fcntl.fcntl, writer, fcntl.F_SETOWN, supervisor),
    "signal of a pipe": error_of(fcntl.fcntl, writer, fcntl.F_SETSIG, 9),
    "flags of a pipe": error_of(fcntl.fcntl, writer, fcntl.F_SETFL, os.O_NONBLOCK),
    "dumpable": error_of(jail.process.prctl, 4, 1),
    "another death signal": error_of(jail.process.prctl, 1, 0),
    "death signal": error_of(jail.set_death_signal),
    "own limits": error_of(resource.getrlimit, resource.RLIMIT_AS),
    "new limits": error_of(resource.prlimit, 0, resource.RLIMIT_NOFILE, (8, 8)),
    "limits of another": error_of(resource.prlimit, supervisor, resource.RLIMIT_NOFILE),
    "ioctl of a terminal": error_of(fcntl.ioctl, 0, 0x5412, b"x"),
    "ioctl": error_of(os.set_inheritable, reader, True),
    "shared memory": error_of(mmap.mmap, -1, 4096),
    "private memory": error_of(mmap.mmap, -1, 4096, flags=mmap.MAP_PRIVATE),
    "file in memory": error_of(os.memfd_create, "x"),
    "file in huge pages": error_of(os.memfd_create, "x", os.MFD_HUGETLB),
    "fork": error_of(os.fork),
}))
"""


def test_arguments_are_looked_at() -> None:
    results = jailed(ARGUMENTS).value
    allowed = {"flags of a pipe", "death signal", "own limits", "ioctl", "private memory", "file in memory"}
    assert {name for name, error in results.items() if error == ""} == allowed
    assert {error for name, error in results.items() if name not in allowed} == {"EPERM"}


def test_threads_are_refused_cleanly() -> None:
    program = """
import threading
try:
    threading.Thread(target=print).start()
except RuntimeError as error:
    print(json.dumps(str(error)))
"""
    assert jailed(program).value == "can't start new thread"


def test_a_signal_cannot_leave_the_jail_even_without_seccomp() -> None:
    if landlock.version() < 6:
        pytest.skip("this kernel's Landlock does not confine signals (version 6)")
    program = "print(json.dumps(error_of(os.kill, supervisor, 0)))"
    assert jailed(program, disabled=["seccomp"]).value == "EPERM"
    assert jailed(program, disabled=["seccomp", "landlock"]).value == ""


def test_tcp_is_closed_by_landlock_as_well() -> None:
    if landlock.version() < 4:
        pytest.skip("this kernel's Landlock does not confine TCP (version 4)")
    program = "print(json.dumps(error_of(socket.socket().bind, ('127.0.0.1', 0))))"
    assert jailed(program, disabled=["seccomp"]).value == "EACCES"
    assert jailed(program, disabled=["seccomp", "landlock"]).value == ""
