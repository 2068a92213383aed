"""Shows an episode as it goes on, or as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elpo_envs.episode import CallKind, Episode
from elpo_envs.rendering.transcript import plain

if TYPE_CHECKING:
    from elpo_envs.env import Budgets
    from elpo_envs.protocols import TurnProtocol


class Display:
    """What was shown of the current episode, and the kinds of its tool results, which messages do not have.

    Args:
        budgets, protocol: the environment's.
    """

    def __init__(self, budgets: Budgets, protocol: TurnProtocol) -> None:
        self._budgets = budgets
        self._protocol = protocol
        self._kinds: dict[int, CallKind] = {}
        self._n_shown = 0

    def begin(self) -> None:
        """Another conversation follows, of which nothing was shown."""
        self._kinds = {}
        self._n_shown = 0

    def follow(self, episode: Episode, *, printing: bool) -> None:
        """Take in the turn that led to `episode`, and with `printing` print all that was not printed yet."""
        self._note_kinds(episode)
        if printing:
            from elpo_envs.rendering.terminal import print_episode  # rich takes a while to import

            print_episode(episode, self._budgets, self._protocol, self._kinds, self._n_shown)
            self._n_shown = len(episode.messages)

    def text(self, episode: Episode) -> str:
        """The conversation so far as plain text."""
        self._note_kinds(episode)
        return plain(episode, self._budgets, self._kinds)

    def _note_kinds(self, episode: Episode) -> None:
        """The results of the last turn's calls are the last messages."""
        first = len(episode.messages) - len(episode.calls)
        self._kinds.update({first + i: call.kind for i, call in enumerate(episode.calls)})
