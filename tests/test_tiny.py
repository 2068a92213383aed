"""The shipped model: small, complete, and as good (and as bad) as its figures say."""

from __future__ import annotations

import json

import pytest

from elpo_agent.config import EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.evaluation.evaluate import evaluate
from elpo_agent.evaluation.scores import summarize
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.tiny.tokenizer import SPECIAL, train_tokenizer
from elpo_agent.tiny.traces import student_env, student_rows, student_texts
from elpo_agent.training.session import TINY_MODEL, Session, env_factory
from elpo_envs.tasks.generated import MistakeRates


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(ModelConfig(device="cpu"))


def test_it_is_small_enough_to_ship() -> None:
    assert sum(f.stat().st_size for f in TINY_MODEL.iterdir()) <= 8 * 2**20
    assert (TINY_MODEL / "model.safetensors").is_file()


def test_it_is_a_qwen3_of_at_most_eight_million_parameters(session: Session) -> None:
    assert session.model.config.model_type == "qwen3"
    metrics = json.loads((TINY_MODEL / "metrics.json").read_text())
    assert sum(p.numel() for p in session.model.parameters()) == metrics["parameters"] <= 8_000_000


def test_tool_tags_are_single_tokens_and_digits_stand_alone(session: Session) -> None:
    encode = session.tokenizer.encode
    for token in SPECIAL:
        assert len(encode(token, add_special_tokens=False)) == 1
    assert len(encode("4096", add_special_tokens=False)) == 4
    for text in ("naïve café 数 😀", "a\tb\n\n c", '{"name": "python", "arguments": {"code": "'):
        assert session.tokenizer.decode(encode(text, add_special_tokens=False)) == text


def test_the_template_renders_tools_and_results(session: Session) -> None:
    assert session.codec.template_has_tools
    env = student_env(2, 2, 0)
    _, info = env.reset(options={"index": 0})
    prompt = session.tokenizer.decode(list(session.codec.prompt_ids(info["messages"], env.unwrapped.tools)))
    assert "Tools: python(code)" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")
    env.close()


def test_rows_are_the_tokens_a_rollout_would_see(session: Session) -> None:
    """Piece by piece encoding equals encoding the whole conversation, so training and sampling agree."""
    rates = MistakeRates()
    env = student_env(3, 3, 7)
    for row, index in zip(student_rows(session.codec, 12, rates, 7, 3, 3), range(12), strict=True):
        _, info = env.reset(options={"index": index})
        text = session.tokenizer.decode(row.ids.tolist())
        assert session.tokenizer.encode(text, add_special_tokens=False) == row.ids.tolist()
        assert text.startswith(
            session.tokenizer.decode(list(session.codec.prompt_ids(info["messages"], env.unwrapped.tools)))
        )
        agent = session.tokenizer.decode(row.ids[row.mask].tolist())
        assert agent.count("<tool_call>") >= 3
        assert "<tool_response>" not in agent
        assert agent.endswith("}<|im_end|>")
    env.close()


def test_a_tokenizer_can_be_made_from_nothing() -> None:
    tokenizer = train_tokenizer(student_texts(5, MistakeRates(), seed=3), vocab_size=400)
    assert 256 < len(tokenizer) <= 400
    assert tokenizer.decode(tokenizer.encode("zebra crossing: 12")) == "zebra crossing: 12"


@pytest.mark.slow
def test_it_solves_a_fifth_to_a_half_of_four_step_tasks(session: Session) -> None:
    options = {"min_steps": 4, "max_steps": 4}
    make_env = env_factory(EnvConfig(kwargs={"dataset_options": options}), evaluating=True)
    limits = RolloutConfig(max_new_tokens=48, max_context=512)
    with session.runner(limits, make_env, 1.0) as runner:
        scores = summarize(evaluate(runner, [TaskRef(i) for i in range(200)], samples=2, seed=0))
    assert 0.2 <= scores["pass@1"] <= 0.5
    metrics = json.loads((TINY_MODEL / "metrics.json").read_text())
    assert scores["pass@1"] == pytest.approx(metrics["held_out"]["4 steps"]["sampled"], abs=0.12)
