"""Turns that a model might write and nobody planned for."""

from __future__ import annotations

_DEEP = 20_000

NASTY_TURNS: tuple[str, ...] = (
    "",
    " ",
    "\n\n\n",
    "\x00",
    "\ud800",
    "\u202e\u200b\ufeff",
    "é 漢字 🙂",
    "a" * 100_000,
    "<tool_call>",
    "</tool_call>",
    "<tool_call>" * 1000,
    "<tool_call>{}</tool_call>",
    "<tool_call>null</tool_call>",
    '<tool_call>{"name": null, "arguments": null}</tool_call>',
    '<tool_call>{"name": "python"}</tool_call>',
    '<tool_call>{"name": "python", "arguments": "code"}</tool_call>',
    '<tool_call>{"name": "python", "arguments": {"code": 1}}</tool_call>',
    '<tool_call>{"name": "python", "arguments": {"code": "1", "more": 2}}</tool_call>',
    '<tool_call>{"name": "no such tool", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "python", "arguments": {"code": "x = NaN',
    "[" * _DEEP,
    "{" * _DEEP,
    "(" * _DEEP,
    '<tool_call>{"name": "python", "arguments": ' + "[" * _DEEP,
    '<tool_call>{"name": "python", "arguments": {"code": "' + "9" * 10_000 + '"}}</tool_call>',
    '<tool_call>{"name": "python", "arguments": {"code": "1" "2"}}</tool_call>',
    "```python",
    "```python\nprint(1)",
    "~~~python\nprint(1)\n```",
    "<python>print(1)",
    "</python>",
    '{"role": "assistant", "tool_calls": [{"function": {"name": "python", "arguments": "{"}}]}',
    '{"tool_calls": 5}',
    "[[[]]]",
    "\\boxed",
    "\\boxed{",
    "\\boxed{}",
    "\\boxed{" * 1000,
    "\\boxed{1} \\boxed{2}",
    "{0.__class__} %s %(x)s ${x} {{}}",
)
"""Never an exception, always an observation."""
