"""The command line as a user meets it: its exit status and the one sentence it says."""

from __future__ import annotations

import pytest

from elpo_agent.cli.main import main
from elpo_agent.config import EvalConfig

NO_EVAL = EvalConfig(tasks=0)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("\n") == 1, err
    return err


def command_line(*args: str) -> int:
    try:
        return main(list(args))
    except SystemExit as stop:
        return int(stop.code or 0)
