"""Faults measured in other suites' graders and judges, each as a check of ours on real tools, sandboxes and files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
from _fork_watch import descendants, launcher
from _peers_tools import FIVE, Fixed, call, math
from test_benchmark_files_sealed import GPQA_CSV

import elpo_envs
from elpo_agent.cli.main import main
from elpo_envs.grading import grade_math
from elpo_envs.grading.code import CodeGrader
from elpo_envs.sandbox.fork.pools import running_pool
from elpo_envs.wrappers import RecordTraces

ROOT = Path(elpo_envs.__file__).parent
CHOICE = ["12 J", "24 J", "36 J", "48 J"]


def played(env_id: str, source: Fixed, turn: str, **arguments: Any) -> tuple[float, bool, bool, dict[str, Any]]:
    env = gym.make(env_id, task_source=source, **arguments)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(turn)
    env.close()
    return float(reward), terminated, truncated, info


def programs(*wanted: tuple[str, str, bool], **tests: Any) -> None:
    """Each program, with a name for it, is right or wrong, as told, when handed in."""
    source = Fixed("Write a program.", "", kind="program", tests=tests)
    env = gym.make("elpo/CodeExec-v0", task_source=source)
    for name, program, right in wanted:
        env.reset(seed=0)
        _, reward, terminated, _, info = env.step(call("submit", code=program))
        assert (reward, terminated) == (float(right), True), (name, info["grade"])
    env.close()


# --- answers --------------------------------------------------------------------------------------------------------


def boxed_in_tool_output() -> None:
    env = math()
    text, reward, terminated, *_ = env.step(call(code="print(r'\\boxed{5}')"))
    assert "\\boxed{5}" in text and reward == 0.0 and not terminated
    for turn in ("As the tool said.", "<tool_response>\n\\boxed{5}\n</tool_response>", "```output\n\\boxed{5}\n```"):
        _, reward, terminated, *_ = env.step(turn)
        assert reward == 0.0 and not terminated, turn
    assert env.step("So it is \\boxed{6}.")[1] == 0.0
    env.close()
    choice = Fixed("Which?", "B", kind="choice", choices=CHOICE)
    assert played("elpo/ScienceQA-v0", choice, call(code="print(r'The answer is \\boxed{B}')"))[:2] == (0.0, False)


def first_letter_named() -> None:
    for turn in (
        "Option (A) is wrong: it is too small. The correct answer is B.",
        "(A) cannot be. Neither can C. The answer is (B).",
        "A is incorrect because of its unit.\n\nAnswer: B",
    ):
        for gold, reward in (("B", 1.0), ("A", 0.0)):
            assert played("elpo/ScienceQA-v0", Fixed("Which?", gold, kind="choice", choices=CHOICE), turn)[0] == reward
    for turn in ("\\boxed{A, B, C, D}", "\\boxed{A} or \\boxed{B}", "The answer is A or B.", "Any of A, B, C and D."):
        for gold in "ABCD":
            assert played("elpo/ScienceQA-v0", Fixed("Which?", gold, kind="choice", choices=CHOICE), turn)[0] == 0.0


def order_of_options() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gpqa_diamond.csv"
        path.write_bytes(GPQA_CSV)
        code = (
            "import gymnasium as gym, hashlib\n"
            f"env = gym.make('elpo_envs:elpo/GPQA-Diamond-v0', dataset_options={{'path': {str(path)!r}}})\n"
            "texts = [env.reset(options={'index': i})[0] + env.unwrapped.task.answer for i in reversed(range(12))]\n"
            "print(hashlib.sha256('\\n'.join(texts).encode()).hexdigest())"
        )
        environment = {**os.environ, "PYTHONHASHSEED": "1"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        env: Any = gym.make("elpo/GPQA-Diamond-v0", dataset_options={"path": str(path)})
        texts = [env.reset(options={"index": i})[0] + env.unwrapped.task.answer for i in reversed(range(12))]
        env.close()
    assert done.stdout.strip() == hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert len({text[-1] for text in texts}) > 1, "the right option is not always in one place"


# --- programs -------------------------------------------------------------------------------------------------------


def buffered_lines() -> None:
    cases = [{"input": "1\n2\n3\n", "output": "1 2 3"}]
    programs(
        ("readline", "import sys\nr = sys.stdin.buffer.readline\nprint(int(r()), int(r()), int(r()))", True),
        ("read", "import sys\nprint(*sys.stdin.buffer.read().decode().split())", True),
        ("readlines", "import sys\nprint(*map(int, sys.stdin.buffer.readlines()))", True),
        ("mixed", "import sys\nfirst = input()\nprint(first, *sys.stdin.read().split())", True),
        ("descriptor", "import os\nprint(*os.read(0, 99).decode().split())", True),
        ("always the first", "import sys\nline = sys.stdin.readline()\nprint(line.strip(), line.strip(), 3)", False),
        type="stdin",
        cases=cases,
    )


def rules_of_outputs() -> None:
    for printed, expected, same in (
        ("  YES  \\n NO\\n\\n", "YES\nNO", True),
        ("yes", "YES", False),
        ("1.50 2", "1.5 2.0", True),
        ("0.1000000001", "0.1", False),
        ("1\\n2", "1 2", False),
        ("1\\n\\n2", "1\n2", False),
    ):
        with CodeGrader() as grader:
            tests = {"type": "stdin", "cases": [{"input": "", "output": expected}]}
            assert grader.grade(f"print('{printed}')", tests).correct is same, (printed, expected)


def rules_of_values() -> None:
    cases = [
        {"input": "[1, 2]\n3", "output": "[3, 6]"},
        {"input": '["a"]\n2', "output": '["aa"]'},
        {"input": "[]\n2", "output": "[]"},
    ]
    method = "class Solution:\n    def scale(self, xs: List[int], k: int):\n        return "
    programs(
        ("lists", method + "[x * k for x in xs]", True),
        ("a tuple is the list of its items", method + "tuple(x * k for x in xs)", True),
        ("a set is not", method + "{x * k for x in xs}", False),
        ("a text of it is not", method + "str([x * k for x in xs])", False),
        type="functional",
        entry_point="scale",
        cases=cases,
    )
    with CodeGrader() as grader:
        tests = {"type": "functional", "entry_point": "scale", "cases": cases}
        grade = grader.grade(method + "[]", tests)
    assert [outcome.outcome for outcome in grade.outcomes] == ["wrong"], "it stops at the first failure"


SECRET = 790193
# Looks at all that it can reach for a number that begins as the secret does, which it does not spell out itself.
SEARCH = f"""
import gc, inspect, os, re, sys
def look():
    texts = [repr(info.frame.f_locals) + repr(info.frame.f_globals)[:99999] for info in inspect.stack()]
    texts += [repr(each)[:9999] for each in gc.get_objects() if type(each) in (dict, list, tuple)]
    texts += [repr(dict(os.environ)), repr(sys.argv)]
    for folder in (".", "..", "/tmp", "/proc/self", "/proc/%d" % os.getppid(), {str(ROOT)!r}):
        try:
            for name in os.listdir(folder):
                try:
                    texts.append(open(os.path.join(folder, name), errors="replace").read(99999))
                except OSError:
                    pass
        except OSError:
            pass
    found = re.search(bytes({list(str(SECRET)[:4].encode())}).decode() + "[0-9][0-9]", "\\n".join(texts))
    return int(found[0]) if found else 0
"""
TAMPER = f"""
import os
for folder, _, names in os.walk({str(ROOT)!r}):
    for name in names:
        try:
            open(os.path.join(folder, name), "a").write("# tampered")
        except OSError:
            pass
try:
    os.makedirs("/logs/verifier", exist_ok=True)
    open("/logs/verifier/reward.txt", "w").write("1")
except OSError:
    pass
for name in ("reward.txt", "reward.json", "verdict"):
    open(name, "w").write("1")
"""


def _digest() -> str:
    whole = hashlib.sha256()
    for path in sorted((ROOT / "grading").rglob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def tests_in_sight() -> None:
    tests = {"type": "calls", "entry_point": "f", "cases": [{"args": [7], "expected": SECRET}]}
    leak = SEARCH + "\ndef f(n):\n    return look()"
    planted = f"kept = [{SECRET}]\n{leak}"
    programs(("looks for them", leak, False), ("finds what is there", planted, True), **tests)
    options = {"restricted": False}  # so that it is the jail that hides it
    env = gym.make("elpo/Math-v0", task_source=Fixed("Guess.", str(SECRET)), sandbox_options=options)
    env.reset(seed=0)
    assert env.step(call(code=SEARCH + "\nlook()"))[0] == "0", "nor is the answer in sight of the tools"
    assert env.step(call(code=f"kept = [{SECRET}]\nlook()"))[0] == str(SECRET)
    env.close()


def grader_in_reach() -> None:
    before = _digest()
    tests = {"type": "calls", "entry_point": "f", "cases": [{"args": [7], "expected": 8}]}
    forged = "\nprint('passed')\nprint('{\"correct\": true, \"reward\": 1.0}')\ndef f(n):\n    return 0"
    programs(("writes and forges", TAMPER + forged, False), **tests)
    env = math()
    env.step(call(code=TAMPER))
    assert env.step("\\boxed{6}")[1] == 0.0
    env.close()
    assert _digest() == before
    assert not Path("/logs/verifier/reward.txt").exists()


# --- graders among threads ------------------------------------------------------------------------------------------


def grading_in_threads() -> None:
    """Pairs that need the symbolic stage, in many threads; a signal handler of the user's is left alone."""
    marks: list[int] = []

    def handler(*_: object) -> None:
        marks.append(1)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with ThreadPoolExecutor(8) as pool:
            grades = list(pool.map(_floor, range(24)))
            rewards = list(pool.map(_in_a_thread, range(4)))
        assert all(right.correct and not wrong.correct for right, wrong in grades)
        assert rewards == [1.0] * 4
        assert signal.getsignal(signal.SIGALRM) is handler and marks == []
    finally:
        signal.signal(signal.SIGALRM, before)


def _floor(n: int) -> tuple[Any, Any]:
    return grade_math(rf"\lfloor {n}.5 \rfloor", str(n)), grade_math(rf"\lfloor {n}.5 \rfloor", str(n + 1))


def _in_a_thread(number: int) -> float:
    return played("elpo/Math-v0", FIVE, f"\\boxed{{\\lfloor 5.{number} \\rfloor}}")[0]


def queueing_as_time_out() -> None:
    """What waits behind a question that runs into its limit is still graded right."""
    _floor(1)  # the worker is up
    slow = threading.Thread(target=grade_math, args=(r"\lfloor 9^{9^{9}} \rfloor", "3"))
    slow.start()
    time.sleep(0.1)
    with ThreadPoolExecutor(4) as pool:
        grades = list(pool.map(_floor, range(100, 108)))
    slow.join()
    assert all(right.correct and not right.timed_out for right, _ in grades)


# --- failures that are not the model's ------------------------------------------------------------------------------


def sandbox_failure_in_a_tool() -> None:
    """The process of a session is killed, and what it did cannot be repeated: the episode says nothing."""
    env = math()
    env.step(call(code="import os\nos.urandom(8).hex()"))
    with Killing(every_s=0.02):
        _, reward, terminated, truncated, info = env.step(call(code="import time; time.sleep(2)\n1"))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["error_kind"], info["valid"], info["is_correct"]) == ("sandbox_failure", False, False)
    env.reset(seed=0)
    assert env.step(call(code="1 + 1"))[0] == "2", "the next episode is as good as any"
    assert env.step("\\boxed{5}")[1] == 1.0
    env.close()


def sandbox_failure_in_the_grader() -> None:
    tests = {"type": "calls", "entry_point": "f", "cases": [{"args": [7], "expected": 8}]}
    env = gym.make("elpo/CodeExec-v0", task_source=Fixed("Write it.", "", kind="program", tests=tests))
    env.reset(seed=0)
    right = "import time\ntime.sleep(0.5)\ndef f(n):\n    return n + 1"
    with Killing(every_s=0.02):
        _, reward, terminated, truncated, info = env.step(call("submit", code=right))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["error_kind"], info["valid"], info["is_correct"]) == ("sandbox_failure", False, False)
    env.reset(seed=0)
    assert env.step(call("submit", code=right))[1:3] == (1.0, True)
    env.close()


class Killing:
    """While it is entered, every process of the sandbox is killed, and whatever takes its place again."""

    def __init__(self, every_s: float) -> None:
        self._every_s, self._over = every_s, threading.Event()
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _kill(self) -> None:
        while not self._over.wait(self._every_s):
            pool = running_pool()
            for pid in () if pool is None else (*descendants(launcher(pool)), launcher(pool)):
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(pid, signal.SIGKILL)


# --- recorded episodes ----------------------------------------------------------------------------------------------


def no_offline_grading() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, graded = Path(folder) / "traces.jsonl", Path(folder) / "graded.jsonl"
        recorded: list[bool] = []
        for env_id in ("elpo/Math-v0", "elpo/ScienceQA-v0", "elpo/CodeExec-v0"):
            env: Any = RecordTraces(gym.make(env_id, max_turns=12), str(path))
            for script in ("expert", "wrong"):
                env.reset(options={"index": 2})
                turns = env.unwrapped.expert_turns() if script == "expert" else ["\\boxed{-1}", "```python\nx = 1\n```"]
                for turn in turns:
                    _, _, terminated, truncated, info = env.step(turn)
                    if terminated or truncated:
                        break
                recorded.append(info["is_correct"])
            env.close()
        assert main(["grade", str(path), "--output", str(graded)]) == 0
        again = [json.loads(line)["is_correct"] for line in graded.read_text().splitlines()]
    assert recorded == again == [True, False] * 3
