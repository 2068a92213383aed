"""Attempts on files: outside the session, in other sessions, and in /proc; with what the language layer allows."""

from __future__ import annotations

from _attempt import Attempt, attempt, low

_LANDLOCK = frozenset({"landlock"})

# Each expression must fail, or be false. The second item is what has to be switched off for it to succeed.
_READS: dict[str, tuple[str, frozenset[str] | None]] = {
    "open": ("open('@CANARY@').read()", _LANDLOCK),
    "open-bytes": ("open(b'@CANARY@', 'rb').read()", _LANDLOCK),
    "open-for-both": ("open('@CANARY@', 'r+').read()", None),
    "io": ("__import__('io').open('@CANARY@').read()", _LANDLOCK),
    "file-io": ("__import__('io').FileIO('@CANARY@').read()", _LANDLOCK),
    "codecs": ("__import__('codecs').open('@CANARY@').read()", _LANDLOCK),
    "tokenize": ("__import__('tokenize').open('@CANARY@').read()", _LANDLOCK),
    "pathlib": ("__import__('pathlib').Path('@CANARY@').read_text()", _LANDLOCK),
    "pathlib-dots": ("__import__('pathlib').Path('x/../../../../../../../../../@CANARY@').read_text()", None),
    "by-the-working-directory": ("open('/proc/self/cwd/../../../../../@CANARY@').read()", _LANDLOCK),
    "by-the-root": ("open('/proc/self/root@CANARY@').read()", _LANDLOCK),
    "by-a-thread": ("open('/proc/thread-self/root@CANARY@').read()", _LANDLOCK),
    "numpy-fromfile": ("__import__('numpy').fromfile('@CANARY@', dtype='u1').size", _LANDLOCK),
    "numpy-memmap": ("__import__('numpy').memmap('@CANARY@', dtype='u1', mode='r').size", _LANDLOCK),
    "numpy-loadtxt": ("__import__('numpy').loadtxt('@CANARY@', dtype=str).size", _LANDLOCK),
    "linecache": ("__import__('traceback').linecache.getlines('@CANARY@')", None),
    "bz2": ("__import__('bz2').open('@CANARY@').fileno()", _LANDLOCK),
    "gzip": ("__import__('gzip').open('@CANARY@').fileno()", _LANDLOCK),
    "passwords": ("open('/etc/passwd').read()", _LANDLOCK),
    "the-project": ("open('@REPOSITORY@/__init__.py').read()", _LANDLOCK),
    "list-a-folder": ("list(__import__('pathlib').Path('@OUTSIDE@').iterdir())", _LANDLOCK),
    "list-the-root": ("list(__import__('pathlib').Path('/').iterdir())", _LANDLOCK),
    "glob": ("__import__('glob').glob('@OUTSIDE@/*')", _LANDLOCK),
    "list-processes": ("list(__import__('pathlib').Path('/proc').iterdir())", _LANDLOCK),
    "environment-of-this": ("open('/proc/self/environ').read()", None),
    "environment-of-the-host": ("open('/proc/@HOST_PID@/environ').read()", None),
    "environment-of-init": ("open('/proc/1/environ').read()", None),
    "arguments-of-the-host": ("open('/proc/@HOST_PID@/cmdline').read()", _LANDLOCK),
    "arguments-of-this": ("open('/proc/self/cmdline').read()", _LANDLOCK),
    "maps": ("open('/proc/self/maps').read()", None),
    "memory-of-this": ("open('/proc/self/mem', 'rb')", None),
    "memory-of-another-session": ("open('/proc/@WITNESS_PID@/mem', 'rb').read(1)", None),
    "maps-of-another-session": (
        "open('/proc/@WITNESS_PID@/maps').read()",
        frozenset({"landlock", "undumpable"}),
    ),
    "links-of-another-session": ("__import__('pathlib').Path('/proc/@WITNESS_PID@/cwd').readlink()", None),
    "files-of-another-session": ("open('@WITNESS_FROZEN@/kept').read()", None),
    "list-another-session": ("list(__import__('pathlib').Path('@WITNESS_FROZEN@').iterdir())", None),
    "list-all-sessions": ("list(__import__('pathlib').Path('..').iterdir())", None),
    "list-frozen-sessions": ("list(__import__('pathlib').Path('../../frozen').iterdir())", None),
    "kernel-log": ("open('/dev/kmsg')", None),
    "kernel-settings": ("open('/proc/sys/kernel/hostname').read()", _LANDLOCK),
    "devices": ("open('/sys/kernel/uevent_seqnum').read()", None),
    "terminal": ("open('/dev/tty')", None),
}
_WRITES: dict[str, tuple[str, frozenset[str] | None]] = {
    "open": ("open('@CANARY@.made', 'w')", frozenset({"landlock", "seccomp"})),
    "append": ("open('@CANARY@', 'a')", frozenset({"landlock", "seccomp"})),
    "touch": ("__import__('pathlib').Path('@CANARY@.made').touch() or True", frozenset({"landlock", "seccomp"})),
    "folder": ("__import__('pathlib').Path('@CANARY@.dir').mkdir() or True", frozenset({"landlock", "seccomp"})),
    "temporary-file": (
        "__import__('tempfile').NamedTemporaryFile(dir='@OUTSIDE@')",
        frozenset({"landlock", "seccomp"}),
    ),
    "log-file": ("__import__('logging').FileHandler('@CANARY@.log')", frozenset({"landlock", "seccomp"})),
    "numpy-save": ("__import__('numpy').save('@CANARY@.npy', 1) or True", frozenset({"landlock", "seccomp"})),
    "move-out": (
        "[open('f', 'w').close(), __import__('pathlib').Path('f').rename('@CANARY@.made')]",
        None,
    ),
    "move-in": ("__import__('pathlib').Path('@CANARY@').rename('f')", None),
    "remove": ("__import__('pathlib').Path('@CANARY@').unlink() or True", None),
    "symbolic-link": (
        "[__import__('pathlib').Path('s').symlink_to('@CANARY@'), open('s').read()]",
        frozenset({"landlock", "seccomp"}),
    ),
    "dead-symbolic-link": (
        "__import__('pathlib').Path('s').symlink_to('/') or True",
        frozenset({"landlock", "seccomp"}),
    ),
    "hard-link": ("__import__('pathlib').Path('h').hardlink_to('@CANARY@') or True", None),
    "mode": ("__import__('pathlib').Path('.').chmod(0o777) or True", frozenset({"seccomp"})),
    "shared-memory": ("open('/dev/shm/elpo-security', 'x')", None),
    "beside-the-scratch-directory": ("open('../shared', 'w')", frozenset({"capabilities"})),
    "beside-by-its-link": ("open('/proc/self/fd/5/../shared', 'w')", frozenset({"capabilities"})),
    "folder-beside": ("__import__('pathlib').Path('../folder').mkdir() or True", frozenset({"capabilities"})),
    "rename-the-scratch-directory": (
        "__import__('pathlib').Path.cwd().resolve().rename(__import__('pathlib').Path.cwd().resolve().parent / 'mine')",
        None,
    ),
    "remove-the-scratch-directory": ("__import__('pathlib').Path.cwd().resolve().rmdir() or True", None),
    "another-session": ("open('@WITNESS_FROZEN@/kept', 'w')", None),
    "into-another-session": ("open('@WITNESS_FROZEN@/planted', 'w')", None),
    "among-frozen-ones": ("open('../../frozen/planted', 'w')", None),
    "own-memory": ("open('/proc/self/mem', 'r+b')", None),
    "own-badness": ("open('/proc/self/oom_score_adj', 'w')", None),
    "a-library": ("open(__import__('numpy').__file__, 'a')", None),
    "a-cached-library": ("open('/usr/lib/python3/planted.py', 'w')", None),
    "system-request": ("open('/proc/sysrq-trigger', 'w')", None),
}


def _checked(expression: str) -> str:
    return f"value = {expression}\nif value: print('ESCAPED')"


_BY_EXPRESSION = tuple(
    attempt(f"{kind}-{name}", "landlock", _checked(expression), opens=opens)
    for kind, table in (("read", _READS), ("write", _WRITES))
    for name, (expression, opens) in table.items()
)

_AROUND = (
    low(
        "path-descriptor-of-the-root",
        "landlock",
        """
root = os.open("/", os.O_PATH | os.O_DIRECTORY)
if os.read(os.open("@CANARY@".lstrip("/"), os.O_RDONLY, dir_fd=root), 1): print("ESCAPED")
""",
        opens=_LANDLOCK,
    ),
    low(
        "path-descriptor-reopened",
        "landlock",
        """
held = os.open("@CANARY@", os.O_PATH)
if os.read(os.open(f"/proc/self/fd/{held}", os.O_RDONLY), 1): print("ESCAPED")
""",
        opens=_LANDLOCK,
    ),
    low(
        "change-of-directory",
        "landlock",
        """
os.chdir("@OUTSIDE@")
if os.listdir("."): print("ESCAPED")
""",
        opens=_LANDLOCK,
    ),
    low(
        "directory-entries-by-number",
        "landlock",
        """
held = os.open("@OUTSIDE@", os.O_PATH | os.O_DIRECTORY)
room = ctypes.create_string_buffer(1000)
if call(217, 61, held, room, 1000) > 0: print("ESCAPED")
""",
    ),
    low(
        "root-of-a-process",
        "landlock",
        "if os.read(os.open('/proc/@WITNESS_PID@/root@CANARY@', os.O_RDONLY), 1): print('ESCAPED')",
    ),
    low(
        "descriptor-of-a-process",
        "landlock",
        "for n in range(64):\n"
        "    try: os.open(f'/proc/@WITNESS_PID@/fd/{n}', os.O_RDONLY)\n"
        "    except OSError: continue\n"
        "    print('ESCAPED')",
    ),
    low(
        "library-reopened-for-writing",
        "landlock",
        """
import math
held = os.open(os.__file__, os.O_RDONLY)
if os.open(f"/proc/self/fd/{held}", os.O_WRONLY) > 0: print("ESCAPED")
""",
    ),
    low(
        "library-mapped-for-writing",
        "landlock",
        """
import mmap
held = os.open(os.__file__, os.O_RDONLY)
mmap.mmap(held, 100, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
print("ESCAPED")
""",
    ),
    low("file-without-name-outside", "landlock", "os.open('@OUTSIDE@', os.O_TMPFILE | os.O_RDWR)\nprint('ESCAPED')"),
    low("truncate-while-reading", "landlock", "os.open('@CANARY@', os.O_RDONLY | os.O_TRUNC)\nprint('ESCAPED')"),
    low("fifo", "seccomp", "os.mkfifo('pipe')\nprint('ESCAPED')", opens=frozenset({"landlock", "seccomp"})),
    low("device", "seccomp", "os.mknod('null', 0o20666, os.makedev(1, 3))\nprint('ESCAPED')"),
    low(
        "file-handle",
        "seccomp",
        "handle = struct.pack('Ii', 128, 0) + bytes(128)\nmount = ctypes.c_int()\n"
        "if call(303, 264, -100, b'/etc/passwd', handle, ctypes.byref(mount), 0) == 0: print('ESCAPED')",
    ),
    low(
        "exchange-of-names",
        "seccomp",
        "open('a', 'w').close(); open('b', 'w').close()\n"
        "if call(316, 276, -100, b'a', -100, b'b', 2) == 0: print('ESCAPED')",
        opens=frozenset({"seccomp"}),
    ),
    low(
        "extended-attribute",
        "seccomp",
        "open('a', 'w').close()\nos.setxattr('a', 'user.x', b'1')\nprint('ESCAPED')",
    ),
    low(
        "times-of-a-file",
        "seccomp",
        "open('a', 'w').close()\nos.utime('a', (1, 1))\nprint('ESCAPED')",
        opens=frozenset({"seccomp"}),
    ),
    low(
        "owner-of-a-file",
        "seccomp",
        "open('a', 'w').close()\nos.chown('a', -1, -1)\nprint('ESCAPED')",
        opens=frozenset({"seccomp"}),
    ),
    low(
        "directory-kept-over-a-call",
        "landlock",
        "kept = os.open('.', os.O_RDONLY | os.O_DIRECTORY)\nopen('f', 'w').write('x')",
        "import os\nfrozen = f'/proc/self/fd/{kept}'\n"
        "if os.fstat(kept).st_ino != os.stat('.').st_ino:\n"
        "    os.close(os.open('planted', os.O_WRONLY | os.O_CREAT, dir_fd=kept))\n"
        "    print('ESCAPED')",
    ),
    low(
        "directory-kept-over-a-call-emptied",
        "landlock",
        "kept = os.open('.', os.O_PATH | os.O_DIRECTORY)\nopen('f', 'w').write('x')",
        "import os\nif os.fstat(kept).st_ino != os.stat('.').st_ino:\n"
        "    os.unlink('f', dir_fd=kept)\n    print('ESCAPED')",
    ),
    low(
        "path-file-kept-over-a-call",
        "landlock",
        "open('f', 'w').write('x')\nkept = os.open('f', os.O_PATH)",
        "import os\nif os.fstat(kept).st_ino != os.stat('f').st_ino:\n"
        "    os.open(f'/proc/self/fd/{kept}', os.O_RDWR)\n    print('ESCAPED')",
    ),
    low(
        "old-name-of-the-scratch-directory",
        "supervisor",
        "before = os.readlink('/proc/self/fd/5')\nopen('f', 'w').write('x')",
        "import os\nopen(before + '/f').read()\nprint('ESCAPED')",
    ),
    low(
        "frozen-name-of-the-scratch-directory",
        "landlock",
        "before = os.readlink('/proc/self/fd/5').replace('/live/', '/frozen/')\nopen('f', 'w').write('x')",
        "open(before + '/f').read()\nprint('ESCAPED')",
    ),
    low(
        "watch-on-files",
        "seccomp",
        "if call(294, 26, 0) >= 0: print('ESCAPED')",
        opens=frozenset({"seccomp"}),
    ),
)

FILE_ATTEMPTS: tuple[Attempt, ...] = (*_BY_EXPRESSION, *_AROUND)
