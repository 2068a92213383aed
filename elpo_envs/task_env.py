"""What the environments of all domains share: a data set of tasks, a Python interpreter and other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

from elpo_envs.env import Budgets, ConversationEnv
from elpo_envs.protocols import get_protocol
from elpo_envs.recovery import Policy, continuation
from elpo_envs.sandbox import Isolation, Limits, Sandbox, make_sandbox
from elpo_envs.tasks.base import TaskSource
from elpo_envs.tasks.sources import check_dataset, load_source
from elpo_envs.tools import PythonTool, Tool
from elpo_envs.tools.extra import ExtraTool, make_extra_tools


class TaskEnv(ConversationEnv):
    """One task of a data set per episode, with a stateful Python interpreter.

    Subclasses name their domain and prompt, may add tools (`make_tools`), and grade the answer (`judge`).

    Args:
        dataset: "generated" (endless), the name of a benchmark, or a path to a JSONL(.gz), JSON or Parquet file
            with question and answer fields. Files are read at the first reset that needs them.
        split: "train", "validation" or "test".
        max_turns, max_tool_calls, max_chars: see `Budgets`.
        protocol: how tool calls are written: a name in `elpo_envs.protocols.PROTOCOLS`.
        sandbox: interpreter backend: "fork", "replay", "pyodide", or "auto" for the best one here.
        render_mode: None, "ansi" or "human".
        dataset_options: arguments of the task source, such as {"min_steps": 3, "max_steps": 4}.
        data_dir: folder of the benchmark files; by default that in the environment variable ELPO_DATA.
        tool_timeout_s: seconds of wall-clock and CPU time for one tool call; > 0.
        isolation: "preferred" warns where code is not isolated from this machine, "required" refuses.
        sandbox_options: more about the interpreter: "restricted" (False leaves the language layer out),
            "allowed_imports" (a list of modules), "memory_mb" and "output_chars" (as in `sandbox.Limits`).
        system_prompt: first message of the chat; "" leaves it out, None is the domain's own.
        describe_tools: whether the first message goes on with the tools and how to call them; None does so for
            "fences" and "python_tags", which no chat template teaches. `tools` is [] then.
        extra_tools: more tools: functions (classes, say) that each make one, their places as "module:name", or
            {"mcp": {"command": [...]}}; see `elpo_envs.tools.extra`.
        task_source: Python only: tasks to use in place of those that `dataset` names.

    Raises:
        ValueError: any of these is unknown or out of range.
    """

    domain: ClassVar[str]
    default_prompt: ClassVar[str]
    _own: Mapping[str, Any] = MappingProxyType({})  # a subclass's own arguments, set before this class's `__init__`

    def __init__(
        self,
        dataset: str = "generated",
        split: str = "train",
        max_turns: int = 16,
        protocol: str = "hermes",
        sandbox: str = "auto",
        render_mode: str | None = None,
        *,
        dataset_options: Mapping[str, Any] | None = None,
        data_dir: str | None = None,
        max_tool_calls: int = 32,
        max_chars: int = 200_000,
        tool_timeout_s: float = 6.0,
        isolation: Isolation = "preferred",
        sandbox_options: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
        describe_tools: bool | None = None,
        extra_tools: Sequence[ExtraTool] = (),
        task_source: TaskSource | None = None,
    ) -> None:
        if not tool_timeout_s > 0:
            raise ValueError(f"tool_timeout_s={tool_timeout_s!r} must be greater than 0 seconds")
        if task_source is None:
            check_dataset(dataset, split, dataset_options, self.domain)
        self._python = PythonTool(_make_sandbox(sandbox, isolation, tool_timeout_s, sandbox_options))
        self._arguments: dict[str, Any] = {
            "dataset": dataset,
            "split": split,
            "max_turns": max_turns,
            "protocol": protocol,
            "sandbox": sandbox,
            "render_mode": render_mode,
            "dataset_options": dataset_options,
            "data_dir": data_dir,
            "max_tool_calls": max_tool_calls,
            "max_chars": max_chars,
            "tool_timeout_s": tool_timeout_s,
            "isolation": isolation,
            "sandbox_options": sandbox_options,
            "system_prompt": system_prompt,
            "describe_tools": describe_tools,
            "extra_tools": tuple(extra_tools),
            "task_source": task_source,
            **self._own,
        }
        self._task_source = task_source
        super().__init__(
            protocol=get_protocol(protocol),
            tools=[self._python, *self.make_tools(), *make_extra_tools(extra_tools, tool_timeout_s)],
            budgets=Budgets(max_turns, max_tool_calls, max_chars),
            system_prompt=self.default_prompt if system_prompt is None else system_prompt,
            identity={
                "dataset": dataset if task_source is None else task_source.name,
                "split": split if task_source is None else task_source.split,
                "dataset_options": dict(dataset_options or {}),
                "tool_timeout_s": tool_timeout_s,
                "sandbox_options": dict(sandbox_options or {}),
                **self._own,
            },
            render_mode=render_mode,
            describe_tools=describe_tools,
        )

    def make_tools(self) -> Sequence[Tool]:
        """The domain's tools besides `python`; called once, before anything but the arguments is set."""
        return ()

    def facts(self) -> dict[str, Any]:
        """`sandbox`: the interpreter's backend and what it can do here."""
        return {"sandbox": self._python.sandbox_facts}

    def recoverable(self, policy: Policy = "omniscient") -> bool:
        """Whether the conversation can still be solved within the budgets of this environment; it is left as it is.

        Known of generated tasks, from their own model. What the policies "omniscient" and "expert" may do, and what
        this raises, says `elpo_envs.recovery`, which also knows the budgets of wrappers.
        """
        return continuation(self, policy) is not None

    def look_up(self, expression: str) -> str | None:
        """The `repr` of what a Python expression gives in the interpreter now, or None where it raises.

        It is run like the model's own code, within the limits, and can change the state; what else it prints is passed
        over.
        """
        result = self._python.call({"code": f"[{expression}]"})  # in a list, since a lone None is not shown
        return result.text.rpartition("\n")[2][1:-1] if result.kind == "ok" else None

    @property
    def task_source(self) -> TaskSource:
        """The tasks. Raises ValueError or OSError, naming the file, where they cannot be read."""
        if self._task_source is None:
            a = self._arguments
            self._task_source = load_source(a["dataset"], a["split"], a["dataset_options"], a["data_dir"], self.domain)
        return self._task_source

    def clone(self) -> Self:
        new = type(self)(**self._arguments)
        new._task_source = self._task_source
        new.spec = self.spec
        return new


def _make_sandbox(name: str, isolation: Isolation, timeout_s: float, options: Mapping[str, Any] | None) -> Sandbox:
    given = dict(options or {})
    unknown = sorted(given.keys() - {"restricted", "allowed_imports", "memory_mb", "output_chars"})
    if unknown:
        raise ValueError(
            f"sandbox_options[{unknown[0]!r}] is unknown; give restricted, allowed_imports, memory_mb or output_chars"
        )
    bounds = {field: given.pop(field) for field in ("memory_mb", "output_chars") if field in given}
    limits = Limits(wall_s=timeout_s, cpu_s=timeout_s, **bounds)
    return make_sandbox(name, limits, isolation=isolation, **given)
