"""Faults that were measured in other suites for tool-integrated reasoning, one line each, and that ours do not have.

GEM 0.1.0, skyrl-gym 0.4.0, verifiers 0.4.0, NeMo Gym, OpenEnv, LiveCodeBench, Open-AgentRL (DemyAgent), GPQA's own
scripts and Gymnasium 1.4.0, in November 2026. The checks use what a user uses: `gym.make`, real tools, real sandboxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import _peers_grading as grading
import _peers_tools as tools
import pytest
from _fork_watch import needs_fork

from elpo_envs.sandbox.fork import pools

pytestmark = needs_fork


@pytest.fixture(scope="module", autouse=True)
def light_pool() -> Iterator[None]:
    """The pool that sandboxes share, without the libraries that take long to import: it is killed some times here."""
    before = pools._preload
    pools.preload()
    yield
    pools.preload(*before)


TABLE: tuple[tuple[str, str, Callable[[], None]], ...] = (
    ("a time limit of 1 s takes 10 s", "GEM", tools.time_limit_of_tools),
    ("stderr hides stdout", "skyrl-gym", tools.stderr_hides_stdout),
    ("exit() ends the worker", "verifiers", tools.exit_ends_the_worker),
    ("x = 5 as the last line is a TypeError", "DemyAgent", tools.last_line_in_print),
    ("variables are lost between calls", "most", tools.variables_are_lost),
    ("a stateful sandbox needs a service", "most", tools.needs_a_service),
    ("terminated and truncated at once", "GEM", tools.both_ends),
    ("no truncated", "skyrl-gym", tools.no_truncation),
    ("a finished episode can be stepped", "most", tools.stepping_on),
    ("max_episode_steps does not reach the environment", "Gymnasium", tools.turns_from_the_registry),
    ("reset(seed) seeds the global generators", "GEM", tools.global_generators),
    ("a seed does not decide the task", "most", tools.seeds),
    ("no way to choose the task, or a snapshot, at reset", "most", tools.options_of_reset),
    ("check_env warns", "most", tools.warnings_of_the_checker),
    ("clocks and ids in info", "most", tools.clocks_in_info),
    ("keys of info come and go", "most", tools.infos_without_keys),
    ("the name is unknown without an import", "Gymnasium", tools.unregistered_names),
    ("a spec that JSON cannot hold", "most", tools.specs),
    ("text spaces reject \"\" and é", "Gymnasium", tools.text_spaces),
    ("observations repeat the chat", "most", tools.observations),
    ("close() twice, or before a reset", "most", tools.rendering_and_closing),
    ("an info that is changed changes others", "most", tools.shared_infos),
    ("vector environments crash on é", "Gymnasium", tools.text_in_shared_memory),
    ("autoreset wastes an action", "Gymnasium", tools.wasted_actions),
    ("no snapshots and branches", "all", tools.no_branches),
    ("no rewards of single turns", "most", tools.rewards_of_turns),
    ("a box in a tool's output is the answer", "NeMo Gym, skyrl-gym", grading.boxed_in_tool_output),
    ("\"Option (A) is wrong\" answers A", "GPQA", grading.first_letter_named),
    ("the order of options changes from build to build", "most", grading.order_of_options),
    ("stdin.buffer.readline is always line 1", "LiveCodeBench", grading.buffered_lines),
    ("outputs are compared by other rules", "LiveCodeBench", grading.rules_of_outputs),
    ("values are compared by other rules", "LiveCodeBench", grading.rules_of_values),
    ("the tests are in the program's sight", "most", grading.tests_in_sight),
    ("the reward is a file that the agent can write", "OpenEnv", grading.grader_in_reach),
    ("grading raises off the main thread, uses SIGALRM", "Math-Verify", grading.grading_in_threads),
    ("waiting counts as a time-out", "Math-Verify", grading.queueing_as_time_out),
    ("a tool's sandbox fails: scored as wrong", "most", grading.sandbox_failure_in_a_tool),
    ("a grader's sandbox fails: scored as wrong", "most", grading.sandbox_failure_in_the_grader),
    ("recorded traces cannot be graded", "most", grading.no_offline_grading),
)  # fmt: skip


@pytest.mark.parametrize(("flaw", "whose", "check"), TABLE, ids=[f"{flaw} ({whose})" for flaw, whose, _ in TABLE])
def test_a_flaw_of_others_is_not_ours(flaw: str, whose: str, check: Callable[[], None]) -> None:
    check()
