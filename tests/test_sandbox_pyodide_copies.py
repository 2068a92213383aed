"""Snapshots of the `pyodide` backend: copies of memory and files, and what becomes of them."""

from __future__ import annotations

import gc
import random

import pytest
from _pyodide import INSTALLED, LIMITS, NOT_INSTALLED, fresh_box, own_cache, process_id, shared_box, texts  # noqa: F401

from elpo_envs.sandbox.base import Limits, SandboxSnapshot
from elpo_envs.sandbox.pyodide import PyodideSandbox

if not INSTALLED:
    pytest.skip(NOT_INSTALLED, allow_module_level=True)


STATEFUL = """
import decimal, itertools, os, random, zlib
decimal.getcontext().prec = 7
numbers = (n * n for n in itertools.count())
next(numbers), next(numbers)
random.seed(5); random.random()
log = open('log.txt', 'w+'); log.write('one two'); log.flush(); log.seek(4)
os.makedirs('deep/er'); os.chdir('deep'); open('kept.txt', 'w').write('kept')
squeeze = zlib.compressobj(); squeeze.compress(b'abc' * 99)
class Odd:
    def __repr__(self): return f'odd {id(self)}'
odd = Odd()
words = {'b', 'a'}
"""
LOOK = (
    "decimal.Decimal(1) / 3, next(numbers), random.random(), log.read(), os.getcwd(), sorted(os.listdir('/scratch')), "
    "open('/scratch/deep/kept.txt').read(), squeeze.flush().hex(), odd, words, os.stat('/scratch/deep/er').st_ino"
)
SPOIL = """
import decimal
decimal.getcontext().prec = 28
list(zip(range(9), numbers)); random.seed(0)
log.seek(0); log.write('changed'); log.close()
os.remove('/scratch/deep/kept.txt'); os.rmdir('/scratch/deep/er'); os.chdir('/')
os.rename('/scratch/log.txt', '/tmp/x')
words.add('c'); Odd.__repr__ = lambda self: 'spoilt'
big = [bytearray(100_000) for _ in range(300)]
"""


def test_a_copy_is_exact(box: PyodideSandbox) -> None:
    box.run(STATEFUL)
    kept = box.snapshot()
    assert kept.fidelity == "exact"
    expected = box.run(LOOK)
    assert expected.kind == "ok" and "'two', '/scratch/deep', ['deep', 'log.txt']" in expected.text, expected
    for _ in range(3):
        assert box.run(SPOIL).text == ""
        box.restore(kept)
        assert box.run(LOOK) == expected
        box.restore(kept)


def test_branches_of_branches(box: PyodideSandbox) -> None:
    box.run("path = []")
    copies: list[tuple[list[int], SandboxSnapshot]] = [([], box.snapshot())]
    choose = random.Random(3)
    for step in range(30):
        path, kept = choose.choice(copies)
        box.restore(kept)
        box.run(f"path.append({step}); open('path.txt', 'a').write('{step} ')")
        copies.append(([*path, step], box.snapshot()))
    for path, kept in copies[1:]:
        box.restore(kept)
        assert box.run("path").text == str(path)
        assert box.run("open('path.txt').read()").text == repr("".join(f"{step} " for step in path))


def test_many_files_come_back(box: PyodideSandbox) -> None:
    box.run("for n in range(600): open(f'{n}.txt', 'w').write(str(n))")
    kept = box.snapshot()
    box.run("import os\nfor n in range(600): os.remove(f'{n}.txt')")
    box.restore(kept)
    assert box.run("sum(int(open(f'{n}.txt').read()) for n in range(600))").text == str(sum(range(600)))


OPERATIONS = [
    "x = globals().get('x', 0) + 1; x",
    "import random; random.random()",
    "things = globals().get('things', []); things.append(object()); id(things[-1])",
    "def count():\n    n = 0\n    while True:\n        n += 1\n        yield n\nc = globals().get('c') or count()",
    "next(c)",
    "open(f'{x % 3 if \"x\" in globals() else 0}.txt', 'a').write('line')",
    "import os; [(n, os.path.getsize(n), os.stat(n).st_ino) for n in sorted(os.listdir()) if os.path.isfile(n)]",
    "import os; [os.remove(n) for n in sorted(os.listdir())[:1]]",
    "h = globals().get('h') or open('h', 'w+'); h.write('abc'); h.flush(); h.tell()",
    "import sympy; sympy.factor(sympy.Symbol('z') ** globals().get('x', 2) - 1)",
    "a = bytearray(200_000 * globals().get('x', 1)); id(a)",
    "a = None",
    "import time; time.time() > 0",
    "nonsense",
    "try:\n    raise ValueError('kept')\nexcept ValueError as e:\n    error = e\nid(error)",
]
ENDLESS = "x = -1; things = None; open('0.txt', 'w').write('spoilt')\nwhile True: pass"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_every_way_to_a_state_leads_to_the_same(box: PyodideSandbox, seed: int) -> None:
    """Whatever was restored or stopped on the way, calls give what they give in one go, addresses included."""
    choose = random.Random(seed)
    trail: list[tuple[str, str]] = []
    kept = [(box.snapshot(), trail)]
    ends = []
    for _ in range(60):
        dice = choose.random()
        if dice < 0.2:
            kept.append((box.snapshot(), trail))
        elif dice < 0.35:
            ends.append(trail)
            snapshot, trail = choose.choice(kept)
            box.restore(snapshot)
        elif dice < 0.38:
            box.limits = Limits(wall_s=0.1, cpu_s=20.0)
            assert box.run(ENDLESS).kind == "timeout"
            box.limits = LIMITS
        else:
            code = choose.choice(OPERATIONS)
            trail = [*trail, (code, box.run(code).text)]
    process = process_id(box)
    for end in [*ends, trail][-4:]:
        box.open(7)
        assert texts(box, *(code for code, _ in end)) == [text for _, text in end]
    assert process_id(box) == process  # nothing above was rebuilt


def test_reseeding(box: PyodideSandbox) -> None:
    box.run("import random; random.random()")
    kept = box.snapshot()
    drawn = []
    for seed in (1, 1, 2):
        box.restore(kept, reseed=seed)
        drawn.append(box.run("random.random()").text)
    assert drawn[0] == drawn[1] != drawn[2]
    box.restore(kept, reseed=2)
    again = box.snapshot()
    box.run("random.random()")
    box.restore(again)
    assert box.run("random.random()").text == drawn[2]


def test_another_sandbox_repeats_the_calls(box: PyodideSandbox) -> None:
    box.run("x = 41")
    box.run("print(x)")
    kept = box.snapshot()
    other = PyodideSandbox(LIMITS)
    for snapshot in (kept, SandboxSnapshot.from_json(kept.to_json())):
        other.restore(snapshot)
        assert other.run("x + 1").text == "42"
    other.close()


def test_a_replay_that_differs_is_refused(box: PyodideSandbox) -> None:
    box.run("import time; time.time_ns()")
    kept = SandboxSnapshot.from_json(box.snapshot().to_json())
    box.restore(kept)
    execution = box.run("1")
    assert execution.kind == "sandbox_failure" and "gave other results" in execution.text


def test_snapshots_outlive_the_process() -> None:
    sandbox = PyodideSandbox(LIMITS)
    sandbox.open(1)
    sandbox.run("x = 5")
    kept = sandbox.snapshot()
    sandbox.close()
    sandbox.close()
    sandbox.restore(kept)
    assert sandbox.run("x").text == "5"
    sandbox.close()


def test_copies_make_room_for_later_ones_and_are_replayed() -> None:
    sandbox = PyodideSandbox(LIMITS, copies_mb=0)
    sandbox.open(1)
    snapshots = []
    for value in range(3):
        sandbox.run(f"x = {value}; data = bytearray(1_000_000)")
        snapshots.append(sandbox.snapshot())
    for value, kept in enumerate(snapshots):
        sandbox.restore(kept)
        assert sandbox.run("x").text == str(value)
    sandbox.close()


def test_dropped_snapshots_are_forgotten(box: PyodideSandbox) -> None:
    box.run("x = 1")
    kept = box.snapshot()
    process = box._process
    assert process is not None and kept.live is not None
    number = kept.live.number
    box.open(1)
    del kept
    gc.collect()
    assert number in process._forgotten
    box.run("1")
    assert not process._forgotten
    assert b'"found":false' in process.request({"load": number}, 10.0)


@pytest.mark.parametrize(
    "code",
    [
        "import ctypes; held = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5); held()",
        "import os; held = os.pipe(); os.write(held[1], b'5'); 5",
    ],
)
def test_what_a_copy_cannot_hold_is_replayed(box: PyodideSandbox, code: str) -> None:
    assert box.run(code).text == "5"
    kept = box.snapshot()
    assert (kept.fidelity, kept.live) == ("replay", None)
    box.run("held = None")
    box.restore(kept)
    assert box.run("held is None").text == "False"
