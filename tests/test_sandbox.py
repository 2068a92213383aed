"""The sandbox: what state survives, what a snapshot restores, and how one is chosen."""

from __future__ import annotations

import json
import random
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from elpo_envs.sandbox import (
    Limits,
    ReplaySandbox,
    SandboxError,
    SandboxSnapshot,
    make_sandbox,
)
from elpo_envs.sandbox.language import LanguagePolicy

KEPT = "variables are as they were before it"
QUICK = Limits(wall_s=0.5, cpu_s=10.0)


@pytest.fixture
def sandbox() -> Iterator[ReplaySandbox]:
    box = ReplaySandbox()
    box.open(7)
    yield box
    box.close()


@pytest.fixture
def quick() -> Iterator[ReplaySandbox]:
    box = ReplaySandbox(QUICK)
    box.open(7)
    yield box
    box.close()


def test_state_outlives_errors_and_exits(sandbox: ReplaySandbox) -> None:
    sandbox.run("x = 1")
    assert sandbox.run("x += 1\n1 / 0").kind == "error"
    assert sandbox.run("exit()").kind == "error"
    assert sandbox.run("x").text == "2"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os._exit(3)", "it ended with exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it was ended by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 40)", "it was ended by signal 40"),
        ("import os; os.closerange(3, 64)", "it ended with exit code 1"),
        (
            "import contextlib, os\nfor n in range(3, 9):\n    with contextlib.suppress(OSError):\n"
            "        os.write(n, b'\\0\\0\\0\\1x')",
            "it wrote an unreadable reply",
        ),
        ("import builtins\ndel builtins.len, builtins.isinstance, builtins.str", "it ended with exit code 1"),
    ],
)
def test_a_lost_process_costs_only_its_call(sandbox: ReplaySandbox, code: str, how: str) -> None:
    sandbox.run("x = 1")
    execution = sandbox.run("x = 2\n" + code)
    assert execution.kind == "error"
    assert execution.text == f"ProcessDied: the interpreter was lost in this call ({how}); {KEPT}"
    assert sandbox.run("x").text == "1"


def test_a_timeout_is_on_time_and_keeps_the_state(quick: ReplaySandbox) -> None:
    quick.run("x = 1")
    start = time.monotonic()
    execution = quick.run("x = 2\nimport time\ntime.sleep(60)")
    assert 0.5 <= time.monotonic() - start < 2.0
    assert _of(execution) == (f"TimeoutError: the call was stopped after 0.5 s; {KEPT}", "timeout")
    assert quick.run("x").text == "1"
    assert quick.snapshot().calls == ("x = 1", "x")


def test_a_timeout_ends_code_that_catches_everything(quick: ReplaySandbox) -> None:
    quick.run("x = 1")
    code = "import time\nx = 2\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass"
    assert quick.run(code).kind == "timeout"
    assert quick.run("x").text == "1"


def test_cpu_time_is_limited_per_call() -> None:
    box = ReplaySandbox(Limits(wall_s=20.0, cpu_s=1.0))
    box.open(0)
    burn = "import time\nend = time.process_time() + 0.7\nwhile time.process_time() < end: pass"
    assert [box.run(burn).kind for _ in range(2)] == ["empty"] * 2
    execution = box.run("while True: pass")
    assert _of(execution) == (f"TimeoutError: the call was stopped after 1 s of CPU time; {KEPT}", "timeout")
    box.close()


def _of(execution: object) -> tuple[str, str]:
    return execution.text, execution.kind  # type: ignore[attr-defined]


def test_alarms_forks_and_files_stay_inside_their_session(sandbox: ReplaySandbox) -> None:
    assert sandbox.run("import signal\nsignal.alarm(1)\nprint('set')").kind == "ok"
    assert sandbox.run("import os\npid = os.fork()\nprint('one')").text == "one"
    assert sandbox.run("import time\ntime.sleep(1.1)\n'alive'").text == "'alive'"
    code = "n = open('m.py', 'w').write('z = 3')\nimport m\nprint(m.z, os.getcwd(), os.path.exists('m.py'))"
    assert sandbox.run(code).text == "3 /scratch True"
    assert sandbox.run("sorted(k for k in os.environ if 'HOME' in k or 'TOKEN' in k)").text == "['HOME']"


def test_classes_of_the_session_pickle_and_dataclass(sandbox: ReplaySandbox) -> None:
    code = """
        import pickle
        from dataclasses import dataclass
        @dataclass
        class P:
            a: "int"
        pickle.loads(pickle.dumps(P(3)))
    """
    assert sandbox.run(textwrap.dedent(code)).text == "P(a=3)"


def test_hashes_repeat(sandbox: ReplaySandbox) -> None:
    texts = set()
    for _ in range(3):
        sandbox.open(7)
        texts.add(sandbox.run("{w: hash(w) for w in {'a', 'bb', 'ccc', 'dddd'}}").text)
    assert len(texts) == 1


# --- randomness ---------------------------------------------------------------------------------------------

DRAW = "import random, numpy as np\n(random.random(), np.random.rand())"


def test_generators_follow_the_seed(sandbox: ReplaySandbox) -> None:
    texts = []
    for seed in (7, 7, -3, 2**80):
        sandbox.open(seed)
        texts.append(sandbox.run(DRAW).text)
    assert texts[0] == texts[1] and len(set(texts)) == 3
    import numpy as np

    assert texts[0] == repr((random.Random(7).random(), np.random.RandomState(7).rand()))


def test_numpy_is_seeded_before_the_first_draw_of_the_call_that_imports_it(sandbox: ReplaySandbox) -> None:
    import numpy as np

    assert sandbox.run("from numpy.random import rand\nrand()").text == repr(np.random.RandomState(7).rand())


def test_reseeding_separates_branches_and_is_remembered(sandbox: ReplaySandbox) -> None:
    sandbox.run(DRAW)
    snap = sandbox.snapshot()
    plain = sandbox.run(DRAW).text
    drawn = []
    for reseed in (None, 1, 1, 2):
        sandbox.restore(snap, reseed=reseed)
        drawn.append(sandbox.run(DRAW).text)
    assert drawn[0] == plain and drawn[1] == drawn[2] and len(set(drawn)) == 3
    later = sandbox.snapshot()
    assert later.reseeds == ((1, 2),)
    follow = sandbox.run(DRAW).text
    sandbox.restore(later)
    sandbox.close()
    sandbox.restore(later, reseed=5)
    sandbox.restore(later)
    assert sandbox.run(DRAW).text == follow


def test_reseeding_a_running_session(sandbox: ReplaySandbox) -> None:
    sandbox.run(DRAW)
    snap = sandbox.snapshot()
    sandbox.restore(snap, reseed=3)
    kept = sandbox.run(DRAW).text
    sandbox.close()
    sandbox.restore(snap, reseed=3)
    assert sandbox.run(DRAW).text == kept


# --- snapshots ----------------------------------------------------------------------------------------------


def test_sixteen_branches_are_identical() -> None:
    box = ReplaySandbox()
    box.open(11)
    box.run("import random\nxs = []\ng = (random.random() for _ in range(9))")
    box.run("xs.append(next(g))\nprint(xs)")
    box.run("boom")
    snap = SandboxSnapshot.from_json(json.loads(json.dumps(box.snapshot().to_json())))
    assert snap == box.snapshot()
    follow = ["xs.append(next(g))\nxs", "random.random()", "{'a', 'b', 'c'}", "object()", "1 / len(xs)"]
    wanted = [box.run(code) for code in follow]
    box.close()
    others = [ReplaySandbox() for _ in range(16)]
    for other in others:
        other.restore(snap)
    assert all([other.run(code) for code in follow] == wanted for other in others)
    for other in others:
        other.close()


def test_another_session_continues_after_errors_exits_and_deep_recursion() -> None:
    one, two = ReplaySandbox(), ReplaySandbox()
    one.open(5)
    for code in ("c = d + 1", "exit()", "class A: pass\nA()", "{'a', 'b'}", "print('x' * 10**5)"):
        one.run(code)
    one.run("import os\ndef f(): return f()\nf()")
    two.restore(one.snapshot())
    assert two.run(DRAW) == one.run(DRAW)
    one.close()
    two.close()


def test_a_restore_where_the_session_stands_keeps_the_process(sandbox: ReplaySandbox) -> None:
    sandbox.run("import os\npid = os.getpid()")
    sandbox.restore(sandbox.snapshot())
    assert sandbox.run("os.getpid() == pid").text == "True"


def test_a_replay_that_differs_is_refused(sandbox: ReplaySandbox) -> None:
    sandbox.run("import time\ntime.time_ns()")
    snap = sandbox.snapshot()
    sandbox.run("x = 1")
    sandbox.restore(snap)
    execution = sandbox.run("1")
    assert execution.kind == "sandbox_failure" and "gave other results" in execution.text
    with pytest.raises(SandboxError, match="gave other results"):
        sandbox.rebuild()
    assert sandbox.run("1").kind == "sandbox_failure"
    sandbox.open(1)
    assert sandbox.run("1").text == "1"


def test_snapshot_json_names_what_is_wrong() -> None:
    good = SandboxSnapshot(1, ("x",), "ab", "replay", ((1, 3),)).to_json()
    for field, bad in {
        "seed": "1",
        "calls": "x",
        "digest": 3,
        "fidelity": "perfect",
        "reseeds": [[2, 0]],
    }.items():
        with pytest.raises(ValueError, match=repr(field)):
            SandboxSnapshot.from_json(good | {field: bad})
        with pytest.raises(ValueError, match=f"{field!r} is missing"):
            SandboxSnapshot.from_json({key: value for key, value in good.items() if key != field})


def test_use_without_a_session() -> None:
    box = make_sandbox()
    for use in (lambda: box.run("1"), box.snapshot):
        with pytest.raises(SandboxError, match=r"open\(\)"):
            use()
    box.open(1)
    box.run("x = 4")
    snap = box.snapshot()
    box.close()
    box.close()
    box.restore(snap)
    assert box.run("x").text == "4"
    box.close()


def test_the_language_layer_holds_in_every_process_of_a_session() -> None:
    box = ReplaySandbox(language=LanguagePolicy(("math",)))
    box.open(0)
    assert box.run("import math\nmath.floor(2.5)").text == "2"
    snap = box.snapshot()
    for _ in range(2):
        assert "import of 'os' is not allowed; allowed: math" in box.run("import os").text
        box.close()
        box.restore(snap)
    assert box.run("math.floor(3.5)").text == "3"
    box.close()


# --- choosing one -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{"wall_s": 0}, {"cpu_s": -1.0}, {"memory_mb": 0.5}, {"output_chars": 99}])
def test_limits_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"Limits.{next(iter(bad))}"):
        replace(Limits(), **bad)  # type: ignore[arg-type]
