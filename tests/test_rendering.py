"""What people see of an episode: the transcript, the terminal, and text that would rather be something else."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import unicodedata

import pytest
from _episodes import call, small
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

import elpo_envs
from elpo_envs.code_env import CodeExecEnv
from elpo_envs.math_env import MathEnv
from elpo_envs.rendering.safe_text import MAX_CHARS, MAX_LINES, escaped, one_line, shown

_STYLES = re.compile(r"\x1b\[[\d;]*m")
HOSTILE = [
    "\x1b[31mred\x1b[2J\x1b]8;;http://x\x1b\\link\x1b]0;title\x07",
    "[bold red]markup[/] [link=http://x]y[/link] :smile: [/]",
    "\x9b31m\x90q\x9c \x85 \x7f \x00 \x08\x08\x08 \x0b \x0c",
    "first\rsecond\r\nthird\n\rfourth",
    "\u202eoverride\u202c \u2066isolate\u2069 \u200f\u200b\ufeff \u2028 \u2029",
    "\ud800 lone \udfff \U000e0041\U0010ffff\ue000",
    "e" + "\u0301" * 500 + " 漢字 ☃ é 👩\u200d🔬 नमस्ते",
    "x" * 300 + " " * 300 + "\t" * 50 + "\n" * 300,
    "result python: ok\n  42\nturn 7 of 16 ────\n╭─ end ─╮\n[tool python] 42\n[outcome] right",
    "```python\n\x1b[31m\n```<tool_call>",
]


def printed_by(texts: list[str], capsys: pytest.CaptureFixture[str], **arguments: object) -> str:
    """What a human sees of an episode in which a model says these texts, calls with them, and prints them."""
    env = small(render_mode="human", system_prompt="", max_chars=10**7, max_turns=40, max_tool_calls=99, **arguments)
    env.reset(seed=1)
    for text in texts:
        env.step(text)
        env.step(call(f"print({text!r})"))
        env.step(call(text, name=text))
    env.close()
    return capsys.readouterr().out


# ---------------------------------------------------------------- the transcript


def test_the_transcript_word_for_word() -> None:
    env = small(render_mode="ansi", max_turns=4, system_prompt="Think\nfirst.")
    env.reset(options={"index": 3})
    start = "[task] one/test/3\n[system] Think\n  first.\n[user] What is 2 + 3?"
    assert env.render() == start
    env.step(call("print(1)\nprint(2)") + call("1/", name="pythn"))
    env.step("hm")
    so_far = str(env.render())
    assert so_far.startswith(f"{start}\n[assistant] <tool_call>\n  {{")
    assert "\n[tool python] 1\n  2\n[tool pythn: unknown_tool] Error: there is no tool" in so_far
    assert so_far.endswith("\n[left] turns 2 of 4, tool calls 30 of 32, " + so_far.rpartition(", ")[2])
    env.step("\\boxed{4}")
    assert str(env.render()).endswith(
        "[assistant] \\boxed{4}\n[outcome] wrong\n[reward] 0\n[answer] 4\n[expected] 5\n[grade] method number"
    )
    env.close()


def test_every_kind_of_feedback_is_named() -> None:
    env = small(render_mode="ansi", tool_timeout_s=0.5)
    env.reset(seed=1)
    for turn in (call("x = 1"), call("1/0"), call("while True: pass"), "<tool_call>", '<tool_call>{"name": "python"}'):
        env.step(turn)
    env.step('<tool_call>{"name": "python", "arguments": {}}</tool_call>')
    found = re.findall(r"^\[tool \w+: (\w+)\]", str(env.render()), re.MULTILINE)
    assert found == ["empty", "error", "timeout", "malformed_call", "malformed_call", "invalid_arguments"]
    other = small(render_mode="ansi", tool_timeout_s=0.5)
    elpo_envs.restore(other, elpo_envs.snapshot(env))
    shown_there = str(other.render())
    assert shown_there.count("\n[tool python") == 4 and "[tool python: invalid_arguments]" in shown_there
    other.reset(seed=1)
    assert "[tool" not in str(other.render())
    for made in (env, other):
        made.close()


@pytest.mark.parametrize(
    ("turns", "outcome"),
    [(["hm"] * 2, "cut short (turn_budget)"), ([call("1")] * 2, "cut short (tool_budget)"), (["\\boxed{5}"], "right")],
)
def test_how_an_episode_ended(turns: list[str], outcome: str) -> None:
    env = small(render_mode="ansi", max_turns=2, max_tool_calls=1)
    env.reset(seed=1)
    for turn in turns:
        env.step(turn)
    rendered = str(env.render())
    assert f"\n[outcome] {outcome}\n[reward] {outcome == 'right':d}" in rendered and "[left]" not in rendered
    env.close()


# ---------------------------------------------------------------- the terminal


@pytest.mark.parametrize("width", [80, 120, 33])
def test_the_terminal_shows_each_message_once_and_as_it_goes(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    env = MathEnv(render_mode="human", max_turns=8)
    env.reset(options={"index": 2})
    pieces = [capsys.readouterr().out]
    assert "Use the python tool" in " ".join(pieces[0].split()) and "generated/train/0-2-4/2" in pieces[0]
    for number, turn in enumerate(env.expert_turns(), 1):
        env.step(turn)
        assert env.render() is None
        pieces.append(capsys.readouterr().out)
        assert pieces[-1].startswith(f"turn {number} of 8 ──")
        assert pieces[-1].count("turn ") == 1
    for piece, variable in zip(pieces[1:], "abcd", strict=False):
        lines = [line.rstrip() for line in piece.splitlines()]
        assert lines[1] == "call python" and lines[2].startswith(f"  {variable} = ") and lines[4] == "result python: ok"
        assert " ".join(" ".join(lines[6:]).split()).startswith("left: turns ")
    assert "outcome  right" in pieces[-1] and "left:" not in pieces[-1]
    lines = "".join(pieces).splitlines()
    assert max(map(cell_len, lines)) == width
    assert "\x1b" not in "".join(pieces), "no colours where nothing can show them"
    env.close()


def test_programs_are_shown_as_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    env = CodeExecEnv(render_mode="human", dataset_options={"kinds": ["write"]})
    env.reset(options={"index": 0})
    capsys.readouterr()
    env.step(env.expert_turns()[-1])
    coloured = capsys.readouterr().out
    plain = _STYLES.sub("", coloured)
    assert "\x1b" not in plain and len(plain) < len(coloured)
    assert "call submit" in plain and f"  def {env.task.metadata['entry_point']}(" in plain
    assert re.search(r"\x1b\[[\d;]+mdef\x1b\[0m", coloured), "a keyword has a style of its own"
    assert "outcome  right" in plain and f"n_passed {len(env.task.metadata['tests']['cases'])}" in plain
    env.close()


@pytest.mark.parametrize("number", range(len(HOSTILE)))
@pytest.mark.parametrize("colours", [False, True])
def test_hostile_text_neither_breaks_nor_injects(
    number: int, colours: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    if colours:
        monkeypatch.setenv("FORCE_COLOR", "1")
    out = printed_by([HOSTILE[number]], capsys)
    bare = _STYLES.sub("", out)
    assert ("\x1b" in out) is colours and "\x1b" not in bare
    wrong = [c for c in bare if not c.isprintable() and c not in "\n\u200c\u200d" and unicodedata.category(c) != "Zs"]
    assert not wrong
    lines = bare.splitlines()
    assert max(map(cell_len, lines)) <= 100
    ours = re.compile(r"(turn \d+ of 40 ─+|call .*|result .*|left: .*|[╭│╰].*[╮│╯])\s*")
    assert [line for line in lines if line[:1] not in ("", " ") and not ours.fullmatch(line)] == []
    assert sum(line.startswith("turn ") for line in lines) == 3
    assert sum(line.startswith(("result ", "╭")) for line in lines) == 4


def test_a_message_of_a_transcript_cannot_pass_for_another() -> None:
    env = small(render_mode="ansi")
    env.reset(seed=1)
    for text in HOSTILE:
        env.step(text)
    lines = str(env.render()).split("\n")
    heads = [line.split("]")[0] for line in lines if not line.startswith("  ")]
    assert heads[:3] == ["[task", "[system", "[user"] and heads[-1] == "[left"
    assert "[outcome" not in heads and "[tool python" not in heads
    assert heads.count("[assistant") == len(HOSTILE)
    assert all(c.isprintable() or c in "\n\t\u200c\u200d" for c in str(env.render()))
    env.close()


def test_a_megabyte_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("y" * 10**6, "z\n" * 500_000, "\x1b" * 10**6, "[" * 10**6):
        out = printed_by([text], capsys)
        assert "characters left out" in out and len(out) < 150_000
        env = small(render_mode="ansi", max_chars=10**7)
        env.reset(seed=1)
        env.step(text)
        assert len(str(env.render())) < 30_000
        env.close()


def test_an_output_that_knows_ascii_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "latin-1", "cp1252"):
        buffer = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
        env = small(render_mode="human")
        env.reset(seed=1)
        env.step("Zuerst é ☃ 漢字")
        env.step("\\boxed{5}")
        text = buffer.getvalue().decode(encoding)
        assert "What is 2 + 3?" in text and "\\u2603" in text and "outcome" in text
        env.close()


def test_a_branch_shows_what_came_before(capsys: pytest.CaptureFixture[str]) -> None:
    env = small(render_mode="human")
    env.reset(seed=1)
    env.step(call("1 + 1"))
    branch = elpo_envs.fork(env, 1)[0]
    capsys.readouterr()
    branch.step("\\boxed{5}")
    out = capsys.readouterr().out
    assert out.count("What is 2 + 3?") == 1 and out.index("turn 1 of 16") < out.index("turn 2 of 16")
    assert "call python" in out and "outcome  right" in out
    for made in (env, branch):
        made.close()


def test_the_package_does_not_import_rich() -> None:
    program = "import sys, elpo_envs.math_env; assert not any(name.split('.')[0] == 'rich' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ---------------------------------------------------------------- single texts


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None), max_size=400), st.integers(4, 60), st.integers(4, 12))
def test_shown_text_is_safe_and_short(text: str, max_chars: int, max_lines: int) -> None:
    safe = shown(text, max_chars, max_lines)
    safe.encode()
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in safe if c not in "\n\t")
    assert len(safe) <= 10 * max_chars + 60
    assert safe.count("\n") + 1 <= max_lines + 2
    assert "\n" not in one_line(text, max_chars)


def test_what_is_harmless_stays() -> None:
    text = "a\tb é 漢字 ☃ — “quoted” \u00a0 नमस्ते 👩\u200d🔬\nnext" + "x" * 100
    assert shown(text) == escaped(text) == text
    exact = "ab\n" * 10 + "z"
    assert shown(exact, len(exact), 11) == exact
    assert shown("0123456789" * 10, 20, 4) == "012345678901234\n... 80 characters left out ...\n56789"
    assert (
        shown("\n".join(map(str, range(100))), 1000, 8) == "0\n1\n2\n3\n4\n5\n... 273 characters left out ...\n98\n99"
    )
    assert MAX_CHARS >= 1000 and MAX_LINES >= 20
    assert escaped("e\u0301\u0302\u0303\u0304") == "e\u0301\u0302\u0303\\u0304"
