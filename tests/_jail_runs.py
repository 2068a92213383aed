"""Runs programs in the jail and says what became of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from elpo_envs.sandbox import jail

SANDBOX = Path(jail.__file__).parents[1]
RUNNER = Path(__file__).with_name("_jailed.py")
HANG_S = 60

_absent = {layer: reason for layer, reason in jail.probe().items() if reason is not None and layer != "namespaces"}
needs_the_jail = pytest.mark.skipif(bool(_absent), reason=f"this machine cannot have the whole jail: {_absent}")
as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root has what this layer takes")


class Run:
    """What a jailed program printed, and the supervisor's report on it."""

    def __init__(self, output: str) -> None:
        *lines, report = output.splitlines()
        self.lines = lines
        self.report: dict[str, Any] = json.loads(report)

    @property
    def value(self) -> Any:
        return json.loads(self.lines[-1])

    @property
    def others(self) -> list[int]:
        """Exit codes of all processes but the first."""
        return [code for process, code in self.report["statuses"].items() if int(process) != self.report["child"]]


def jailed(
    program: str,
    *,
    interpreter: str = sys.executable,
    sandbox: Path = SANDBOX,
    popen: dict[str, Any] | None = None,
    **options: Any,
) -> Run:
    done = subprocess.run(
        [
            interpreter,
            "-P",
            str(sandbox / RUNNER.name if sandbox != SANDBOX else RUNNER),
            str(sandbox),
            json.dumps(options),
        ],
        input=program,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        **{"env": {**os.environ, "OPENBLAS_NUM_THREADS": "1"}, **(popen or {})},
    )
    assert done.returncode == 0, done.stderr
    run = Run(done.stdout)
    assert run.report["statuses"][str(run.report["child"])] == 0, done.stderr
    return run
