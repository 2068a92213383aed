"""The conversation environment: turns in, tool feedback out, budgets, and a state that can be frozen."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from elpo_envs.episode import CALL_SUCCEEDED, CallRecord, EnvState, Episode, ErrorKind, Message
from elpo_envs.protocols import MalformedCall, ParsedCall, TurnProtocol
from elpo_envs.rendering import Display
from elpo_envs.snapshots import Snapshot, check_restorable_by_reset
from elpo_envs.spaces import UnicodeText
from elpo_envs.tasks.base import ExpertTurn, Task, TaskSource
from elpo_envs.toolbox import Toolbox
from elpo_envs.tools.base import Tool

MAX_DRAWN_INDEX = 2**31
_RESET_OPTIONS = ("index", "task_id", "snapshot")


@dataclass(frozen=True)
class Budgets:
    """What an episode may use up; whatever runs out truncates it.

    Attributes:
        max_turns: assistant turns; the last one is run in full and may still answer.
        max_tool_calls: tool calls in all; the call after the last allowed one is not run.
        max_chars: characters of the whole conversation. A turn that exceeds it is recorded but neither run
            nor graded; tool feedback is cut to fit.
    """

    max_turns: int = 16
    max_tool_calls: int = 32
    max_chars: int = 200_000

    def __post_init__(self) -> None:
        for name, least in (("max_turns", 1), ("max_tool_calls", 0), ("max_chars", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be an integer of at least {least}")


@dataclass(frozen=True)
class Verdict:
    """A graded final answer; `grade` holds JSON values, `failed` says that grading itself did not work."""

    answer: str | None
    correct: bool
    grade: Mapping[str, Any]
    failed: bool = False


class ConversationEnv(gym.Env[str, str], ABC):
    """One episode is one conversation about one task.

    The observation is the new text only: the question at reset, the tools' feedback at a step. The action is
    the assistant's raw turn. Subclasses say what a final answer is and grade it (`judge`).

    Args:
        protocol: reads and writes tool calls.
        tools: owned by this environment; their names must differ.
        budgets: when to truncate.
        system_prompt: first message of the chat; "" leaves it out.
        describe_tools: whether the first message goes on with the tools and how to call them (`tools` is [] then);
            None does so where the protocol is none that chat templates teach.
        identity: JSON values that tell this environment from others of its class (its data, for example); a
            snapshot fits environments of equal identity, protocol, tools, budgets and system prompt.
        render_mode: None, "ansi" (`render` returns the transcript) or "human" (printed as it happens).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "human"], "render_fps": 1}  # type: ignore[misc]
    no_action_text: ClassVar[str]

    def __init__(
        self,
        *,
        protocol: TurnProtocol,
        tools: Sequence[Tool],
        budgets: Budgets,
        system_prompt: str,
        identity: Mapping[str, Any],
        render_mode: str | None = None,
        describe_tools: bool | None = None,
    ) -> None:
        if render_mode not in (None, "ansi", "human"):
            raise ValueError(f"render_mode={render_mode!r} is unknown; choose None, 'ansi' or 'human'")
        self._toolbox = Toolbox(tools)
        self.protocol = protocol
        self.budgets = budgets
        self._tools_described = not protocol.taught_by_templates if describe_tools is None else bool(describe_tools)
        if self._tools_described:
            described = protocol.describe(list(self._toolbox.schemas.values()))
            system_prompt = "\n\n".join(part for part in (system_prompt, described) if part)
        self.system_prompt = system_prompt
        self.render_mode = render_mode
        self.action_space = UnicodeText(budgets.max_chars)
        # One more character for each line break that joins the results of several calls.
        self.observation_space = UnicodeText(budgets.max_chars + budgets.max_tool_calls)
        self._episode: Episode | None = None
        self._display = Display(budgets, protocol)
        self._refuses_turns = False
        contract = {
            "environment": type(self).__name__,
            **identity,
            "protocol": protocol.name,
            "tools": self._toolbox.schemas,
            **asdict(budgets),
            "system_prompt": system_prompt,
        }
        self._contract: Mapping[str, Any] = json.loads(json.dumps(contract))

    @property
    @abstractmethod
    def task_source(self) -> TaskSource:
        """Where this environment's tasks come from."""

    @abstractmethod
    def judge(self, task: Task, text: str) -> Verdict | None:
        """Grade the final answer in the content of a turn without tool calls; None when there is none in it."""

    def judge_submission(self, task: Task, arguments: Mapping[str, Any]) -> Verdict:
        """Grade what a terminal tool handed in: by default its `answer`, as if the final turn had boxed it."""
        answer = str(arguments["answer"])
        verdict = self.judge(task, f"\\boxed{{{answer}}}")
        return Verdict(None, False, {"method": "no_answer"}) if verdict is None else verdict

    def grade_turn(self, task: Task, text: str) -> Verdict | None:
        """Grade the last assistant turn of an episode about `task`, whenever it was; no tool is run.

        None where the turn neither hands in nor states a final answer.
        """
        turn = self.protocol.parse(text)
        for call in turn.calls:
            if isinstance(call, ParsedCall) and self._toolbox.is_terminal(call) and self._toolbox.accepts(call):
                return self.judge_submission(task, call.arguments)
        return None if turn.calls else self.judge(task, turn.content)

    def ends_episode(self, call: ParsedCall, record: CallRecord) -> bool:
        """Whether an answered call hands in the final answer: by default, a successful one of a terminal tool."""
        return record.kind in CALL_SUCCEEDED and self._toolbox.is_terminal(call)

    def take_up(self, task: Task) -> None:
        """Called when an episode about `task` begins or is restored; for tools that need to know it."""

    @abstractmethod
    def clone(self) -> Self:
        """A new, un-reset environment of the same configuration; the two share only immutable parts."""

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools' OpenAI function schemas, as copies, for a chat template; [] where the chat describes the tools."""
        return [] if self._tools_described else list(self._toolbox.schemas.values())

    @property
    def contract(self) -> Mapping[str, Any]:
        """JSON values a snapshot's environment and the one it is restored into must agree on."""
        return self._contract

    @property
    def task(self) -> Task:
        """The current task. Raises ResetNeeded before the first reset."""
        return self._current().task

    def facts(self) -> dict[str, Any]:
        """JSON values about this environment that every `info` repeats."""
        return {}

    def expert_turns(self) -> list[str]:
        """The current task's reference solution as raw assistant turns; [] where the data has none.

        Raises ValueError where it calls a tool that this environment's protocol cannot call.
        """
        return [self.write_turn(turn) for turn in self.task.expert]

    def write_turn(self, turn: ExpertTurn) -> str:
        """A turn as the raw text that says it here. Raises ValueError where it calls what the protocol cannot call."""
        return self.protocol.render(turn)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin a conversation.

        Args:
            seed: seeds the generator that picks the task; with `options["snapshot"]`, fresh randomness for
                the tools (`reseed` of `elpo_envs.restore`). It never changes what a given task does.
            options: at most one of "index" (position in the source), "task_id", or "snapshot".

        Raises:
            ValueError: unknown or conflicting options, an index or id that does not exist, a snapshot of
                another environment, or a question that leaves no room within `max_chars`.
        """
        chosen = _read_options(options)
        if isinstance(chosen, Snapshot):
            check_restorable_by_reset(self.contract, chosen)
            obs, info = self.thaw(chosen.state, reseed=seed)
        else:
            super().reset(seed=seed)
            obs, info = self._begin(self._pick(chosen))
        self._show()
        return obs, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the assistant's turn, run its tool calls or grade its answer.

        Raises:
            TypeError: the action is not a string. No string raises.
            ResetNeeded: the episode is over, or none was begun.
        """
        episode = self._current()
        if episode.terminated or episode.truncated:
            raise ResetNeeded("the episode is over; call reset() or restore() before step()")
        if not isinstance(action, str):
            raise TypeError(f"action must be a str, the assistant's raw turn, not {type(action).__name__}")
        episode = self._advance(episode, str(action))
        self._episode = episode
        if self.render_mode is not None:
            self._show()
        return episode.observation, episode.reward, episode.terminated, episode.truncated, self._info(episode)

    def render(self) -> str | None:
        """The transcript as plain text in mode "ansi"; None otherwise ("human" prints as the episode goes on).

        Long messages are cut and control characters shown as escapes: `info["messages"]` has them as they are.
        """
        if self.render_mode != "ansi":
            return None
        return self._display.text(self._current())

    def rest(self) -> None:
        """Let go of what tools hold of an episode that nobody goes on with, such as an interpreter's processes.

        Only `reset` or a restore may follow. Snapshots stay valid, and so does the transcript.
        """
        self._toolbox.rest()

    def close(self) -> None:
        """Release the tools. Idempotent; snapshots stay valid."""
        self._episode = None
        self._toolbox.close()

    @contextmanager
    def refusing_turns(self) -> Iterator[None]:
        """While this lasts, a turn is taken for one beyond `max_chars`: recorded, neither run nor graded, and the last.

        For wrappers that have a budget of their own.
        """
        self._refuses_turns = True
        try:
            yield
        finally:
            self._refuses_turns = False

    def freeze(self) -> EnvState:
        """The state now, as a value; use `elpo_envs.snapshot`, which also covers wrappers."""
        episode = self._current()
        rng = self._np_random
        state = None if rng is None else {"seed": self._np_random_seed, "state": rng.bit_generator.state}
        return EnvState(episode, self._toolbox.freeze(), state)

    def thaw(self, state: EnvState, reseed: int | None = None) -> tuple[str, dict[str, Any]]:
        """Become `state`, and return the observation and info of that moment; use `elpo_envs.restore`."""
        self._episode = None  # a tool that cannot be restored must not leave half of two episodes
        self._toolbox.thaw(state.tools, reseed)
        if reseed is not None:
            super().reset(seed=reseed)
        elif state.np_random is None:
            self._np_random, self._np_random_seed = None, None
        else:
            bits = np.random.PCG64(0)
            bits.state = state.np_random["state"]
            self._np_random = np.random.Generator(bits)
            self._np_random_seed = state.np_random["seed"]
        self.take_up(state.episode.task)
        self._episode = state.episode
        self._display.begin()
        return state.episode.observation, self._info(state.episode)

    def _current(self) -> Episode:
        if self._episode is None:
            raise ResetNeeded("no episode has begun; call reset() or restore() first")
        return self._episode

    def _info(self, episode: Episode) -> dict[str, Any]:
        info = episode.info()
        info.update(self.facts())
        return info

    def _pick(self, chosen: int | str | None) -> Task:
        source = self.task_source
        try:
            if isinstance(chosen, int):
                return source.get(chosen)
            if isinstance(chosen, str):
                return source.by_id(chosen)
        except (IndexError, KeyError) as error:
            raise ValueError(f"reset(options=...) names no task: {error.args[0] if error.args else error}") from error
        size = source.size
        if size == 0:
            raise ValueError(f"dataset {source.name!r} has no tasks in split {source.split!r}")
        return source.get(int(self.np_random.integers(MAX_DRAWN_INDEX if size is None else size)))

    def _begin(self, task: Task) -> tuple[str, dict[str, Any]]:
        self._episode = None
        messages: tuple[Message, ...] = (Message("user", task.question),)
        if self.system_prompt:
            messages = (Message("system", self.system_prompt), *messages)
        chars = sum(len(m.content) for m in messages)
        if chars >= self.budgets.max_chars:
            raise ValueError(
                f"max_chars={self.budgets.max_chars} leaves nothing after the {chars} characters of the "
                f"prompt of {task.task_id!r}; raise it"
            )
        self.take_up(task)
        self._toolbox.open(task.task_id)
        self._episode = Episode(task=task, messages=messages, observation=task.question, chars=chars)
        self._display.begin()
        return self._episode.observation, self._info(self._episode)

    def _advance(self, episode: Episode, text: str) -> Episode:
        after = Episode(  # all else is as in every episode that goes on
            episode.task,
            episode.messages + (Message("assistant", text),),  # noqa: RUF005 - unpacking takes twice as long
            "",
            episode.turn + 1,
            episode.chars + len(text),
            episode.n_tool_calls,
            episode.n_tool_errors,
        )
        if self._refuses_turns or after.chars > self.budgets.max_chars:
            return after._replace(error_kind="char_budget", truncated=True)
        turn = self.protocol.parse(text)
        if turn.calls:
            return self._run_calls(after, turn.calls)
        verdict = self.judge(episode.task, turn.content)
        if verdict is None:
            hint = self.no_action_text[: self.budgets.max_chars - after.chars]
            return self._give_feedback(after, [Message("user", hint)], "no_action", None)
        return _graded(after, verdict)

    def _run_calls(self, episode: Episode, calls: Sequence[ParsedCall | MalformedCall]) -> Episode:
        records: list[CallRecord] = []
        stop: ErrorKind | None = None
        submission: Mapping[str, Any] | None = None
        room = self.budgets.max_chars - episode.chars
        for call in calls:
            if episode.n_tool_calls + len(records) >= self.budgets.max_tool_calls:
                stop = "tool_budget"
                break
            record = self._toolbox.answer(call)
            if isinstance(call, ParsedCall) and self.ends_episode(call, record):
                submission = call.arguments
            elif len(record.text) > room:
                stop = "char_budget"
            record = replace(record, text=record.text[:room])
            records.append(record)
            room -= len(record.text)
            if record.kind == "sandbox_failure":
                stop = "sandbox_failure"
            if stop is not None or submission is not None:
                break
        failed = [r.kind for r in records if r.kind not in CALL_SUCCEEDED]
        episode = episode._replace(
            n_tool_calls=episode.n_tool_calls + len(records),
            n_tool_errors=episode.n_tool_errors + len(failed),
            calls=tuple(records),
            valid=stop != "sandbox_failure",
        )
        feedback = [Message("tool", r.text, r.name) for r in records]
        error = failed[0] if failed else None
        after = self._give_feedback(episode, feedback, error, stop)
        if submission is None:
            return after
        after = after._replace(truncated=False, error_kind=error)
        return _graded(after, self.judge_submission(episode.task, submission))

    def _give_feedback(
        self, episode: Episode, feedback: Sequence[Message], error: ErrorKind | None, stop: ErrorKind | None
    ) -> Episode:
        """Append messages of the environment; truncate when `stop` names a reason or a budget is used up."""
        texts = [m.content for m in feedback]
        length = sum(map(len, texts))
        if stop is None and episode.chars + length >= self.budgets.max_chars:
            stop = "char_budget"
        if stop is None and episode.turn >= self.budgets.max_turns:
            stop = "turn_budget"
        return Episode(
            episode.task,
            episode.messages + tuple(feedback),  # half the time of unpacking both
            "\n".join(texts),
            episode.turn,
            episode.chars + length,
            episode.n_tool_calls,
            episode.n_tool_errors,
            episode.calls,
            error_kind=stop or error,
            valid=episode.valid,
            truncated=stop is not None,
        )

    def _show(self) -> None:
        """Keep up what `render` gives, and in mode "human" print the messages that were not printed yet."""
        if self.render_mode is not None and self._episode is not None:
            self._display.follow(self._episode, printing=self.render_mode == "human")


def _graded(episode: Episode, verdict: Verdict) -> Episode:
    """The end of an episode whose final answer was graded."""
    grade = json.dumps(dict(verdict.grade), ensure_ascii=False)
    graded = episode._replace(answer=verdict.answer, grade=grade)
    if verdict.failed:
        return graded._replace(error_kind="sandbox_failure", valid=False, truncated=True)
    return graded._replace(is_correct=verdict.correct, terminated=True)


def _read_options(options: Mapping[str, Any] | None) -> int | str | Snapshot | None:
    given = dict(options or {})
    unknown = [k for k in given if k not in _RESET_OPTIONS]
    if unknown:
        raise ValueError(f"reset option {unknown[0]!r} is unknown; give one of {', '.join(_RESET_OPTIONS)}")
    if len(given) > 1:
        raise ValueError(f"reset options {', '.join(given)} conflict; give only one of them")
    if not given:
        return None
    ((key, value),) = given.items()
    if key == "index" and isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    if (key == "task_id" and isinstance(value, str)) or (key == "snapshot" and isinstance(value, Snapshot)):
        return value
    wanted = {"index": "an int", "task_id": "a str", "snapshot": "an elpo_envs.Snapshot"}[key]
    raise ValueError(f"reset option {key}={value!r} must be {wanted}")
