"""`elpo sandbox check`: which layers protect this machine from the code that models write. Needs no trainer."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence

from elpo_envs.sandbox import BACKENDS, IsolationWarning, Limits, Sandbox, SandboxError, make_sandbox
from elpo_envs.sandbox.check import layers, self_test

_TRIES = 20


def run(argv: Sequence[str]) -> int:
    """Run the command; the exit status is 0 only if the sandbox works and isolates."""
    parser = argparse.ArgumentParser(prog="elpo sandbox", description="Look after the Python sandbox.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="show which layers are active here, and try the sandbox out")
    check.add_argument("--backend", choices=("auto", *BACKENDS), default="auto", help="default: the best one here")
    args = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IsolationWarning)  # it is said below
            return _check(args.backend)
    except (SandboxError, ValueError) as error:
        print(f"elpo sandbox: {error}", file=sys.stderr)
        return 1


def _check(backend: str) -> int:
    sandbox = make_sandbox(backend)
    print(f"{'backend':16}{sandbox.name}")
    for name, value in sandbox.capabilities.to_json().items():
        print(f"{name.replace('_', ' '):16}{'yes' if value else 'no'}")
    if sandbox.name == "fork":
        _print_layers()
    print("\nself-test")
    isolated = sandbox.capabilities.isolated  # once more: what the running jail reports

    def make(limits: Limits, restricted: bool) -> Sandbox:
        return make_sandbox(sandbox.name, limits, restricted=restricted)

    failed = 0
    for finding in self_test(make):
        failed += not finding.holds
        print(f"  {'ok  ' if finding.holds else 'FAIL'} {finding.name}")
        if not finding.holds:
            print(f"       {finding.detail.strip().splitlines()[-1] if finding.detail.strip() else 'no output'}")
    if not failed:
        _print_figures(make(Limits(), True))
    if not isolated:
        print("\nSessions are NOT isolated from this machine: run only code that you would run yourself.")
    elif failed:
        print(f"\n{failed} of the checks failed.")
    return 0 if isolated and not failed else 1


def _print_layers() -> None:
    print("\nlayers")
    for layer in layers():
        if layer.missing is None:
            print(f"  active   {layer.name}")
        else:
            print(f"  MISSING  {layer.name}: {layer.missing}. {layer.meaning}")


def _print_figures(sandbox: Sandbox) -> None:
    sandbox.open(0)
    sandbox.run("import sympy; x = sympy.Symbol('x')")
    frozen = sandbox.snapshot()

    def branch() -> None:
        sandbox.restore(frozen)
        sandbox.run("x + 1")

    print(f"\nmedian of {_TRIES}, as busy as this machine is now")
    print(f"  a call of x = 1       {_median_ms(lambda: sandbox.run('x = 1')):8.2f} ms")
    print(f"  a branch and a call   {_median_ms(branch):8.2f} ms")
    sandbox.close()


def _median_ms(action: Callable[[], object]) -> float:
    times = []
    for _ in range(_TRIES):
        time.sleep(0.01)  # as while a model writes the next call
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
