"""Many conversations in one process, stepped by threads, so that one slow tool never holds up the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from elpo_envs.env import ConversationEnv
from elpo_envs.episode import Episode
from elpo_envs.snapshots import Snapshot, restore
from elpo_envs.vector_infos import batch_infos

Batch = tuple[tuple[Any, ...], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


@dataclass(frozen=True)
class Transition:
    """What one step of one environment gave; `index` says of which."""

    index: int
    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class VectorEnvError(RuntimeError):
    """Some environments raised; the others' results are not lost.

    Attributes:
        errors: from the index of an environment to what it raised. It must be reset or restored.
        result: what the call would have returned, for all the others.
    """

    def __init__(self, errors: Mapping[int, Exception], result: Any) -> None:
        told = "; ".join(f"environment {i}: {type(e).__name__}: {e}" for i, e in errors.items())
        super().__init__(f"{len(errors)} of the environments failed ({told}); the others' results are in .result")
        self.errors = dict(errors)
        self.result = result


class ConversationVectorEnv(gym.vector.VectorEnv[tuple[Any, ...], Sequence[str | None], NDArray[Any]]):
    """Environments of one kind, each stepped in a thread of its own while its tools work.

    Nothing resets by itself (`AutoresetMode.DISABLED`): reset what is over with `options["reset_mask"]`.
    Observations are tuples of what the single environments give, actions sequences of texts; no text is ever
    copied into arrays. The single environments are `envs`: `elpo_envs.snapshot(vector.envs[i])` and `fork` work on
    any of them that is not being stepped; continue one from a snapshot with `vector.restore(i, snap)`.

    An info is in Gymnasium's form, each key with an array over the environments and a mask under "_key", and
    has besides the key "per_env": an object array of the single infos, None where an environment was neither
    stepped nor reset. A key whose values are dicts is batched entry by entry; None beside dicts counts as absent.

    Args:
        make_env: makes one environment, whose base must be a `ConversationEnv`; all must be alike.
        num_envs: how many; >= 1.
        threads: environments stepped at a time; by default all.

    Raises:
        ValueError: `num_envs` or `threads` is out of range.
        TypeError: the base is something else.
    """

    def __init__(
        self, make_env: Callable[[], gym.Env[Any, Any]], num_envs: int = 1, *, threads: int | None = None
    ) -> None:
        self.closed = True  # there is nothing to close yet; some versions of Gymnasium close what is deleted
        for name, value in (("num_envs", num_envs), ("threads", num_envs if threads is None else threads)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be an integer of at least 1")
        self.num_envs = num_envs
        self.envs: list[gym.Env[Any, Any]] = []
        self._executor = ThreadPoolExecutor(threads or num_envs, thread_name_prefix="elpo-vector")
        self._pending: dict[int, Future[Transition]] = {}
        self.closed = False
        try:
            for _ in range(num_envs):
                self.envs.append(make_env())
            self._bases = [_base(env) for env in self.envs]
        except BaseException:
            self.close()
            raise
        first = self.envs[0]
        self.metadata = {**first.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.render_mode = first.render_mode
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(first.observation_space, num_envs)
        self.action_space = batch_space(first.action_space, num_envs)
        self._observations: list[Any] = [""] * num_envs
        self._terminations = np.zeros(num_envs, dtype=np.bool_)
        self._truncations = np.zeros(num_envs, dtype=np.bool_)
        # The episode with which an environment came to its end or failed. Another one in its place means that
        # somebody restored the environment directly.
        self._ended: list[Episode | None] = [None] * num_envs

    @property
    def pending(self) -> tuple[int, ...]:
        """The environments that `step_async` started and `step_wait` has not returned yet."""
        return tuple(sorted(self._pending))

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Begin episodes, all at once.

        Args:
            seed: an int gives environment i the seed `seed + i`; a sequence has one for each, or None.
            options: "reset_mask", a bool array of shape (num_envs,): only these are reset, and the others'
                last observations returned unchanged; "per_env": a sequence of options (or None), one for each;
                everything else goes to every environment that is reset.

        Raises:
            ValueError, TypeError: seeds, mask or options have another form.
            AlreadyPendingCallError: one of the environments is being stepped.
            VectorEnvError: some failed; the others are reset.
        """
        self._check_open()
        if seed is None:
            seeds: list[int | None] = [None] * self.num_envs
        elif isinstance(seed, (int, np.integer)):
            seeds = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        self._check_length("seed", seeds)
        shared = dict(options or {})
        indices = self._masked(shared.pop("reset_mask", None))
        own = shared.pop("per_env", None)
        own = [None] * self.num_envs if own is None else list(own)
        self._check_length("options['per_env']", own)
        self._check_idle(indices)
        super().reset(seed=seed if isinstance(seed, int) else None)
        for i in indices:
            given = {**shared, **(own[i] or {})}
            self._pending[i] = self._executor.submit(_reset, i, self.envs[i], seeds[i], given or None)
        done, errors = self._collect(indices)
        result = (tuple(self._observations), batch_infos(self._infos(done)))
        if errors:
            raise VectorEnvError(errors, result)
        return result

    def step(self, actions: Sequence[str | None]) -> Batch:
        """Take a turn in every environment whose action is not None, all at once, and wait for all of these.

        Args:
            actions: a text or None for each environment. One that gets None is left as it is, may be over or
                still at a step that `step_async` started, and gives its last observation and flags, the reward
                0 and no info.

        Returns:
            Observations, rewards (float64), terminations and truncations (bool), each over all environments, and
            info.

        Raises:
            ValueError: not one action for each environment.
            ResetNeeded: an environment with an action is over, or was not reset; names it. No other is stepped.
            AlreadyPendingCallError: an environment with an action is still being stepped.
            VectorEnvError: some failed; the others have taken their steps.
        """
        self._check_open()
        if isinstance(actions, str):
            raise ValueError(f"actions must be a sequence of {self.num_envs} texts or None, not one text")
        actions = list(actions)
        self._check_length("actions", actions)
        indices = [i for i, action in enumerate(actions) if action is not None]
        self._start(indices, [actions[i] for i in indices])
        done, errors = self._collect(indices)
        result = self._batch(done)
        if errors:
            raise VectorEnvError(errors, result)
        return result

    def step_async(self, indices: Iterable[int], actions: Iterable[str]) -> None:
        """Start a turn in some environments and return at once; `step_wait` gives what comes of it.

        Raises:
            ValueError: an index is out of range or named twice, or there is not one action for each.
            ResetNeeded, AlreadyPendingCallError: see `step`; nothing is started.
        """
        self._check_open()
        chosen, turns = [int(i) for i in indices], list(actions)
        if len(chosen) != len(turns):
            raise ValueError(f"{len(chosen)} indices and {len(turns)} actions were given; give one action for each")
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"indices={chosen} names an environment twice")
        for i in chosen:
            if not 0 <= i < self.num_envs:
                raise ValueError(f"index {i} is outside 0..{self.num_envs - 1}")
        self._start(chosen, turns)

    def step_wait(self, timeout: float | None = None, at_least: int = 1) -> list[Transition]:
        """The turns that have ended, of those that `step_async` started, in the order of their indices.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.
            at_least: wait for so many, or for all that are pending; 0 only looks.

        Returns:
            Each turn once; [] where none has ended in time or none is pending.

        Raises:
            VectorEnvError: some failed; its `result` has those that did not.
        """
        self._check_open()
        waiting = set(self._pending.values())
        n_wanted = min(at_least, len(waiting))
        if n_wanted == 1:
            wait(waiting, timeout, FIRST_COMPLETED)
        elif n_wanted > 1:
            self._wait_for(n_wanted, waiting, timeout)
        done, errors = self._collect([i for i, future in sorted(self._pending.items()) if future.done()])
        result = [done[i] for i in sorted(done)]
        if errors:
            raise VectorEnvError(errors, result)
        return result

    def restore(self, index: int, snap: Snapshot, reseed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """`elpo_envs.restore` of one environment; its observation and flags are then known here, too."""
        self._check_idle([index])
        obs, info = restore(self.envs[index], snap, reseed)
        episode = snap.episode
        self._note(Transition(index, obs, 0.0, episode.terminated, episode.truncated, info))
        return obs, info

    def render(self) -> tuple[Any, ...]:
        """What each environment renders."""
        return tuple(env.render() for env in self.envs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """A method of every environment called in turn, or an attribute of each."""
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return tuple(f(*args, **kwargs) if callable(f) else f for f in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every environment, such as "tools"."""
        return tuple(env.get_wrapper_attr(name) for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Wait for the turns that are being taken, end the threads, and close every environment."""
        self.closed = True  # even where closing an environment fails below
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        with ExitStack() as stack:  # one that cannot be closed does not keep the others open
            for env in self.envs:
                stack.callback(env.close)

    def _start(self, indices: Sequence[int], actions: Sequence[Any]) -> None:
        self._check_idle(indices)
        for i in indices:
            episode = self._bases[i]._episode
            if episode is None or episode.over or self._ended[i] is episode:
                why = "was not reset" if episode is None else "is over, or its last step failed"
                raise ResetNeeded(f"environment {i} {why}; reset it, with options['reset_mask'], before its next step")
        for i, action in zip(indices, actions, strict=True):
            self._pending[i] = self._executor.submit(_step, i, self.envs[i], action)

    def _collect(self, indices: Iterable[int]) -> tuple[dict[int, Transition], dict[int, Exception]]:
        """Wait for these environments and take note of what they gave."""
        done: dict[int, Transition] = {}
        errors: dict[int, Exception] = {}
        indices = list(indices)
        # Until all are there nothing is taken: an interrupt loses none.
        wait([self._pending[i] for i in indices])
        for i in indices:
            try:
                done[i] = self._pending.pop(i).result()
            except Exception as error:  # whatever it is, it is that environment's; the caller reports it
                errors[i] = error
                self._ended[i] = self._bases[i]._episode
            else:
                self._note(done[i])
        return done, errors

    def _note(self, t: Transition) -> None:
        self._observations[t.index] = t.observation
        self._terminations[t.index], self._truncations[t.index] = t.terminated, t.truncated
        self._ended[t.index] = self._bases[t.index]._episode if t.terminated or t.truncated else None

    def _wait_for(self, number: int, waiting: set[Future[Transition]], timeout: float | None) -> None:
        ends = None if timeout is None else time.monotonic() + timeout
        while sum(f.done() for f in waiting) < number:
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                return
            wait({f for f in waiting if not f.done()}, left, FIRST_COMPLETED)

    def _batch(self, done: Mapping[int, Transition]) -> Batch:
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        for i, t in done.items():
            rewards[i] = t.reward
        infos = batch_infos(self._infos(done))
        return tuple(self._observations), rewards, self._terminations.copy(), self._truncations.copy(), infos

    def _infos(self, done: Mapping[int, Transition]) -> list[dict[str, Any] | None]:
        return [done[i].info if i in done else None for i in range(self.num_envs)]

    def _masked(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self.num_envs))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] must be a numpy array of dtype bool, not {mask!r}")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"options['reset_mask'] must have the shape ({self.num_envs},), not {mask.shape}")
        if not mask.any():
            raise ValueError("options['reset_mask'] must be True somewhere")
        return [int(i) for i in np.flatnonzero(mask)]

    def _check_length(self, name: str, values: Sequence[Any]) -> None:
        if len(values) != self.num_envs:
            raise ValueError(f"{name} has {len(values)} entries; give one for each of the {self.num_envs} environments")

    def _check_idle(self, indices: Iterable[int]) -> None:
        for i in indices:
            if i in self._pending:
                raise AlreadyPendingCallError(
                    f"environment {i} is still being stepped; take its result with step_wait() first", "step"
                )

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("this vector environment was closed; make a new one")


class RegisteredVectorEnv(ConversationVectorEnv):
    """A `vector_entry_point`; subclasses name the class of the single environments, which is loaded when needed.

    Args:
        num_envs, threads: see `ConversationVectorEnv`.
        **arguments: of the single environments.
    """

    entry_point: ClassVar[str]

    def __init__(self, num_envs: int = 1, *, threads: int | None = None, **arguments: Any) -> None:
        make_env: Any = load_env_creator(self.entry_point)
        super().__init__(partial(make_env, **arguments), num_envs, threads=threads)


class MathVectorEnv(RegisteredVectorEnv):
    """`elpo/Math-v0` and its variants by `gym.make_vec`."""

    entry_point: ClassVar[str] = "elpo_envs.math_env:MathEnv"


class ScienceQAVectorEnv(RegisteredVectorEnv):
    """`elpo/ScienceQA-v0` and its variants by `gym.make_vec`."""

    entry_point: ClassVar[str] = "elpo_envs.science_env:ScienceQAEnv"


class CodeExecVectorEnv(RegisteredVectorEnv):
    """`elpo/CodeExec-v0` and its variants by `gym.make_vec`."""

    entry_point: ClassVar[str] = "elpo_envs.code_env:CodeExecEnv"


class ExactChainVectorEnv(RegisteredVectorEnv):
    """`elpo/ExactChain-v0` by `gym.make_vec`."""

    entry_point: ClassVar[str] = "elpo_envs.exact.env:ExactChainEnv"


def _base(env: gym.Env[Any, Any]) -> ConversationEnv:
    base = env.unwrapped
    if not isinstance(base, ConversationEnv):
        raise TypeError(f"{type(base).__name__} is no ConversationEnv; use a vector environment of Gymnasium's")
    return base


def _reset(index: int, env: gym.Env[Any, Any], seed: int | None, options: dict[str, Any] | None) -> Transition:
    obs, info = env.reset(seed=None if seed is None else int(seed), options=options)
    episode = _base(env)._current()  # from a snapshot it may be over already
    return Transition(index, obs, 0.0, episode.terminated, episode.truncated, info)


def _step(index: int, env: gym.Env[Any, Any], action: Any) -> Transition:
    obs, reward, terminated, truncated, info = env.step(action)
    return Transition(index, obs, float(reward), terminated, truncated, info)
