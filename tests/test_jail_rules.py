"""The jail's filters for both machines, run in a small interpreter of BPF, and what else needs no Linux to check."""

from __future__ import annotations

import errno
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from elpo_envs.sandbox import jail
from elpo_envs.sandbox.jail import bpf, profiles
from elpo_envs.sandbox.jail.syscalls import SYSCALLS

MACHINES = sorted(SYSCALLS)
REFUSED = profiles.DEFAULT_ACTION
THREAD = 0x3D0F00
FORK = 0x01200011
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the rules need the flags of `open` as POSIX has them")


def verdict(machine: str, code: bytes, number: int, arguments: tuple[int, ...] = (), arch: int | None = None) -> int:
    """What the kernel would do with the filter."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, bpf.AUDIT_ARCH[machine] if arch is None else arch, 0, *padded)
    program: list[tuple[int, int, int, int]] = list(struct.iter_unpack("<HBBI", code))
    at, accumulator = 0, 0
    while True:
        kind, yes, no, operand = program[at]
        at += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif kind == 0x54:
            accumulator &= operand
        elif kind == 0x05:
            at += operand
        elif kind == 0x15:
            at += yes if accumulator == operand else no
        elif kind == 0x35:
            at += yes if accumulator >= operand else no
        elif kind == 0x06:
            return operand
        else:
            raise AssertionError(f"unknown instruction {kind:#x}")


def filter_of(machine: str, profile: str = "python", landlock: bool = True, notify: bool = True) -> bytes:
    return bpf.program(machine, profiles.rules(machine, profile, landlock=landlock, notify=notify), REFUSED)


def asked(machine: str, name: str, *arguments: int, **options: bool | str) -> int:
    return verdict(machine, filter_of(machine, **options), SYSCALLS[machine][name], arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_only_named_calls_pass(machine: str, profile: str) -> None:
    code = filter_of(machine, profile)
    named = {rule.number for rule in profiles.rules(machine, profile, landlock=True, notify=True)}
    for number in range(1000):
        if number not in named:
            assert verdict(machine, code, number) == REFUSED, number
    for name in ("read", "write", "exit_group", "clock_nanosleep", "rt_sigreturn", "munmap"):
        assert asked(machine, name, profile=profile) == bpf.ALLOW, name
    assert asked(machine, "clone3", profile=profile) == bpf.ERRNO | errno.ENOSYS
    assert len(code) // 8 <= 4096


@pytest.mark.parametrize("machine", MACHINES)
def test_foreign_tables_of_calls_kill(machine: str) -> None:
    code = filter_of(machine)
    for arch in (0x40000003, 0x40000028, 0):
        assert verdict(machine, code, SYSCALLS[machine]["read"], arch=arch) == bpf.KILL_PROCESS
    if machine == "x86_64":
        assert verdict(machine, code, 0x40000000) == bpf.KILL_PROCESS
        assert verdict(machine, code, 0xFFFFFFFF) == bpf.KILL_PROCESS


@pytest.mark.parametrize("machine", MACHINES)
def test_the_one_fork_that_is_asked_about(machine: str) -> None:
    assert profiles.SIBLING_FLAGS == FORK | 0x8000
    flags = profiles.SIBLING_FLAGS
    assert asked(machine, "clone", flags) == bpf.NOTIFY
    assert asked(machine, "clone", flags, notify=False) == bpf.ALLOW
    for other in (flags | 1 << 32, flags | 0x10000000, flags & ~0x8000, flags | 0x1000, FORK, THREAD, 17, 0):
        assert asked(machine, "clone", other) == REFUSED, hex(other)


@pytest.mark.parametrize("machine", MACHINES)
def test_node_has_threads_and_no_forks(machine: str) -> None:
    assert asked(machine, "clone", THREAD, profile="node") == bpf.ALLOW
    assert asked(machine, "execve", profile="node") == bpf.ALLOW
    for flags in (profiles.SIBLING_FLAGS, FORK, 17, THREAD & ~0x10000, THREAD | 0x20000000, THREAD | 1 << 40):
        assert asked(machine, "clone", flags, profile="node") == REFUSED, hex(flags)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("prctl", (1, 9), (1, 0)),
        ("prctl", (1, 9), (1, 9 | 1 << 32)),
        ("prctl", (1, 9), (4, 1)),
        ("prlimit64", (0, 9, 0, 1), (1, 9, 0, 1)),
        ("prlimit64", (0, 9, 0, 1), (0, 9, 1, 0)),
        ("prlimit64", (0, 9, 0, 1), (0, 9, 1 << 32, 0)),
        ("ioctl", (0, 0x5401), (0, 0x5412)),
        ("fcntl", (3, 4, 0x800), (3, 8, 1)),
        ("fcntl", (3, 1030), (3, 10, 9)),
        ("sendto", (3, 4096, 1, 0, 0, 0), (3, 4096, 1, 0, 1 << 40, 16)),
        ("futex", (1, 0 | 128), (1, 6 | 128)),
        ("futex", (1, 9 | 128 | 256), (1, 11)),
        ("mmap", (0, 4096, 3, 0x22), (0, 4096, 3, 0x21)),
        ("mmap", (0, 4096, 5, 0x802), (0, 4096, 3, 0x40022)),
        ("mmap", (0, 4096, 1, 0x01), (0, 4096, 3, 0x01)),
        ("memfd_create", (1, 1), (1, 4)),
        ("renameat2", (1, 1, 1, 1, 1), (1, 1, 1, 1, 4)),
        ("openat", (0, 0, 0o1102), (0, 0, 0o1000)),
        ("openat", (0, 0, 0o100001), (0, 0, 3)),
    ],
)
def test_arguments(machine: str, name: str, allowed: tuple[int, ...], refused: tuple[int, ...]) -> None:
    assert asked(machine, name, *allowed) == bpf.ALLOW
    assert asked(machine, name, *refused) == REFUSED


@pytest.mark.parametrize("machine", MACHINES)
def test_upper_halves_count_only_where_the_kernel_reads_them(machine: str) -> None:
    assert asked(machine, "ioctl", 0, 0x5401 | 1 << 32) == bpf.ALLOW
    assert asked(machine, "openat", 0, 0, 0o1000 | 1 << 32) == REFUSED


@pytest.mark.parametrize("machine", MACHINES)
def test_no_changes_to_files_without_landlock(machine: str) -> None:
    for name in ("mkdirat", "unlinkat", "renameat", "renameat2"):
        assert asked(machine, name) == bpf.ALLOW
        assert asked(machine, name, landlock=False) == REFUSED
    for flags in (1, 2, 0o100, 0o1000, 0o101):
        assert asked(machine, "openat", 0, 0, flags, landlock=False) == REFUSED
    assert asked(machine, "openat", 0, 0, 0o2000000, landlock=False) == bpf.ALLOW


def test_older_calls_exist_on_one_machine_only() -> None:
    assert {"open", "stat", "fork", "dup2", "poll", "access", "rename"}.isdisjoint(SYSCALLS["aarch64"])
    assert SYSCALLS["aarch64"].keys() < SYSCALLS["x86_64"].keys()


@pytest.mark.parametrize(
    ("machine", "header", "prefix"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "__NR_"),
        ("x86_64", "/usr/include/asm/unistd_64.h", "__NR_"),
        ("aarch64", "/usr/include/asm-generic/unistd.h", "__NR(?:3264)?_"),
    ],
)
def test_numbers_are_the_kernels(machine: str, header: str, prefix: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"no kernel headers at {header}")
    found = re.findall(rf"#define {prefix}(\w+)\s+(\d+)\s", Path(header).read_text())
    numbers = {name: int(number) for name, number in found}
    numbers["newfstatat"] = numbers.get("newfstatat", numbers.get("fstatat", -1))
    known = SYSCALLS[machine]
    assert {name: numbers.get(name) for name in known} == dict(known)


def test_layers_are_explained() -> None:
    assert tuple(jail.LAYER_MEANING) == jail.LAYERS
    assert set(jail.probe()) == set(jail.LAYERS)
    assert set(jail.LAYERS) >= jail.ISOLATING


def test_read_paths_hold_libraries_and_no_one_s_files() -> None:
    paths = [Path(path) for path in jail.read_paths()]
    for library in (struct, numpy):
        assert covers(paths, Path(str(library.__file__)).resolve()), library
    project = Path(__file__).resolve().parents[1]
    for private in (project, Path.cwd(), Path.home(), Path("/etc/passwd"), Path("/proc"), Path("/tmp"), Path("/")):
        assert private.resolve() not in paths
        assert not covers(paths, private.resolve()), private
    assert not covers(paths, Path(__file__).resolve())


def covers(paths: list[Path], path: Path) -> bool:
    return any(granted == path or granted in path.parents for granted in paths)


ELSEWHERE = """
import os, sys, types
import ctypes, pathlib, signal, site, struct, sysconfig, tempfile, threading
sysconfig.get_config_vars()
sys.platform = sys.argv[2]
if sys.platform == "win32":
    sys.modules["fcntl"] = sys.modules["resource"] = None
package = types.ModuleType("_elpo_sandbox")
package.__path__ = [sys.argv[1]]
sys.modules["_elpo_sandbox"] = package
from _elpo_sandbox import jail

def refused(action):
    try:
        action()
    except OSError:
        return True

spec = jail.JailSpec(read=jail.read_paths(), write=(), keep=(), bounds=jail.Bounds())
report = jail.enter(spec)
assert set(report.missing) == set(jail.LAYERS) - {"namespaces"} and not report.active and not report.isolated
reasons = [*report.missing.values(), *jail.probe().values(), jail.unshare().reason]
assert all("not Linux" in reason for reason in reasons)
assert not jail.unshare().active and not jail.mount_tmpfs(tempfile.gettempdir(), 1 << 20, 10)
assert refused(jail.fork_sibling) and refused(jail.prepare_fork) and refused(jail.set_death_signal)
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_systems_without_a_jail_are_told_so(platform: str) -> None:
    sandbox = Path(jail.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, str(sandbox), platform], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"profile": "ruby"}, "JailSpec.profile is 'ruby'; give one of python, node"),
        ({"disabled": frozenset({"walls"})}, "JailSpec.disabled holds 'walls'"),
        ({"write": ("/no/such/folder",)}, "JailSpec.write holds '/no/such/folder'"),
        ({"execute": ("/bin/sh",)}, "JailSpec.execute is"),
    ],
)
def test_wrong_specs_are_named(fields: dict[str, object], message: str) -> None:
    whole: dict[str, object] = {"read": (), "write": (), "keep": (), "bounds": jail.Bounds(), **fields}
    with pytest.raises(ValueError, match=re.escape(message)):
        jail.JailSpec(**whole)  # type: ignore[arg-type]


def test_bounds_that_a_supervisor_sets() -> None:
    jail.Bounds(address_space_bytes=None, cpu_s=None, open_files=None, data_bytes=None)
    with pytest.raises(ValueError, match=r"Bounds\.file_bytes is None"):
        jail.Bounds(file_bytes=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["address_space_bytes", "cpu_s", "file_bytes", "open_files", "data_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, 1 << 63, "1"])
def test_wrong_bounds_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Bounds.{field} is {value!r}")):
        jail.Bounds(**{field: value})  # type: ignore[arg-type]
