"""Hypothesis strategies for turns that a model might write to break an environment, and some that are in order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

DEEP = 10_000
MEGABYTE = 1_000_000
EXPERT = "expert"


@dataclass(frozen=True)
class Turn:
    """A turn as texts that are each repeated, so that a megabyte is printed and shrunk as a few characters.

    Attributes:
        kind: which strategy made it, for the figures.
        parts: texts and how often each is repeated.
    """

    kind: str
    parts: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        return "".join(part * times for part, times in self.parts)


def plain(kind: str, text: str) -> Turn:
    return Turn(kind, ((text, 1),))


# What no one writes by accident: control characters, lone surrogates, text that runs backwards, joined emoji.
ODD_CHARACTERS = (
    *("\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "\ufffd", "\u200b", "\u202e", "\u2066"),
    *("\ud800", "\udfff", "\udc80\ud800"),
    *("e\u0301", "a" + "\u0300" * 200, "Z\u0351\u036b", "\U0001f469\u200d\U0001f680"),
    *("\U0001f1e9\U0001f1ea", "\U000e0041", "\u0645\u0631\u062d\u0628\u0627"),
    *("\u6f22\u5b57", "\uff11\uff12", "\u0661\u0662"),
    *("\u2212", "\u00bd", "\u2075", "\u0130", "\ufb01", "\U0010ffff", "\r", "\r\n", "\t", "\v", "\f"),
)  # fmt: skip

TOKENS = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<python>", "</python>", "  <python>\n"),
    *("```python\n", "\n```\n", "```\n", "~~~python\n"),
    *("~~~~", "```output\n", "```json\n", "````py\n", "   ```python x"),
    *('{"name": "python", "arguments": {"code": "1"}}', '{"name": ', '"arguments": ', '{"role": "assistant", '),
    *('"content": null, ', '"tool_calls": [', '{"id": "call_1", "type": "function", "function": ', "[{", "}]", "{}"),
    *("[", "]", "{", "}", '"', "'", "\\", "\\u", "\\ud800", ":", ",", "null", "true", "NaN", "-Infinity", "1e999"),
    *("\\boxed{", "\\boxed", "\\fbox{", "\\{", "\\}", "$"),
    *("\\frac{", "\\begin{pmatrix}", "\\text{", "^", "_", "&", "%"),
    *("The answer is (B).", "Option (A) is wrong.", "Answer: C", "(D)", "**A**"),
    *("42", "print(1)", " ", "\n", "<|im_end|>"),
    *("{0.__class__}", "%s%n", "${jndi:x}", "../../etc/passwd", "\\input{/etc/passwd}", "'; --", "__import__('os')"),
)  # fmt: skip

BOXED = (
    *("5", "-1", "3/4", "0.1", "1e400", "9" * 400),
    *("10^{10^{10}}", "\\frac{1}{0}", "\\infty", "x^2+1", "\\sqrt{-1}", "i^i"),
    *("A", "B", "(C)", "A, B, C, D", "A or B", "E", "none"),
    *("\\text{B}", "\u0410", "\uff21", "b.", "5 m/s", "5 kJ", "5 foo"),
    *("\\boxed{3}", "\\text{\\boxed{4}}", "\\{1, 2\\}", "(1,2]"),
    *("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "", " ", "{}"),
    *("\\frac12", "\\frac{}{}", "\\frac{1", "^{^{^{", "__", "\\\\"),
    *("1,234,567", "1.2.3", "--5", "5%", "\\$5", "0x1f", "1_000"),
    *("((((((((((1))))))))))", "import os", "\\int_0^1 x dx", "x = 5", "x=5, y=6", "5!", "'"),
)  # fmt: skip
SLOW_BOXED = (
    "\\lfloor 9^{9^{9}} \\rfloor",
    "10^{10^{10^{10}}} + \\pi",
    "\\sum_{k=1}^{10^9} \\frac{1}{k^k}",
    "\\sin(1000!!)",
)

PROGRAMS = (
    *("1 + 1", "x = 5", "print('a')", "1/0", "x", ""),
    *(" ", "\n", "(", "def f(:", "\x00", "'\ud800'", "raise SystemExit"),
    *("exit()", "import os; os._exit(1)", "import sys; sys.exit(0)", "input()", "raise KeyboardInterrupt", "del print"),
    *("print('\\\\boxed{5}')", "print('x' * 10**6)", "'\\ud800'", "print('</tool_call>')", "open('f', 'w').write('1')"),
    *("import sys; print(1); print(2, file=sys.stderr)", "def f(n):\n    return f(n + 1)\nf(0)"),
    *("'x' * 10**10", "1" * 5000),
    *("import sys; sys.stdout = None", "import builtins; builtins.print = None", "class A:\n    __repr__ = None\nA()"),
    *("[" * 500 + "]" * 500, "x = []; x.append(x); x", "yield 1"),
    *("await x", "return 1", "import numpy; numpy.arange(3)"),
    *("# -*- coding: utf-7 -*-\n1", "\ufeff1", "\u00e9 = 1; \u00e9", "globals().clear()", "print(\u0661)"),
)  # fmt: skip
SLOW_PROGRAMS = ("while True: pass", "import time; time.sleep(60)", "x = []\nwhile True: x.append('y' * 10**6)")

CALCULATIONS = (
    *("1 + 1", "2*x = 4", "x^2 - 1", "36 km/h", "1/0", "", "(" * 60, "sin(", "__import__('os')", "\ud800", "x" * 500),
    *("5!", "sqrt(-1)", "sum(k, k, 1, 10)", "0.1 + 0.2", "\u221a2", "3 foo", "e^(i*pi)", "gcd(12, 18)", "1; 2; 3"),
)
SLOW_CALCULATIONS = ("9^9^9", "170!!!!!", "x^99 + x + 1", "10^-400", "sum(1/k^k, k, 1, 10^9)")

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**18, -(10**40), 10**300, 1e308, 0.5, "", "x", "python", "\ud800", "\x00", "\u202eabc"]),
)
VALUES = st.one_of(
    _SCALARS,
    st.lists(_SCALARS, max_size=2),
    st.dictionaries(st.sampled_from(["code", "query", "name", ""]), _SCALARS, max_size=2),
)
"""JSON values of every type."""

# JSON texts that a strict reader must refuse, or read with care, as arguments.
_ALMOST_JSON = (
    *('{"code": 1,}', "{'code': '1'}", '{"code": "1"', '{"code": NaN}', '{"code": Infinity}', '{"code": 1e999}', "nul"),
    *('{"code": "a", "code": "b"}', '{"code": ' + "9" * 5000 + "}", '{"code": "\\ud800"}'),
    *('{"code": "\\x"}', '"{}"', "[]"),
    *('{"code": "a\nb"}', '{"code": "a\tb"}', '{"": ""}'),
    *('{"code": 0x10}', "{code: 1}", '{"code": "1"} // why', "\ufeff{}"),
    *('{"code": [[[[[[[[[[]]]]]]]]]]}', '{"code": "1", "\\u0063ode": "2"}', '{"__proto__": {}}'),
    *('{"code": 01}', "-", "1 2"),
)  # fmt: skip


def written(protocol: str, name: str, arguments: str) -> str:
    """A call as `protocol` writes it, with any text as arguments; only the code where it takes no more."""
    if protocol == "hermes":
        return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'
    if protocol == "openai":
        function = {"name": name, "arguments": arguments}
        call = {"id": "call_1", "type": "function", "function": function}
        return json.dumps({"role": "assistant", "content": None, "tool_calls": [call]}, ensure_ascii=False)
    code = _code(arguments)
    return f"```python\n{code}\n```" if protocol == "fences" else f"<python>\n{code}\n</python>"


def _code(arguments: str) -> str:
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value["code"] if isinstance(value, dict) and isinstance(value.get("code"), str) else arguments


def tool_arguments(name: str, slow: bool) -> st.SearchStrategy[Mapping[str, Any]]:
    """Arguments that fit the schema of the tool of this name, with hostile contents."""
    if name in ("python", "run_tests", "submit"):
        return st.sampled_from(PROGRAMS + (SLOW_PROGRAMS if slow else ())).map(lambda code: {"code": code})
    if name == "calculator":
        expressions = st.sampled_from(CALCULATIONS + (SLOW_CALCULATIONS if slow else ()))
        operations = st.sampled_from(("evaluate", "solve", "simplify", "convert", "factor"))
        return st.builds(lambda o, e: {"operation": o, "expression": e}, operations, expressions)
    if name == "act":
        return st.integers(-1, 8).map(lambda choice: {"choice": choice})
    texts = st.sampled_from((*ODD_CHARACTERS, "speed of light", "mass", "the", "molar mass of water", " "))
    if name == "lookup":
        return texts.map(lambda title: {"title": title})
    return st.builds(lambda query, k: {"query": query, "k": k}, texts, st.integers(1, 3))


def _cut(turn: str, at: int, put: str, drop: int) -> str:
    """`turn` with `drop` characters at `at` per mille of its length replaced; all that follows is gone for drop < 0."""
    place = len(turn) * at // 1000
    return turn[:place] + put + (turn[place + drop :] if drop >= 0 else "")


def turns(protocol: str, tools: Sequence[str]) -> st.SearchStrategy[Turn]:
    """Turns for an environment with these tools; of the kind `EXPERT`, only the number of the turn to take.

    About one in twenty reaches a tool; one in ten thousand is meant to run into a time limit.

    Args:
        protocol: that of the environment; many of the calls are written in another one.
        tools: their names.
    """
    others = ("hermes", "openai", "fences", "python_tags")
    # Where bare code is a call, whatever is written so is run.
    protocols = st.sampled_from((protocol,) * 8 + others if protocol in others[:2] else others[:2] * 5 + others[2:])
    names = st.sampled_from((*tools, "pyton", "", "Python", "os.system", "\ud800", "functions.python", "x" * 300))
    known = st.sampled_from((*tools, *tools, "submit"))
    empty = st.builds(lambda n: {n: ""}, st.sampled_from(("code", "query", "answer", "expression", "")))
    wrong = st.one_of(
        st.sampled_from(_ALMOST_JSON),
        VALUES.map(json.dumps),
        VALUES.map(lambda v: json.dumps({"code": v, "more": v})),
        VALUES.map(lambda v: json.dumps({"operation": v, "expression": v, "query": v, "title": v, "answer": v})),
        empty.map(json.dumps),
    )
    almost = st.builds(written, protocols, names, wrong)
    valid = known.flatmap(
        lambda name: tool_arguments(name, False).map(lambda given: written(protocol, name, json.dumps(given)))
    )
    slow = st.one_of(
        known.flatmap(
            lambda name: tool_arguments(name, True).map(lambda given: written(protocol, name, json.dumps(given)))
        ),
        st.sampled_from(SLOW_BOXED).map(lambda inside: f"\\boxed{{{inside}}}"),
    )
    broken_calls = st.builds(
        _cut, st.one_of(almost, valid), st.integers(0, 999), st.sampled_from(("", *TOKENS)), st.integers(-1, 3)
    )
    garbage = st.text(st.characters(exclude_categories=()), max_size=30)
    tokens = st.lists(st.sampled_from(TOKENS), max_size=8).map("".join)
    odd = st.lists(st.sampled_from(ODD_CHARACTERS + TOKENS), max_size=6).map("".join)
    nested = st.builds(
        lambda order, code: _wrapped(order, code),
        st.permutations(("hermes", "fences", "python_tags", "openai")),
        st.sampled_from(PROGRAMS[:12]),
    )
    boxes = st.builds(
        lambda inside, dress: dress.replace("@", inside),
        st.sampled_from(BOXED),
        st.sampled_from(
            ("\\boxed{@}", "So \\boxed{@}.", "$\\boxed{@}$ $\\boxed{7}$", "\\boxed{\\boxed{@}}", "\\fbox{@")
        ),
    )
    doubled = st.builds(str.__add__, st.one_of(boxes, almost), st.one_of(boxes, almost, tokens))
    message = boxes.map(lambda text: json.dumps({"role": "assistant", "content": text}, ensure_ascii=False))
    programs = st.sampled_from(PROGRAMS).map(lambda code: f"My program:\n```python\n{code}\n```\n")
    experts = st.integers(0, 15).map(lambda at: Turn(EXPERT, (("", at),)))
    deep = st.sampled_from(_deep(protocol)).map(lambda parts: Turn("deep", parts))
    huge = st.builds(
        lambda head, body, tail: Turn("huge", ((head, 1), (body, MEGABYTE // len(body)), (tail, 1))),
        st.sampled_from(("", "<tool_call>", "\\boxed{", "```python\n", "<python>", '{"role": "', '[{"id": "')),
        st.sampled_from((*(token for token in TOKENS if token), "a", "\u6f22", "9", "\ud800", "()", "\\boxed{1}")),
        st.sampled_from(("", "</tool_call>", "}", "\n```", "</python>", '"}')),
    )
    weighted: list[tuple[int, st.SearchStrategy[Turn]]] = [
        *_made(20, "tokens", tokens),
        *_made(10, "garbage", garbage),
        *_made(10, "odd", odd),
        *_made(20, "almost a call", almost),
        *_made(16, "broken call", broken_calls),
        *_made(3, "nested", nested),
        *_made(8, "several", doubled),
        *_made(4, "boxed", boxes),
        *_made(2, "message", message),
        *_made(2, "call", valid),
        (1, experts),
    ]
    common = st.sampled_from([strategy for weight, strategy in weighted for _ in range(weight)]).flatmap(lambda s: s)
    # Numbers at the ends of a range are drawn far more often than those in its middle.
    rare = {
        **_tickets(1, _as_turn("slow", slow)),
        **_tickets(20, huge),
        **_tickets(40, deep),
        **_tickets(30, _as_turn("program", programs)),
    }
    return st.integers(0, 9999).flatmap(lambda ticket: rare.get(ticket, common))


def _tickets(n: int, drawn: st.SearchStrategy[Turn]) -> dict[int, st.SearchStrategy[Turn]]:
    """Which numbers of ten thousand draw from this strategy: `n` of them, no other call's with another `n`."""
    return {5_000 + 100 * n + place: drawn for place in range(n)}


def _made(weight: int, kind: str, texts: st.SearchStrategy[str]) -> list[tuple[int, st.SearchStrategy[Turn]]]:
    return [(weight, _as_turn(kind, texts))]


def _as_turn(kind: str, texts: st.SearchStrategy[str]) -> st.SearchStrategy[Turn]:
    return texts.map(lambda text: plain(kind, text))


def _wrapped(order: Sequence[str], code: str) -> str:
    for protocol in order:
        code = written(protocol, "python", json.dumps({"code": code}))
    return code


def _deep(protocol: str) -> list[tuple[tuple[str, int], ...]]:
    """Nesting of ten thousand levels, closed and not."""
    call = (
        '<tool_call>{"name": "python", "arguments": ' if protocol != "openai" else '{"role": "assistant", "content": '
    )
    shapes: list[tuple[tuple[str, int], ...]] = []
    for opening, closing in (("[", "]"), ('{"a":', "}"), ("\\boxed{", "}"), ("(", ")"), ("\\frac{1}{", "}"), ("-", "")):
        shapes += [((opening, DEEP), ("1", 1), (closing, DEEP)), ((opening, DEEP),)]
        shapes.append(((call, 1), (opening, DEEP), ("1", 1), (closing, DEEP), ("}</tool_call>", 1)))
        shapes.append((("\\boxed{", 1), (opening, DEEP), ("1", 1), (closing, DEEP), ("}", 1)))
    quoted = '{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "python", '
    shapes.append(((quoted + '"arguments": "{\\"code\\": ', 1), ("[", DEEP), ("]", DEEP), ('}"}}]}', 1)))
    shapes += [(("<tool_call>", DEEP),), (("<python>\n", DEEP),), (("```python\n", DEEP),), (("</tool_call>", DEEP),)]
    return shapes
