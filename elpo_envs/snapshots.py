"""Freezing an environment at any step, and continuing from there as often and wherever one likes.

A snapshot holds the conversation, every tool's state (the interpreter's, too), counters, the generator of the
next task and the wrappers' state. It can be restored many times, into other instances of the same
environment, after the original moved on or was closed, and, as bytes, in other processes and on other
machines. It carries the task, so a restore reads no data file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import gymnasium as gym

from elpo_envs import durable
from elpo_envs.episode import EnvState, Episode, Message
from elpo_envs.sandbox.base import Fidelity
from elpo_envs.tasks.base import Task
from elpo_envs.wrapper_states import WrapperState, difference, rebuild, restore_wrappers, save_wrappers

FORMAT_VERSION = 1
_FIDELITIES: tuple[Fidelity, ...] = ("exact", "replay", "messages")  # best first


@runtime_checkable
class Snapshotable(Protocol):
    """What a base environment offers to be snapshot; `ConversationEnv` does."""

    @property
    def contract(self) -> Mapping[str, Any]:
        """JSON values that a snapshot's environment and the one it is restored into must agree on."""

    def freeze(self) -> EnvState:
        """The state now, as a value."""

    def thaw(self, state: EnvState, reseed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Become `state` and return the observation and info of its moment."""

    def clone(self) -> Any:
        """A new environment of the same configuration."""


@dataclass(frozen=True)
class Snapshot:
    """An environment at one moment; made by `snapshot` and to be treated as read-only.

    Attributes:
        env_id: the Gymnasium id, or the class's name where there is none; for people, never compared.
        contract: what an environment must agree on to be restored into.
        state: the base environment's state.
        wrappers: the wrappers' states, outermost first.
        fidelity: how exact a restore is: "exact", "replay" (the interpreter repeats its calls; clocks,
            entropy and outside state may differ) or "messages" (tool state is lost).
    """

    env_id: str
    contract: Mapping[str, Any]
    state: EnvState
    wrappers: tuple[WrapperState, ...] = ()
    fidelity: Fidelity = "exact"

    @property
    def version(self) -> int:
        """Version of the durable form."""
        return FORMAT_VERSION

    @property
    def episode(self) -> Episode:
        return self.state.episode

    @property
    def task(self) -> Task:
        return self.state.episode.task

    @property
    def messages(self) -> tuple[Message, ...]:
        return self.state.episode.messages

    @property
    def protocol(self) -> str:
        return str(self.contract.get("protocol", ""))

    @property
    def spec_digest(self) -> str:
        """SHA-256 over the contract, hexadecimal: equal for environments that can exchange snapshots."""
        return hashlib.sha256(json.dumps(self.contract, sort_keys=True).encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """A durable form for other processes and machines; from it, an interpreter is restored by replay."""
        tools = self.state.tools
        return durable.pack(
            {
                "env_id": self.env_id,
                "contract": self.contract,
                "episode": self.state.episode.to_json(),
                "tools": {name: s.to_json() if _is_object(s) else s for name, s in tools.items()},
                "np_random": self.state.np_random,
                "wrappers": [[w.name, durable.encode(w.arguments), durable.encode(w.state)] for w in self.wrappers],
                "fidelity": _worst(self.fidelity, *(_durable_fidelity(s) for s in tools.values())),
            },
            FORMAT_VERSION,
        )

    @staticmethod
    def from_bytes(data: bytes) -> Snapshot:
        """The snapshot in `data`. Raises ValueError for foreign, corrupted or other versions' bytes."""
        content = durable.unpack(data, FORMAT_VERSION)
        try:
            episode = Episode.from_json(content["episode"])
            return Snapshot(
                env_id=content["env_id"],
                contract=content["contract"],
                state=EnvState(episode, content["tools"], content["np_random"]),
                wrappers=tuple(
                    WrapperState(name, durable.decode(arguments), durable.decode(state))
                    for name, arguments, state in content["wrappers"]
                ),
                fidelity=_FIDELITIES[_FIDELITIES.index(content["fidelity"])],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"the snapshot's contents have an unexpected form: {error}") from error


def snapshot(env: gym.Env[Any, Any]) -> Snapshot:
    """Freeze `env`, its wrappers included, after a reset or any step (the last one of an episode, too).

    Raises:
        TypeError: the environment, or the state of a wrapper, cannot be frozen.
        gymnasium.error.ResetNeeded: no episode has begun.
    """
    base = _base(env)
    state = base.freeze()
    spec = env.unwrapped.spec
    return Snapshot(
        env_id=type(base).__name__ if spec is None else spec.id,
        contract=base.contract,
        state=state,
        wrappers=save_wrappers(env),
        fidelity=_worst(*(_fidelity(s) for s in state.tools.values())),
    )


def restore(env: gym.Env[Any, Any], snap: Snapshot, reseed: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Make `env` continue from `snap`, whatever it was doing; it need not have been reset.

    Args:
        env: an environment of the same configuration and wrappers; `PassiveEnvChecker` and `OrderEnforcing`,
            which `gym.make` adds, may differ.
        snap: left unchanged; restore it as often as you like.
        reseed: reseeds the tools' and the environment's random generators (>= 0). Without it every branch
            draws the same random numbers.

    Returns:
        Observation and info as they were when the snapshot was taken. Entries that wrappers added to the info
        are not repeated.

    Raises:
        ValueError: the environment is of another configuration; says in what.
        TypeError: the environment cannot be restored.

    A session that must be replayed is repeated at its next call and compared with the first time; one that
    does not repeat ends the episode as a "sandbox_failure", with `info["valid"]` False.
    """
    base = _base(env)
    _check_contract(base.contract, snap)
    if (other := difference(env, snap.wrappers)) is not None:
        raise ValueError(f"the snapshot does not fit this environment: {other}")
    obs, info = base.thaw(snap.state, reseed)
    return restore_wrappers(env, snap.wrappers, obs, info), info


def fork(env: gym.Env[Any, Any], n: int, reseed: int | None = None) -> list[gym.Env[Any, Any]]:
    """`n` new environments of the same configuration and wrappers that continue from where `env` is now.

    Args:
        env: left as it is.
        n: how many; >= 0.
        reseed: gives branch i the randomness of `reseed + i`; by default all draw the same random numbers.

    Raises:
        TypeError: the environment or a wrapper of it cannot be frozen, or built again.
        ValueError: `n` is negative.
    """
    if n < 0:
        raise ValueError(f"n={n} must be 0 or larger")
    snap = snapshot(env)
    branches: list[gym.Env[Any, Any]] = []
    try:
        for i in range(n):
            branches.append(rebuild(env, _base(env).clone()))
            restore(branches[-1], snap, None if reseed is None else reseed + i)
    except BaseException:
        for branch in branches:
            branch.close()
        raise
    return branches


def check_restorable_by_reset(contract: Mapping[str, Any], snap: Snapshot) -> None:
    """Raise ValueError unless `reset(options={"snapshot": snap})` does the same as `restore`.

    A reset reaches the base environment only, so the snapshot must not hold a wrapper's state.
    """
    _check_contract(contract, snap)
    stateful = [w.name for w in snap.wrappers if w.state]
    if stateful:
        raise ValueError(
            f"reset() cannot restore the state of {', '.join(stateful)}; use elpo_envs.restore(env, snapshot)"
        )


def _base(env: gym.Env[Any, Any]) -> Snapshotable:
    base = env.unwrapped
    if not isinstance(base, Snapshotable):
        raise TypeError(f"{type(base).__name__} cannot be snapshot: it lacks contract, freeze, thaw or clone")
    return cast(Snapshotable, base)


def _check_contract(contract: Mapping[str, Any], snap: Snapshot) -> None:
    if not isinstance(snap, Snapshot):
        raise ValueError(f"a Snapshot is needed, not {type(snap).__name__}; read bytes with Snapshot.from_bytes")
    if contract is snap.contract or contract == snap.contract:
        return
    for key in {**snap.contract, **contract}:
        ours, theirs = contract.get(key), snap.contract.get(key)
        if ours != theirs:
            if key == "tools" and isinstance(ours, dict) and isinstance(theirs, dict) and set(ours) != set(theirs):
                ours, theirs = list(ours), list(theirs)  # names say more than whole schemas
            raise ValueError(
                f"the snapshot does not fit this environment: its {key} is {_short(theirs)}, "
                f"this environment's is {_short(ours)}"
            )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + "..."


def _is_object(state: Any) -> bool:
    """Whether a tool's state is a `ToolState` rather than JSON values."""
    return hasattr(state, "to_json")


def _fidelity(state: Any) -> Fidelity:
    return cast(Fidelity, state.fidelity) if _is_object(state) else "exact"


def _durable_fidelity(state: Any) -> Fidelity:
    return _worst(_fidelity(state), "replay") if _is_object(state) else "exact"


def _worst(*fidelities: Fidelity) -> Fidelity:
    return max(fidelities, key=_FIDELITIES.index, default="exact")
