"""What the tiny model learns from: a student's conversations about generated problems, mistakes included."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np

import elpo_envs  # noqa: F401  (registers the environments)
from elpo_agent.chat import ChatCodec
from elpo_agent.learner.sft import SftRow
from elpo_agent.training.demonstrations import played_row
from elpo_envs.protocols import get_protocol
from elpo_envs.tasks.generated import GeneratedSource, MistakeRates, student_trace
from elpo_envs.tasks.gsm8k import final_value


def student_env(min_steps: int, max_steps: int, seed: int) -> gym.Env[str, str]:
    """An environment over training problems of that many steps."""
    options = {"min_steps": min_steps, "max_steps": max_steps, "seed": seed}
    return gym.make("elpo/Math-v0", split="train", dataset_options=options, max_turns=32, disable_env_checker=True)


def student_turns(env: gym.Env[str, str], n: int, rates: MistakeRates, seed: int) -> Iterator[list[str]]:
    """Turns of the first `n` problems as raw text, without the final answer."""
    source = env.unwrapped.task_source  # type: ignore[attr-defined]
    assert isinstance(source, GeneratedSource)
    hermes = get_protocol("hermes")
    rng = np.random.default_rng([seed, 77])
    for index in range(n):
        turns, _ = student_trace(source.problem(index), rates, rng)
        yield [hermes.render(turn) for turn in turns]


def student_texts(n: int, rates: MistakeRates, seed: int) -> Iterator[str]:
    """Text for the tokenizer: what the chat format, the questions, the turns and the tool results are made of."""
    for steps in range(2, 7):
        env = student_env(steps, steps, seed)
        for index, turns in enumerate(student_turns(env, n, rates, seed)):
            question, info = env.reset(options={"index": index})
            yield from ("system\n", f"{info['messages'][0]['content']}\nTools: python(code)")
            yield from ("user\n", "assistant\n", question)
            outputs = ["0"]
            for turn in turns:
                feedback = env.step(turn)[0]
                outputs.append(feedback)
                yield from (turn, feedback)
            yield f"\\boxed{{{final_value(outputs[-1:])}}}"
        env.close()


def student_rows(
    codec: ChatCodec, n: int, rates: MistakeRates, seed: int, min_steps: int, max_steps: int
) -> Iterator[SftRow]:
    """The first `n` conversations as token rows; the student boxes the last thing the tool said."""
    env = student_env(min_steps, max_steps, seed)
    for index, turns in enumerate(student_turns(env, n, rates, seed)):
        yield played_row(env, codec, {"index": index}, turns, lambda said: f"\\boxed{{{final_value([said])}}}")
    env.close()
