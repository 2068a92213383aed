"""Attempts to take more than a session's share: time in C code, memory, disk, processes, output, depth."""

from __future__ import annotations

from _attempt import Attempt, attempt, low

_STOPPED = ("timeout",)
_ENDED = ("error",)


def _busy(name: str, code: str, raw: bool = False) -> Attempt:
    """Code that would go on for hours."""
    return attempt(
        f"time-{name}",
        "rlimits",
        f"{code}\nprint('ESCAPED')",
        raw=raw,
        kinds=_STOPPED,
        wall_s=1.0,
        patient=True,
    )


_TIME = (
    _busy("loop", "while True: pass"),
    _busy("power", "10 ** 10 ** 9"),
    _busy("power-of-a-power", "x = 3\nfor i in range(10 ** 9): x = x ** 3 % 10 ** 10 ** 6"),
    _busy("factorial", "import math\nmath.factorial(10 ** 8)"),
    _busy("regular-expression", "import re\nre.match('(a+)+$', 'a' * 64 + 'b')"),
    _busy("sum-in-c", "sum(range(10 ** 13))"),
    _busy("any-in-c", "import itertools\nany(itertools.repeat(False))"),
    _busy("exhausted-iterator", "import collections, itertools\ncollections.deque(itertools.count(), maxlen=0)"),
    _busy("contains-in-c", "import itertools\n-1 in itertools.count()"),
    _busy("sort-with-a-key", "a = list(range(10 ** 5))\nwhile True: a.sort(key=lambda x: -x)"),
    _busy("numpy-loop", "import numpy\na = numpy.ones((600, 600))\nwhile True: a = a @ a / a.max()"),
    _busy("numpy-sort", "import numpy\na = numpy.arange(10 ** 6)[::-1]\nwhile True: numpy.sort(a)"),
    _busy("big-number-to-text", "import sys\nsys.set_int_max_str_digits(0)\nlen(str(7 ** (10 ** 8 // 3)))"),
    _busy(
        "sympy-factor",
        "import sympy\nsympy.factorint(10 ** 61 + 7)\nsympy.factorint((10 ** 40 + 121) * (10 ** 41 + 109))",
    ),
    _busy("every-error-caught", "while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
    _busy("finally", "def f():\n    try:\n        while True: pass\n    finally: f()\nf()"),
    _busy("text-that-never-ends", "class R:\n    def __str__(self):\n        while True: pass\nprint(R())"),
    attempt(
        "time-value-that-is-never-shown",
        "rlimits",
        "class R:\n    def __repr__(self):\n        while True: pass\nR()",
        kinds=_STOPPED,
        wall_s=1.0,
        patient=True,
    ),
    _busy(
        "error-whose-text-never-ends", "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E"
    ),
    _busy("destructor", "class D:\n    def __del__(self):\n        while True: pass\nd = D()\ndel d"),
    _busy("sleep", "import time\ntime.sleep(10 ** 6)"),
    _busy(
        "signal-of-the-limit-ignored",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        True,
    ),
    _busy(
        "all-signals-blocked",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nwhile True: pass",
        True,
    ),
    _busy(
        "storm-of-alarms",
        "import signal\nsignal.signal(14, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)\nwhile True: pass",
        True,
    ),
    _busy("pause", "import signal\nsignal.pause()", True),
    _busy("read-that-never-ends", "import os\nr, w = os.pipe()\nos.read(r, 1)", True),
)

_MEMORY = tuple(
    attempt(
        f"memory-{name}",
        "rlimits",
        f"{code}\nprint('ESCAPED')",
        raw=raw,
        kinds=_ENDED,
    )
    for name, code, raw in (
        ("bytes", "x = bytes(10 ** 10)", False),
        ("text", "x = 'x' * 10 ** 10", False),
        ("list", "x = [0] * 10 ** 10", False),
        ("doubling", "x = 'x'\nwhile True: x += x", False),
        ("numpy", "import numpy\nx = numpy.ones(10 ** 10)", False),
        ("numpy-in-steps", "import numpy\nx = [numpy.ones(10 ** 7) for i in range(100)]", False),
        (
            "caught-and-again",
            "held = []\nn = 10 ** 8\nwhile n:\n    try: held.append(bytes(n))\n    except MemoryError: n //= 2\n"
            "assert sum(map(len, held)) > 1 << 29",
            False,
        ),
        (
            "compressed",
            "import zlib\nz = zlib.compress(bytes(10 ** 8), 1)\nx = [zlib.decompress(z) for i in range(10 ** 3)]",
            False,
        ),
        ("nested-source", "x = eval('[' * 90 + ']' * 90) and 'x' * 10 ** 10", False),
        ("mapped", "import mmap\nx = mmap.mmap(-1, 10 ** 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)", True),
    )
)

_DEPTH = (
    attempt("depth-recursion", "host", "def f(): f()\nf()", kinds=_ENDED),
    attempt(
        "depth-of-a-raised-limit",
        "host",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
        kinds=("error", "timeout"),
        wall_s=1.0,
        patient=True,
    ),
    attempt("depth-of-source", "host", "eval('(' * 10 ** 6)", kinds=_ENDED),
    attempt("depth-of-a-sum", "host", "eval('+'.join('1' * 10 ** 5))"),
    attempt("depth-of-a-list", "host", "x = []\nfor i in range(10 ** 6): x = [x]\nrepr(x)", kinds=_ENDED),
    attempt("depth-of-a-list-forgotten", "host", "x = []\nfor i in range(10 ** 6): x = [x]\ndel x"),
    attempt("depth-of-json", "host", "import json\njson.loads('[' * 10 ** 6)", kinds=_ENDED),
    attempt("depth-of-an-expression", "host", "import re\nre.compile('(' * 10 ** 4 + ')' * 10 ** 4)", kinds=_ENDED),
    attempt("null-pointer", "host", "import ctypes\nctypes.string_at(0)", raw=True, kinds=_ENDED),
    attempt("abort", "host", "import os\nos.abort()", raw=True, kinds=_ENDED),
    attempt("exit", "host", "import os\nos._exit(0)", raw=True, kinds=_ENDED),
    attempt("exit-politely", "host", "exit()", kinds=_ENDED),
)

_OUTPUT = (
    attempt("output-long-line", "host", "print('x' * 10 ** 8)", kinds=("ok", "error")),
    attempt("output-many-lines", "host", "for i in range(10 ** 5): print(i)", kinds=("ok",)),
    attempt("output-of-a-value", "host", "'x' * 10 ** 8", kinds=("ok", "error")),
    attempt("output-of-an-error", "host", "raise ValueError('x' * 10 ** 8)", kinds=_ENDED),
    attempt("output-half-characters", "host", "print('\\ud800' * 1000)", kinds=("ok",)),
    attempt("output-zeros", "host", "print('\\0' * 10 ** 5)", kinds=("ok",)),
    low(
        "output-past-the-stream",
        "rlimits",
        "n = 0\ntry:\n    while True: n += os.write(1, bytes(1 << 20))\n"
        "except OSError: pass\nif n > 8 << 20: print('ESCAPED')",
    ),
)

_DISK = (
    attempt(
        "disk-one-huge-file",
        "rlimits",
        "with open('f', 'wb') as f:\n    for i in range(64): f.write(bytes(1 << 20)); f.flush()\nprint('ESCAPED')",
        kinds=_ENDED,
    ),
    attempt(
        "disk-sparse-file",
        "rlimits",
        "f = open('f', 'wb')\nf.truncate(1 << 40)\nprint('ESCAPED')",
        kinds=_ENDED,
    ),
    attempt(
        "disk-some-huge-files",
        "supervisor",
        "import time\nfor i in range(20):\n    open(f'f{i}', 'wb').write(bytes(8 << 20)); time.sleep(0.02)\n"
        "time.sleep(1)\nprint('ESCAPED')",
        kinds=_ENDED,
    ),
    attempt(
        "disk-some-huge-files-left",
        "host",
        "for i in range(6): open(f'f{i}', 'wb').write(bytes(8 << 20))",
        kinds=_ENDED,
    ),
    attempt(
        "disk-many-small-files",
        "supervisor",
        "import time\nfor i in range(10 ** 5):\n    open(f'f{i}', 'w').close()\ntime.sleep(1)\nprint('ESCAPED')",
        kinds=_ENDED,
    ),
    attempt("disk-many-small-files-left", "host", "for i in range(1500): open(f'f{i}', 'w').close()", kinds=_ENDED),
    attempt(
        "disk-many-folders",
        "supervisor",
        "import pathlib, time\nfor i in range(10 ** 5): pathlib.Path(str(i)).mkdir()\ntime.sleep(1)\nprint('ESCAPED')",
        kinds=_ENDED,
    ),
    attempt(
        "disk-deep-folders",
        "supervisor",
        "import pathlib, time\npathlib.Path('/'.join('d' * 500)).mkdir(parents=True)\ntime.sleep(1)\nprint('ESCAPED')",
        kinds=_ENDED,
    ),
    low(
        "disk-very-deep-folders",
        "supervisor",
        "for i in range(20000):\n    os.mkdir('d'); os.chdir('d')\ntime.sleep(1)\nprint('ESCAPED')",
        kinds=_ENDED,
    ),
    attempt(
        "disk-endless-paths",
        "supervisor",
        """
import contextlib, pathlib, time
try:
    for i in range(20):
        pathlib.Path('x' * 250).mkdir()
        contextlib.chdir('x' * 250).__enter__()
except OSError:
    pass
for n in range(230, 256):
    with contextlib.suppress(OSError):
        pathlib.Path('y' * n).mkdir()
time.sleep(1)
print('ESCAPED')
""",
        kinds=_ENDED,
    ),
    attempt(
        "disk-folders-nobody-may-read",
        "supervisor",
        "import pathlib\npathlib.Path('none').mkdir(0)\npathlib.Path('dark').mkdir(0o300)\n"
        "for i in range(5): open(f'dark/{i}', 'wb').write(bytes(1 << 20))",
    ),
    attempt(
        "disk-files-without-names",
        "host",
        "import pathlib\nheld = []\nfor i in range(20):\n    held.append(open('f', 'wb'))\n"
        "    pathlib.Path('f').unlink()\n"
        "    held[-1].write(bytes(8 << 20))\n    held[-1].flush()",
        "len(held)",
    ),
    attempt(
        "disk-strange-names",
        "host",
        "for name in ('-rf', '\\n', '\\udcff', ' ', '*', '$(id)', 'a' * 255): open(name, 'w').close()",
        "open('-rf').read()",
        kinds=("ok",),
    ),
    low("descriptors-all-taken", "rlimits", "held = []\nwhile True: held.append(os.dup(0))", kinds=_ENDED),
    low(
        "descriptors-all-taken-and-kept",
        "rlimits",
        "held = []\ntry:\n    while True: held.append(open('f', 'w'))\nexcept OSError: pass\nlen(held)",
        "len(held)",
        wall_s=3.0,
    ),
    low(
        "memory-files",
        "rlimits",
        "held = []\ntry:\n    while True:\n        held.append(os.memfd_create('x')); os.ftruncate(held[-1], 9 << 20)\n"
        "        print('ESCAPED')\nexcept OSError: pass",
    ),
)

RESOURCE_ATTEMPTS: tuple[Attempt, ...] = (*_TIME, *_MEMORY, *_DEPTH, *_OUTPUT, *_DISK)
