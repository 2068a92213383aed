"""Progress in the terminal: a live bar with the latest figures, or plain lines where output is not a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_SHOWN = ("success", "success_fresh", "tool_errors", "localized", "mixed_groups", "loss", "entropy")
_SECONDS_BETWEEN_LINES = 10.0


class TerminalDisplay:
    """The trainer's `Display`, as a context manager.

    Args:
        console: where to write; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task: Any = None
        self._name = ""
        self._total = 0
        self._last_line = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase; the bar of the last one stays visible."""
        self._name, self._total, self._last_line = name, total, time.monotonic()
        if self.console.is_terminal:
            self._task = self._progress.add_task(name, total=total, completed=done, figures="")
        else:
            self.console.print(f"{name}: {total - done} to do", highlight=False)

    def advance(self, done: int, figures: dict[str, float]) -> None:
        """Show how far the phase is."""
        text = " ".join(f"{n}={figures[n]:.3g}" for n in _SHOWN if n in figures)
        if self.console.is_terminal:
            self._progress.update(self._task, completed=done, figures=text)
        elif done >= self._total or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.console.print(f"{self._name} {done}/{self._total} {text}".rstrip(), highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """One line above the bars."""
        self.console.print(text, highlight=False, soft_wrap=True)


def summary_table(summary: dict[str, Any]) -> Table:
    """Scores before and after."""
    table = Table(title=f"{summary['algorithm']}, seed {summary['seed']}")
    table.add_column("held-out tasks")
    for when in ("before", "after"):
        table.add_column(when, justify="right")
    rows = [
        ("pass@1, sampled at temperature 1", "sampled", "pass@1", "{:.1%}"),
        ("pass@1, greedy", "greedy", "pass@1", "{:.1%}"),
        ("tool calls per episode", "sampled", "tool_calls", "{:.2f}"),
        ("tool errors per episode", "sampled", "tool_errors", "{:.3f}"),
        ("turns per episode", "sampled", "turns", "{:.2f}"),
    ]
    for label, mode, key, form in rows:
        values = [summary.get(when, {}).get(mode, {}).get(key) for when in ("before", "after")]
        if any(v is not None for v in values):
            table.add_row(label, *("-" if v is None else form.format(v) for v in values))
    spent = summary["spent"]
    table.add_section()
    for label, key in (
        ("updates", "update"),
        ("updates with a learning signal", "updates_with_signal"),
        ("localized steps", "localized"),
    ):
        table.add_row(label, "", f"{spent[key]:,}")
    return table


def budget_table(summary: dict[str, Any]) -> Table:
    """What training used of its budget, evaluations not counted, as the last thing a run prints."""
    spent = summary["spent"]
    updates = max(1, spent["update"])
    table = Table(title=f"budget used by {summary['algorithm']}")
    table.add_column("training")
    for name in ("in all", "per update"):
        table.add_column(name, justify="right")
    for label, key in (
        ("prompts used", "prompts"),
        ("rollouts completed", "rollouts"),
        ("rollouts discarded", "discarded"),
        ("rollouts handed on", "handed_on"),
        ("tokens generated", "generated_tokens"),
        ("tool calls in training", "tool_calls"),
        ("tool errors in training", "tool_errors"),
    ):
        table.add_row(label, f"{spent[key]:,}", f"{spent[key] / updates:,.1f}")
    for label, key in (("seconds of rollouts", "rollout_seconds"), ("seconds of training", "train_seconds")):
        table.add_row(label, f"{spent[key]:,.1f}", f"{spent[key] / updates:,.2f}")
    return table
