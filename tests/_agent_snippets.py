"""Sessions as agents lead them: what was run, call by call, and what plain Python shows for it.

They are text files in `agent_snippets`. `==== name [needs modules]` starts a session; `#### run` a call's code;
`#### shows` the text it gives, or `#### matches` a regular expression for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from elpo_envs.sandbox import Sandbox
from elpo_envs.sandbox.interpreter import Interpreter

_FOLDER = Path(__file__).parent / "agent_snippets"
_TITLE = re.compile(r"(.*?)(?: \[needs (.*)\])?")


@dataclass(frozen=True)
class Call:
    code: str
    shows: re.Pattern[str]
    text: str

    def fits(self, text: str) -> bool:
        return self.shows.fullmatch(text) is not None


@dataclass(frozen=True)
class Snippet:
    name: str
    needs: tuple[str, ...]
    calls: tuple[Call, ...]


def run(session: Interpreter | Sandbox, code: str) -> str:
    """The text of one call, in either kind of session."""
    if isinstance(session, Interpreter):
        return session.execute(code)[0]
    return session.run(code).text


def _read(path: Path) -> list[Snippet]:
    snippets = []
    for block in path.read_text(encoding="utf-8").split("==== ")[1:]:
        title, _, body = block.partition("\n")
        match = _TITLE.fullmatch(title)
        assert match is not None
        calls = tuple(_call(part) for part in body.split("#### run\n")[1:])
        snippets.append(Snippet(match[1], tuple((match[2] or "").split()), calls))
    return snippets


def _call(part: str) -> Call:
    code, kind, expected = re.split(r"^#### (shows|matches)\n", part, flags=re.M)
    expected = expected.removesuffix("\n")
    pattern = expected if kind == "matches" else re.escape(expected)
    return Call(code.removesuffix("\n"), re.compile(pattern), expected)


SNIPPETS = [snippet for path in sorted(_FOLDER.glob("*.txt")) for snippet in _read(path)]
