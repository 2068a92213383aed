"""The runner's environments: broken sandboxes, void episodes, second tries, bugs."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from _word_env import ScriptedPolicy, WordEnv, check_tree, runner_of, tasks_of

from elpo_agent.rollout.independent import IndependentSampling
from elpo_envs.sandbox import SandboxError


def test_a_broken_sandbox_voids_its_trajectory_alone(caplog: pytest.LogCaptureFixture) -> None:
    made: list[WordEnv] = []

    def make() -> WordEnv:
        made.append(WordEnv())
        return made[-1]

    policy = ScriptedPolicy(choose=lambda prefix, j: "t" if "<" not in prefix else "!" if "task 1" in prefix else "a")
    with caplog.at_level(logging.WARNING), runner_of(policy, make) as runner:
        (first, _), (second, _) = runner.run(IndependentSampling(3), tasks_of(2), seed=0)
    assert all(first.outcome(leaf).success for leaf in first.leaves)
    for leaf in second.leaves:
        outcome = second.outcome(leaf)
        assert not outcome.valid and not outcome.success and outcome.reward == 0
        assert len(second.path(leaf)) == 2
    assert "SandboxError: the sandbox died" in caplog.text
    assert all(env.closed == 1 for env in made)


def test_the_environments_own_word_on_validity_counts() -> None:
    class Voided(WordEnv):
        def _info(self) -> dict[str, Any]:
            return super()._info() | {"valid": False}

    with runner_of(ScriptedPolicy(letters="b"), Voided) as runner:
        ((tree, _),) = runner.run(IndependentSampling(1), tasks_of(1), seed=0)
    assert not tree.outcome(tree.leaves[0]).valid


def test_an_episode_that_cannot_begin_is_tried_twice() -> None:
    failures: list[int] = []

    class Flaky(WordEnv):
        def reset(self, **kwargs: Any) -> Any:
            failures.append(1)
            if len(failures) <= self.broken:
                raise SandboxError("no session")
            return super().reset(**kwargs)

    Flaky.broken = 1  # type: ignore[attr-defined]
    with runner_of(ScriptedPolicy(), Flaky) as runner:
        ((tree, _),) = runner.run(IndependentSampling(2), tasks_of(1), seed=0)
    assert len(tree.leaves) == 2
    Flaky.broken = 99  # type: ignore[attr-defined]
    with runner_of(ScriptedPolicy(), Flaky) as runner, pytest.raises(RuntimeError, match="failed twice"):
        runner.run(IndependentSampling(2), tasks_of(1), seed=0)


def test_bugs_surface() -> None:
    with runner_of(ScriptedPolicy(letters="t?")) as runner:
        with pytest.raises(TypeError, match="a bug"):
            runner.run(IndependentSampling(4), tasks_of(3), seed=0)
        # The pool is fit for the next run.
        runner.policy = ScriptedPolicy()
        for tree, _ in runner.run(IndependentSampling(4), tasks_of(3), seed=0):
            check_tree(tree)
