"""Do the references of real benchmarks score 1 through the environments, and wrong answers 0?

    python -m benchmarks.references [--only NAME ...] [--data DIR] [--sample N] [--sandbox NAME] [--json PATH]

For every benchmark whose file is in the data folder, the registered environment is made once for each of its splits.
For every row it is reset to that row and given the reference in the forms in which a model would answer, and wrong
answers in the same forms (`benchmarks.reference_turns` says which), each in an episode of its own. The tables count
rows; below them stands every row that did not score as it should, by its task id and the grader's reason, and what is
known of it (`benchmarks.reference_exceptions`).

`--json PATH` writes the same as JSON, and as text beside it; neither holds text of the data. What a report that is
there already says of collections that are not played now is kept.

Published programs get more time than an environment allows by default (`GRADING_LIMITS`): one test of MBPP needs 3 s
of processor time, which on a machine that is busy with much else may be more than the default's 12 s on the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

import gymnasium as gym
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

import elpo_envs  # noqa: F401  registers the ids
from benchmarks.measure import Report
from benchmarks.reference_exceptions import EXPLAINED
from benchmarks.reference_turns import Attempt, attempts
from elpo_envs.task_env import TaskEnv
from elpo_envs.tasks.benchmarks import BENCHMARKS

GRADING_LIMITS = {"per_test_s": 30.0, "total_s": 180.0}
_WIDTH = 120


@dataclass(frozen=True)
class Collection:
    """Rows that are counted together: some splits of one registered benchmark."""

    name: str
    env_id: str
    splits: tuple[str, ...] = ("test",)

    @property
    def dataset(self) -> str:
        """The benchmark's name among the data sets."""
        return str(gym.spec(self.env_id).kwargs["dataset"])


_MBPP = ("prompt", "test", "validation", "train")
COLLECTIONS = (
    Collection("gsm8k_test", "elpo/GSM8K-v0"),
    Collection("gsm8k_train", "elpo/GSM8K-v0", ("train",)),
    Collection("math_test", "elpo/MATH-v0"),
    Collection("math_train", "elpo/MATH-v0", ("train",)),
    Collection("math500", "elpo/MATH500-v0"),
    Collection("aime24", "elpo/AIME24-v0"),
    Collection("aime25", "elpo/AIME25-v0"),
    Collection("amc23", "elpo/AMC23-v0"),
    Collection("arc_challenge_test", "elpo/ARC-Challenge-v0"),
    Collection("arc_challenge_train", "elpo/ARC-Challenge-v0", ("train",)),
    Collection("arc_easy_test", "elpo/ARC-Easy-v0"),
    Collection("openbookqa_test", "elpo/OpenBookQA-v0"),
    Collection("openbookqa_train", "elpo/OpenBookQA-v0", ("train",)),
    Collection("mmlu_stem_test", "elpo/MMLU-STEM-v0"),
    Collection("mmlu_stem_validation", "elpo/MMLU-STEM-v0", ("validation",)),
    Collection("mmlu_stem_dev", "elpo/MMLU-STEM-v0", ("dev",)),
    Collection("gpqa_diamond", "elpo/GPQA-Diamond-v0"),
    Collection("scibench", "elpo/SciBench-v0", ("test", "train")),
    Collection("humaneval", "elpo/HumanEval-v0"),
    Collection("mbpp", "elpo/MBPP-v0", _MBPP),
    Collection("mbpp_sanitized", "elpo/MBPP-Sanitized-v0", _MBPP),
)
_BY_NAME = {collection.name: collection for collection in COLLECTIONS}


@dataclass(frozen=True)
class Miss:
    """A row that did not score as it should.

    Attributes:
        task_id: the row.
        reward: what it scored: 0 also where the sandbox failed, which says nothing about the answer.
        reason: the grader's, without text of the row.
    """

    task_id: str
    reward: float
    reason: str


@dataclass
class Tally:
    """How the rows of one collection scored in one form.

    Attributes:
        collection, form, right: what was tried, and whether it should score 1.
        rows: how many have this form.
        seconds: wall-clock time of their episodes.
        misses: those that scored otherwise than they should, in order.
    """

    collection: str
    form: str
    right: bool
    rows: int = 0
    seconds: float = 0.0
    misses: list[Miss] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything, with the number of rows that scored as they should."""
        return {**asdict(self), "seconds": round(self.seconds, 2), "as_expected": self.rows - len(self.misses)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Tally:
        """What `to_json` wrote."""
        misses = [Miss(**miss) for miss in data["misses"]]
        return Tally(data["collection"], data["form"], data["right"], data["rows"], data["seconds"], misses)


@dataclass(frozen=True)
class Outcome:
    """All forms of one collection, in the order in which they first came up."""

    collection: Collection
    rows: int
    tallies: tuple[Tally, ...]

    @property
    def solved(self) -> int:
        """Rows whose reference scored 1 in every form."""
        return self.rows - len({miss.task_id for tally in self.tallies if tally.right for miss in tally.misses})

    @property
    def wrong(self) -> tuple[int, int]:
        """Wrong answers that were given, and how many of them scored 1."""
        wrong = [tally for tally in self.tallies if not tally.right]
        return sum(tally.rows for tally in wrong), sum(miss.reward > 0 for tally in wrong for miss in tally.misses)

    @property
    def seconds(self) -> float:
        return sum(tally.seconds for tally in self.tallies)

    def to_json(self) -> dict[str, Any]:
        given, passed = self.wrong
        return {
            "collection": self.collection.name,
            "env_id": self.collection.env_id,
            "splits": list(self.collection.splits),
            "rows": self.rows,
            "right_in_every_form": self.solved,
            "wrong_given": given,
            "wrong_scored_1": passed,
            "seconds": round(self.seconds, 1),
            "forms": [tally.to_json() for tally in self.tallies],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Outcome:
        """What `to_json` wrote. Raises KeyError for a collection that does not exist."""
        tallies = tuple(Tally.from_json(form) for form in data["forms"])
        return Outcome(_BY_NAME[data["collection"]], data["rows"], tallies)


def is_there(collection: Collection, data_dir: Path) -> bool:
    """Whether the data folder holds the files of its splits."""
    try:
        for split in collection.splits:
            BENCHMARKS[collection.dataset].locate(split, data_dir=data_dir)
    except FileNotFoundError:
        return False
    return True


def try_collection(
    collection: Collection,
    data_dir: Path,
    *,
    sandbox: str = "auto",
    sample: int | None = None,
    report_row: Callable[[str, int], None] = lambda split, total: None,
) -> Outcome:
    """Play every form of every row.

    Args:
        collection: whose files `data_dir` holds.
        sandbox: the environments' backend.
        sample: at most so many rows of each split, evenly spread; None for all.
        report_row: called after each row with its split and the number of rows there.
    """
    tallies: dict[str, Tally] = {}
    rows = 0
    for split in collection.splits:
        arguments: dict[str, Any] = {"split": split, "data_dir": str(data_dir), "sandbox": sandbox}
        if BENCHMARKS[collection.dataset].domain == "code":
            arguments["grading_limits"] = GRADING_LIMITS
        env = gym.make(collection.env_id, disable_env_checker=True, **arguments)
        try:
            source = cast(TaskEnv, env.unwrapped).task_source
            chosen = _spread(source.size or 0, sample)
            for index in chosen:
                for attempt in attempts(source, index):
                    tally = tallies.setdefault(attempt.form, Tally(collection.name, attempt.form, attempt.right))
                    start = time.perf_counter()
                    miss = play(env, index, attempt)
                    tally.seconds += time.perf_counter() - start
                    tally.rows += 1
                    if miss is not None:
                        tally.misses.append(miss)
                rows += 1
                report_row(split, len(chosen))
        finally:
            env.close()
    return Outcome(collection, rows, tuple(tallies.values()))


def play(env: gym.Env[str, str], index: int, attempt: Attempt) -> Miss | None:
    """One episode of one turn: None where it is graded and scores as it should."""
    env.reset(options={"index": index})
    turn = cast(TaskEnv, env.unwrapped).protocol.render(attempt.turn)
    _, reward, terminated, _, info = env.step(turn)
    if terminated and reward == float(attempt.right):
        return None
    return Miss(info["task_id"], float(reward), _reason(info))


def _reason(info: Mapping[str, Any]) -> str:
    """Why, in the grader's own words for kinds of answers and failures; its notes quote the row."""
    grade = info["grade"]
    kinds = sorted({f"{at + 1} {test['outcome']}" for at, test in enumerate(grade.get("outcomes", ())) if test["note"]})
    parts = [grade.get("method", "no answer was read"), *(f"test {kind}" for kind in kinds)]
    if grade.get("timed_out"):
        parts.append("timed out")
    if info["error_kind"] is not None:
        parts.append(str(info["error_kind"]))
    return ", ".join(parts)


def _spread(size: int, most: int | None) -> range:
    return range(0, size, 1 if most is None else max(1, -(-size // most)))


def tables(outcomes: Sequence[Outcome]) -> tuple[Table, Table]:
    """The rows of each collection, and of each form."""
    whole = _table("References and wrong answers", "collection", "rows", "right", "%", "wrong given", "passed", "s")
    forms = _table("By form", "collection, form", "should score", "rows", "as it should", "%", "s")
    for outcome in outcomes:
        given, passed = outcome.wrong
        share = f"{100 * outcome.solved / outcome.rows:.2f}"
        counts = (f"{n:,}" for n in (outcome.rows, outcome.solved))
        whole.add_row(outcome.collection.name, *counts, share, f"{given:,}", f"{passed:,}", f"{outcome.seconds:.1f}")
        forms.add_section()
        for tally in outcome.tallies:
            good = tally.rows - len(tally.misses)
            forms.add_row(
                f"{tally.collection}, {tally.form}",
                str(int(tally.right)),
                f"{tally.rows:,}",
                f"{good:,}",
                f"{100 * good / tally.rows:.2f}",
                f"{tally.seconds:.1f}",
            )
    return whole, forms


def show(console: Console, outcomes: Sequence[Outcome], missing: Sequence[str]) -> None:
    """Print the tables, and every row that did not score as it should."""
    console.print(*tables(outcomes))
    console.print("right: rows whose reference scored 1 in every form. passed: wrong answers that scored 1.")
    if missing:
        console.print(f"not in the data folder: {', '.join(missing)}")
    misses = [(tally, miss) for outcome in outcomes for tally in outcome.tallies for miss in tally.misses]
    console.print(f"\n{len(misses)} episodes did not score as they should:" if misses else "\nno exceptions")
    for tally, miss in misses:
        expected = "right" if tally.right else "wrong"
        why = EXPLAINED.get((miss.task_id, tally.form), "unexplained")
        console.print(
            f"{miss.task_id}, {tally.form} ({expected}) scored {miss.reward:g}, {miss.reason}: {why}", soft_wrap=True
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line. The exit status says that it ran, not how the rows scored."""
    options = _parse(argv)
    wanted = [each for each in COLLECTIONS if not options.only or each.name in options.only]
    present = [each for each in wanted if is_there(each, options.data)]
    settings = {"sandbox": options.sandbox, "sample": options.sample, "grading_limits": GRADING_LIMITS}
    report = Report("references", settings)
    kept = _kept(options.json, settings, {each.name for each in wanted})
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[tuple[str, str], TaskID] = {}

        def advance(collection: Collection, split: str, total: int) -> None:
            key = (collection.name, split)
            if key not in bars:
                bars[key] = progress.add_task(" ".join(key), total=total)
            progress.advance(bars[key])

        for collection in present:
            outcome = try_collection(
                collection,
                options.data,
                sandbox=options.sandbox,
                sample=options.sample,
                report_row=partial(advance, collection),
            )
            outcomes.append(outcome)
    missing = [each.name for each in COLLECTIONS if not is_there(each, options.data)]
    show(_console(), outcomes, missing)
    if options.json is not None:
        played = {outcome.collection.name: outcome for outcome in (*kept, *outcomes)}
        everything = [played[each.name] for each in COLLECTIONS if each.name in played]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        about = {key: value for key, value in report.to_json().items() if key not in ("rows", "ratios")}
        whole = {**about, "missing": missing, "collections": [outcome.to_json() for outcome in everything]}
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        with options.json.with_suffix(".txt").open("w", encoding="utf-8") as file:
            show(_console(file), everything, missing)
    return 0


def _kept(path: Path | None, settings: Mapping[str, Any], replaced: Container[str]) -> list[Outcome]:
    """What the report at `path` says of collections that are not played now. Raises ValueError for other settings."""
    if path is None or not path.exists():
        return []
    report = json.loads(path.read_text(encoding="utf-8"))
    others = [each for each in report["collections"] if each["collection"] not in replaced]
    if others and report["settings"] != settings:
        raise ValueError(
            f"{path} was made with the settings {report['settings']}, not {dict(settings)}; choose another"
        )
    return [Outcome.from_json(each) for each in others]


def _console(file: TextIO | None = None) -> Console:
    return Console(file=file, width=_WIDTH, highlight=False, markup=False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [collection.name for collection in COLLECTIONS]
    parser = argparse.ArgumentParser(description="References of real benchmarks through the environments.")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data files (default: ELPO_DATA)")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N rows of each split, evenly spread")
    parser.add_argument("--sandbox", default="auto", help="backend of the environments (default auto)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the report there, and as .txt beside it")
    options = parser.parse_args(argv)
    if options.sample is not None and options.sample < 1:
        parser.error(f"--sample {options.sample} must be at least 1")
    folder = options.data or os.environ.get("ELPO_DATA")
    if not folder or not Path(folder).is_dir():
        parser.error(f"the data folder {str(folder or '')!r} does not exist; give --data or set ELPO_DATA")
    options.data = Path(folder)
    return options


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
