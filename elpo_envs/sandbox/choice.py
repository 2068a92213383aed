"""Which backend holds a session: by name, or the best one that works here."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

from elpo_envs.sandbox import jail
from elpo_envs.sandbox.base import Limits, Sandbox, SandboxError
from elpo_envs.sandbox.language import DEFAULT_IMPORTS, LanguagePolicy
from elpo_envs.sandbox.pyodide import PyodideSandbox
from elpo_envs.sandbox.replay import ReplaySandbox

Isolation = Literal["preferred", "required"]
BACKENDS = ("fork", "replay", "pyodide")


class IsolationWarning(UserWarning):
    """Sessions are less isolated from the host than the best backend would have them."""


def why_not_fork() -> str | None:
    """Why the `fork` backend cannot run on this system; None if it can."""
    if not sys.platform.startswith("linux"):
        return f"it needs Linux, and this is {sys.platform}"
    if jail.machine() is None:
        return "it needs an x86-64 or aarch64 processor"
    return None


def available() -> tuple[str, ...]:
    """Names of the backends that `make_sandbox` can build here, the best first, besides "auto"."""
    names = ("replay",) if why_not_fork() else ("fork", "replay")
    return (*names, "pyodide") if PyodideSandbox.installed() else names


def _best() -> str:
    return "replay" if why_not_fork() else "fork"


def make_sandbox(
    name: str = "auto",
    limits: Limits | None = None,
    *,
    isolation: Isolation = "preferred",
    restricted: bool = True,
    allowed_imports: Sequence[str] | None = None,
) -> Sandbox:
    """Build a sandbox; it starts nothing before the first call.

    Args:
        name: "fork", "replay", "pyodide", or "auto" for the best one here.
        limits: bounds on each call; None means the defaults of `Limits`.
        isolation: "preferred" warns, once, where sessions are not isolated from the host; "required" refuses.
        restricted: whether the language layer checks the code before it runs.
        allowed_imports: what the language layer lets code import; None for `language.DEFAULT_IMPORTS`.

    Raises:
        ValueError: there is no such backend, or an argument is out of range.
        SandboxError: the backend does not work here, or isolation is required and cannot be had.
    """
    if name not in ("auto", *BACKENDS):
        raise ValueError(f"sandbox must be one of {', '.join(('auto', *BACKENDS))}, not {name!r}")
    if isolation not in get_args(Isolation):
        raise ValueError(f"isolation must be one of {', '.join(get_args(Isolation))}, not {isolation!r}")
    if allowed_imports is not None and not restricted:
        raise ValueError("allowed_imports has no effect with restricted=False; leave one of them out")
    if isinstance(allowed_imports, str):
        raise ValueError(f"allowed_imports must be a list of module names, not the string {allowed_imports!r}")
    policy = LanguagePolicy(tuple(DEFAULT_IMPORTS if allowed_imports is None else allowed_imports))
    sandbox = _build(_best() if name == "auto" else name, limits, policy if restricted else None, isolation)
    if not sandbox.capabilities.isolated:
        _complain(sandbox, isolation)
    return sandbox


def _build(name: str, limits: Limits | None, policy: LanguagePolicy | None, isolation: Isolation) -> Sandbox:
    if name == "fork":
        if (reason := why_not_fork()) is not None:
            raise SandboxError(f"sandbox='fork' does not work here: {reason}; use 'replay' or 'auto'")
        from elpo_envs.sandbox.fork.sandbox import ForkSandbox  # not to be imported elsewhere than on Linux

        return ForkSandbox(limits, language=policy, isolation_required=isolation == "required")
    if name == "pyodide":
        return PyodideSandbox(limits, language=policy, isolation_required=isolation == "required")
    return ReplaySandbox(limits, language=policy)


def _complain(sandbox: Sandbox, isolation: Isolation) -> None:
    text = (
        f"sandbox {sandbox.name!r} does not isolate the code it runs from this machine ({_lacking(sandbox)}); "
        "'elpo sandbox check' says what that means"
    )
    if isolation == "required":
        raise SandboxError(f"{text}. isolation='required' forbids that; 'preferred' would allow it")
    warnings.warn(text, IsolationWarning, stacklevel=3)


def _lacking(sandbox: Sandbox) -> str:
    if sandbox.name == "pyodide":
        return "WebAssembly without an OS jail around it"
    if sandbox.name != "fork":
        return "this backend confines accidents only"
    from elpo_envs.sandbox.fork.pools import lacking_layers  # not to be imported elsewhere than on Linux

    return "; ".join(f"{layer}: {why}" for layer, why in lacking_layers().items())
