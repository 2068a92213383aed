"""The in-process engine against plain forward passes of the same model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from elpo_agent.engines.decoding import draw, uniforms  # noqa: E402
from elpo_agent.engines.loading import load_model  # noqa: E402
from elpo_agent.engines.prefix_cache import PrefixCache  # noqa: E402
from elpo_agent.engines.transformers_engine import TransformersPolicy  # noqa: E402
from elpo_agent.policy import SampledTurn, SampleRequest  # noqa: E402

VOCAB, STOP = 40, 1
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,  # far from uniform, so that a wrong mask or position shows
}


def build(kind: str, attention: str = "sdpa", seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "qwen3":
            config = transformers.Qwen3Config(**SIZES, head_dim=8)
            config._attn_implementation = attention
            return transformers.Qwen3ForCausalLM(config).eval()
        config = transformers.LlamaConfig(**SIZES)
        config._attn_implementation = attention
        return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(params=["qwen3", "llama", "qwen3-eager"])
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    kind, _, attention = request.param.partition("-")
    return build(kind, attention or "sdpa")


def policy_of(model: Any, **kwargs: Any) -> TransformersPolicy:
    return TransformersPolicy(model, stop_ids=[STOP], pad_id=0, **kwargs)


def reference(model: Any, prefix: tuple[int, ...], ids: tuple[int, ...], temperature: float) -> tuple[Any, Any]:
    """Log-probabilities and entropies of `ids` from one uncached pass over everything."""
    with torch.no_grad():
        logits = model(torch.tensor([prefix + ids])).logits[0, len(prefix) - 1 : -1].double()
    logp = torch.log_softmax(logits / (temperature or 1.0), -1)
    entropy = -(logp.exp() * logp).sum(-1)
    return logp[torch.arange(len(ids)), torch.tensor(ids)].numpy(), entropy.numpy()


def check_turn(model: Any, request: SampleRequest, turn: SampledTurn) -> None:
    logprobs, entropies = reference(model, request.prefix_ids, turn.ids, request.temperature)
    assert turn.logprobs.dtype == turn.entropies.dtype == np.float32
    np.testing.assert_allclose(turn.logprobs, logprobs, atol=1e-4)
    np.testing.assert_allclose(turn.entropies, entropies, atol=1e-4)
    assert STOP not in turn.ids[:-1]
    assert (turn.finish == "stop") == (turn.ids[-1] == STOP)
    assert turn.finish == "stop" or len(turn.ids) == request.max_new_tokens


def ids_of(turns: list[list[SampledTurn]]) -> list[list[tuple[int, ...]]]:
    return [[turn.ids for turn in row] for row in turns]


def random_prefix(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(2, VOCAB, length).tolist())


def test_matches_the_full_forward_pass(model: Any) -> None:
    requests = [
        SampleRequest(random_prefix(17), 5, 1, 12),
        SampleRequest(random_prefix(3, 1), 2, 2, 20, 0.7),
        SampleRequest(random_prefix(1, 2), 1, 3, 6, 1.5),  # a one-token prefix
        SampleRequest(random_prefix(17), 2, 4, 3),  # the first request's prefix again
    ]
    turns = policy_of(model).sample(requests)
    assert [len(row) for row in turns] == [5, 2, 1, 2]
    assert {turn.finish for row in turns for turn in row} == {"stop", "length"}
    for request, row in zip(requests, turns, strict=True):
        for turn in row:
            check_turn(model, request, turn)


def test_conversations_reuse_the_cache_and_stay_exact(model: Any) -> None:
    policy = policy_of(model)
    prefixes = [random_prefix(9), random_prefix(9), random_prefix(14, 3)]
    for turn_number in range(4):
        requests = [SampleRequest(p, 1, 10 * turn_number + i, 5) for i, p in enumerate(prefixes)]
        turns = policy.sample(requests)
        for request, (turn,) in zip(requests, turns, strict=True):
            check_turn(model, request, turn)
        feedback = random_prefix(3 + turn_number, 50 + turn_number)
        prefixes = [
            r.prefix_ids + t.ids + feedback[i:] for i, (r, (t,)) in enumerate(zip(requests, turns, strict=True))
        ]
    # A branch from the middle of a cached sequence.
    branch = SampleRequest((*prefixes[0][:12], 5, 6, 7), 3, 99, 8)
    for turn in policy.sample([branch])[0]:
        check_turn(model, branch, turn)


class CountingModel:
    """Counts the tokens that go through a model's forward pass."""

    def __init__(self, model: Any) -> None:
        self.tokens: list[tuple[int, int]] = []
        self._handle = model.register_forward_pre_hook(self._seen, with_kwargs=True)

    def _seen(self, module: Any, args: Any, kwargs: Any) -> None:
        self.tokens.append(tuple(kwargs["input_ids"].shape))


def test_a_prefix_is_computed_once_for_all_samples_and_kept_across_turns() -> None:
    model = build("qwen3")
    policy = policy_of(model)
    seen = CountingModel(model)
    prefix = random_prefix(20)
    (row,) = policy.sample([SampleRequest(prefix, 6, 0, 4)])
    assert seen.tokens[0] == (1, 20)
    assert all(columns == 1 for _, columns in seen.tokens[1:])
    seen.tokens.clear()
    feedback = (7, 8, 9)
    longest = max(row, key=lambda turn: len(turn.ids))
    policy.sample([SampleRequest(prefix + longest.ids + feedback, 1, 0, 1)])
    assert seen.tokens[0] == (1, 1 + len(feedback)), "the last sampled token and the feedback, nothing more"
    seen.tokens.clear()
    policy.sample([SampleRequest(prefix, 2, 5, 1)])
    assert seen.tokens[0] == (1, 1), "a prefix seen before needs its last token only"


def test_finished_rows_leave_the_batch() -> None:
    model = build("qwen3")
    policy = policy_of(model)
    seen = CountingModel(model)
    limits = [1, 2, 3, 12]
    requests = [SampleRequest(random_prefix(5, i), 1, i, n, 0.0) for i, n in enumerate(limits)]
    turns = policy.sample(requests)
    lengths = [len(row[0].ids) for row in turns]
    decode_rows = [rows for rows, columns in seen.tokens if columns == 1]
    assert decode_rows == [sum(n > t for n in lengths) for t in range(1, max(lengths))]


def test_in_place_update_is_noticed_with_and_without_the_call() -> None:
    model = build("qwen3")
    policy = policy_of(model)
    request = SampleRequest(random_prefix(15), 3, 0, 6)
    policy.sample([request])
    assert policy.cached_tokens > 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.tensor([random_prefix(8)])).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    before = policy.version
    for turn in policy.sample([request])[0]:
        check_turn(model, request, turn)
    assert policy.version == before + 1
    # Writes through .data bypass version counting: these need the call.
    for parameter in model.parameters():
        parameter.data.mul_(1.1)
    policy.weights_updated()
    assert policy.cached_tokens == 0
    for turn in policy.sample([request])[0]:
        check_turn(model, request, turn)


def test_load_weights() -> None:
    model, other = build("qwen3"), build("qwen3", seed=1)
    policy = policy_of(model)
    request = SampleRequest(random_prefix(15), 2, 0, 6)
    policy.sample([request])
    policy.load_weights(other.state_dict())
    for turn in policy.sample([request])[0]:
        check_turn(other, request, turn)


def test_samples_do_not_depend_on_the_batch(model: Any) -> None:
    requests = [SampleRequest(random_prefix(3 + 4 * i, i), 1 + i, 100 + i, 10) for i in range(5)]
    together = ids_of(policy_of(model).sample(requests))
    alone = [ids_of(policy_of(model).sample([r]))[0] for r in requests]
    small_batches = ids_of(policy_of(model, max_batch=2).sample(requests))
    reverse = ids_of(policy_of(model).sample(requests[::-1]))[::-1]
    assert together == alone == small_batches == reverse
    more = SampleRequest(requests[1].prefix_ids, 6, requests[1].seed, 10)
    assert ids_of(policy_of(model).sample([more]))[0][:2] == together[1]
    shorter = SampleRequest(requests[1].prefix_ids, 2, requests[1].seed, 4)
    assert ids_of(policy_of(model).sample([shorter]))[0] == [ids[:4] for ids in together[1]]
    again = policy_of(model)
    assert ids_of(again.sample(requests)) == ids_of(again.sample(requests)) == together


def test_greedy_is_argmax(model: Any) -> None:
    request = SampleRequest(random_prefix(6), 2, 0, 12, temperature=0.0)
    first, second = policy_of(model).sample([request])[0]
    assert first.ids == second.ids
    check_turn(model, request, first)
    ids = request.prefix_ids
    for token in first.ids:
        with torch.no_grad():
            assert token == int(model(torch.tensor([ids])).logits[0, -1].argmax())
        ids += (token,)


def test_global_generators_and_train_mode_are_left_alone() -> None:
    model = build("qwen3").train()
    model.model.layers[0].eval()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    policy_of(model).sample([SampleRequest(random_prefix(4), 2, 0, 4)])
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()
    assert model.training and model.model.layers[1].training and not model.model.layers[0].training
    model(torch.tensor([[2, 3]])).logits.sum().backward()  # nothing was left behind in inference mode


def test_long_prefills_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from elpo_agent.engines import cached_forward, decode_loop

    monkeypatch.setattr(cached_forward, "_PREFILL_COLUMNS", 7)
    monkeypatch.setattr(cached_forward, "_PREFILL_TOKENS", 40)
    monkeypatch.setattr(decode_loop, "_DECODE_ROOM", 2)  # the batch has to grow while decoding
    model = build("qwen3")
    policy = policy_of(model)
    requests = [SampleRequest(random_prefix(n, n), 1, n, 20) for n in (30, 12, 19, 1, 17, 40)]
    for request, (turn,) in zip(requests, policy.sample(requests), strict=True):
        check_turn(model, request, turn)


def test_empty_batches() -> None:
    policy = policy_of(build("qwen3"))
    assert policy.sample([]) == []
    assert policy.sample([SampleRequest((3,), 0, 0, 5)]) == [[]]


def test_the_last_position_ends_a_turn() -> None:
    model = build("qwen3")
    request = SampleRequest(random_prefix(63), 8, 0, 50)
    for turn in policy_of(model).sample([request])[0]:
        assert len(turn.ids) <= 2
        logprobs, _ = reference(model, request.prefix_ids, turn.ids, 1.0)
        np.testing.assert_allclose(turn.logprobs, logprobs, atol=1e-4)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SampleRequest((), 1, 0, 5), "prefix_ids is empty"),
        (SampleRequest(random_prefix(65), 1, 0, 5), "max_position_embeddings is 64"),
        (SampleRequest((3, VOCAB), 1, 0, 5), "vocabulary is 0 to 39"),
        (SampleRequest((3,), 1, 0, 0), "max_new_tokens=0"),
        (SampleRequest((3,), 1, -1, 5), "seed=-1"),
        (SampleRequest((3,), 1, 0, 5, float("nan")), "temperature=nan"),
    ],
)
def test_bad_requests(request_: SampleRequest, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_of(build("qwen3")).sample([request_])


def test_models_it_cannot_run_are_refused() -> None:
    config = transformers.Qwen3Config(
        **SIZES, head_dim=8, use_sliding_window=True, sliding_window=8, max_window_layers=0
    )
    with pytest.raises(ValueError, match="full attention only"):
        policy_of(transformers.Qwen3ForCausalLM(config))
    with pytest.raises(ValueError, match="stop_ids is empty"):
        TransformersPolicy(build("qwen3"), stop_ids=[], pad_id=0)


def test_draws_follow_the_distribution() -> None:
    """Chi-square with 7 degrees of freedom; 24.3 is the 99.9% point."""
    n = 20_000
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -float("inf"), 0.3, 1.5])
    for temperature in (1.0, 0.5):
        p = torch.softmax(logits / temperature, -1).double().numpy()
        u = torch.from_numpy(np.concatenate([uniforms(7, j, 1) for j in range(n)]))
        ids, logp, entropy = draw(logits.expand(n, -1), torch.full((n,), temperature), u)
        counts = np.bincount(ids.numpy(), minlength=len(p))
        assert counts[6] == 0
        keep = p > 0
        assert ((counts[keep] - n * p[keep]) ** 2 / (n * p[keep])).sum() < 24.3
        np.testing.assert_allclose(logp.numpy(), np.log(p[ids.numpy()]), atol=1e-5)
        np.testing.assert_allclose(entropy.numpy(), -(p[keep] * np.log(p[keep])).sum(), atol=1e-5)


def test_draws_at_the_ends_of_the_unit_interval() -> None:
    logits = torch.tensor([[-float("inf"), 0.0, 0.0, -float("inf")]]).expand(2, -1)
    ids, _, _ = draw(logits, torch.ones(2), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert ids.tolist() == [1, 2]


def _kv(ids: tuple[int, ...]) -> Any:
    """Stand-in keys and values that name the prefix they belong to."""
    values = [float(hash(ids[: i + 1]) % 10_007) for i in range(len(ids))]
    return torch.tensor(values).expand(1, 2, 1, -1)[..., None]


def test_prefix_cache_against_a_brute_force_model() -> None:
    rng = np.random.default_rng(0)
    cache = PrefixCache(60)
    everything: list[tuple[int, ...]] = []
    for _ in range(300):
        ids = tuple(rng.integers(0, 3, rng.integers(1, 12)).tolist())
        n, pieces = cache.match(ids, len(ids))
        held = torch.cat(pieces, dim=-2) if pieces else torch.zeros(1, 2, 1, 0, 1)
        assert torch.equal(held, _kv(ids)[..., :n, :])
        common = max(
            (
                next((i for i, (a, b) in enumerate(zip(s, ids, strict=False)) if a != b), min(len(s), len(ids)))
                for s in everything
            ),
            default=0,
        )
        assert n <= common
        cache.insert(ids, _kv(ids)[..., n:, :], n)
        everything.append(ids)
        assert cache.match(ids, len(ids))[0] == len(ids)
        assert cache.match(ids, len(ids) - 1)[0] == len(ids) - 1
        cache.evict()
        assert cache.tokens <= 60
    assert cache.match(everything[-1], 99 if len(everything[-1]) > 99 else len(everything[-1]))[0] > 0
    cache.clear()
    assert cache.tokens == 0 and cache.match((0, 1), 2) == (0, [])


def test_prefix_cache_holds_shared_tokens_once_and_drops_the_oldest() -> None:
    cache = PrefixCache(8)
    a, b, c = (1, 2, 3, 4, 5), (1, 2, 3, 9), (7, 7, 7)
    for ids in (a, b):
        cache.insert(ids, _kv(ids), 0)
    assert cache.tokens == 6
    cache.insert(c, _kv(c), 0)
    cache.evict()
    assert cache.tokens == 7
    assert [cache.match(ids, len(ids))[0] for ids in (a, b, c)] == [3, 4, 3]
    with pytest.raises(ValueError, match="only the first 3 tokens are cached"):
        cache.insert(a, _kv(a)[..., 4:, :], 4)


def test_no_cache_between_calls_when_asked() -> None:
    model = build("qwen3")
    policy = policy_of(model, prefix_cache_tokens=0)
    request = SampleRequest(random_prefix(9), 2, 0, 5)
    policy.sample([request])
    assert policy.cached_tokens == 0
    for turn in policy.sample([request])[0]:
        check_turn(model, request, turn)


def _tokenizer(template: str | None) -> Any:
    from tokenizers import Tokenizer, models

    core = Tokenizer(models.WordLevel({"a": 0, "<eos>": 1}, unk_token="a"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    tokenizer.chat_template = template
    return tokenizer


def test_load_model_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a local folder needs no network"))
    folder = tmp_path / "my-model"
    model = build("qwen3")
    model.save_pretrained(folder)
    _tokenizer("{{ messages }}").save_pretrained(folder)
    loaded, tokenizer = load_model(folder, device="cpu")
    assert tokenizer.eos_token_id == 1 and not loaded.training
    ids = torch.tensor([[2, 3, 4]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*my-model"):
        load_model(tmp_path / "my-modle")
    with pytest.raises(FileNotFoundError, match=r"holds no config.json.*my-model"):
        load_model(str(tmp_path))
    with pytest.raises(ValueError, match="dtype='int8'"):
        load_model(folder, dtype="int8")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    _tokenizer(None).save_pretrained(folder)
    with pytest.raises(ValueError, match="no chat template"):
        load_model(folder)


def test_load_model_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"elpo\[train\]"):
        load_model("anything")
