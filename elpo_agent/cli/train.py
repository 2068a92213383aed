"""`elpo train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from elpo_agent.cli.display import TerminalDisplay, budget_table, summary_table
from elpo_agent.cli.failures import EXPECTED
from elpo_agent.cli.settings import parse
from elpo_agent.training.checkpoint import DiskFullError
from elpo_agent.training.config import TrainConfig
from elpo_agent.training.trainer import Trainer, output_folder

_DESCRIPTION = """Train a model by reinforcement learning in an agent environment. Without options: the quickstart,
which trains the small model shipped with this package with ELPO on this machine's CPU in a few minutes;
`--algorithm NAME` (short for --algorithm.name) takes another algorithm."""


def _with_long_names(argv: Sequence[str]) -> list[str]:
    """`--algorithm NAME` as `--algorithm.name NAME`; a mapping after `--algorithm` is left as it is."""
    out: list[str] = []
    for i, arg in enumerate(argv):
        option, equals, value = arg.partition("=")
        value = value if equals else "".join(argv[i + 1 : i + 2])
        if option == "--algorithm" and not value.lstrip().startswith("{"):
            arg = f"--algorithm.name{equals}{value if equals else ''}"
        out.append(arg)
    return out


def _parse(argv: Sequence[str]) -> tuple[TrainConfig, dict[str, bool]]:
    return parse(
        TrainConfig,
        _with_long_names(argv),
        program="elpo train",
        description=_DESCRIPTION,
        flags={"resume": "continue the run in --output, with its saved settings, from its last checkpoint"},
        default_preset="quickstart",
    )


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status: 0 done, 1 failed, 2 bad options, 130 interrupted."""
    config, flags = _parse(argv)
    saved = output_folder(config) / "config.yaml"
    if flags["resume"] and saved.exists() and not any(a.split("=")[0] == "--config" for a in argv):
        config, flags = _parse(["--config", str(saved), *argv])
    console = Console()
    try:
        with TerminalDisplay(console) as display:
            summary = Trainer(config, display, resume=flags["resume"]).run()
    except KeyboardInterrupt:
        print(f"interrupted{_how_to_go_on(config)}", file=sys.stderr)
        return 130
    except DiskFullError as error:
        print(f"elpo train: {error}{_how_to_go_on(config)}", file=sys.stderr)
        return 1
    except EXPECTED as error:
        print(f"elpo train: {error}", file=sys.stderr)
        return 1
    console.print(summary_table(summary))
    console.print(budget_table(summary))
    console.print(f"run folder: {summary['folder']}", highlight=False, soft_wrap=True)
    return 0


def _how_to_go_on(config: TrainConfig) -> str:
    """The command, where there is something to resume."""
    folder = output_folder(config)
    if not (folder / "config.yaml").exists():
        return ""
    return f"; continue with: elpo train --output {shlex.quote(str(folder))} --resume"
