"""The reference programs of HumanEval and MBPP pass their own tests under the language layer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _agent_snippets import run

from elpo_envs.sandbox import Limits, available, make_sandbox
from elpo_envs.sandbox.interpreter import Interpreter
from elpo_envs.sandbox.language import Language, LanguagePolicy

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")
PASSED = "all tests passed"
COUNTS = {"humaneval": 164, "mbpp": 974, "mbpp_sanitized": 427}


def programs(data_dir: Path, name: str) -> list[tuple[str, str]]:
    """Ids and sources, each of which ends by printing `PASSED`."""
    path = data_dir / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == COUNTS[name]
    return [(row["id"], source(row)) for row in rows]


def source(row: dict[str, Any]) -> str:
    tests = row["tests"]
    if tests["type"] == "humaneval":
        parts = [row["solution"], tests["code"], f"check({row['entry_point']})"]
    else:
        imports = tests["imports"]
        before = imports if isinstance(imports, str) else "\n".join(imports)
        asserts = [*tests["asserts"], *tests.get("challenge_asserts", [])]
        parts = [before, row["solution"], tests.get("setup_after") or "", *asserts]
    return "\n".join([*parts, f"print({PASSED!r})"])


def failures(rows: list[tuple[str, str]], execute: Callable[[str], str]) -> list[str]:
    texts = [(name, execute(code)) for name, code in rows]
    return [f"{name}: {text[-300:]}" for name, text in texts if not text.endswith(PASSED)]


@pytest.fixture
def forked() -> Iterator[Callable[[str], str]]:
    """Runs each program in a session of its own."""
    if "fork" not in available():
        pytest.skip("the fork backend needs Linux")
    sandbox = make_sandbox("fork", Limits(wall_s=60, cpu_s=60))

    def execute(code: str) -> str:
        sandbox.open(0)
        return run(sandbox, code)

    yield execute
    sandbox.close()


def in_this_process(code: str) -> str:
    return run(Interpreter(0, language=Language(LanguagePolicy())), code)


@pytest.mark.parametrize("name", COUNTS)
def test_in_this_process(name: str, data_dir: Path) -> None:
    rows = [(row, code) for row, code in programs(data_dir, name) if not row.endswith("/123") or name == "humaneval"]
    assert failures(rows, in_this_process) == []


def test_humaneval_in_forked_sessions(data_dir: Path, forked: Callable[[str], str]) -> None:
    assert failures(programs(data_dir, "humaneval"), forked) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mbpp", "mbpp_sanitized"])
def test_mbpp_in_forked_sessions(name: str, data_dir: Path, forked: Callable[[str], str]) -> None:
    assert failures(programs(data_dir, name), forked) == []


def test_a_wrong_program_is_noticed(data_dir: Path) -> None:
    [(name, code), *_] = programs(data_dir, "humaneval")
    assert failures([(name, code.replace("return True", "return False"))], in_this_process) != []
