"""Ordinary agent code runs under the language layer exactly as in plain Python."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _agent_snippets import SNIPPETS, Snippet, run

from elpo_envs.sandbox import Sandbox, available, make_sandbox
from elpo_envs.sandbox.interpreter import Interpreter
from elpo_envs.sandbox.language import Language, LanguagePolicy

every_snippet = pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name)


@pytest.fixture
def own_process_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory, and a recursion limit that does not depend on the depth of the test runner."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend("")
    limit, frame, depth = sys.getrecursionlimit(), sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    sys.setrecursionlimit(1000 + depth + 20)
    yield
    sys.setrecursionlimit(limit)
    sys.modules.pop("shapes", None)


@pytest.fixture(scope="module")
def forked() -> Iterator[Sandbox]:
    if "fork" not in available():
        pytest.skip("the fork backend needs Linux")
    sandbox = make_sandbox("fork")
    yield sandbox
    sandbox.close()


def play(session: Interpreter | Sandbox, snippet: Snippet) -> None:
    for module in snippet.needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    for call in snippet.calls:
        text = run(session, call.code)
        assert call.fits(text), f"{call.code}\n-- shows --\n{text}\n-- instead of --\n{call.text}"


def test_there_are_plenty() -> None:
    assert len({snippet.name for snippet in SNIPPETS}) >= 100
    assert all(snippet.calls for snippet in SNIPPETS)


@every_snippet
@pytest.mark.usefixtures("own_process_for_a_while")
def test_in_plain_python(snippet: Snippet) -> None:
    play(Interpreter(7), snippet)


@every_snippet
@pytest.mark.usefixtures("own_process_for_a_while")
def test_in_our_language(snippet: Snippet) -> None:
    play(Interpreter(7, language=Language(LanguagePolicy())), snippet)


@every_snippet
def test_in_a_forked_session(snippet: Snippet, forked: Sandbox) -> None:
    forked.open(7)
    play(forked, snippet)
