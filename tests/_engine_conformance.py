"""What every inference engine behind `Policy` must do, as checks of one opened engine: `CHECKS`.

A test file opens an engine over `random_model` (or a model of its own), describes it as a `Subject`, and runs every
check on it:

    @pytest.mark.parametrize("check", CHECKS)
    def test_conformance(subject: Subject, check: str) -> None:
        CHECKS[check](subject)

The learner's forward pass (`elpo_agent.learner.logprobs`) is what log-probabilities and entropies are held against.
Checks leave weights as they found them, so that one engine serves them all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from elpo_agent.learner.logprobs import token_logprobs_and_entropies
from elpo_agent.policy import Policy, SampledTurn, SampleRequest

VOCAB, POSITIONS = 96, 128
STOP_IDS = (1, 17, 40, 41, 73, 90)  # several, so that random models reach one
TOLERANCE = 1e-4  # of log-probabilities and entropies in float32


@dataclass(frozen=True)
class Subject:
    """An opened engine and what it is held against.

    Attributes:
        policy: the engine.
        model: the learner's module, in float32, with the weights that the engine samples from.
        stop_ids: what the engine was told ends a turn.
        vocab: ids are 0 to vocab - 1.
        update: hands the module's present weights to the engine; None where the engine cannot take any.
        positions: the most tokens of prefix and turn that the engine says it can hold; None where it cannot say.
    """

    policy: Policy
    model: nn.Module
    stop_ids: tuple[int, ...]
    vocab: int
    update: Callable[[], None] | None
    positions: int | None


Check = Callable[[Subject], None]


def random_model(*, tied: bool, seed: int = 0) -> Qwen3ForCausalLM:
    """A Qwen3 model of two small layers, far from uniform, so that a wrong mask, position or weight shows."""
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=tied,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=STOP_IDS[0],
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()


def prefix(subject: Subject, length: int, seed: int = 0) -> tuple[int, ...]:
    """Random ids of the vocabulary without its first two, which are often special."""
    return tuple(np.random.default_rng(seed).integers(2, subject.vocab, length).tolist())


def learner_terms(
    model: nn.Module, before: tuple[int, ...], ids: tuple[int, ...], temperature: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Log-probabilities and entropies of `ids` after `before` by the learner's forward pass, (T,) each."""
    device = next(model.parameters()).device
    row = torch.tensor([before + ids], device=device)
    mask = torch.zeros(row.shape, device=device)
    mask[:, len(before) :] = 1
    with torch.no_grad():
        logprobs, entropies = token_logprobs_and_entropies(model, row, mask, temperature or 1.0)
    return logprobs[0, len(before) :].cpu().numpy(), entropies[0, len(before) :].cpu().numpy()


def verify(subject: Subject, request: SampleRequest, turn: SampledTurn) -> None:
    """One turn: its form, its end, and its figures against the learner's."""
    count = len(turn.ids)
    assert count >= 1 and all(type(token) is int and 0 <= token < subject.vocab for token in turn.ids)
    for name in ("logprobs", "entropies"):
        values = getattr(turn, name)
        assert values.dtype == np.float32 and values.shape == (count,), f"{name}: {values.dtype} {values.shape}"
    assert not set(turn.ids[:-1]) & set(subject.stop_ids), "a stop id inside a turn"
    assert (turn.finish == "stop") == (turn.ids[-1] in subject.stop_ids), "the stop id ends a turn and belongs to it"
    assert turn.finish in ("stop", "length") and count <= request.max_new_tokens
    assert turn.finish == "stop" or count == request.max_new_tokens, "a turn was cut too early"
    logprobs, entropies = learner_terms(subject.model, request.prefix_ids, turn.ids, request.temperature)
    np.testing.assert_allclose(turn.logprobs, logprobs, rtol=0, atol=TOLERANCE, err_msg="log-probabilities")
    if subject.policy.entropy_kind == "full":
        np.testing.assert_allclose(turn.entropies, entropies, rtol=0, atol=TOLERANCE, err_msg="full entropies")
    else:
        assert subject.policy.entropy_kind == "top_k"
        assert (turn.entropies >= 0).all(), "entropy below 0"
        assert (turn.entropies <= entropies + TOLERANCE).all(), "entropy of the top k above that of everything"


def sample_and_verify(subject: Subject, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
    """Sample, and hold every turn against the learner."""
    rows = subject.policy.sample(requests)
    assert [len(row) for row in rows] == [request.n for request in requests]
    for request, row in zip(requests, rows, strict=True):
        for turn in row:
            verify(subject, request, turn)
    return rows


def ids_of(rows: Sequence[Sequence[SampledTurn]]) -> list[list[tuple[int, ...]]]:
    return [[turn.ids for turn in row] for row in rows]


def _agrees_at(temperature: float) -> Check:
    def check(subject: Subject) -> None:
        requests = [SampleRequest(prefix(subject, 5 + 11 * i, i), 3, 40 + i, 16, temperature) for i in range(4)]
        sample_and_verify(subject, requests)

    return check


def temperatures_of_one_batch_do_not_mix(subject: Subject) -> None:
    ids = prefix(subject, 20)
    sample_and_verify(subject, [SampleRequest(ids, 2, i, 12, t) for i, t in enumerate((1.0, 0.0, 0.7, 1.6))])


def turns_end_at_a_stop_id_or_at_the_limit(subject: Subject) -> None:
    requests = [SampleRequest(prefix(subject, 4 + i, i), 8, i, limit) for i, limit in enumerate((1, 3, 12, 40))]
    rows = sample_and_verify(subject, requests)
    ends = [turn.finish for row in rows for turn in row]
    assert {"stop", "length"} == set(ends), "these requests should show both ends"
    assert all(len(turn.ids) == 1 for turn in rows[0])


def requests_without_samples(subject: Subject) -> None:
    assert subject.policy.sample([]) == []
    some, none = SampleRequest(prefix(subject, 4), 1, 0, 3), SampleRequest(prefix(subject, 4), 0, 0, 3)
    assert subject.policy.sample([none]) == [[]]
    assert [len(row) for row in subject.policy.sample([none, some, none])] == [0, 1, 0]


def samples_depend_on_seed_and_number_alone(subject: Subject) -> None:
    requests = [SampleRequest(prefix(subject, 3 + 6 * i, i), 1 + i, 100 + i, 10) for i in range(4)]
    together = ids_of(subject.policy.sample(requests))
    assert ids_of(subject.policy.sample(requests)) == together, "the same seeds again"
    assert [ids_of(subject.policy.sample([r]))[0] for r in requests] == together, "each request alone"
    assert ids_of(subject.policy.sample(requests[::-1]))[::-1] == together, "in the reverse order"
    more = replace(requests[1], n=5)
    assert ids_of(subject.policy.sample([more]))[0][:2] == together[1], "more samples"
    shorter = replace(requests[3], max_new_tokens=4)
    assert ids_of(subject.policy.sample([shorter]))[0] == [ids[:4] for ids in together[3]], "a lower limit"


def seeds_and_numbers_give_different_samples(subject: Subject) -> None:
    request = SampleRequest(prefix(subject, 9), 6, 7, 20, 1.5)
    first, second = ids_of(subject.policy.sample([request, replace(request, seed=8)]))
    assert len(set(first)) == len(first) and len(set(second)) == len(second), "two samples of one request are equal"
    assert not set(first) & set(second), "sample j of one seed is a sample of the next seed"


def draws_follow_the_distribution(subject: Subject) -> None:
    """Chi-square of the first token at a temperature; tokens expected fewer than 8 times are counted together."""
    n, temperature = 800, 0.8
    request = SampleRequest(prefix(subject, 6, 3), n, 11, 1, temperature)
    (row,) = subject.policy.sample([request])
    counts = np.bincount([turn.ids[0] for turn in row], minlength=subject.vocab)
    device = next(subject.model.parameters()).device
    with torch.no_grad():
        logits = subject.model(torch.tensor([request.prefix_ids], device=device)).logits[0, -1, : subject.vocab]
    expected = n * torch.softmax(logits.double() / temperature, -1).cpu().numpy()
    often = expected >= 8
    observed = np.append(counts[often], counts[~often].sum())
    expected = np.append(expected[often], max(expected[~often].sum(), 1e-9))
    assert len(observed) >= 4, "too peaked a distribution to tell anything"
    statistic = float(((observed - expected) ** 2 / expected)[expected >= 1].sum())
    freedom = len(observed) - 1
    # Wilson and Hilferty's approximation of the 99.99% point.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.719 * (2 / (9 * freedom)) ** 0.5) ** 3
    assert statistic < limit, f"chi-square {statistic:.1f} with {freedom} degrees of freedom; limit {limit:.1f}"


def greedy_takes_the_most_probable(subject: Subject) -> None:
    request = SampleRequest(prefix(subject, 8, 5), 2, 0, 12, 0.0)
    ((first, second),) = sample_and_verify(subject, [request])
    assert first.ids == second.ids
    device = next(subject.model.parameters()).device
    with torch.no_grad():
        ids = torch.tensor([request.prefix_ids + first.ids], device=device)
        logits = subject.model(ids).logits[0, len(request.prefix_ids) - 1 : -1, : subject.vocab]
    best = torch.log_softmax(logits, -1).amax(-1).cpu().numpy()
    np.testing.assert_allclose(first.logprobs, best, rtol=0, atol=TOLERANCE)


def conversations_reuse_their_prefixes(subject: Subject) -> None:
    prefixes = [prefix(subject, 33), prefix(subject, 33), prefix(subject, 14, 3)]
    for number in range(3):
        requests = [SampleRequest(ids, 2, 10 * number + i, 6) for i, ids in enumerate(prefixes)]
        rows = sample_and_verify(subject, requests)
        told = prefix(subject, 3 + number, 50 + number)
        prefixes = [r.prefix_ids + row[0].ids + told for r, row in zip(requests, rows, strict=True)]
    branch = SampleRequest((*prefixes[0][:37], 5, 6, 7), 3, 99, 8)
    sample_and_verify(subject, [branch])
    whole = SampleRequest(prefixes[0], 2, 5, 8)
    sample_and_verify(subject, [whole])
    sample_and_verify(subject, [whole, whole])


def what_is_cached_does_not_show(subject: Subject) -> None:
    policy: Any = subject.policy
    if not hasattr(policy, "reset_cache"):
        pytest.skip("this engine has no cache that can be reset")
    request = SampleRequest(prefix(subject, 45, 9), 3, 21, 12)
    policy.reset_cache()
    fresh = policy.sample([request])
    assert ids_of(policy.sample([request])) == ids_of(fresh)
    policy.reset_cache()
    again = policy.sample([request])
    assert ids_of(again) == ids_of(fresh)
    for a, b in zip(again[0], fresh[0], strict=True):
        np.testing.assert_array_equal(a.logprobs, b.logprobs, err_msg="equal calls from an empty cache")


def a_weight_update_counts_at_once(subject: Subject) -> None:
    """Weights changed in place, all of them, embeddings too; the prefixes were cached under the old ones."""
    if subject.update is None:
        pytest.skip("this engine takes no weights")
    requests = [SampleRequest(prefix(subject, 40, 2), 3, 5, 10, t) for t in (1.0, 0.7, 0.0)]
    before = sample_and_verify(subject, requests)
    kept = [parameter.detach().clone() for parameter in subject.model.parameters()]
    generator = torch.Generator().manual_seed(1)
    try:
        for factor in (0.1, 0.2):
            with torch.no_grad():
                for parameter in subject.model.parameters():
                    scale = factor * float(parameter.std()) + 0.01
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.add_(scale * noise.to(parameter.device))
            subject.update()
            after = sample_and_verify(subject, requests)
            assert all(not np.array_equal(a[0].logprobs, b[0].logprobs) for a, b in zip(before, after, strict=True))
    finally:
        with torch.no_grad():
            for parameter, old in zip(subject.model.parameters(), kept, strict=True):
                parameter.copy_(old)
        subject.update()
    assert ids_of(sample_and_verify(subject, requests)) == ids_of(before), "the old weights again"


def only_the_output_layer_changes(subject: Subject) -> None:
    """The embeddings that predict, and nothing else: with tied weights the ones that are read, too."""
    if subject.update is None:
        pytest.skip("this engine takes no weights")
    head: Any = subject.model.get_output_embeddings()  # type: ignore[operator]
    request = SampleRequest(prefix(subject, 35, 4), 4, 6, 8)
    sample_and_verify(subject, [request])
    kept = head.weight.detach().clone()
    try:
        with torch.no_grad():
            head.weight[2:].mul_(0.5)
        subject.update()
        sample_and_verify(subject, [request])
    finally:
        with torch.no_grad():
            head.weight.copy_(kept)
        subject.update()


def the_last_position_ends_a_turn(subject: Subject) -> None:
    if subject.positions is None:
        pytest.skip("this engine does not say how many positions it has")
    request = SampleRequest(prefix(subject, subject.positions - 1), 4, 0, 50)
    for turn in subject.policy.sample([request])[0]:
        assert 1 <= len(turn.ids) <= 2, "one token at the last position, and at most one that nothing follows"
        assert (turn.finish == "stop") == (turn.ids[-1] in subject.stop_ids)
        logprobs, _ = learner_terms(subject.model, request.prefix_ids, turn.ids, 1.0)
        np.testing.assert_allclose(turn.logprobs, logprobs, rtol=0, atol=TOLERANCE)


def bad_requests_are_refused(subject: Subject) -> None:
    good = SampleRequest(prefix(subject, 5), 1, 0, 5)
    bad = [
        (replace(good, prefix_ids=()), "prefix_ids is empty"),
        (replace(good, prefix_ids=(3, subject.vocab)), f"vocabulary is 0 to {subject.vocab - 1}"),
        (replace(good, prefix_ids=(3, -1)), f"vocabulary is 0 to {subject.vocab - 1}"),
        (replace(good, max_new_tokens=0), "max_new_tokens=0"),
        (replace(good, n=-1), "n=-1"),
        (replace(good, seed=-1), "seed=-1"),
        (replace(good, temperature=-0.5), "temperature=-0.5"),
        (replace(good, temperature=float("nan")), "temperature=nan"),
    ]
    if subject.positions is not None:
        long = prefix(subject, subject.positions + 1)
        bad.append((replace(good, prefix_ids=long), rf"{len(long)} tokens.*{subject.positions}"))
    for request, message in bad:
        with pytest.raises(ValueError, match=message):
            subject.policy.sample([good, request])
    sample_and_verify(subject, [good])


def global_generators_are_left_alone(subject: Subject) -> None:
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[union-attr]
    subject.policy.sample([SampleRequest(prefix(subject, 4), 3, 0, 6)])
    assert states[0] == random.getstate()
    assert np.array_equal(states[1], np.random.get_state()[1])  # type: ignore[arg-type]
    assert torch.equal(states[2], torch.get_rng_state())


CHECKS: dict[str, Check] = {
    "agrees_with_the_learner": _agrees_at(1.0),
    "agrees_with_the_learner_at_temperature_0.7": _agrees_at(0.7),
    "agrees_with_the_learner_when_greedy": _agrees_at(0.0),
    **{
        check.__name__: check
        for check in (
            temperatures_of_one_batch_do_not_mix,
            turns_end_at_a_stop_id_or_at_the_limit,
            requests_without_samples,
            samples_depend_on_seed_and_number_alone,
            seeds_and_numbers_give_different_samples,
            draws_follow_the_distribution,
            greedy_takes_the_most_probable,
            conversations_reuse_their_prefixes,
            what_is_cached_does_not_show,
            a_weight_update_counts_at_once,
            only_the_output_layer_changes,
            the_last_position_ends_a_turn,
            bad_requests_are_refused,
            global_generators_are_left_alone,
        )
    },
}
