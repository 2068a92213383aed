"""Multiple-choice tasks from a question, its options and the right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from elpo_envs.grading.choice import choice_letters, choice_order, format_choices
from elpo_envs.tasks.base import Task
from elpo_envs.tasks.benchmarks.rows import Row
from elpo_envs.tasks.benchmarks.source import without_empty

SHUFFLE_OPTION = {"shuffle_choices": "true orders the options by the task's id instead of as published"}
_MOST_CHOICES = 26


def choice_task(
    row: Row,
    *,
    task_id: str,
    index: int,
    split: str,
    question: str,
    choices: Sequence[str],
    correct: int,
    shuffle: bool,
    **metadata: Any,
) -> Task:
    """A task of kind "choice". The question shows the options, one a line, as "A. text".

    Args:
        row: where it comes from, for errors.
        choices: 2 to 26 texts, in the published order.
        correct: index of the right one.
        shuffle: whether to order the options by `choice_order(task_id)`, which is the same in every process,
            build and version.
        metadata: more entries.

    Raises RecordError where `choices` are too few or too many, or one is blank.
    """
    texts = [text.strip() for text in choices]
    if not 2 <= len(texts) <= _MOST_CHOICES:
        raise row.error(f"{len(texts)} choices; there must be 2 to {_MOST_CHOICES}")
    if not all(texts):
        raise row.error(f"choice {texts.index('') + 1} is blank; write its text")
    order = choice_order(task_id, len(texts)) if shuffle else tuple(range(len(texts)))
    shown = [texts[place] for place in order]
    letter = choice_letters(len(texts))[order.index(correct)]
    text = f"{question.strip()}\n\n{format_choices(shown)}"
    extra = without_empty(kind="choice", choices=shown, **metadata)
    return Task(task_id, index, split, text, letter, (), extra)


def letter_index(row: Row, field: str, count: int) -> int:
    """The index that a letter "A", "B", ... or a 0-based integer in `field` gives among `count` choices."""
    value = row.fields[field]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
        return value
    letters = choice_letters(count)
    if isinstance(value, str) and value.strip() in letters:
        return letters.index(value.strip())
    raise row.wrong(field, f"a letter from {letters[0]} to {letters[-1]}, or an index from 0 to {count - 1}")
