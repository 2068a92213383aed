"""Which sandbox `make_sandbox` builds, what each says it can do, and what is said where one cannot be had."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import pytest
from _fork_watch import needs_fork

from elpo_envs.sandbox import (
    BACKENDS,
    Capabilities,
    IsolationWarning,
    Limits,
    SandboxError,
    available,
    jail,
    make_sandbox,
)
from elpo_envs.sandbox import choice as choice_module
from elpo_envs.sandbox.fork import pools
from elpo_envs.sandbox.fork.pool import Jail, Pool
from elpo_envs.sandbox.fork.sandbox import ForkSandbox

_absent = {layer: why for layer, why in jail.probe().items() if why is not None and layer in jail.ISOLATING}
needs_isolation = pytest.mark.skipif(bool(_absent), reason=f"sessions cannot be isolated here: {_absent}")


@pytest.fixture
def no_pool() -> Iterator[None]:
    """No zygote runs, so that only what the system lets expect is known."""
    if (pool := pools.running_pool()) is not None:
        pool.shut_down()
    yield
    if (pool := pools.running_pool()) is not None:
        pool.shut_down()


@pytest.fixture
def lacking_landlock(monkeypatch: pytest.MonkeyPatch, no_pool: None) -> Iterator[None]:
    """A system that cannot confine files."""
    found = {**dict.fromkeys(jail.LAYERS), "landlock": "this kernel has no Landlock"}
    with monkeypatch.context() as patch:
        patch.setattr(jail, "probe", lambda: found)
        pools._expected.cache_clear()
        yield
    pools._expected.cache_clear()


# --- names --------------------------------------------------------------------------------------------------------


def test_names_and_order() -> None:
    assert set(available()) <= set(BACKENDS)
    assert "replay" in available()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IsolationWarning)
        for name in available():
            if name == "pyodide":
                continue  # has tests of its own: it needs an installation
            box = make_sandbox(name)
            assert box.name == name
            box.open(3)
            assert box.run("import math\nmath.factorial(5)").text == "120"
            box.close()
        assert make_sandbox().name == available()[0]


@needs_fork
def test_fork_is_the_first_choice_where_it_works(no_pool: None) -> None:
    assert available()[0] == "fork"
    assert isinstance(make_sandbox(), ForkSandbox)
    assert pools.running_pool() is None, "building one starts nothing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "docker"}, r"sandbox must be one of auto, fork, replay.*, not 'docker'"),
        ({"name": ""}, r"sandbox must be one of auto, fork, replay.*, not ''"),
        ({"isolation": "maybe"}, "isolation must be one of preferred, required, not 'maybe'"),
        ({"isolation": True}, "isolation must be one of preferred, required, not True"),
        ({"allowed_imports": "math"}, "allowed_imports must be a list of module names, not the string 'math'"),
        ({"allowed_imports": ["math"], "restricted": False}, "allowed_imports has no effect with restricted=False"),
        ({"allowed_imports": ["a b"]}, "must hold module names such as 'math' or 'urllib.parse', not 'a b'"),
        ({"allowed_imports": [7]}, "must hold module names such as 'math' or 'urllib.parse', not 7"),
    ],
)
def test_what_is_not_understood_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sandbox(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("platform", "machine", "reason"),
    [
        ("darwin", "x86_64", "it needs Linux, and this is darwin"),
        ("win32", "x86_64", "it needs Linux, and this is win32"),
        ("linux", None, "it needs an x86-64 or aarch64 processor"),
    ],
)
def test_elsewhere_there_is_no_fork(
    monkeypatch: pytest.MonkeyPatch, platform: str, machine: str | None, reason: str
) -> None:
    monkeypatch.setattr(choice_module.sys, "platform", platform)
    monkeypatch.setattr(jail, "machine", lambda: machine)
    assert "fork" not in available()
    with pytest.raises(SandboxError, match=f"sandbox='fork' does not work here: {reason}; use 'replay' or 'auto'"):
        make_sandbox("fork")
    with pytest.warns(IsolationWarning):
        assert make_sandbox().name == available()[0] != "fork"


# --- what a sandbox is told -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::elpo_envs.sandbox.IsolationWarning")
@pytest.mark.parametrize("name", [name for name in available() if name != "pyodide"])
def test_limits_and_language_reach_the_session(name: str) -> None:
    box = make_sandbox(name, Limits(output_chars=999))
    box.open(0)
    assert 997 <= len(box.run("'x' * 9999").text) <= 999
    assert "import of 'os' is not allowed; allowed: " in box.run("import os").text
    box.close()
    box = make_sandbox(name, restricted=False)
    box.open(0)
    assert box.run("import os\nos.name").text == repr("posix" if sys.platform != "win32" else "nt")
    box.close()
    box = make_sandbox(name, allowed_imports=["os"])
    box.open(0)
    assert box.run("import os").kind == "empty"
    assert "import of 'math' is not allowed; allowed: os" in box.run("import math").text
    box.close()


# --- isolation ------------------------------------------------------------------------------------------------


@needs_fork
@needs_isolation
@pytest.mark.parametrize("isolation", ["preferred", "required"])
def test_an_isolated_sandbox_warns_of_nothing(isolation: str, no_pool: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("auto", "fork"):
            box = make_sandbox(name, isolation=isolation)  # type: ignore[arg-type]
            assert box.capabilities == Capabilities(exact=True, isolated=True, numpy=True, cheap_snapshot=True)
            box.open(0)
            assert box.run("1 + 1").text == "2"
            assert box.capabilities.isolated
            box.close()


def test_replay_is_not_isolated_and_says_so() -> None:
    with pytest.warns(IsolationWarning, match="'replay' does not isolate the code it runs from this machine") as caught:
        box = make_sandbox("replay")
    assert len(caught) == 1
    assert caught[0].filename == __file__, "it points to who asked for the sandbox"
    assert box.capabilities == Capabilities(exact=False, isolated=False, numpy=True, cheap_snapshot=False)
    with pytest.raises(SandboxError, match="isolation='required' forbids that; 'preferred' would allow it"):
        make_sandbox("replay", isolation="required")


@needs_fork
def test_a_missing_layer_is_warned_of_once(lacking_landlock: None) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            box = make_sandbox("fork")
    messages = [str(warning.message) for warning in caught if warning.category is IsolationWarning]
    assert len(messages) == 1
    assert "sandbox 'fork' does not isolate the code it runs from this machine" in messages[0]
    assert "landlock: this kernel has no Landlock" in messages[0]
    assert "'elpo sandbox check' says what that means" in messages[0]
    assert box.capabilities == Capabilities(exact=True, isolated=False, numpy=True, cheap_snapshot=True)


@needs_fork
def test_a_missing_layer_is_refused_where_isolation_is_required(lacking_landlock: None) -> None:
    for name in ("auto", "fork"):
        with pytest.raises(SandboxError) as raised:
            make_sandbox(name, isolation="required")
        assert "landlock: this kernel has no Landlock" in str(raised.value)
        assert "isolation='required' forbids that; 'preferred' would allow it" in str(raised.value)


@needs_fork
@pytest.mark.parametrize("layer", ["landlock", "seccomp"])
def test_what_the_jail_reports_counts_more_than_what_was_expected(layer: str) -> None:
    """Where a layer turns out to be missing, `required` runs nothing."""
    pool = Pool(disabled=frozenset({layer}))
    try:
        assert not pool.jail.isolated and layer in pool.jail.missing
        required = ForkSandbox(pool=pool, isolation_required=True)
        required.open(0)
        refused = required.run("open('f', 'w')")
        assert refused.kind == "sandbox_failure"
        assert f"isolation='required', but the jail lacks {layer}" in refused.text
        preferred = ForkSandbox(pool=pool)
        preferred.open(0)
        assert preferred.run("1 + 1").text == "2"
    finally:
        pool.shut_down()


@needs_fork
def test_capabilities_follow_the_running_jail(monkeypatch: pytest.MonkeyPatch, no_pool: None) -> None:
    box = make_sandbox("fork") if not _absent else ForkSandbox()
    box.open(0)
    box.run("1")
    pool = pools.running_pool()
    assert pool is not None
    assert box.capabilities.isolated == pool.jail.isolated
    monkeypatch.setattr(pool, "jail", Jail((), {"seccomp": "refused"}, False))
    assert not box.capabilities.isolated
    with pytest.warns(IsolationWarning, match="seccomp: refused"):
        make_sandbox("fork")
    with pytest.raises(SandboxError, match="isolation='required'"):
        make_sandbox("fork", isolation="required")


def test_capabilities_can_be_written_down() -> None:
    written = Capabilities(exact=True, isolated=False, numpy=True, cheap_snapshot=False).to_json()
    assert written == {"exact": True, "isolated": False, "numpy": True, "cheap_snapshot": False}
