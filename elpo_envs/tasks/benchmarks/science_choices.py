"""ARC, OpenBookQA and the STEM subjects of MMLU.

Where the fields come from:

* ARC (the archive ARC-V1-Feb2018-2, files `ARC-Challenge/ARC-Challenge-Test.jsonl`, ...): `id`, `question` with
  `stem` and `choices` (each `text` and `label`), `answerKey`. `allenai/ai2_arc` on the hub: `id`, `question`
  as text, `choices` with lists `text` and `label`, `answerKey`. Labels are letters or, in about one row of
  forty, "1" to "5"; there are 3 to 5 choices. The tasks' letters are positions.
* OpenBookQA (the archive OpenBookQA-V1-Sep2018, files `Data/Main/test.jsonl`, ...): as ARC's archive;
  `allenai/openbookqa` on the hub has `question_stem` for the text.
* MMLU (github.com/hendrycks/test, files `test/abstract_algebra_test.csv`, also `val` and `dev`): CSV without a
  header: question, four options, the answer's letter. `cais/mmlu` on the hub: `question`, `subject`, `choices`,
  `answer` as an index. The 18 STEM subjects are those of `categories.py` in that repository.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from elpo_envs.tasks.base import Task, TaskSource
from elpo_envs.tasks.benchmarks.base import Opened
from elpo_envs.tasks.benchmarks.choices import choice_task, letter_index
from elpo_envs.tasks.benchmarks.rows import Row
from elpo_envs.tasks.benchmarks.source import eager_source, own_id

MMLU_HEADER = ("question", "A", "B", "C", "D", "answer")
STEM_SUBJECTS = (
    "abstract_algebra",
    "astronomy",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "electrical_engineering",
    "elementary_mathematics",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_mathematics",
    "high_school_physics",
    "high_school_statistics",
    "machine_learning",
)


def read_labelled(opened: Opened) -> TaskSource:
    """ARC and OpenBookQA: options with labels."""

    def parts(row: Row) -> tuple[str, list[str], int]:
        if row.common:
            return _common(row)
        if isinstance(row.fields.get("question"), Mapping):
            row = Row({**row.inner("question").fields, "answerKey": row.fields.get("answerKey")}, row.place)
        texts, labels = _labelled(row)
        key = row.plain("answerKey")
        if labels.count(key) != 1:
            raise row.wrong("answerKey", f"one of the labels {', '.join(labels)}")
        return row.text("question_stem", "stem", "question"), texts, labels.index(key)

    return _choice_source(
        opened, parts, lambda row: row.plain("id"), aliases=(f"{opened.benchmark.name}_{opened.split}",)
    )


def read_mmlu(opened: Opened) -> TaskSource:
    """The STEM subjects of MMLU; rows of other subjects are left out."""
    published = {"validation": "val"}.get(opened.split, opened.split)
    counts: Counter[str] = Counter()

    def subject(row: Row) -> str:
        return row.text("subject") if row.find("subject") else row.group.removesuffix(f"_{published}")

    def parts(row: Row) -> tuple[str, list[str], int] | None:
        if subject(row) not in STEM_SUBJECTS:
            if not row.find("subject") and len(opened.paths) == 1:
                raise row.error(
                    f"the file's name tells no STEM subject; call it {STEM_SUBJECTS[0]}_{published}.csv, say"
                )
            return None
        if row.common:
            return _common(row)
        if row.find("choices"):
            options = row.texts("choices", minimum=2)
        else:
            options = [row.text(letter) for letter in "ABCD"]
        return row.text("question"), options, letter_index(row, row.need("answer"), len(options))

    def own(row: Row) -> str:
        # A task has one id whatever file it comes from: its subject and its position among the subject's rows.
        name = subject(row)
        counts[name] += 1
        return f"{name}/{counts[name] - 1}"

    return _choice_source(opened, parts, own, subject=subject)


def _choice_source(
    opened: Opened,
    parts: Callable[[Row], tuple[str, list[str], int] | None],
    own: Callable[[Row], str],
    aliases: Sequence[str] = (),
    subject: Callable[[Row], str] | None = None,
) -> TaskSource:
    name, split = opened.benchmark.name, opened.split
    shuffle = opened.flag("shuffle_choices", False)

    def tasks() -> Iterator[tuple[Task, str]]:
        index = 0
        for row in opened.rows():
            found = parts(row)
            if found is None:
                continue
            question, choices, correct = found
            task = choice_task(
                row,
                task_id=own_id(name, split, own(row), aliases),
                index=index,
                split=split,
                question=question,
                choices=choices,
                correct=correct,
                shuffle=shuffle,
                subject=subject(row) if subject else None,
            )
            yield task, row.place
            index += 1

    return eager_source(name, split, tasks(), opened.origin)


def _common(row: Row) -> tuple[str, list[str], int]:
    choices = row.texts("choices", minimum=2)
    return row.text("question"), choices, letter_index(row, "answer", len(choices))


def _labelled(row: Row) -> tuple[list[str], list[str]]:
    """Texts and labels, from a list of objects or from an object of two lists."""
    field = row.need("choices")
    value = row.fields[field]
    if isinstance(value, Mapping):
        inner = row.inner(field)
        texts, labels = inner.texts("text"), inner.texts("label")
    elif isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, Mapping) for v in value):
        inners = [Row(v, f"{row.place}, in field {field!r}, member {n}") for n, v in enumerate(value)]
        texts, labels = [inner.text("text") for inner in inners], [inner.text("label") for inner in inners]
    else:
        raise row.wrong(field, "a list of objects with text and label, or an object with these two lists")
    if len(texts) != len(labels):
        raise row.wrong(field, "as many labels as texts")
    return texts, labels
