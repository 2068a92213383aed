"""Conversations on a terminal: panels, highlighted code, tool results by kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from elpo_envs.episode import CallKind, Episode
from elpo_envs.protocols import ParsedCall, TurnProtocol
from elpo_envs.rendering.safe_text import one_line, shown
from elpo_envs.rendering.transcript import Entry, budgets_left, ending, entries

if TYPE_CHECKING:
    from elpo_envs.env import Budgets

_STYLES = {"ok": "green", "empty": "yellow"}
_WRONG = "red"
_QUIET = "dim"
_INDENT = (0, 0, 0, 2)
_MAX_SYSTEM_LINES = 6
_MAX_NAME = 32


def print_episode(
    episode: Episode, budgets: Budgets, protocol: TurnProtocol, kinds: Mapping[int, CallKind], n_shown: int
) -> None:
    """Print what follows the first `n_shown` messages to standard output, as wide as the terminal is.

    Characters that its encoding lacks are printed as escapes.
    """
    out = sys.stdout
    console = Console(file=out, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(Group(*pieces(episode, budgets, protocol, kinds, n_shown)))
    encoding = getattr(out, "encoding", None) or "utf-8"
    out.write(captured.get().encode(encoding, "backslashreplace").decode(encoding))
    out.flush()


def pieces(
    episode: Episode, budgets: Budgets, protocol: TurnProtocol, kinds: Mapping[int, CallKind], n_shown: int
) -> Iterator[RenderableType]:
    """What `print_episode` prints, from top to bottom.

    What models and tools wrote is indented or within a frame, so that it cannot pass for a label of ours.
    """
    for entry in entries(episode.messages, kinds)[n_shown:]:
        role = entry.message.role
        if role == "assistant":
            yield Rule(Text(f"turn {entry.turn} of {budgets.max_turns}"), align="left", style="cyan")
            yield from _turn(entry, protocol)
        elif role == "tool":
            yield from _result(entry)
        elif role == "system":
            yield Text(shown(entry.message.content, 600, _MAX_SYSTEM_LINES), style=_QUIET)
        elif entry.turn == 0:
            yield _question(episode, entry, budgets)
        else:
            yield _labelled("no tool call and no answer", _WRONG)
            yield _body(entry.message.content)
    rows = ending(episode)
    if rows:
        yield _ending(episode, rows)
    elif episode.turn:
        yield Text(f"left: {budgets_left(episode, budgets)}", style=_QUIET)


def _question(episode: Episode, entry: Entry, budgets: Budgets) -> Panel:
    return Panel(
        Text(shown(entry.message.content)),
        title=Text(one_line(episode.task.task_id)),
        subtitle=Text(
            f"turns {budgets.max_turns}, tool calls {budgets.max_tool_calls}, characters {budgets.max_chars:,}"
        ),
        title_align="left",
        subtitle_align="right",
        border_style="cyan",
        box=box.ROUNDED,
    )


def _turn(entry: Entry, protocol: TurnProtocol) -> Iterator[RenderableType]:
    """The text of a turn and its calls; the raw turn where one of them cannot be read."""
    turn = protocol.parse(entry.message.content)
    calls = [call for call in turn.calls if isinstance(call, ParsedCall)]
    if len(calls) < len(turn.calls) or not calls:
        yield _body(entry.message.content)
        return
    if turn.content.strip():
        yield _body(turn.content.strip())
    for call in calls:
        arguments = dict(call.arguments)
        code = arguments.pop("code", None)
        if not isinstance(code, str):
            arguments, code = dict(call.arguments), None
        line = Table.grid(padding=(0, 1))
        line.add_column(no_wrap=True)
        line.add_column(overflow="fold")
        told = one_line(json.dumps(arguments, ensure_ascii=False)) if arguments else ""
        line.add_row(Text.assemble(("call ", "bold"), (_name(call.name), "bold cyan")), Text(told))
        yield line
        if code is not None:
            look = Syntax(shown(code), "python", theme="ansi_dark", background_color="default", word_wrap=True)
            yield Padding(look, _INDENT)


def _result(entry: Entry) -> Iterator[RenderableType]:
    style = _QUIET if entry.kind is None else _STYLES.get(entry.kind, _WRONG)
    name = _name(entry.message.name or "tool")
    yield _labelled(name if entry.kind is None else f"{name}: {entry.kind}", style)
    yield _body(entry.message.content)


def _name(name: str) -> str:
    """A tool's name, which a model can make up, as short as a label may be."""
    return one_line(name)[:_MAX_NAME]


def _labelled(label: str, style: str) -> Text:
    return Text.assemble(("result ", "bold"), (label, f"bold {style}"), no_wrap=True, overflow="crop")


def _body(text: str) -> Padding:
    return Padding(Text(shown(text)), _INDENT, expand=False)


def _ending(episode: Episode, rows: list[tuple[str, str]]) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    style = "green" if episode.is_correct else "yellow" if episode.truncated else _WRONG
    for name, value in rows:
        table.add_row(Text(name), Text(value, style=style if name == "outcome" else ""))
    return Panel(table, title=Text("end"), title_align="left", border_style=style, box=box.ROUNDED)
