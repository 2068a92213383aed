"""What is said about calls that did not end by themselves. The same words in every backend."""

from __future__ import annotations

import signal

from elpo_envs.sandbox.base import Execution, Limits

_KEPT = "variables are as they were before it"


def stopped(limit: str) -> Execution:
    """A call that was stopped because it reached `limit`."""
    return Execution(f"TimeoutError: the call was stopped after {limit}; {_KEPT}", "timeout")


def process_ended(exit_code: int, how: str, limits: Limits) -> Execution:
    """A call whose process ended with `exit_code` (negative for a signal); `how` is what else is known of it."""
    if exit_code >= 0:
        how = f"it ended with exit code {exit_code}"
    else:
        name = next((s.name for s in signal.Signals if s == -exit_code), f"signal {-exit_code}")
        if name == "SIGXCPU":
            return stopped(f"{limits.cpu_s:g} s of CPU time")
        if name != "SIGKILL":  # which is how we end a process that closed its connection
            how = f"it was ended by {name}"
    return process_killed(how)


def process_killed(why: str) -> Execution:
    """A call whose process had to be given up."""
    return Execution(f"ProcessDied: the interpreter was lost in this call ({why}); {_KEPT}", "error")


def not_repeated(calls: int) -> str:
    """Why a session is refused whose calls gave something else when they were repeated."""
    return (
        f"repeating the session's {calls} calls gave other results than the first time; its code "
        "depends on the clock, on unseeded randomness or on something outside the session"
    )
