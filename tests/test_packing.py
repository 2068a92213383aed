"""Packed rows and flat ones: the same loss, the same gradient, whatever is shared and whatever the loss asks for."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from elpo_agent.algorithms import load
from elpo_agent.config import EnvConfig, LearnerConfig, ModelConfig, RolloutConfig
from elpo_agent.credit import leaf_credits
from elpo_agent.engines.transformers_engine import TransformersPolicy
from elpo_agent.learner.learner import Learner
from elpo_agent.learner.logprobs import forward_passes, row_logprobs, token_logprobs, token_logprobs_and_entropies
from elpo_agent.learner.packing import Packing, pack, packs, pays, predicting
from elpo_agent.learner.rows import TrainingRow, collate, tree_rows
from elpo_agent.learner.tree_attention import TREE_ATTENTION, packed_logits, takes_trees
from elpo_agent.objective import ClippedObjective
from elpo_agent.objective.options import LossOptions
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.training.reference import Reference
from elpo_agent.training.session import Session, env_factory

VOCAB = 23
AGGREGATIONS: dict[str, dict[str, Any]] = {
    "seq-mean-token-mean": {},
    "token-mean": {"aggregation": "token-mean"},
    "seq-mean-token-sum": {"aggregation": "seq-mean-token-sum"},
    "constant": {"aggregation": "constant", "length": 7},
}
TERMS: dict[str, dict[str, Any]] = {
    "ratios": {},
    "all": {"dual_clip": 1.3, "importance_cap": 1.2, "kl_coef": 0.3, "entropy_coef": 0.1},
}
EASY = {"dataset": "generated", "dataset_options": {"min_steps": 2, "max_steps": 2}, "max_turns": 4}


def small_model(seed: int = 0, layers: int = 2) -> nn.Module:
    """A Qwen3 decoder in float64 with weights large enough that every token it sees matters."""
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=4096,
        initializer_range=0.4,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return in_double(Qwen3ForCausalLM(config))


def in_double(model: nn.Module) -> nn.Module:
    """The same model in float64 throughout: transformers' own norms compute in float32 whatever they get."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                own = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon)  # type: ignore[arg-type]
                own.load_state_dict(child.state_dict())
                setattr(module, name, own)
    return model.double().eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return small_model()


def training_row(ids: list[int], mask: list[bool], seed: int) -> TrainingRow:
    """A row whose sampling policy and reference were a little different."""
    rng = np.random.default_rng(seed)
    agent = np.array(mask, dtype=bool)

    def on_tokens(low: float, high: float) -> Any:
        return np.where(agent, rng.uniform(low, high, len(ids)), 0.0).astype(np.float32)

    return TrainingRow(
        np.array(ids, dtype=np.int64),
        agent,
        on_tokens(-4.0, -2.0),
        on_tokens(-1.0, 1.0),
        on_tokens(0.2, 0.2),
        on_tokens(0.3, 0.3),
        reference_logprobs=on_tokens(-4.0, -2.0),
    )


def random_tree(seed: int, prompts: int, depth: int, prompt: int = 9, longest: int = 6) -> list[list[TrainingRow]]:
    """For each prompt the rows of a tree with steps and feedback, some of them twice, one the beginning of another."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(prompts):
        rows: list[tuple[list[int], list[bool]]] = []
        first = rng.integers(0, VOCAB, int(rng.integers(1, prompt + 1))).tolist()
        paths: list[tuple[list[int], list[bool]]] = [(first, [False] * len(first))]
        for level in range(depth):
            grown = []
            for ids, mask in paths:
                children = int(rng.integers(1, 4)) if len(paths) < 5 else 1
                for _ in range(children):
                    said = rng.integers(0, VOCAB, int(rng.integers(1, longest + 1))).tolist()
                    heard = rng.integers(0, VOCAB, int(rng.integers(0, 4))).tolist()
                    grown.append((ids + said + heard, mask + [True] * len(said) + [False] * len(heard)))
            ended = int(rng.integers(0, len(grown))) if level + 1 < depth else len(grown)
            rows += grown[:ended]
            paths = grown[ended // 2 :]
        rows += rows[: int(rng.integers(0, 2))]
        groups.append([training_row(ids, mask, seed + 31 * i) for i, (ids, mask) in enumerate(rows)])
    return groups


def learner(model: nn.Module, packing: Packing, options: LossOptions, tokens: int = 100_000) -> Learner:
    config = LearnerConfig(lr=0.0, mini_batches=1, micro_batch_tokens=tokens, max_grad_norm=1e9, packing=packing)
    return Learner(model, ClippedObjective(0.2, 0.3, options), config, pad_id=0, temperature=0.9)


def stepped(given: Learner, groups: list[list[TrainingRow]]) -> tuple[Tensor, dict[str, float]]:
    statistics = given.update(groups, lr=0.0, seed=0)
    return torch.cat([p.grad.flatten() for p in given.model.parameters() if p.grad is not None]), statistics


def assert_same_step(
    model: nn.Module, groups: list[list[TrainingRow]], options: LossOptions, tokens: int = 100_000
) -> None:
    """Loss and gradient, relative to the flat ones' size."""
    flat, wanted = stepped(learner(model, "never", options), groups)
    packed, statistics = stepped(learner(model, "always", options, tokens), groups)
    assert float((packed - flat).norm()) <= 1e-10 * float(flat.norm())
    assert float(flat.norm()) > 1e-6
    # Weights and what was sampled are float32, as are some sums of statistics.
    assert statistics == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def flat_and_packed(model: nn.Module, rows: list[TrainingRow]) -> tuple[Tensor, Tensor]:
    ids, batch = collate(rows, 0, torch.device("cpu"))
    with torch.no_grad():
        return (
            token_logprobs(model, ids, batch.mask, 0.9),
            token_logprobs(model, ids, batch.mask, 0.9, pack=takes_trees(model)),
        )


# The trie, without a model.


@given(st.lists(st.lists(st.integers(0, 2), max_size=9), min_size=1, max_size=9))
@settings(max_examples=150, deadline=None)
def test_a_trie_holds_every_prefix_once(rows: list[list[int]]) -> None:
    packed = pack([np.array(row, dtype=np.int64) for row in rows])
    prefixes = {tuple(row[: t + 1]) for row in rows for t in range(len(row))}
    assert len(packed.ids) == len(prefixes)
    mask = packed.ancestors()
    for row, places in zip(rows, packed.places, strict=True):
        assert packed.ids[places].tolist() == row
        assert packed.positions[places].tolist() == list(range(len(row)))
        for t, place in enumerate(places):
            assert packed.parents[place] == (places[t - 1] if t else -1)
            assert np.flatnonzero(mask[place]).tolist() == places[: t + 1].tolist(), "its ancestors and no others"
    assert_blocks_are_the_mask(packed)


def assert_blocks_are_the_mask(packed: Any) -> None:
    """What the blocks show, put together, is the ancestor mask."""
    shown = np.zeros((len(packed.ids),) * 2, dtype=bool)
    bounds = [*packed.segments.tolist(), len(packed.ids)]
    reached = 0
    for block in packed.blocks():
        assert block.start == reached
        reached = block.stop
        keys = np.concatenate([np.arange(bounds[s], bounds[s + 1]) for s in block.keys])
        n = block.stop - block.start
        visible = np.tril(np.ones((n, n), dtype=bool)) if block.visible is None else block.visible
        shown[np.arange(block.start, block.stop)[:, None], keys[None, :]] = visible
    assert reached == len(packed.ids)
    assert np.array_equal(shown, packed.ancestors())


@pytest.mark.parametrize("seed", range(4))
def test_large_tries_fall_into_many_blocks_that_are_the_mask(seed: int) -> None:
    groups = random_tree(seed, prompts=3, depth=4, prompt=300, longest=350 if seed % 2 else 60)
    packed = pack([row.ids for rows in groups for row in rows])
    assert len(packed.blocks()) > 3
    assert_blocks_are_the_mask(packed)
    hidden = sum(b.visible.size for b in packed.blocks() if b.visible is not None)
    assert hidden < len(packed.ids) ** 2, "less than under one mask"


def test_packs_hold_every_row_within_the_bound() -> None:
    rows = [row.ids for group in random_tree(3, prompts=4, depth=3) for row in group]
    for bound in (1, 30, 80, 10_000):
        groups, computed = packs(rows, bound)
        assert sorted(i for group in groups for i in group) == list(range(len(rows)))
        sizes = [len(pack([rows[i] for i in group]).ids) for group in groups]
        assert sum(sizes) == computed
        assert all(size <= bound or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
    assert len(packs(rows, 10_000)[0]) == 1


def test_only_what_an_agent_token_needs_is_computed() -> None:
    ids = np.arange(6)
    for agent, needed in (([], 0), ([0], 0), ([1], 1), ([2, 4], 4), ([5], 5)):
        mask = np.zeros(6, dtype=bool)
        mask[agent] = True
        assert predicting(ids, mask).tolist() == list(range(needed))


# Values.


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_values_are_those_of_flat_rows(seed: int, prompts: int, depth: int) -> None:
    model = _shared_model()
    rows = [row for group in random_tree(seed, prompts, depth) for row in group]
    ids, batch = collate(rows, 0, torch.device("cpu"))
    assert takes_trees(model)
    with torch.no_grad():
        flat = token_logprobs_and_entropies(model, ids, batch.mask, 0.9)
        packed = token_logprobs_and_entropies(model, ids, batch.mask, 0.9, pack=True)
    for ours, wanted in zip(packed, flat, strict=True):
        assert ours.dtype == wanted.dtype
        torch.testing.assert_close(ours, wanted, atol=1e-11, rtol=1e-11)


_MODELS: list[nn.Module] = []


def _shared_model() -> nn.Module:
    """Hypothesis takes no fixtures of a narrower scope than its own."""
    if not _MODELS:
        _MODELS.append(small_model())
    return _MODELS[0]


def odd_rows() -> Iterator[tuple[str, list[TrainingRow]]]:
    base = training_row([1, 2, 3, 4, 5, 6], [False, False, True, True, False, True], 0)
    yield "single", [base]
    yield "the same row twice", [base, replace(base, advantages=-base.advantages)]
    yield "the beginning of another", [base, training_row([1, 2, 3, 4], [False, False, True, True], 1)]
    yield "an agent token where another has a prompt", [base, training_row([1, 2, 3, 9], [False, True, True, True], 2)]
    yield "no agent token", [base, training_row([1, 2, 7], [False] * 3, 3)]
    yield "nothing at all", [training_row([1, 2, 7], [False] * 3, 3)]
    yield "only the first token", [training_row([1], [True], 4), base]
    yield "nothing shared", [base, training_row([7, 2, 3], [False, True, True], 5)]
    yield "another first token of the same parent", [base, training_row([1, 2, 8], [False, False, True], 6)]


@pytest.mark.parametrize(("name", "rows"), list(odd_rows()), ids=lambda value: value if isinstance(value, str) else "")
def test_odd_rows(model: nn.Module, name: str, rows: list[TrainingRow]) -> None:
    flat, packed = flat_and_packed(model, rows)
    torch.testing.assert_close(packed, flat, atol=1e-12, rtol=1e-12)
    ids, batch = collate(rows, 0, torch.device("cpu"))
    token_logprobs(model, ids, batch.mask, 0.9, pack=True).sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("depth", "prompt", "together"), [(1, 3, True), (3, 40, False)])
def test_groups_do_not_see_each_other(model: nn.Module, depth: int, prompt: int, together: bool) -> None:
    first, second = random_tree(5, prompts=2, depth=depth, prompt=prompt)
    # Ids below 11 here and from 11 there: nothing is shared, and which comes first stays.
    first = [replace(row, ids=row.ids % 11) for row in first]
    second = [replace(row, ids=11 + row.ids % 6) for row in second]
    n = len(first)
    blocks = pack([predicting(row.ids, row.mask) for row in (*first, *second)]).blocks()
    assert (len(blocks) == 1) == together
    before = flat_and_packed(model, [*first, *second])[1]
    later = flat_and_packed(model, [*first, *(replace(row, ids=row.ids + 6) for row in second)])[1]
    earlier = flat_and_packed(model, [*(replace(row, ids=(row.ids + 1) % 11) for row in first), *second])[1]
    assert torch.equal(before[:n], later[:n]) and not torch.equal(before[n:], later[n:])
    assert torch.equal(before[n:], earlier[n:]) and not torch.equal(before[:n], earlier[:n])


def test_every_predicting_position_is_computed_once(model: nn.Module) -> None:
    rows = random_tree(8, prompts=2, depth=3)[0]
    ids, batch = collate(rows, 0, torch.device("cpu"))
    assert takes_trees(model)
    logits, at = packed_logits(model, ids, batch.mask)
    wanted = {tuple(row.ids[:t].tolist()) for row in rows for t in np.flatnonzero(row.mask) if t}
    assert len(logits) == len(wanted)
    assert len(at) == sum(int(row.mask[1:].sum()) for row in rows)


# Steps of the learner.


@pytest.mark.parametrize(("aggregation", "terms"), list(product(AGGREGATIONS, TERMS)))
def test_one_step_with_every_option(model: nn.Module, aggregation: str, terms: str) -> None:
    options = LossOptions(**AGGREGATIONS[aggregation], **TERMS[terms])
    for seed, tokens in ((1, 100_000), (2, 60)):
        assert_same_step(model, random_tree(seed, prompts=3, depth=3), options, tokens)


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from(["k1", "k2", "k3"]))
@settings(max_examples=15, deadline=None)
def test_one_step_on_random_trees(seed: int, depth: int, kl: Any) -> None:
    groups = random_tree(seed, prompts=2, depth=depth)
    assert_same_step(_shared_model(), groups, LossOptions(kl_coef=0.2, kl=kl, entropy_coef=0.05, dual_clip=2.0))


def test_large_trees_of_many_blocks(model: nn.Module) -> None:
    groups = random_tree(11, prompts=2, depth=2, prompt=250, longest=150)
    assert_same_step(model, groups, LossOptions(entropy_coef=0.1))


@pytest.mark.slow
def test_prompts_of_2000_tokens() -> None:
    (rows,) = random_tree(4, prompts=1, depth=12)
    prompt = np.random.default_rng(9).integers(0, VOCAB, 2000)
    long = [
        training_row([*prompt.tolist(), *row.ids.tolist()], [False] * 2000 + row.mask.tolist(), i)
        for i, row in enumerate(rows)
    ]
    assert_same_step(small_model(layers=1), [long], LossOptions(kl_coef=0.2, entropy_coef=0.05))


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(ModelConfig())


@pytest.mark.parametrize("name", ["elpo", "grpo", "elpo_plus"])
def test_trees_that_the_tiny_model_grows(session: Session, name: str) -> None:
    algorithm = load(name, n_total=6)
    config = RolloutConfig(prompts=2, max_new_tokens=32, max_context=300, temperature=1.4, tool_threads=2)
    with session.runner(config, env_factory(EnvConfig(kwargs=EASY), evaluating=False), 1.4) as runner:
        pairs = runner.run(algorithm.strategy, [TaskRef(0), TaskRef(1)], seed=1)
    groups = [
        tree_rows(tree, credit, algorithm.objective.bounds(tree, result))
        for (tree, result), credit in zip(
            pairs, leaf_credits(algorithm.credit, [tree for tree, _ in pairs], None), strict=True
        )
    ]
    # Whether these few trees succeed is chance: every row is trained on here.
    rows = [replace(row, advantages=np.where(row.mask, 0.5, 0.0).astype(np.float32)) for g in groups for row in g]
    assert pays(len(pack([row.ids for row in rows]).ids), sum(len(row.ids) for row in rows))
    assert_same_step(in_double(copy.deepcopy(session.model)), [rows], LossOptions())


# What is packed, and which models.


def test_auto_packs_where_much_is_shared_and_nowhere_else(model: nn.Module) -> None:
    shared = random_tree(1, prompts=1, depth=4)[0]
    rng = np.random.default_rng(0)
    apart = [training_row(rng.permutation(VOCAB).tolist(), [i % 2 == 1 for i in range(VOCAB)], i) for i in range(4)]
    assert all(packed for _, packed in forward_passes(model, shared, 1000, "auto"))
    assert not any(packed for _, packed in forward_passes(model, apart, 1000, "auto"))
    assert all(packed for _, packed in forward_passes(model, apart, 1000, "always"))
    assert not any(packed for _, packed in forward_passes(model, shared, 1000, "never"))
    modes: tuple[Packing, ...] = ("auto", "always", "never")
    for rows, packing in product((shared, apart), modes):
        parts = forward_passes(model, rows, 40, packing)
        assert sorted(i for part, _ in parts for i in part) == list(range(len(rows)))


def test_rows_are_scored_the_same(model: nn.Module) -> None:
    rows = [row for group in random_tree(6, prompts=2, depth=3) for row in group]
    flat, packed = (
        row_logprobs(model, rows, pad_id=0, temperature=0.9, micro_batch_tokens=50, packing=packing)
        for packing in ("never", "always")
    )
    for ours, wanted in zip(packed, flat, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=1e-7)


def test_a_reference_is_packed_too(session: Session) -> None:
    algorithm = load("grpo", n_total=4)
    config = RolloutConfig(prompts=1, max_new_tokens=24, max_context=300, temperature=1.4, tool_threads=2)
    with session.runner(config, env_factory(EnvConfig(kwargs=EASY), evaluating=False), 1.4) as runner:
        ((tree, _),) = runner.run(algorithm.strategy, [TaskRef(3)], seed=2)
    options: Any = {"pad_id": session.pad_id, "temperature": 0.8, "micro_batch_tokens": 500}
    known = [Reference(session.model, packing=mode, **options).logprobs([tree]) for mode in ("never", "always")]
    for leaf in tree.leaves:
        for ours, wanted in zip(known[1](tree, leaf), known[0](tree, leaf), strict=True):
            np.testing.assert_allclose(ours, wanted, atol=2e-4)


def test_the_engine_takes_a_model_whose_attention_was_switched(session: Session) -> None:
    switched: Any = copy.deepcopy(session.model)
    assert takes_trees(switched)
    assert switched.config._attn_implementation == TREE_ATTENTION
    assert takes_trees(copy.deepcopy(switched))
    TransformersPolicy(switched, stop_ids=(0,), pad_id=0)
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        assert torch.equal(switched(input_ids=ids).logits, session.model(input_ids=ids).logits)
        mask = torch.ones_like(ids)
        mask[0, :5] = 0
        left_padded = (m(input_ids=ids, attention_mask=mask).logits[:, 5:] for m in (switched, session.model))
        assert torch.equal(*left_padded)


def test_recomputed_activations_give_the_same_gradient() -> None:
    own = small_model()
    rows = random_tree(2, prompts=2, depth=3)
    wanted, _ = stepped(learner(own, "always", LossOptions()), rows)
    own.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    learning = learner(own, "always", LossOptions())
    ids, batch = collate([row for group in rows for row in group], 0, torch.device("cpu"))
    own.train()  # it has no dropout; only then are activations recomputed
    values = [token_logprobs(own, ids, batch.mask, 0.9, pack=pack_it) for pack_it in (False, True)]
    grads = [torch.autograd.grad(value.square().sum(), list(own.parameters())) for value in values]
    for ours, flat in zip(*grads[::-1], strict=True):
        torch.testing.assert_close(ours, flat, atol=1e-9, rtol=1e-9)
    again, _ = stepped(learning, rows)
    torch.testing.assert_close(again, wanted, atol=1e-12, rtol=1e-10)


class Recurrent(nn.Module):
    """A causal model in a few lines, without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.linspace(-1, 1, VOCAB * 5).reshape(VOCAB, 5).sin())

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        return type("Output", (), {"logits": torch.cumsum(self.embedding[input_ids], 1).tanh() @ self.embedding.T})


SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def refused_models() -> dict[str, nn.Module]:
    eager = LlamaForCausalLM(LlamaConfig(**SHAPE, attn_implementation="eager"))
    windowed = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=64))
    stretched = LlamaForCausalLM(
        LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    )
    return {"no attention": Recurrent(), "'eager'": eager, "window": windowed, "dynamic": stretched}


@pytest.mark.parametrize("reason", ["no attention", "'eager'", "window", "dynamic"])
def test_a_model_that_cannot_is_trained_flat_and_told(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        refused = refused_models()[reason].double().eval()
    rows = random_tree(1, prompts=1, depth=4)
    attention = getattr(getattr(refused, "config", None), "_attn_implementation", None)
    with caplog.at_level(logging.WARNING):
        flat, _ = stepped(learner(refused, "never", LossOptions()), rows)
        assert not caplog.records
        auto, _ = stepped(learner(refused, "auto", LossOptions()), rows)
        stepped(learner(refused, "auto", LossOptions()), rows)
    assert torch.equal(auto, flat)
    (record,) = caplog.records
    assert "is trained on flat rows" in record.getMessage()
    assert reason == "no attention" or reason in record.getMessage()
    assert getattr(getattr(refused, "config", None), "_attn_implementation", None) == attention
    with pytest.raises(ValueError, match=r"'always'.*cannot take packed rows"):
        learner(refused, "always", LossOptions()).update(rows, lr=0.0, seed=0)


def test_a_model_that_ignores_positions_is_found_out() -> None:
    class Deaf(Qwen3ForCausalLM):  # type: ignore[misc]
        def forward(self, position_ids: Any = None, **kwargs: Any) -> Any:
            return super().forward(**kwargs)

    config = small_model().config
    deaf = Deaf(config).double().eval()
    assert not takes_trees(deaf)


def test_other_families_are_taken() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        llama = in_double(LlamaForCausalLM(LlamaConfig(**SHAPE, initializer_range=0.3)))
    assert takes_trees(llama)
    assert_same_step(llama, random_tree(1, prompts=2, depth=3), LossOptions())


def test_an_unknown_packing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"learner\.packing='often' is unknown; choose auto, always or never"):
        LearnerConfig(packing="often")  # type: ignore[arg-type]
