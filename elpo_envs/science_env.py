r"""`elpo/ScienceQA-v0`: answer a question of physics or chemistry with tools, by a letter or a number with its unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from elpo_envs.env import Verdict
from elpo_envs.grading import Grade, extract_boxed, grade_choice, grade_quantity, grade_response
from elpo_envs.grading.extract import without_tool_text
from elpo_envs.task_env import TaskEnv
from elpo_envs.tasks.base import Task
from elpo_envs.tools import Tool
from elpo_envs.tools.calculator import CalculatorTool
from elpo_envs.tools.corpus import Corpus
from elpo_envs.tools.search import LookupTool, SearchTool


class ScienceQAEnv(TaskEnv):
    r"""One question of science per episode: multiple choice, a number with a unit, or an expression.

    Tools: `python`, `calculator`, and `search` and `lookup` over a corpus of short passages, by default the built-in
    tables of constants, elements, substances and formulas. A turn without tool calls that answers ends the episode:
    `\boxed{...}`, or, for multiple choice, a plain final statement such as "The answer is (B)."

    Args:
        corpus: a JSONL(.gz) file with `title` and `text` fields to search in; None for the built-in tables.
        **arguments: see `TaskEnv`.
    """

    domain: ClassVar[str] = "science"
    default_prompt: ClassVar[str] = (
        "Answer the question step by step. Look constants and formulas up with the search tool, and use python or the "
        "calculator for every calculation. Give the final answer in \\boxed{}: the letter of the right option, or the "
        "number with its unit."
    )
    no_action_text: ClassVar[str] = (
        "Error: neither a tool call nor an answer was found. Call a tool, or give the final answer in \\boxed{}."
    )

    def __init__(
        self,
        dataset: str = "generated",
        split: str = "train",
        max_turns: int = 16,
        protocol: str = "hermes",
        sandbox: str = "auto",
        render_mode: str | None = None,
        *,
        corpus: str | None = None,
        **arguments: Any,
    ) -> None:
        self._corpus = Corpus.science() if corpus is None else Corpus.from_jsonl(corpus)
        self._own = {"corpus": corpus}
        super().__init__(dataset, split, max_turns, protocol, sandbox, render_mode, **arguments)

    def make_tools(self) -> Sequence[Tool]:
        return (CalculatorTool(self._arguments["tool_timeout_s"]), SearchTool(self._corpus), LookupTool(self._corpus))

    def judge(self, task: Task, text: str) -> Verdict | None:
        """Grade the answer by the task's kind: the letter, the number and its unit, or the expression."""
        grade = _grade(task, text)
        if grade.method == "no_answer":
            return None
        boxed = [box for box in extract_boxed(without_tool_text(text)) if box.strip()]
        answer = boxed[-1] if boxed else grade.answer
        failed = grade.failed_infrastructure or grade.method == "bad_gold"  # the data's fault, not the model's
        return Verdict(answer, grade.correct, asdict(grade), failed=failed)


def _grade(task: Task, text: str) -> Grade:
    about = task.metadata
    kind = about.get("kind", "math")
    if kind == "choice":
        return grade_choice(text, task.answer, about["choices"])
    if kind == "number":
        return grade_quantity(text, task.answer, about.get("unit", ""), about.get("tolerance", 0.01))
    return grade_response(text, task.answer)
