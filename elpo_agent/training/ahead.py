"""Rollouts one update ahead of the learner: tools and engine need not wait for it, nor it for them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from torch import Tensor

from elpo_agent.algorithms import Algorithm
from elpo_agent.config import TrainConfig
from elpo_agent.training.collection import Collected, Collector
from elpo_agent.training.session import Session

_LOOK_S = 0.1


class AheadCollector:
    """A `Collector` that makes the next update's rollouts while the learner trains on this one's.

    Update k > 0 thus trains on what the weights sampled that update k - 1 began with: one step off-policy. Update 0,
    and the first one after a start without `weights`, is on-policy. Equal arguments give equal rollouts, whatever the
    learner's timing was: the engine has weights of its own, which change only between updates.

    Args:
        session: the model that is trained; it is copied, so memory holds its weights twice.
        config, algorithm, tasks: see `Collector`.
        weights: what the engine had when the run was saved; None gives it those of the model.

    Attributes:
        update: the one whose rollouts `weights` make; -1 before the first call of `collect`.
    """

    def __init__(
        self,
        session: Session,
        config: TrainConfig,
        algorithm: Algorithm,
        tasks: int | None,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        self._trained = session.model
        self._session = session.copy()
        if weights is not None:
            self._session.policy.load_weights(weights)
        self.update = -1
        self._updates = config.updates
        self._collector = Collector(self._session, config, algorithm, tasks)
        # One thread for all updates: what an environment starts must not end with a thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="elpo-ahead")
        self._next: Future[Collected] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next is not None:
            while not (self._next.done() or self._next.cancel()):
                self._collector.cancel()
                wait([self._next], _LOOK_S)
        self._thread.shutdown()
        self._collector.__exit__(kind, error, trace)

    def collect(self, update: int, used: int) -> Collected:
        """One update's rollouts; those of the next are begun, with the weights of now.

        Args:
            update: from 0; the one after that of the last call.
            used: prompts that earlier updates took.
        Raises:
            Exception: what rolling out raised.
        """
        coming = self._next or self._begin(update, used)
        self._next = None
        collected = self._awaited(coming)
        self.update = update + 1
        self._session.policy.load_weights(self._trained.state_dict())
        if update + 1 < self._updates:
            self._next = self._begin(update + 1, used + len(collected.pairs))
        return collected

    @property
    def weights(self) -> dict[str, Tensor]:
        """The engine's own, which a resumed run needs to make the rollouts under way once more."""
        return dict(self._session.model.state_dict())

    def _begin(self, update: int, used: int) -> Future[Collected]:
        return self._thread.submit(self._collector.collect, update, used)

    def _awaited(self, coming: Future[Collected]) -> Collected:
        try:
            return coming.result()
        except BaseException:
            self._next = coming  # an interrupt leaves it to be ended
            raise
