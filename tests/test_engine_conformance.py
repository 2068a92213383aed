"""The conformance kit of engines, on the default engine and on faulty ones; `test_engine_vllm.py` has it for vLLM."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from _engine_conformance import CHECKS, POSITIONS, STOP_IDS, VOCAB, Subject, random_model  # noqa: E402

from elpo_agent.config import EngineConfig, ModelConfig, RolloutConfig, TrainConfig  # noqa: E402
from elpo_agent.engines.opening import open_engine  # noqa: E402
from elpo_agent.engines.top_k import top_k_entropies  # noqa: E402
from elpo_agent.engines.transformers_engine import TransformersPolicy  # noqa: E402
from elpo_agent.engines.vllm.weights import checkpoint_weights  # noqa: E402
from elpo_agent.policy import SampledTurn, SampleRequest  # noqa: E402
from elpo_agent.runs.saved_config import differences, settings  # noqa: E402
from elpo_agent.training.session import Session  # noqa: E402


@pytest.fixture(scope="module", params=["tied", "untied"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    model = random_model(tied=request.param == "tied")
    policy = TransformersPolicy(model, stop_ids=STOP_IDS, pad_id=0)
    return Subject(policy, model, STOP_IDS, VOCAB, policy.weights_updated, POSITIONS)


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(subject: Subject, check: str) -> None:
    CHECKS[check](subject)


class SeedsAddUp(TransformersPolicy):
    """Sample j of seed s is sample 0 of seed s + j."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        return [
            [super(SeedsAddUp, self).sample([replace(r, n=1, seed=r.seed + j)])[0][0] for j in range(r.n)]
            if r.n > 0
            else super(SeedsAddUp, self).sample([r])[0]
            for r in requests
        ]


class KeepsOldKeys(TransformersPolicy):
    """Samples with the new weights after what the old ones computed of the prefix."""

    def weights_updated(self) -> None:
        self._weights = self._fingerprint()


class OtherTemperature(TransformersPolicy):
    """Draws at a temperature a little lower, and says so in its figures."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        return super().sample([replace(r, temperature=0.97 * r.temperature) for r in requests])


class DropsStopIds(TransformersPolicy):
    """A stop id ends a turn, but is left out of it."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        return [[_without_stop(turn) for turn in row] for row in super().sample(requests)]


class RoundsEntropies(TransformersPolicy):
    """Entropies to three digits."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        rows = super().sample(requests)
        return [[replace(turn, entropies=turn.entropies.round(3)) for turn in row] for row in rows]


class DrawsFromTheGlobalGenerator(TransformersPolicy):
    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        torch.rand(1)
        return super().sample(requests)


def _without_stop(turn: SampledTurn) -> SampledTurn:
    if turn.finish == "length" or len(turn.ids) == 1:
        return turn
    return replace(turn, ids=turn.ids[:-1], logprobs=turn.logprobs[:-1], entropies=turn.entropies[:-1])


@pytest.mark.parametrize(
    ("faulty", "check"),
    [
        (SeedsAddUp, "seeds_and_numbers_give_different_samples"),
        (KeepsOldKeys, "a_weight_update_counts_at_once"),
        (KeepsOldKeys, "only_the_output_layer_changes"),
        (OtherTemperature, "agrees_with_the_learner"),
        (DropsStopIds, "turns_end_at_a_stop_id_or_at_the_limit"),
        (RoundsEntropies, "agrees_with_the_learner"),
        (DrawsFromTheGlobalGenerator, "global_generators_are_left_alone"),
    ],
)
def test_the_kit_finds_faults(faulty: type[TransformersPolicy], check: str) -> None:
    model = random_model(tied=True)
    policy = faulty(model, stop_ids=STOP_IDS, pad_id=0)
    with pytest.raises(AssertionError):
        CHECKS[check](Subject(policy, model, STOP_IDS, VOCAB, policy.weights_updated, POSITIONS))


def test_entropies_of_the_most_probable_tokens() -> None:
    rng = np.random.default_rng(0)
    p = np.sort(rng.dirichlet(np.full(50, 0.3), size=20), axis=1)[:, ::-1]
    full = -(p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(top_k_entropies(np.log(p)), full, atol=1e-5)
    with_one = np.concatenate([p[:, :5], p[:, 5:].sum(axis=1, keepdims=True)], axis=1)
    expected = -(with_one * np.log(with_one)).sum(axis=1)
    found = top_k_entropies(np.log(p[:, :5]).astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found < full).all()
    certain = np.array([[0.0, -np.inf, -np.inf]])
    assert top_k_entropies(certain) == 0.0


def test_weights_by_their_names_in_checkpoints() -> None:
    model, plain = random_model(tied=True), random_model(tied=True, seed=1)
    streamed = dict(checkpoint_weights(model))
    assert streamed.keys() == plain.state_dict().keys() >= {"lm_head.weight", "model.embed_tokens.weight"}
    peft = pytest.importorskip("peft", reason="peft is not installed; the extra lora has it")
    peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    for name, parameter in model.eval().named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.05)
    streamed = dict(checkpoint_weights(model))
    assert not any(value.requires_grad for value in streamed.values())
    plain.load_state_dict(streamed)
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    with torch.no_grad():
        found, expected = plain(ids).logits, model(ids).logits
        assert not torch.allclose(random_model(tied=True)(ids).logits, expected, atol=1e-2), (
            "adapters should do something"
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_engines_by_name() -> None:
    model = random_model(tied=True)
    policy = open_engine("transformers", model, STOP_IDS, 0, {"max_batch": 3})
    assert isinstance(policy, TransformersPolicy) and policy.max_batch == 3
    with pytest.raises(ValueError, match=r"has 'beams', which the transformers engine does not take; choose of max_b"):
        open_engine("transformers", model, STOP_IDS, 0, {"beams": 4})
    with pytest.raises(ValueError, match=r"has 'pad_id', which the transformers engine does not take"):
        open_engine("transformers", model, STOP_IDS, 0, {"pad_id": 4})
    with pytest.raises(ValueError, match=r"engine\.name='tgi' is unknown; choose transformers or vllm"):
        open_engine("tgi", model, STOP_IDS, 0, {})
    with pytest.raises(ValueError, match=r"engine\.name='tgi' is unknown; choose transformers or vllm"):
        EngineConfig("tgi")
    with pytest.raises(ValueError, match=r"rollout\.ahead=True does not go with engine\.name='vllm'"):
        TrainConfig(engine=EngineConfig("vllm"), rollout=RolloutConfig(ahead=True))
    with pytest.raises(ValueError, match=r"has 'tensors', which the vllm engine does not take; choose of entropies, "):
        open_engine("vllm", model, STOP_IDS, 0, {"tensors": 4})


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_one_sentence_says_what_to_do() -> None:
    with pytest.raises(ImportError, match=r"the vllm engine needs vLLM; install the extra: pip install 'elpo\[vllm\]'"):
        Session.open(ModelConfig(device="cpu"), EngineConfig("vllm"))


def test_runs_saved_before_there_were_engines() -> None:
    now = settings(TrainConfig())
    before = {name: value for name, value in now.items() if name != "engine"}
    assert differences(before, now) == []
    other = settings(TrainConfig(engine=EngineConfig("vllm")))
    (found,) = differences(before, other)
    assert "transformers" in found and "vllm" in found
