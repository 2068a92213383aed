"""Grading of recorded episodes, long after they were played: no tool is run, and no episode is played again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import gymnasium as gym

from elpo_envs.env import ConversationEnv, Verdict
from elpo_envs.tasks.base import Task
from elpo_envs.tasks.records import RecordError, record_rows

DEFAULT_ENV = "elpo/Math-v0"


@dataclass(frozen=True)
class Regrade:
    """A trace and what the grader says of it now.

    Attributes:
        trace: the record as it was read.
        place: where it stands, "traces.jsonl, line 3".
        env_id: whose grader it was.
        verdict: None where the last turn gives no final answer.
        recorded: the verdict on record; None where there is none.
    """

    trace: Mapping[str, Any]
    place: str
    env_id: str
    verdict: Verdict | None
    recorded: bool | None

    @property
    def correct(self) -> bool:
        return self.verdict is not None and self.verdict.correct

    @property
    def failed(self) -> bool:
        """Whether grading itself did not work, so that nothing is known."""
        return self.verdict is not None and self.verdict.failed

    def to_json(self) -> dict[str, Any]:
        """The trace with `answer`, `is_correct`, `grade` and `valid` as they are now."""
        if self.verdict is None:
            return {**self.trace, "answer": None, "is_correct": False, "grade": {}}
        now = {"answer": self.verdict.answer, "is_correct": self.correct, "grade": dict(self.verdict.grade)}
        return {**self.trace, **now, "valid": self.trace.get("valid", True) and not self.failed}


class OfflineGrader(AbstractContextManager["OfflineGrader"]):
    """Grades traces: those that `elpo_envs.wrappers.RecordTraces` wrote, or any with the fields that count.

    A trace needs `messages` (the chat, of which the last assistant turn is graded) and, unless its `task_id` names a
    task of its environment's data set, `gold`. `env_id` and the arguments in `env_spec` say by which environment's
    rules it is graded; where they are missing, by those of `default_env`.

    Args:
        default_env: a Gymnasium id.
    """

    def __init__(self, default_env: str = DEFAULT_ENV) -> None:
        self._default = default_env
        self._envs: dict[str, ConversationEnv] = {}

    def __exit__(self, *_: object) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Release the environments. Idempotent."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()

    def grade_file(self, path: str | Path) -> Iterator[Regrade]:
        """Grade every record of a .jsonl, .jsonl.gz, .json or .parquet file, in order.

        Raises:
            FileNotFoundError: there is no such file.
            RecordError: a record is unusable; the message names the file, the line, the field and the mend.
        """
        for place, trace in record_rows(Path(path)):
            yield self.grade(trace, place)

    def grade(self, trace: Mapping[str, Any], place: str = "the trace") -> Regrade:
        """Grade one record; raises RecordError, beginning with `place`."""
        env_id = str(trace.get("env_id") or self._default)
        env = self._env(env_id, trace, place)
        recorded = trace.get("is_correct")
        verdict = env.grade_turn(_task(env, trace, place), _last_turn(trace, place))
        return Regrade(trace, place, env_id, verdict, recorded if isinstance(recorded, bool) else None)

    def _env(self, env_id: str, trace: Mapping[str, Any], place: str) -> ConversationEnv:
        spec = trace.get("env_spec")
        arguments = dict(spec.get("kwargs") or {}) if isinstance(spec, Mapping) else {}
        if "protocol" in trace:
            arguments["protocol"] = trace["protocol"]
        key = json.dumps([env_id, arguments], sort_keys=True)
        if key not in self._envs:
            try:
                env = gym.make(env_id, **arguments).unwrapped
            except (gym.error.Error, ValueError, TypeError) as error:
                raise RecordError(f"{place}: the environment {env_id!r} cannot be made: {error}") from error
            if not isinstance(env, ConversationEnv):
                raise RecordError(f"{place}: {env_id!r} is no environment of this package; mend env_id")
            self._envs[key] = env
        return self._envs[key]


def _task(env: ConversationEnv, trace: Mapping[str, Any], place: str) -> Task:
    """The task as it is on record, or, where the record lacks what grading takes, from the data set."""
    metadata = trace.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    whole = metadata.get("kind") != "program" or "tests" in metadata
    if isinstance(trace.get("gold"), (str, int, float)) and whole:
        task_id, question = str(trace.get("task_id", "")), str(trace.get("question", ""))
        return Task(task_id, 0, str(trace.get("split", "")), question, str(trace["gold"]), (), metadata)
    if not isinstance(trace.get("task_id"), str):
        raise RecordError(f"{place}: neither 'gold' nor 'task_id' says what is right; add one of them")
    try:
        return env.task_source.by_id(trace["task_id"])
    except (KeyError, IndexError) as error:
        raise RecordError(f"{place}: no task {trace['task_id']!r} in the environment's data set; add 'gold'") from error


def _last_turn(trace: Mapping[str, Any], place: str) -> str:
    messages = trace.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise RecordError(f"{place}: field 'messages' must be a list of chat messages")
    turns = [message.get("content") for message in messages if message.get("role") == "assistant"]
    if not turns or not isinstance(turns[-1], str):
        raise RecordError(f"{place}: field 'messages' has no assistant turn with a text as its content")
    return turns[-1]
