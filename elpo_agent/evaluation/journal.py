"""Attempts on disk as they finish, so that an evaluation that broke off can go on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from elpo_agent.evaluation.chat_episodes import PlayedEpisode
from elpo_agent.evaluation.scores import Attempt

_FIELDS = {field.name for field in fields(Attempt)}


class Journal:
    """A file of finished attempts, one a line after a line of settings; a context manager.

    A line cut short by a crash is dropped, and so are attempts that were not valid: they are made again.

    Args:
        path: the file; made where there is none.
        settings: JSON values that the attempts depend on.
    Attributes:
        played: the attempts that the file held.
    Raises:
        ValueError: the file is of an evaluation with other settings, or no such file at all.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.played, self._whole = self._read()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("r+b" if self._whole else "wb")
        self._file.truncate(self._whole)
        self._file.seek(self._whole)
        if not self._whole:
            self._write({"settings": self._settings})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, episode: PlayedEpisode) -> None:
        """Put an attempt down."""
        self._write(
            {
                "position": episode.position,
                "sample": episode.sample,
                "attempt": asdict(episode.attempt),
                "messages": episode.messages,
            }
        )

    def _write(self, record: Mapping[str, Any]) -> None:
        assert self._file is not None, "use the journal in a `with` block"
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()

    def _read(self) -> tuple[list[PlayedEpisode], int]:
        """The valid attempts, and the bytes that hold whole lines."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data.rfind(b"\n") + 1
        head, *lines = data[:whole].split(b"\n")[:-1] or [b""]
        if not whole:
            return [], 0
        try:
            settings = dict(json.loads(head)["settings"])
            played = [_episode(json.loads(line)) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is no journal of an evaluation; delete it, or choose another output"
            ) from error
        differing = [k for k in self._settings if settings.get(k) != self._settings[k]]
        if differing or settings.keys() != self._settings.keys():
            raise ValueError(
                f"{self.path} holds attempts of an unfinished evaluation with another "
                f"{' and '.join(differing) or 'version'}; delete it or choose another output"
            )
        return [p for p in played if p.attempt.valid], whole


def _episode(record: Mapping[str, Any]) -> PlayedEpisode:
    attempt = Attempt(**{k: v for k, v in record["attempt"].items() if k in _FIELDS})
    return PlayedEpisode(record["position"], record["sample"], attempt, record["messages"])
