"""The state that wrappers keep (TimeLimit its step count): reading it, writing it, rebuilding a stack."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import gymnasium as gym
from gymnasium.spaces import Space
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, TimeLimit

# They guard calls and do not change what an episode does, so a snapshot neither holds nor requires them.
_GUARDS = (PassiveEnvChecker, OrderEnforcing)
_CONFIGURATION = (FunctionType, BuiltinFunctionType, MethodType, functools.partial, type, Space)
_BASE_ATTRIBUTES = frozenset(
    {"env", "_action_space", "_observation_space", "_metadata", "_cached_spec", "_saved_kwargs"}
)


@dataclass(frozen=True)
class WrapperState:
    """One wrapper of a snapshot.

    Attributes:
        name: "module:class".
        arguments: its recorded constructor arguments, as far as they are plain values.
        state: plain values; {} for a stateless wrapper.
    """

    name: str
    arguments: Mapping[str, Any]
    state: Any


def plain_copy(value: Any) -> Any:
    """A deep copy of None, bools, numbers, strings, and lists, tuples and str-keyed dicts of these.

    Raises TypeError for anything else.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value) is dict and all(isinstance(k, str) for k in value):
        return {k: plain_copy(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain_copy(v) for v in value)
    raise TypeError(f"{type(value).__name__} is not a plain value")


def stack_of(env: gym.Env[Any, Any]) -> list[gym.Wrapper[Any, Any, Any, Any]]:
    """The wrappers around the base environment, outermost first."""
    stack = []
    while isinstance(env, gym.Wrapper):
        stack.append(env)
        env = env.env
    return stack


def save_wrappers(env: gym.Env[Any, Any]) -> tuple[WrapperState, ...]:
    """The state of every wrapper, outermost first.

    A wrapper is asked through its optional method `snapshot_state()`; Gymnasium's are known; of any other the
    plain attributes are its state, and functions, classes and spaces its configuration.

    Raises:
        TypeError: a wrapper holds something else, which cannot be known to be state or not.
    """
    return tuple(
        WrapperState(_name(w), _plain_arguments(w), _save(w)) for w in stack_of(env) if not isinstance(w, _GUARDS)
    )


def restore_wrappers(env: gym.Env[Any, Any], saved: tuple[WrapperState, ...], obs: Any, info: dict[str, Any]) -> Any:
    """Put saved states back into a stack that `difference` found equal.

    Returns the observation as the outermost wrapper shows it: observation wrappers see it before their own
    state is put back.
    """
    states = list(saved)
    for wrapper in reversed(stack_of(env)):
        if isinstance(wrapper, OrderEnforcing):
            wrapper._has_reset = True
        elif isinstance(wrapper, PassiveEnvChecker):
            # Its next step compares with the data returned before, which is what a restore returns.
            if not getattr(wrapper, "checked_data_reuse", True):
                wrapper._previous_data = (obs, info)
        else:
            if isinstance(wrapper, gym.ObservationWrapper):
                obs = wrapper.observation(obs)
            _load(wrapper, states.pop().state)
    return obs


def difference(env: gym.Env[Any, Any], saved: tuple[WrapperState, ...]) -> str | None:
    """What tells the stack around `env` from the saved one; None when they fit."""
    here = [w for w in stack_of(env) if not isinstance(w, _GUARDS)]
    names = [_name(w) for w in here]
    if names != [s.name for s in saved]:
        return f"its wrappers are {[s.name for s in saved]}, this environment's {names}"
    for wrapper, state in zip(here, saved, strict=True):
        arguments = _plain_arguments(wrapper)
        if arguments != state.arguments:
            return f"its {state.name} has the arguments {dict(state.arguments)}, this environment's {arguments}"
    return None


def rebuild(env: gym.Env[Any, Any], base: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The wrappers of `env`, built again around `base`.

    Raises:
        TypeError: a wrapper has constructor arguments and does not record them.
    """
    for wrapper in reversed(stack_of(env)):
        arguments: dict[str, Any] = {}
        if isinstance(wrapper, RecordConstructorArgs):
            arguments = {k: v for k, v in wrapper._saved_kwargs.items() if k != "env"}
        elif type(wrapper).__init__ not in _PLAIN_CONSTRUCTORS:
            raise TypeError(
                f"wrapper {_name(wrapper)} cannot be built again for a fork: let it inherit from "
                "gymnasium.utils.RecordConstructorArgs"
            )
        base = type(wrapper)(base, **arguments)
    return base


_PLAIN_CONSTRUCTORS = (
    gym.Wrapper.__init__,
    gym.ObservationWrapper.__init__,
    gym.RewardWrapper.__init__,
    gym.ActionWrapper.__init__,
)


def _save_statistics(wrapper: Any) -> Any:
    # Finished episodes (the queues) belong to the wrapper, not to this episode, and are left as they are.
    elapsed = time.perf_counter() - wrapper.episode_start_time
    return {
        "returns": float(wrapper.episode_returns),
        "length": int(wrapper.episode_lengths),
        "elapsed_s": elapsed,
    }


def _load_statistics(wrapper: Any, state: Any) -> None:
    wrapper.episode_returns = state["returns"]
    wrapper.episode_lengths = state["length"]
    wrapper.episode_start_time = time.perf_counter() - state["elapsed_s"]


def _save_steps(wrapper: Any) -> Any:
    return {"steps": wrapper._elapsed_steps}


def _load_steps(wrapper: Any, state: Any) -> None:
    wrapper._elapsed_steps = state["steps"]


_KNOWN: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], None]]] = {
    TimeLimit: (_save_steps, _load_steps),
    RecordEpisodeStatistics: (_save_statistics, _load_statistics),
}


def _save(wrapper: Any) -> Any:
    if _asks(wrapper):
        return plain_copy(wrapper.snapshot_state())
    if type(wrapper) in _KNOWN:
        return _KNOWN[type(wrapper)][0](wrapper)
    state = {}
    for name, value in vars(wrapper).items():
        if name in _BASE_ATTRIBUTES or isinstance(value, _CONFIGURATION):
            continue
        try:
            state[name] = plain_copy(value)
        except TypeError as error:
            raise TypeError(
                f"wrapper {_name(wrapper)} keeps something in {name!r} that a snapshot cannot copy "
                f"({error}); give it methods snapshot_state() and restore_state(state) of plain values"
            ) from error
    return state


def _load(wrapper: Any, state: Any) -> None:
    if _asks(wrapper):
        wrapper.restore_state(plain_copy(state))
    elif type(wrapper) in _KNOWN:
        _KNOWN[type(wrapper)][1](wrapper, state)
    else:
        vars(wrapper).update(plain_copy(state))


def _asks(wrapper: Any) -> bool:
    # Looked up on the class: instances of old Gymnasium versions forward unknown attributes to the inner
    # environment.
    return hasattr(type(wrapper), "snapshot_state") and hasattr(type(wrapper), "restore_state")


def _name(wrapper: Any) -> str:
    return f"{type(wrapper).__module__}:{type(wrapper).__qualname__}"


def _plain_arguments(wrapper: Any) -> dict[str, Any]:
    plain = {}
    for name, value in getattr(wrapper, "_saved_kwargs", {}).items():
        try:
            plain[name] = plain_copy(value)
        except TypeError:
            continue  # a function or a space: it has no value to compare
    return plain
