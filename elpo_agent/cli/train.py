"""`elpo train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from elpo_agent.cli.display import TerminalDisplay, budget_table, summary_table
from elpo_agent.cli.failures import EXPECTED
from elpo_agent.cli.settings import parse
from elpo_agent.config import TrainConfig
from elpo_agent.interrupts import Terminated, raising_terminated
from elpo_agent.learner.learner import NonFiniteLossError
from elpo_agent.ranks import launched, launched_rank
from elpo_agent.runs.checkpoint import DamagedCheckpointError, list_checkpoints, load_state
from elpo_agent.runs.run_folder import RunFolderError
from elpo_agent.training.trainer import Trainer, output_folder

# Resuming would come to the same end: what is wrong is the run, its settings or its folder.
_IN_VAIN = (ValueError, ImportError, RunFolderError, DamagedCheckpointError, NonFiniteLossError)

_DESCRIPTION = """Train a model by reinforcement learning in an agent environment. Without options: the quickstart,
which trains the small model shipped with this package with ELPO on this machine's CPU in a few minutes;
`--algorithm NAME` (short for --algorithm.name) takes another algorithm. On several devices of one machine: `torchrun
--nproc-per-node N -m elpo_agent.cli.main train ...`, which gives the same run in less time."""


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
    """Run the command; returns the exit status: 0 done or terminated, 1 failed, 2 bad options, 130 interrupted."""
    config, flags = _parse(argv)
    saved = output_folder(config) / "config.yaml"
    if flags["resume"] and saved.exists() and not any(a.split("=")[0] == "--config" for a in argv):
        config, flags = _parse(["--config", str(saved), *argv])
    console = Console(quiet=bool(launched_rank()))
    program = "elpo train" if launched_rank() is None else f"elpo train (rank {launched_rank()})"
    try:
        with raising_terminated(), launched() as ranks, TerminalDisplay(console) as display:
            summary = Trainer(config, display, resume=flags["resume"], ranks=ranks).run()
    except Terminated:
        if launched_rank():
            return 0
        print(f"terminated{_how_to_go_on(config)}", file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        if launched_rank():
            return 130
        print(f"interrupted{_how_to_go_on(config)}", file=sys.stderr)
        return 130
    except _IN_VAIN as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except EXPECTED as error:
        print(f"{program}: {error}{_how_to_go_on(config)}", file=sys.stderr)
        return 1
    except Exception as error:
        error.add_note(f"elpo train stopped{_how_to_go_on(config)}")
        raise
    console.print(summary_table(summary))
    console.print(budget_table(summary))
    console.print(f"run folder: {summary['folder']}", highlight=False, soft_wrap=True)
    return 0


def _how_to_go_on(config: TrainConfig) -> str:
    """What is saved and the command to resume with, where there is something to resume."""
    folder = output_folder(config)
    if not (folder / "config.yaml").exists():
        return ""
    command = f"continue with: elpo train --output {shlex.quote(str(folder))} --resume"
    try:
        saved = list_checkpoints(folder / "checkpoints")
        what = f"update {load_state(saved[-1]).update} is saved" if saved else "no update is saved yet"
    except OSError:  # no disk or no file descriptor any more: what is told is what went wrong first
        return f"; {command}"
    return f"; {what}, {command}"
