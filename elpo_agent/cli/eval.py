"""`elpo eval`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.console import Console
from rich.table import Table

from elpo_agent.chat import ChatCodec
from elpo_agent.cli.display import TerminalDisplay
from elpo_agent.cli.failures import EXPECTED
from elpo_agent.cli.settings import parse
from elpo_agent.config import EngineConfig, EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.engines.loading import load_tokenizer
from elpo_agent.engines.openai.failures import EndpointError
from elpo_agent.engines.openai.settings import EndpointConfig
from elpo_agent.evaluation.evaluate import evaluate, tree_attempts
from elpo_agent.evaluation.expert_replay import replay_expert
from elpo_agent.evaluation.scores import Attempt, summarize
from elpo_agent.evaluation.transcripts import Transcripts
from elpo_agent.rollout.base import SearchResult
from elpo_agent.rollout.runner import Runner, TaskRef
from elpo_agent.runs.checkpoint import naming_full_disk
from elpo_agent.training.session import MAX_ENVS, Session, env_factory, model_folder, task_count
from elpo_agent.tree import RolloutTree

_DESCRIPTION = """Score a policy on an environment or a data file: pass@k, major@k, tool calls and errors, with every
attempt as a line of JSON. `--model.path expert-replay` runs the data's own expert calls instead of a model.
`--engine openai --base-url URL --model NAME` (short for --engine.name, --endpoint.base_url and --model.path) scores a
model behind an OpenAI-compatible endpoint; its key is read from OPENAI_API_KEY."""

_EXPECTED: tuple[type[Exception], ...] = (*EXPECTED, EndpointError)
_SHORT = {
    "--engine": "--engine.name",
    "--model": "--model.path",
    "--base-url": "--endpoint.base_url",
    "--base_url": "--endpoint.base_url",
}


@dataclass(frozen=True)
class EvalEngineConfig:
    """What samples.

    Attributes:
        name: "transformers" or "vllm", in this process; or "openai": the server of `endpoint`, which knows the model by
            the name in model.path.
        options: keyword options of an engine in this process.
    """

    name: str = "transformers"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in ("transformers", "vllm", "openai"):
            raise ValueError(f"engine.name={self.name!r} is unknown; choose transformers, vllm or openai")
        if self.name == "openai" and self.options:
            raise ValueError(f"engine.options={self.options}: engine.name='openai' takes none; see the endpoint's own")


@dataclass(frozen=True)
class EvalRunConfig:
    """An evaluation.

    Attributes:
        model: the policy; its path may also be "expert-replay".
        engine: what samples.
        endpoint: the server, for the engine openai.
        env: the environment; `eval_kwargs` are applied on top of `kwargs`.
        data: a JSONL(.gz) or Parquet file to use as data set (sets env.kwargs.dataset).
        tasks: how many tasks from the start of the split; 0 = all of a finite data set.
        samples: attempts per task; pass@k and major@k are given for k = 1, 2, 4, ... up to it.
        temperature: sampling temperature; 0 = greedy.
        seed: fixes every sample.
        batch: rollouts that run side by side.
        rollout: limits on turns and context (its `prompts` and `temperature` are not used here).
        output: JSONL file for the attempts; "" writes none. Through chat completions, attempts are kept beside it as
            they finish, and the same command goes on with an evaluation that broke off.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EvalEngineConfig = field(default_factory=EvalEngineConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    data: str = ""
    tasks: int = 200
    samples: int = 1
    temperature: float = 1.0
    seed: int = 0
    batch: int = 128
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    output: str = ""

    def __post_init__(self) -> None:
        if self.tasks < 0 or self.samples < 1 or self.batch < 1:
            raise ValueError("tasks must be 0 or larger, samples and batch at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must be 0 (greedy) or larger")
        if self.endpoint.base_url and self.engine.name != "openai":
            raise ValueError(
                f"endpoint.base_url={self.endpoint.base_url!r} is given, but engine.name={self.engine.name!r} uses no "
                "endpoint; add --engine openai"
            )

    @property
    def journal(self) -> Path:
        """Where attempts through chat completions are kept until the output is whole."""
        final = Path(self.output)
        return final.with_name(f".{final.name}.unfinished")

    @property
    def chats(self) -> bool:
        """Turns come from chat completions."""
        return self.engine.name == "openai" and not self.endpoint.tokenizer


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = _with_long_names(argv)
    config, _ = parse(
        EvalRunConfig, options, program="elpo eval", description=_DESCRIPTION, flags={}, default_preset=None
    )
    console = Console()
    try:
        with TerminalDisplay(console) as display, _trace_file(config.output) as write:
            attempts = _attempts(config, display, write)
    except _EXPECTED as error:
        print(f"elpo eval: {error}{_how_to_go_on(config)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted{_how_to_go_on(config)}", file=sys.stderr)
        return 130
    scores = summarize(attempts)
    console.print(_table(config, scores))
    if config.output:
        if config.chats:
            config.journal.unlink(missing_ok=True)
        console.print(f"attempts: {config.output}", highlight=False, soft_wrap=True)
    return 0


def _attempts(
    config: EvalRunConfig, display: TerminalDisplay, write: Callable[[dict[str, Any]], None]
) -> list[Attempt]:
    env_config = config.env
    if config.data:
        env_config = replace(env_config, kwargs={**env_config.kwargs, "dataset": config.data})
    make_env = env_factory(env_config, evaluating=True)
    tasks = _indices(task_count(make_env), config.tasks)
    display.phase("evaluating", len(tasks))
    if config.chats:
        from elpo_agent.cli.eval_chat import chat_attempts  # needs elpo[openai]

        return chat_attempts(config, env_config, make_env, tasks, display, write)
    if config.engine.name != "openai" and config.model.path == "expert-replay":
        done = 0

        def played(attempt: Attempt, info: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            display.advance(done, {})
            write({**asdict(attempt), "messages": list(info["messages"])})

        env = make_env()
        try:
            return replay_expert(env, tasks, played)
        finally:
            env.close()
    transcripts = Transcripts(make_env)

    def sampled(tree: RolloutTree, result: SearchResult) -> None:
        for attempt, messages in zip(tree_attempts(tree), transcripts.take(tree), strict=True):
            write({**asdict(attempt), "messages": messages})

    with _runner(config, transcripts.make_env) as runner:
        return evaluate(
            runner,
            [TaskRef(i) for i in tasks],
            samples=config.samples,
            seed=config.seed,
            batch=config.batch,
            on_tree=sampled,
            on_progress=lambda finished: display.advance(finished, {}),
        )


@contextmanager
def _runner(config: EvalRunConfig, make_env: Callable[[], gym.Env[str, str]]) -> Iterator[Runner]:
    """Rollouts by an engine in this process, or token by token by an endpoint."""
    if config.engine.name != "openai":
        session = Session.open(config.model, EngineConfig(config.engine.name, config.engine.options))
        with session.runner(config.rollout, make_env, config.temperature) as runner:
            yield runner
        return
    from elpo_agent.engines.openai.policy import OpenAIPolicy  # needs elpo[openai]

    active = min(config.batch, config.rollout.max_active or MAX_ENVS, MAX_ENVS)
    codec = ChatCodec(load_tokenizer(model_folder(config.endpoint.tokenizer)))
    with (
        OpenAIPolicy(config.endpoint, config.model.path, stop_ids=codec.stop_ids, seed=config.seed) as policy,
        Runner(
            policy,
            codec,
            make_env,
            max_new_tokens=config.rollout.max_new_tokens,
            temperature=config.temperature,
            max_context=config.rollout.max_context,
            tool_threads=config.rollout.tool_threads,
            max_envs=max(config.rollout.tool_threads, active),
            max_active=config.rollout.max_active,
            patience_s=config.rollout.patience_s,
            batching=config.rollout.batching,
        ) as runner,
    ):
        yield runner


def _with_long_names(argv: Sequence[str]) -> list[str]:
    """Short names of options as the long ones; a mapping or a file after them is left as it is."""
    out: list[str] = []
    for i, arg in enumerate(argv):
        option, equals, value = arg.partition("=")
        given = value if equals else "".join(argv[i + 1 : i + 2])
        whole = given.lstrip().startswith("{") or given.endswith((".yaml", ".yml", ".json"))
        if option in _SHORT and not whole:
            arg = f"{_SHORT[option]}{equals}{value}"
        out.append(arg)
    return out


def _how_to_go_on(config: EvalRunConfig) -> str:
    """What is kept of an evaluation that broke off."""
    if not config.output or not config.chats or not config.journal.exists():
        return ""
    return f"; what was finished is kept beside {config.output}, and the same command goes on from there"


def _indices(size: int | None, wanted: int) -> range:
    if size is None:
        if wanted == 0:
            raise ValueError("tasks=0 means all tasks, but this data set is endless; give --tasks N")
        return range(wanted)
    return range(size if wanted == 0 else min(size, wanted))


@contextmanager
def _trace_file(path: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A writer of JSON lines; the file gets its name only when all of it is there."""
    if not path:
        yield lambda record: None
        return
    final = Path(path)
    if final.is_dir():
        raise ValueError(f"output={path} is a folder; give the name of a file")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.partial")
    try:
        with naming_full_disk(final), partial.open("w") as file:
            yield lambda record: print(json.dumps(record), file=file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


def _table(config: EvalRunConfig, scores: dict[str, float]) -> Table:
    table = Table(title=f"{config.model.path} on {config.data or config.env.id}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in scores.items():
        text = f"{value:.1%}" if "@" in name or name == "truncated" else f"{value:,.2f}".rstrip("0").rstrip(".")
        table.add_row(name.replace("_", " "), text)
    return table
