"""vLLM as an engine. These tests need it, so they have an environment of their own: `.ci/vllm`."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed; .ci/vllm makes an environment that has it")

from _engine_conformance import CHECKS, POSITIONS, STOP_IDS, VOCAB, Subject, random_model  # noqa: E402
from _runs import EASY, assert_same_run, elpo, metrics  # noqa: E402

from elpo_agent.engines.vllm.engine import VllmPolicy  # noqa: E402
from elpo_agent.policy import SampleRequest  # noqa: E402

CACHE = 1 << 26


@pytest.fixture(scope="module", params=["tied", "untied", "top_k"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    model = random_model(tied=request.param != "untied")
    entropies = "top_k" if request.param == "top_k" else "full"
    policy = VllmPolicy(model, stop_ids=STOP_IDS, kv_cache_bytes=CACHE, entropies=entropies)
    return Subject(policy, model, STOP_IDS, VOCAB, policy.weights_updated, POSITIONS)


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(subject: Subject, check: str) -> None:
    CHECKS[check](subject)


def small(**options: Any) -> VllmPolicy:
    return VllmPolicy(random_model(tied=True), stop_ids=STOP_IDS, **{"kv_cache_bytes": CACHE, **options})


def test_weights_changed_without_a_word_are_noticed() -> None:
    policy = small()
    subject = Subject(policy, policy.model, STOP_IDS, VOCAB, lambda: None, POSITIONS)
    CHECKS["a_weight_update_counts_at_once"](subject)
    assert policy.version == 3
    other = random_model(tied=True, seed=1)
    policy.load_weights(other.state_dict())
    CHECKS["agrees_with_the_learner"](Subject(policy, other, STOP_IDS, VOCAB, None, POSITIONS))


def test_adapters() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed; the extra lora has it")
    model = random_model(tied=True)
    peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    policy = VllmPolicy(model, stop_ids=STOP_IDS, kv_cache_bytes=CACHE)
    subject = Subject(policy, model.eval(), STOP_IDS, VOCAB, policy.weights_updated, POSITIONS)
    CHECKS["a_weight_update_counts_at_once"](subject)


def test_prefixes_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small()
    fed: list[int] = []
    scheduler = policy._llm.llm_engine.engine_core.engine_core.scheduler
    schedule = scheduler.schedule

    def watched(*args: Any, **kwargs: Any) -> Any:
        out = schedule(*args, **kwargs)
        fed.append(out.total_num_scheduled_tokens)
        return out

    monkeypatch.setattr(scheduler, "schedule", watched)
    ids = tuple(np.random.default_rng(0).integers(2, VOCAB, 70).tolist())
    policy.sample([SampleRequest(ids, 5, 0, 1)])
    assert sum(fed) == 70 + 4 * (70 - 64), "two blocks of 32 tokens shared, the rest computed by each sample"
    fed.clear()
    policy.sample([SampleRequest(ids, 1, 1, 1)])
    assert sum(fed) == 70 - 64
    policy.weights_updated()
    fed.clear()
    policy.sample([SampleRequest(ids, 1, 1, 1)])
    assert sum(fed) == 70


def test_more_prompt_tokens_than_one_pass_takes() -> None:
    """On a CPU a prompt that is computed in pieces would end vLLM's engine, as its requests have seeds."""
    policy = small(max_batch_tokens=POSITIONS, max_batch=16)
    prompts = [tuple(np.random.default_rng(i).integers(2, VOCAB, POSITIONS - 28).tolist()) for i in range(6)]
    rows = policy.sample([SampleRequest(ids, 2, i, 8) for i, ids in enumerate(prompts)])
    assert [len(row) for row in rows] == [2] * 6


def test_an_interrupt_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small()
    requests = [SampleRequest((5, 6, 7), 4, i, 20) for i in range(3)]
    expected = [[turn.ids for turn in row] for row in policy.sample(requests)]
    engine = policy._llm.llm_engine
    step, steps = engine.step, 0

    def interrupted() -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt
        return step()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            policy.sample(requests)
    assert not engine.has_unfinished_requests()
    policy.reset_cache()
    assert [[turn.ids for turn in row] for row in policy.sample(requests)] == expected


def test_torch_is_left_as_it_was() -> None:
    before, python = torch.get_rng_state(), random.getstate()
    small()
    assert torch.equal(before, torch.get_rng_state()) and python == random.getstate()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_ids": ()}, "stop_ids is empty"),
        ({"entropies": "exact"}, "entropies='exact' is unknown"),
        ({"top_k": 0}, "top_k=0"),
        ({"max_model_len": POSITIONS + 1}, "max_model_len"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VllmPolicy(random_model(tied=True), **{"stop_ids": STOP_IDS, "kv_cache_bytes": CACHE, **options})


def test_what_vllm_cannot_do_is_refused() -> None:
    policy = small(max_model_len=40)
    with pytest.raises(ValueError, match=r"temperature=0\.001 is lower than vLLM samples at"):
        policy.sample([SampleRequest((3, 4), 1, 0, 5, 0.001)])
    with pytest.raises(ValueError, match=r"40 tokens, but the longest prefix for max_model_len=40 is 39"):
        policy.sample([SampleRequest((3,) * 40, 1, 0, 5)])
    cramped = small(kv_cache_bytes=1 << 16)  # 1 KiB a token: 64 tokens
    with pytest.raises(ValueError, match=r"60 tokens, but the longest prefix for max_model_len=\d\d is \d\d"):
        cramped.sample([SampleRequest((3,) * 60, 1, 0, 5)])
    (turn,) = cramped.sample([SampleRequest((3,) * 20, 1, 0, 50)])[0]
    assert turn.finish == "stop" or len(turn.ids) < 44
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="logits are NaN"):
        policy.sample([SampleRequest((3, 4), 1, 0, 5)])


@pytest.mark.slow
def test_training(tmp_path: Path) -> None:
    """Two updates from the command line; then the second once more, resumed in another process."""
    settings = {
        "updates": 2,
        "checkpoint_every": 1,
        "keep_checkpoints": 3,
        "threads": 1,
        "env": {"kwargs": EASY},
        "engine": {"options": {"kv_cache_bytes": 1 << 27}},
        "algorithm": {"name": "grpo", "options": {"n_total": 4}},
        "rollout": {"prompts": 3, "max_new_tokens": 40, "max_context": 400, "temperature": 1.3, "tool_threads": 2},
        "learner": {"lr": 1e-3, "mini_batches": 1},
        "eval": {"tasks": 2, "greedy": True},
    }
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    whole, again = tmp_path / "whole", tmp_path / "again"
    options = ("train", "--config", str(file), "--engine.name", "vllm")
    ended = elpo(*options, "--output", str(whole), timeout=280)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in metrics(whole) if line["kind"] == "train"]
    assert [line["update"] for line in lines] == [1, 2]
    learnt = [line for line in lines if line["live_rows"] > 0]
    assert lines[0] in learnt, "the first update should change the weights"
    assert all(line["mismatch_mean"] < 1e-4 and line["mismatch_max"] < 1e-4 for line in learnt)

    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "update_000002")
    (again / "summary.json").unlink()
    ended = elpo("train", "--output", str(again), "--resume", timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert_same_run(again, whole)
