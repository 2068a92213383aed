"""The runner over elpo/Math-v0: expert turns, and a random model in the in-process engine."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from _word_env import ScriptedPolicy, logs, tasks_of

import elpo_envs
from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.bel import BinaryErrorLocalization
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.rollout.runner import Runner

gym.register_envs(elpo_envs)


CHATML = """
{%- for m in messages %}
    {{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def byte_tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    special = [tokenizers.AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>", "<tool_call>")]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=259, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([""], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    fast.chat_template = CHATML
    return fast


def make_math() -> Any:
    return gym.make("elpo/Math-v0")


def test_expert_turns_succeed_in_the_real_environment() -> None:
    from elpo_agent.chat import ChatCodec

    codec = ChatCodec(byte_tokenizer())
    turns: dict[str, list[str]] = {}
    env = make_math()
    for index in range(3):
        env.reset(options={"index": index})
        turns[env.unwrapped.task.question] = env.unwrapped.expert_turns()
    env.close()

    class Expert(ScriptedPolicy):
        def _turn(self, request: SampleRequest, j: int) -> SampledTurn:
            text = codec._tokenizer.decode(list(request.prefix_ids))
            ((_, expert),) = [(q, t) for q, t in turns.items() if q in text]
            ids = codec.turn_ids(expert[text.count("<tool_response>\n")])
            if j == 1:
                ids = codec.turn_ids("\\boxed{nothing}")
            return SampledTurn(ids, np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32), "stop")

    with Runner(Expert(), codec, make_math, max_new_tokens=300, temperature=1.0, max_context=20_000) as runner:
        results = runner.run(IndependentSampling(3), tasks_of(3), seed=0)
    for index, (tree, _) in enumerate(results):
        outcomes = [tree.outcome(leaf) for leaf in tree.leaves]
        assert [o.success for o in outcomes] == [True, False, True]
        assert [o.reward for o in outcomes] == [1.0, 0.0, 1.0]
        assert outcomes[1].answer == "nothing" and not outcomes[1].truncated
        steps = [tree.nodes[i].step for i in tree.path(tree.leaves[0])]
        assert [s.text for s in steps if s] == list(turns.values())[index]
        assert [s.tool_calls for s in steps if s] == [1] * (len(steps) - 1) + [0]


@pytest.mark.parametrize("branching", [False, True])
def test_the_in_process_engine_end_to_end(branching: bool) -> None:
    """A random model in the real environment: log-probabilities of a path equal one plain pass over it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from elpo_agent.chat import ChatCodec
    from elpo_agent.engines.transformers_engine import TransformersPolicy

    tokenizer = byte_tokenizer()
    codec = ChatCodec(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=4096,
            initializer_range=0.3,
        )
        model = transformers.Qwen3ForCausalLM(config).eval()
    policy = TransformersPolicy(model, stop_ids=codec.stop_ids, pad_id=0)
    strategy = BinaryErrorLocalization(5) if branching else IndependentSampling(3)

    def make() -> Any:
        return gym.make("elpo/Math-v0", max_turns=3)

    with Runner(policy, codec, make, max_new_tokens=12, temperature=1.0, max_context=4000) as runner:
        results = runner.run(strategy, tasks_of(2), seed=0)
        assert logs(runner.run(strategy, tasks_of(2), seed=0)) == logs(results)
    for tree, _ in results:
        assert len(tree.leaves) == strategy.n_total
        for leaf in tree.leaves:
            assert tree.outcome(leaf).truncated
            ids = torch.tensor([tree.prefix_ids(leaf)])
            with torch.no_grad():
                logp = torch.log_softmax(model(ids).logits[0].double(), -1)
            for i in tree.path(leaf):
                step, start = tree.nodes[i].step, len(tree.prefix_ids(tree.nodes[i].parent))
                assert step is not None
                rows = torch.arange(start - 1, start - 1 + len(step.ids))
                expected = logp[rows, torch.tensor(step.ids)].numpy()
                np.testing.assert_allclose(step.logprobs, expected, atol=1e-4)
