"""Decodes that requests join and leave while they run, and keys that are released with what they were for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from _engine_conformance import CHECKS, POSITIONS, STOP_IDS, VOCAB, Subject, random_model  # noqa: E402

from elpo_agent.config import ModelConfig  # noqa: E402
from elpo_agent.engines.prefix_cache import PrefixCache  # noqa: E402
from elpo_agent.engines.transformers_engine import TransformersPolicy  # noqa: E402
from elpo_agent.policy import OpenDecode, SampledTurn, SampleRequest, StepwisePolicy  # noqa: E402
from elpo_agent.training.session import Session  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def policy_of(dtype: Any = torch.float64, **options: Any) -> TransformersPolicy:
    return TransformersPolicy(random_model(tied=True).to(dtype), stop_ids=STOP_IDS, pad_id=0, **options)


def random_ids(length: int, seed: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(2, VOCAB, length).tolist())


def some_requests(n: int, seed: int = 0) -> list[SampleRequest]:
    """Prefixes of many lengths, every third one like the last; few samples and many; all temperatures."""
    rng = np.random.default_rng(seed)
    out: list[SampleRequest] = []
    for i in range(n):
        prefix = out[-1].prefix_ids if i % 3 == 2 else random_ids(int(rng.integers(1, 60)), seed + i)
        temperature = (1.0, 0.7, 0.0, 1.5)[i % 4]
        out.append(SampleRequest(prefix, int(rng.integers(0, 5)), seed + i, int(rng.integers(1, 30)), temperature))
    return out


def drain(decode: OpenDecode, max_steps: int = 3) -> dict[int, list[SampledTurn]]:
    """All turns that are still to come, by ticket."""
    out = dict(decode.step(max_steps))
    while decode.live_rows or decode.queued_rows:
        out.update(decode.step(max_steps))
    return out


def assert_alike(found: Sequence[Sequence[SampledTurn]], expected: Sequence[Sequence[SampledTurn]]) -> None:
    """Equal but for the last bits of figures."""
    assert [[(t.ids, t.finish) for t in own] for own in found] == [[(t.ids, t.finish) for t in own] for own in expected]
    for own, other in zip(found, expected, strict=True):
        for turn, same in zip(own, other, strict=True):
            np.testing.assert_allclose(turn.logprobs, same.logprobs, rtol=0, atol=1e-5)
            np.testing.assert_allclose(turn.entropies, same.entropies, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_batch", [1, 5, 64])
def test_turns_are_those_of_sample_whenever_requests_join(max_batch: int, seed: int) -> None:
    requests = some_requests(12, 100 * seed)
    expected = policy_of().sample(requests)
    # So small a cache that prefixes are evicted while their rows are decoded.
    policy = policy_of(max_batch=max_batch, prefix_cache_tokens=(0, 90, 10**6)[seed % 3])
    decode, rng = policy.open_decode(), np.random.default_rng(seed)
    found: dict[int, list[SampledTurn]] = {}
    tickets: list[int] = []
    while len(tickets) < len(requests):
        tickets += decode.add(requests[len(tickets) : len(tickets) + int(rng.integers(0, 4))])
        for _ in range(int(rng.integers(1, 4))):
            found.update(decode.step(int(rng.integers(1, 6))))
            assert decode.live_rows <= max_batch
            assert policy.cached_tokens <= (0, 90, 10**6)[seed % 3]
    found.update(drain(decode))
    assert len(set(tickets)) == len(requests) and found.keys() == set(tickets)
    assert_alike([found[ticket] for ticket in tickets], expected)


def test_the_shipped_model_in_its_own_precision() -> None:
    """Siblings, a join in the middle, and the next turns of the same conversations."""
    session = Session.open(ModelConfig(device="cpu"))
    policy = session.policy
    assert isinstance(policy, StepwisePolicy)
    vocab = int(session.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    prefixes = [tuple(np.random.default_rng(i).integers(2, vocab, 30 + 25 * i).tolist()) for i in range(4)]
    for turn in range(2):
        requests = [SampleRequest(p, 3 - turn, 10 * turn + i, 24) for i, p in enumerate(prefixes)]
        policy.reset_cache()
        expected = policy.sample(requests)
        policy.reset_cache()
        decode = policy.open_decode()
        first = decode.add(requests[:2])
        found = dict(decode.step(5))
        found.update(drain(decode) if turn else decode.step(3))
        second = decode.add(requests[2:])
        found.update(drain(decode))
        assert_alike([found[ticket] for ticket in first + second], expected)
        prefixes = [p + own[0].ids + (5, 6, 7) for p, own in zip(prefixes, expected, strict=True)]


class SeenShapes:
    """(rows, tokens a row) of a model's forward passes."""

    def __init__(self, model: Any) -> None:
        self.shapes: list[tuple[int, int]] = []
        model.register_forward_pre_hook(self._seen, with_kwargs=True)

    def _seen(self, module: Any, args: Any, kwargs: Any) -> None:
        self.shapes.append(tuple(kwargs["input_ids"].shape))


def test_rows_join_and_leave_between_steps() -> None:
    policy = policy_of()
    requests = [SampleRequest(random_ids(20 + i, i), 2, i, 6, 0.0) for i in range(3)]
    lengths = [len(own[0].ids) for own in policy.sample(requests)]
    assert all(n >= 4 for n in lengths), "these should take some steps"
    policy.reset_cache()
    seen = SeenShapes(policy.model)
    decode = policy.open_decode()
    decode.add(requests[:1])
    assert decode.step(2) == [] and (decode.live_rows, decode.queued_rows) == (2, 0)
    assert seen.shapes == [(1, 20), (2, 1), (2, 1)], "a prefix is computed once for both samples"
    decode.add(requests[1:])
    assert (decode.live_rows, decode.queued_rows) == (2, 4)
    decode.step(1)
    assert seen.shapes[3:] == [(2, 22), (6, 1)], "both new prefixes in one pass, and then everybody together"
    seen.shapes.clear()
    drain(decode)
    # Steps that the first and the others have still to go; a row's last token is never fed.
    left = [lengths[0] - 3, lengths[1] - 1, lengths[2] - 1]
    assert seen.shapes == [(2 * sum(n > t for n in left), 1) for t in range(1, max(left))]


def test_what_does_not_fit_queues_in_order() -> None:
    policy = policy_of(max_batch=3)
    decode = policy.open_decode()
    tickets = decode.add([SampleRequest(random_ids(9, i), 2, i, 5, 1.5) for i in range(6)])
    done: list[int] = []
    while decode.live_rows or decode.queued_rows:
        queued = decode.queued_rows
        done += [ticket for ticket, _ in decode.step(1)]
        assert decode.live_rows <= 3 and decode.queued_rows <= queued
    assert sorted(done) == tickets and done[0] in tickets[:2] and done[-1] in tickets[-2:]
    none = SampleRequest(random_ids(9, 0), 0, 0, 5)
    assert decode.step(1) == []
    (ticket,) = decode.add([none])
    assert decode.step(1) == [(ticket, [])]
    with pytest.raises(ValueError, match="max_steps=0 takes no step"):
        decode.step(0)


def test_bad_requests_do_not_join_and_harm_nobody() -> None:
    policy = policy_of()
    good = some_requests(5, 7)
    expected = policy.sample(good)
    decode = policy.open_decode()
    tickets = decode.add(good)
    found = dict(decode.step(1))
    for bad, message in (
        (replace(good[0], prefix_ids=()), "prefix_ids is empty"),
        (replace(good[0], prefix_ids=(VOCAB,)), "vocabulary is 0 to"),
        (replace(good[0], max_new_tokens=0), "max_new_tokens=0"),
    ):
        with pytest.raises(ValueError, match=message):
            decode.add([good[1], bad])
    found.update(drain(decode))
    assert_alike([found[ticket] for ticket in tickets], expected)
    assert found.keys() == set(tickets)


def test_cancelled_requests_leave_and_what_was_drawn_is_told() -> None:
    policy = policy_of(max_batch=4)
    requests = [SampleRequest(random_ids(15, i), 2, i, 25, 0.7) for i in range(4)]
    expected = policy.sample(requests)
    decode = policy.open_decode()
    tickets = decode.add(requests)
    decode.step(3)
    assert (decode.live_rows, decode.queued_rows) == (4, 4)
    assert decode.cancel(tickets[0]) == sum(min(3, len(turn.ids)) for turn in expected[0])
    assert decode.cancel(tickets[3]) == 0, "it had not begun"
    assert (decode.live_rows, decode.queued_rows) == (2, 2)
    found = drain(decode)
    assert found.keys() == {tickets[1], tickets[2]}
    assert_alike([found[t] for t in tickets[1:3]], expected[1:3])
    mixed = SampleRequest(random_ids(15, 9), 4, 9, 25, 1.5)
    (turns,) = policy.sample([mixed])
    shortest = min(len(turn.ids) for turn in turns)
    assert shortest < max(len(turn.ids) for turn in turns), "one of these should end before the others"
    (ticket,) = decode.add([mixed])
    assert decode.step(shortest) == [] and 0 < decode.live_rows < 4
    assert decode.cancel(ticket) == 4 * shortest, "of finished samples too"
    assert decode.live_rows == 0
    for ticket in (tickets[0], tickets[1], 99):
        with pytest.raises(ValueError, match=f"ticket={ticket} is not open"):
            decode.cancel(ticket)


def test_weights_must_not_change_while_a_decode_has_unfinished_turns() -> None:
    policy = policy_of()
    request = SampleRequest(random_ids(20, 1), 2, 3, 20, 0.0)

    def double() -> None:
        with torch.no_grad():
            policy.model.lm_head.weight.mul_(2.0)

    decode = policy.open_decode()
    double()  # nothing is under way
    (ticket,) = decode.add([request])
    assert_alike([drain(decode)[ticket]], policy.sample([request]))
    double()
    (ticket,) = decode.add([request])
    assert_alike([drain(decode)[ticket]], policy.sample([request]))
    decode.add([request])
    decode.step(1)
    double()
    for use in (lambda: decode.step(1), lambda: decode.add([request]), lambda: decode.step(1)):
        with pytest.raises(ValueError, match=r"while 1 of its requests were unfinished.*open a new one"):
            use()
    fresh = policy.open_decode()
    (ticket,) = fresh.add([request])
    assert_alike([drain(fresh)[ticket]], policy.sample([request]))
    fresh.add([request])
    policy.weights_updated()
    with pytest.raises(ValueError, match="weights changed"):
        fresh.step(1)


def test_logits_that_are_nan_are_an_error() -> None:
    policy = policy_of()
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(float("nan"))
    decode = policy.open_decode()
    decode.add([SampleRequest((3, 4), 2, 0, 3)])
    with pytest.raises(ValueError, match="logits are NaN or infinite"):
        drain(decode)
    with pytest.raises(ValueError, match=r"an earlier step failed.*logits are NaN"):
        decode.step(1)


def test_sampling_beside_an_open_decode() -> None:
    policy = policy_of()
    request, other = SampleRequest(random_ids(30, 1), 3, 3, 20), SampleRequest(random_ids(40, 2), 4, 5, 20)
    expected = [policy.sample([request])[0], policy.sample([other])[0]]
    decode = policy.open_decode()
    (ticket,) = decode.add([request])
    found = dict(decode.step(2))
    assert_alike(policy.sample([other]), expected[1:])
    policy.reset_cache()
    found.update(drain(decode))
    assert_alike([found[ticket]], expected[:1])


class OneByOne(TransformersPolicy):
    """Samples through an open decode, its requests joining one after the other."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        decode, found = self.open_decode(), {}
        tickets: list[int] = []
        for i, _ in enumerate(requests):
            try:
                tickets += decode.add(requests[i : i + 1])
            except ValueError:
                drain(decode)  # the kit looks at what is sampled afterwards
                raise
            found.update(decode.step(1 + i % 3))
        found.update(drain(decode))
        return [found[ticket] for ticket in tickets]


@pytest.fixture(scope="module")
def subject() -> Subject:
    model = random_model(tied=False)
    policy = OneByOne(model, stop_ids=STOP_IDS, pad_id=0, max_batch=24)
    return Subject(policy, model, STOP_IDS, VOCAB, policy.weights_updated, POSITIONS)


@pytest.mark.parametrize("check", CHECKS)
def test_conformance_step_by_step(subject: Subject, check: str) -> None:
    CHECKS[check](subject)


# ---------------------------------------------------------------- keys and values


def _kv(ids: tuple[int, ...]) -> Any:
    """Stand-in keys and values that name the prefix they belong to."""
    values = [float(sum((t + 1) * 5**k for k, t in enumerate(ids[: i + 1])) % 10_007) for i in range(len(ids))]
    return torch.tensor(values).expand(1, 2, 1, -1)[..., None]


@pytest.mark.parametrize("seed", range(20))
def test_releasing_against_a_brute_force_model(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cache = PrefixCache(10**9)
    here: set[tuple[int, ...]] = set()  # every cached token, by the ids up to it
    held: list[tuple[int, ...]] = []

    def begins(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return b[: len(a)] == a

    for _ in range(120):
        ids = tuple(rng.integers(0, 3, rng.integers(1, 9)).tolist())
        if held and rng.random() < 0.6:
            ids = held[int(rng.integers(len(held)))] + ids  # what a search asks for
        if rng.random() < 0.3:
            held.append(ids[: int(rng.integers(1, 5))])
            cache.hold(held[-1])
        if rng.random() < 0.15:
            held.append(tuple(rng.integers(0, 3, 5).tolist()))  # nothing has been asked for yet
            cache.hold(held[-1])
        n, pieces = cache.match(ids, len(ids))
        assert n == sum(ids[: i + 1] in here for i in range(len(ids)))
        found = torch.cat(pieces, dim=-2) if pieces else torch.zeros(1, 2, 1, 0, 1)
        assert torch.equal(found, _kv(ids)[..., :n, :])
        cache.insert(ids, _kv(ids)[..., n:, :], n)
        here.update(ids[: i + 1] for i in range(len(ids)))
        if held and rng.random() < 0.35:
            gone = held.pop(int(rng.integers(len(held))))
            cache.release(gone)
            needed = [h for h in held if not begins(h, gone)]
            if len(needed) == len(held):
                kept = {p for p in here if any(begins(p, h) or begins(h, p) for h in needed)}
                here -= {p for p in here - kept if begins(gone, p)}
                for cut in range(len(gone) - 1, 0, -1):
                    p = gone[:cut]
                    if p in kept or any(q != p and begins(p, q) for q in here):
                        break
                    here.discard(p)
        assert cache.tokens == len(here)
    for ids in held:
        cache.release(ids)
    with pytest.raises(ValueError, match="is released that is not held"):
        cache.release((0, 1, 2))


def test_a_prefix_held_twice_goes_with_the_second_release() -> None:
    cache = PrefixCache(100)
    a, b = (1, 2, 3, 4), (1, 2, 9)
    for prefix in (a, a, b):
        cache.hold(prefix)
    cache.insert((*a, 7, 7), _kv((*a, 7, 7)), 0)
    cache.insert((*b, 8), _kv((*b, 8)), 0)
    cache.release(a)
    assert cache.tokens == 8
    cache.release(a)
    assert cache.tokens == 4 and cache.match((*b, 8), 4)[0] == 4
    cache.release(b)
    assert cache.tokens == 0
