"""TRL's `GRPOTrainer` for `peers`, update by update; started by the interpreter that has TRL installed.

    python peers_trl.py ARGUMENTS.json

Its tool loop runs as its users run it: an environment class with `reset` and one method for each tool, made by
`environment_factory`. The tool is this project's own Python tool in the same sandbox, the answer is graded by the same
grader, and the chat is rendered to the same tokens (checked for the first prompt).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parent.parent)  # in place of this folder, whose modules have common names

from benchmarks.peers_rounds import Rounds, arguments  # noqa: E402
from elpo_envs.grading import grade_response  # noqa: E402
from elpo_envs.sandbox import Limits, make_sandbox  # noqa: E402
from elpo_envs.tools import PythonTool  # noqa: E402

# The model's template renders a turn as it was written. TRL takes calls out of the text, and wants them rendered again.
_TURN = "+ message.content + '<|im_end|>\n' }}\n{%- endif %}"
_TURN_WITH_CALLS = """+ message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>
' }}
{%- endif %}"""


class PythonEnvironment:
    """`environment_factory`: the Python tool of `elpo/Math-v0`, a session for each rollout."""

    def __init__(self) -> None:
        self._python = PythonTool(make_sandbox("auto", Limits(wall_s=6.0, cpu_s=6.0)))
        self.calls = 0

    def reset(self, index: int, **_: Any) -> None:
        """Begin an episode."""
        self._python.open(index)
        self.calls = 0

    def python(self, code: str) -> str:
        """Run Python code in a session that keeps its variables.

        Args:
            code: Python source code.
        """
        self.calls += 1
        return self._python.call({"code": code}).text


class Counts:
    """What an update's rollouts and rows are like."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = dict.fromkeys(("rollout_seconds", "trained_tokens", "live_tokens"), 0.0)

    def reward(
        self,
        completions: Sequence[Sequence[dict[str, Any]]],
        environments: Sequence[PythonEnvironment],
        answer: Sequence[str],
        **_: Any,
    ) -> list[float]:
        """1 for each rollout whose last turn gives the right answer, and 0 for the others."""
        last = [completion[-1] for completion in completions]
        rewards = [
            float(turn["role"] == "assistant" and grade_response(str(turn["content"]), gold).correct)
            for turn, gold in zip(last, answer, strict=True)
        ]
        turns = [sum(message["role"] == "assistant" for message in completion) for completion in completions]
        self.figures |= {
            "rollouts": len(rewards),
            "tool_rollouts": sum(environment.calls > 0 for environment in environments),
            "tool_calls": sum(environment.calls for environment in environments),
            "turns": sum(turns),
            "successes": sum(rewards),
        }
        return rewards


def trainer_class(base: Any, rounds: Rounds, counts: Counts) -> Any:
    """TRL's trainer, which also counts."""

    class CountingTrainer(base):  # type: ignore[misc]
        def _prepare_inputs(self, generation_batch: Any) -> Any:
            began = rounds.seconds
            inputs = super()._prepare_inputs(generation_batch)
            counts.figures["rollout_seconds"] += rounds.seconds - began
            return inputs

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
            counts.figures["trained_tokens"] += int(mask.sum())
            counts.figures["live_tokens"] += int(mask[inputs["advantages"] != 0].sum())
            return super().compute_loss(model, inputs, *args, **kwargs)

    return CountingTrainer


def callback_class(base: Any, rounds: Rounds, counts: Counts) -> Any:
    """A callback that holds the trainer up after every update."""

    class OneAtATime(base):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            rounds.ready(version("trl"))

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, Any], **__: Any) -> None:
            if "loss" in logs:  # an update's, not the run's
                figures, counts.figures = counts.figures, Counts().figures
                rounds.done(figures)

    return OneAtATime


def tokenizer_for(given: dict[str, Any], transformers: Any, trl: Any) -> Any:
    """The model's tokenizer, with what TRL needs for calls.

    Raises:
        RuntimeError: the first prompt becomes other tokens than with us.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(given["model"])
    if tokenizer.chat_template.count(_TURN) != 1:
        raise RuntimeError("the model's chat template is not the one that this program knows how to extend")
    tokenizer.chat_template = tokenizer.chat_template.replace(_TURN, _TURN_WITH_CALLS)
    tokenizer.response_template = trl.chat_template_utils.qwen3_template
    ids = tokenizer.apply_chat_template(
        given["tasks"][0]["prompt"],
        tools=[PythonEnvironment.python],
        add_generation_prompt=True,
        return_dict=False,
    )
    if ids != given["first_prompt_ids"]:
        raise RuntimeError("the first prompt becomes other tokens than with us")
    return tokenizer


def settings(given: dict[str, Any], scratch: Path, trl: Any) -> Any:
    """TRL's configuration: one optimiser step for every generation, nothing saved."""
    rows, at_once = given["prompts"] * given["n_total"], given["rows_at_once"]
    return trl.GRPOConfig(
        output_dir=str(scratch / "out"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        max_steps=given["updates"],
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=rows // at_once,
        num_generations=given["n_total"],
        shuffle_dataset=False,
        max_completion_length=given["max_context"] - min(given["prompt_lengths"]),
        max_tool_calling_iterations=given["max_turns"] - 1,
        generation_kwargs={"max_new_tokens": given["max_new_tokens"]},
        temperature=given["temperature"],
        learning_rate=given["lr"],
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        weight_decay=0.0,
        beta=0.0,
        loss_type="grpo",
        use_transformers_continuous_batching=given["continuous_batching"],
        seed=given["seed"],
    )


def main() -> None:
    given = arguments()
    rounds = Rounds(sys.stdout)
    with redirect_stdout(sys.stderr):  # whatever TRL prints must not reach the replies
        names = ("torch", "transformers", "datasets", "trl", "trl.chat_template_utils")
        modules: list[Any] = [importlib.import_module(name) for name in names]
        torch, transformers, datasets, trl, _ = modules
        torch.set_num_threads(given["threads"])
        counts = Counts()
        trainer = trainer_class(trl.GRPOTrainer, rounds, counts)(
            model=transformers.AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32),
            reward_funcs=counts.reward,
            args=settings(given, Path(sys.argv[1]).parent, trl),
            train_dataset=datasets.Dataset.from_list(given["tasks"]),
            processing_class=tokenizer_for(given, transformers, trl),
            environment_factory=PythonEnvironment,
            callbacks=[callback_class(transformers.TrainerCallback, rounds, counts)()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


if __name__ == "__main__":
    main()
