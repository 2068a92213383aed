r"""Finished episodes as lines of a JSONL file, for grading and reading later.

Each line is one JSON object in ASCII (other characters as \uXXXX, so every line break ends a record and lone
surrogates survive), with these fields:

- format: 1, the version of this list.
- env_id, env_spec: the Gymnasium id, and `env.spec.to_json()` parsed, wrappers inside this one included; null
  where the environment has none, or arguments that are no JSON values.
- protocol, budgets: how tool calls are written; {"max_turns", "max_tool_calls", "max_chars"}.
- task_id, index, split, question, gold, metadata: the task; `gold` is its `answer`. Without `include_tests` the
  entries "tests" and "public_tests" of the metadata are left out.
- messages: the whole chat in the OpenAI form, assistant turns verbatim.
- answer, is_correct, grade, error_kind, valid, turn, n_tool_calls, n_tool_errors: as in the last `info`.
- reward, rewards: their sum over the episode, and one for each turn, as this wrapper saw them.
- terminated, truncated: how it ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from elpo_envs.wrappers.chat import conversation_of

if sys.platform != "win32":
    import fcntl

FORMAT_VERSION = 1
_FROM_INFO = ("answer", "is_correct", "grade", "error_kind", "valid", "turn", "n_tool_calls", "n_tool_errors")
_TESTS = ("tests", "public_tests")
_BLOCK = 65536
_in_this_process = threading.Lock()


class TraceWriteError(RuntimeError):
    """A finished episode could not be written down. The file holds whole lines only."""


class RecordTraces(gym.Wrapper[Any, str, Any, str], RecordConstructorArgs):
    """Appends each finished episode to a file; the fields are listed at the top of this module.

    Any number of threads and processes of one machine may append to the same file (on Windows: threads of one
    process). A process that is killed leaves no half line to the readers: what it left is cut off by the next
    append, and `read_traces` passes over it. Branches write a line each, turns before the branching included.

    Args:
        env: an environment whose base is a `ConversationEnv`; wrap it last, to record what others give.
        path: the file; made where missing, in a folder that exists.
        include_tests: write the tests of code tasks, too, which can be megabytes a line.

    Raises:
        TypeError: the base is something else.
        ValueError: the folder is missing, or `path` is no regular file.
        TraceWriteError: from `step`, when an episode is over and the disk is full or the file not writable.
    """

    def __init__(self, env: gym.Env[Any, str], path: str, include_tests: bool = False) -> None:
        RecordConstructorArgs.__init__(self, path=str(path), include_tests=include_tests)
        gym.Wrapper.__init__(self, env)
        self._base = conversation_of(env)
        self._path = Path(path)
        self._include_tests = include_tests
        self._rewards: list[float] = []
        if not self._path.absolute().parent.is_dir():
            raise ValueError(f"path={str(path)!r} is in a folder that does not exist; make the folder first")
        if self._path.exists() and not self._path.is_file():
            raise ValueError(f"path={str(path)!r} is no regular file; choose another")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._rewards = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._rewards.append(float(reward))
        if terminated or truncated:
            record = {**self._record(info), "terminated": terminated, "truncated": truncated}
            append_line(self._path, json.dumps(record).encode("ascii"))
        return obs, reward, terminated, truncated, info

    def snapshot_state(self) -> dict[str, list[float]]:
        """The rewards so far in this episode."""
        return {"rewards": self._rewards}

    def restore_state(self, state: Mapping[str, list[float]]) -> None:
        """Continue from `snapshot_state`."""
        self._rewards = list(state["rewards"])

    def _record(self, info: Mapping[str, Any]) -> dict[str, Any]:
        base, task = self._base, self._base.task
        hidden = () if self._include_tests else _TESTS
        return {
            "format": FORMAT_VERSION,
            "env_id": None if base.spec is None else base.spec.id,
            "env_spec": self._spec_as_json(),
            "protocol": base.protocol.name,
            "budgets": asdict(base.budgets),
            "task_id": task.task_id,
            "index": task.index,
            "split": task.split,
            "question": task.question,
            "gold": task.answer,
            "metadata": {k: v for k, v in task.metadata.items() if k not in hidden},
            "messages": info["messages"],
            **{name: info[name] for name in _FROM_INFO},
            "reward": sum(self._rewards),
            "rewards": self._rewards,
        }

    def _spec_as_json(self) -> Any:
        spec = self.env.spec  # without this wrapper, so that an environment made from it records nothing
        if spec is None:
            return None
        try:
            return json.loads(spec.to_json())
        except (TypeError, ValueError):  # Python-only arguments: the trace is still of use without
            return None


def read_traces(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The episodes in a file of `RecordTraces`, in the order they ended.

    A last line without its line break is still being written, or its writer was killed: it is passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is no JSON object, or of another version; names the line.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}, line {number}, is no JSON: {error}") from error
            found = record.get("format") if isinstance(record, dict) else None
            if found != FORMAT_VERSION:
                raise ValueError(
                    f"{os.fspath(path)}, line {number}, has format={found!r}; this package reads {FORMAT_VERSION}"
                )
            yield record


def append_line(path: Path, line: bytes) -> None:
    """Append `line`, which has no line break, and a line break: all of it or nothing.

    Raises TraceWriteError.
    """
    try:
        with _in_this_process, _opened(path) as fd:
            _append_whole(fd, line + b"\n")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = f"the disk that holds {path} is full; make room"
        else:
            reason = f"{path} cannot be written: {error.strerror or error}"
        raise TraceWriteError(f"an episode was not recorded: {reason}. Earlier records are whole") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file, locked against other processes until it is closed, be it by the death of this one."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if sys.platform == "win32":
            yield fd
        else:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                yield fd
            finally:
                # Closing alone would leave the lock with a process that was forked meanwhile.
                fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _append_whole(fd: int, line: bytes) -> None:
    size = os.lseek(fd, 0, os.SEEK_END)
    whole = _end_of_last_line(fd, size)
    if whole < size:
        # The lock is ours, so whoever left half a line is dead.
        os.ftruncate(fd, whole)
    try:
        written = os.write(fd, line)
        if written < len(line):
            # A second write gives the reason of the first one's end.
            written += os.write(fd, line[written:])
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except BaseException:
        os.ftruncate(fd, whole)
        raise


def _end_of_last_line(fd: int, size: int) -> int:
    """Where the last line break ends; 0 where there is none."""
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        os.lseek(fd, start, os.SEEK_SET)
        found = os.read(fd, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
