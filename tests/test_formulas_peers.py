"""The same estimators and losses in verl and TRL, where these are installed, on the fixed batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import _formula_batch as fixed
import numpy as np
import pytest
import torch
from _formula_batch import CHAINS, End, Turn

import elpo_agent
from elpo_agent.algorithms import load
from elpo_agent.credit.rewards import rewarded
from elpo_agent.credit.trajectories import leave_one_out
from elpo_agent.credit.wrappers import Rewarded
from elpo_agent.tree import RolloutTree

pytestmark = pytest.mark.slow

# Peers add constants of 1e-8 in places where the formulas have none.
TOLERANCE = 1e-7


class Tensors:
    """The batch as right-padded response tensors, (rows, response length), tool tokens included and masked."""

    def __init__(self, prompts: list[list[Turn]], trees: list[RolloutTree], *, kl_reward: float = 0.0) -> None:
        self.rows = [(p, leaf) for p, turns in enumerate(prompts) for leaf in fixed.ends(turns)]
        shape = (len(self.rows), 40)
        self.old, self.new, self.ref, self.mask, self.rewards = (
            torch.zeros(shape, dtype=torch.float64) for _ in range(5)
        )
        self.index = np.array([p for p, _ in self.rows])
        for i, (p, leaf) in enumerate(self.rows):
            at = 0
            for node in fixed.path(prompts[p], leaf):
                for t in range(prompts[p][node - 1].tokens):
                    self.old[i, at], self.ref[i, at] = fixed.old(p, node, t), fixed.expected(p, node, t)
                    self.new[i, at], self.mask[i, at] = fixed.current(p, node, t), 1.0
                    self.rewards[i, at] -= kl_reward * (fixed.old(p, node, t) - fixed.expected(p, node, t))
                    at += 1
                step = trees[p].nodes[node].step
                assert step is not None
                self.rewards[i, at - 1] += trees[p].outcome(leaf).reward if node == leaf else step.reward
                at += len(prompts[p][node - 1].feedback)
        self.new.requires_grad_()

    def flat(self, values: torch.Tensor) -> list[float]:
        return [float(v) for v in values[self.mask.bool()]]


def tensors_of(prompts: list[list[Turn]], name: str, **options: Any) -> Tensors:
    """With the rewards that the algorithm's rules give."""
    credit = load(name, **options).credit
    trees = [fixed.build(p, turns) for p, turns in enumerate(prompts)]
    if isinstance(credit, Rewarded):
        trees = [rewarded(tree, credit.rules) for tree in trees]
    return Tensors(prompts, trees, kl_reward=options.get("kl_reward", 0.0))


def compare(ours: fixed.Result, theirs: Tensors, advantages: torch.Tensor | None, loss: torch.Tensor) -> None:
    """Largest differences of advantages, loss and gradient; shown with -s."""
    loss.backward()  # type: ignore[no-untyped-call]
    assert theirs.new.grad is not None
    pairs = {"loss": ([ours.loss], [float(loss.detach())]), "gradient": (ours.gradient, theirs.flat(theirs.new.grad))}
    if advantages is not None:
        pairs["advantages"] = (ours.advantages, theirs.flat(advantages))
    gaps = {name: float(np.abs(np.subtract(a, b)).max()) for name, (a, b) in pairs.items()}
    print({name: f"{gap:.1e}" for name, gap in gaps.items()})
    assert ours.leaves == theirs.rows
    assert max(gaps.values()) < TOLERANCE, gaps


def outcomes_only(prompts: list[list[Turn]]) -> list[list[Turn]]:
    """Without rewards of steps before the last."""
    return [[replace(turn, reward=0.0) for turn in turns] for turns in prompts]


# --- verl -----------------------------------------------------------------------------------------------------

VERL: list[tuple[str, dict[str, Any], str]] = [
    ("grpo", {"loss": {"dual_clip": 3.0}}, "grpo"),
    ("grpo", {"loss": {"dual_clip": 3.0, "aggregation": "token-mean", "kl_coef": 0.1, "kl": "k1"}}, "grpo"),
    ("grpo", {"loss": {"dual_clip": 3.0, "aggregation": "seq-mean-token-sum", "kl_coef": 0.1, "kl": "k2"}}, "grpo"),
    ("dapo", {"overlong_length": 16, "overlong_buffer": 6, "loss": {"kl_coef": 0.1, "kl": "k3"}}, "grpo"),
    ("torl", {"loss": {"dual_clip": 3.0}}, "grpo"),
    ("demyagent", {"count_turns": True}, "grpo"),
    ("rloo", {"loss": {"dual_clip": 3.0}}, "rloo"),
    ("reinforce_pp", {"kl_reward": 0.05, "unbiased": True, "loss": {"dual_clip": 3.0}}, "reinforce_plus_plus"),
    ("reinforce_pp_baseline", {"unbiased": True, "loss": {"dual_clip": 3.0}}, "reinforce_plus_plus_baseline"),
    ("cir", {}, "reinforce_plus_plus_baseline"),
]


@pytest.mark.parametrize(("name", "options", "estimator"), VERL)
def test_verl(name: str, options: dict[str, Any], estimator: str) -> None:
    core = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed")
    omegaconf = pytest.importorskip("omegaconf", reason="omegaconf is not installed")
    algorithm = load(name, **options)
    objective, terms = algorithm.objective, algorithm.objective.options  # type: ignore[attr-defined]
    # With rewards of steps, or one trajectory alone, verl's baseline variant is not OpenRLHF's, which ours is.
    prompts = outcomes_only(CHAINS[:3]) if estimator.endswith("baseline") else CHAINS
    ours, theirs = fixed.run(algorithm, prompts), tensors_of(prompts, name, **options)
    given = {"token_level_rewards": theirs.rewards, "response_mask": theirs.mask, "index": theirs.index}
    config = omegaconf.OmegaConf.create({"gamma": 1.0})
    if estimator == "reinforce_plus_plus":
        del given["index"]
    advantages, _ = core.get_adv_estimator_fn(estimator)(**given, config=config)
    actor = omegaconf.OmegaConf.create(
        {
            "clip_ratio": 0.2,
            "clip_ratio_low": objective.eps_low,  # type: ignore[attr-defined]
            "clip_ratio_high": objective.eps_high,  # type: ignore[attr-defined]
            "clip_ratio_c": terms.dual_clip,
            "global_batch_info": {},
        }
    )
    loss, _ = core.compute_policy_loss_vanilla(
        theirs.old, theirs.new, advantages, theirs.mask, loss_agg_mode=terms.aggregation, config=actor
    )
    if terms.kl_coef:
        kl = core.kl_penalty(theirs.new, theirs.ref, {"k1": "k1", "k2": "k2", "k3": "low_var_kl"}[terms.kl])
        loss = loss + terms.kl_coef * core.agg_loss(kl, theirs.mask, terms.aggregation)
    compare(ours, theirs, advantages, loss)


# --- TRL ------------------------------------------------------------------------------------------------------

GROUPS = [[1.0, 0.0, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0], [1.0, -0.5, 1.0, 0.25]]
"""Rewards of four trajectories of three prompts each."""


def grouped() -> list[list[Turn]]:
    """A prompt for each group, with trajectories of one or two turns."""
    prompts = []
    for group in GROUPS:
        turns: list[Turn] = []
        for i, reward in enumerate(group):
            turns.append(Turn(0, 2 + i, fixed.OK, end=None if i % 2 else End(reward)))
            if i % 2:
                turns.append(Turn(len(turns), 3, end=End(reward)))
        prompts.append(turns)
    return prompts


def trainer_of(trl: Any, kind: str, folder: Path, **options: Any) -> Any:
    """TRL's trainer around the tiny model, whose log-probabilities and completions the tests replace by fixed ones."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    model = Path(elpo_agent.__file__).parent / "tiny" / "model"
    rewards = [r for group in GROUPS for r in group]
    n = len(rewards)
    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        num_generations=4,
        per_device_train_batch_size=n,
        max_completion_length=16,
        **options,
    )
    return getattr(trl, f"{kind}Trainer")(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=lambda completions, **_: rewards,
        args=config,
        train_dataset=datasets.Dataset.from_list([{"prompt": "x"}] * n),
        processing_class=AutoTokenizer.from_pretrained(model),
    )


def trl_inputs(theirs: Tensors, advantages: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `_compute_loss` reads."""
    shape = theirs.mask.shape
    return {
        "prompt_ids": torch.ones(shape[0], 1, dtype=torch.long),
        "prompt_mask": torch.ones(shape[0], 1, dtype=torch.long),
        "completion_ids": torch.ones(shape, dtype=torch.long),
        "completion_mask": torch.ones(shape),
        "tool_mask": theirs.mask,
        "advantages": advantages,
        "old_per_token_logps": theirs.old,
        "ref_per_token_logps": theirs.ref,
        "num_items_in_batch": theirs.mask.sum(),
    }


def fixed_policy(trainer: Any, values: torch.Tensor) -> None:
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (values, torch.zeros_like(values.detach()), None)


TRL: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("grpo", {"loss": {}}, {"loss_type": "grpo"}),
    (
        "grpo",
        {"eps_high": 0.28, "loss": {"dual_clip": 3.0, "kl_coef": 0.1, "kl": "k3"}},
        {"loss_type": "grpo", "epsilon_high": 0.28, "delta": 3.0, "beta": 0.1, "use_bias_correction_kl": False},
    ),
    ("dapo", {}, {"loss_type": "dapo", "epsilon_high": 0.28, "delta": 10.0}),
    ("grpo", {"loss": {"aggregation": "token-mean"}}, {"loss_type": "bnpo"}),
    ("grpo", {"loss": {"aggregation": "constant", "length": 16}}, {"loss_type": "dr_grpo"}),
]


@pytest.mark.parametrize(("name", "options", "trl_options"), TRL)
def test_trls_grpo_losses(name: str, options: dict[str, Any], trl_options: dict[str, Any], tmp_path: Path) -> None:
    """The same advantages, rewards as the environment gives them; TRL takes the loss over them."""
    trl = pytest.importorskip("trl", reason="trl is not installed")
    prompts = grouped()
    ours, theirs = fixed.run(load(name, **options), prompts), tensors_of(prompts, name, **options)
    advantages, k = torch.zeros(len(theirs.rows), dtype=torch.float64), 0
    for i, count in enumerate(theirs.mask.sum(dim=1).int().tolist()):
        advantages[i] = ours.advantages[k]
        k += count
    trainer = trainer_of(trl, "GRPO", tmp_path, **trl_options)
    fixed_policy(trainer, theirs.new)
    trainer.current_gradient_accumulation_steps = 1
    compare(ours, theirs, None, trainer._compute_loss(trainer.model, trl_inputs(theirs, advantages)))


@pytest.mark.parametrize(("kind", "name", "options"), [("GRPO", "grpo", {"std_eps": 1e-4}), ("RLOO", "rloo", {})])
def test_trls_advantages(kind: str, name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Rewards to advantages by TRL's own scoring, in float32; its GRPO adds 1e-4 to the standard deviation."""
    trl = pytest.importorskip("trl", reason="trl is not installed")
    trainer = trainer_of(trl, kind, tmp_path)
    n = sum(len(group) for group in GROUPS)
    given = trainer._generate_and_score_completions([{"prompt": "x"}] * n)["advantages"].tolist()
    ours = fixed.run(load(name, **options), grouped())
    by_row = dict(zip((row for row in ours.leaves for _ in range(tokens_of(row))), ours.advantages, strict=True))
    gap = max(abs(a - b) for a, b in zip(by_row.values(), given, strict=True))
    print({"advantages": f"{gap:.1e}"})
    assert gap < 1e-6


def tokens_of(row: tuple[int, int]) -> int:
    turns = grouped()[row[0]]
    return sum(turns[i - 1].tokens for i in fixed.path(turns, row[1]))


def test_trls_rloo_has_our_gradient_where_the_policy_is_the_one_that_sampled(tmp_path: Path) -> None:
    """TRL clips the ratio of the whole trajectory; at a ratio of 1 the gradients are those of REINFORCE."""
    trl = pytest.importorskip("trl", reason="trl is not installed")
    prompts = grouped()
    theirs = tensors_of(prompts, "rloo")
    at_old = theirs.old.clone().requires_grad_()
    trainer = trainer_of(trl, "RLOO", tmp_path)
    fixed_policy(trainer, at_old)
    advantages = [a for group in GROUPS for a in leave_one_out(group).tolist()]
    inputs = trl_inputs(theirs, torch.tensor(advantages, dtype=torch.float64))
    inputs["completion_mask"] = theirs.mask
    inputs["old_logps"] = (theirs.old * theirs.mask).sum(dim=1)
    trainer._compute_loss(trainer.model, inputs).backward()
    assert at_old.grad is not None
    # Ours: -A / (number of trajectories) on each token.
    expected = -torch.tensor(advantages, dtype=torch.float64).unsqueeze(1) * theirs.mask / len(advantages)
    wide = fixed.run(load("rloo", eps_low=0.99, eps_high=1e6), prompts)
    ratio = (theirs.new.detach() - theirs.old).exp()
    ours = torch.tensor(wide.gradient, dtype=torch.float64) / ratio[theirs.mask.bool()]
    gaps = ((at_old.grad - expected).abs().max(), (ours - expected[theirs.mask.bool()]).abs().max())
    print([f"{float(gap):.1e}" for gap in gaps])
    assert max(float(gap) for gap in gaps) < 1e-9
