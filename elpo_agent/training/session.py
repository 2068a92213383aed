"""What a run needs in hand: model, tokenizer, engine and rollout runner, built from its configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import nn

import elpo_envs
from elpo_agent.chat import ChatCodec
from elpo_agent.config import EngineConfig, EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.engines.loading import load_model
from elpo_agent.engines.opening import TrainablePolicy, open_engine
from elpo_agent.learner.lora import add_adapters, merged
from elpo_agent.rollout.runner import Runner
from elpo_agent.runs.checkpoint import save_model
from elpo_envs.env import ConversationEnv

# Each environment holds an interpreter process of a few MiB.
MAX_ENVS = 512
TINY_MODEL = Path(__file__).parent.parent / "tiny" / "model"


def model_folder(path: str) -> str:
    """The folder or hub id behind `ModelConfig.path`; "tiny" is the model shipped in this package."""
    return str(TINY_MODEL) if path == "tiny" else path


@dataclass
class Session:
    """A loaded model with its engine.

    Attributes:
        model: trained in place; the engine samples from the same weights once it is told of an update.
        tokenizer: the model's.
        codec: its chat template in token ids.
        policy: the inference engine.
        engine: which one it is, and its options.
        adapted: peft's model around `model`, where adapters are trained (see `add_adapters`).
    """

    model: nn.Module
    tokenizer: Any
    codec: ChatCodec
    policy: TrainablePolicy
    engine: EngineConfig = field(default_factory=EngineConfig)
    adapted: Any = None

    @classmethod
    def open(cls, config: ModelConfig, engine: EngineConfig | None = None) -> Session:
        """Load the model, and open the engine: transformers where none is given.

        Raises:
            ImportError: the engine's packages are missing, or peft where adapters are asked for.
            ValueError, OSError: the folder is missing or holds no usable model or chat template, there is no such
                device, nothing that adapters fit, or the engine has no such option or cannot run the model.
        """
        engine = engine or EngineConfig()
        if config.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"model.device={config.device!r}, but torch finds no GPU here; use auto or cpu")
        model, tokenizer = load_model(model_folder(config.path), dtype=config.dtype, device=config.device)
        adapted = add_adapters(model, config.lora) if config.lora.rank else None
        codec = ChatCodec(tokenizer, model.generation_config)
        policy = open_engine(engine.name, model, codec.stop_ids, pad_id(tokenizer, codec), engine.options)
        return cls(model, tokenizer, codec, policy, engine, adapted)

    def save(self, folder: Path) -> None:
        """Write a model folder that `load_model` reads; adapters are merged into it, and stand beside in `adapter/`.

        Raises:
            DiskFullError, OSError: see `save_model`.
        """
        model = self.model if self.adapted is None else merged(self.adapted)
        save_model(model, self.tokenizer, folder, self.adapted)

    def copy(self) -> Session:
        """One with weights, tokenizer and engine of its own, alike at first; another thread may use it."""
        model, tokenizer = copy.deepcopy(self.model), copy.deepcopy(self.tokenizer)
        codec = ChatCodec(tokenizer, model.generation_config)
        engine = self.engine
        policy = open_engine(engine.name, model, codec.stop_ids, pad_id(tokenizer, codec), engine.options)
        return Session(model, tokenizer, codec, policy, engine)

    @property
    def pad_id(self) -> int:
        return pad_id(self.tokenizer, self.codec)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def runner(
        self,
        config: RolloutConfig,
        make_env: Callable[[], gym.Env[str, str]],
        temperature: float,
        conversations: int = 128,
    ) -> Runner:
        """A rollout runner over this engine, with an environment for each of `conversations` that goes on at a time."""
        active = min(conversations, MAX_ENVS, config.max_active or MAX_ENVS)
        return Runner(
            self.policy,
            self.codec,
            make_env,
            max_new_tokens=config.max_new_tokens,
            temperature=temperature,
            max_context=config.max_context,
            tool_threads=config.tool_threads,
            max_envs=max(config.tool_threads, active),
            max_active=config.max_active,
            patience_s=config.patience_s,
            batching=config.batching,
        )


def pad_id(tokenizer: Any, codec: ChatCodec) -> int:
    """The tokenizer's padding id, or a stop id where it has none (padding is never seen by a loss)."""
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else int(min(codec.stop_ids))


def env_factory(config: EnvConfig, *, evaluating: bool) -> Callable[[], gym.Env[str, str]]:
    """Makes new environments for training, or for evaluation; it raises ValueError where they cannot be made."""
    kwargs = {**config.kwargs, **(config.eval_kwargs if evaluating else {})}

    def make() -> gym.Env[str, str]:
        try:
            return gym.make(config.id, disable_env_checker=True, **kwargs)
        except (gym.error.Error, TypeError) as error:
            reason = str(error).partition(" was raised from the environment creator")[0]
            raise ValueError(f"env.id={config.id!r} with env.kwargs={kwargs} cannot be made: {reason}") from error

    return make


def task_count(make_env: Callable[[], gym.Env[str, str]]) -> int | None:
    """How many tasks such an environment has; None for an endless source.

    Raises:
        ValueError, OSError: the environment cannot be made, has no tasks, or its data cannot be read.
    """
    env = make_env()
    try:
        if not isinstance(env.unwrapped, ConversationEnv):
            raise ValueError(
                f"env.id={env.spec.id if env.spec else env!r} is no environment of conversations; "
                f"choose one of {', '.join(elpo_envs.env_ids())}, or derive yours from elpo_envs.env.ConversationEnv"
            )
        source = env.unwrapped.task_source
        if source.size == 0:
            raise ValueError(f"dataset {source.name!r} has no tasks in split {source.split!r}")
        return source.size
    finally:
        env.close()
