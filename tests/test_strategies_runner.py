"""Strategies on the real runner: snapshots, batches, and sandboxes that fail."""

from __future__ import annotations

import json

import pytest
from _every_strategy import COUNT, PLAIN, strategies
from _word_env import ScriptedPolicy, check_tree, logs, runner_of, tasks_of

from elpo_agent.rollout import RandomExpansion
from elpo_agent.rollout.serialization import tree_from_json, tree_to_json


@pytest.mark.parametrize("number", [*range(PLAIN), PLAIN + 3, COUNT - 1])
def test_the_runner_grows_every_strategys_trees(number: int) -> None:
    """Real snapshots, real batches, failing sandboxes: every tree is one that its environment could have shown."""
    strategy = strategies(12)[number]
    with runner_of(ScriptedPolicy("tttteaab!")) as runner:
        results = runner.run(strategy, tasks_of(4), seed=5)
        again = runner.run(strategy, tasks_of(4), seed=5)
        other = runner.run(strategy, tasks_of(4), seed=6)
    for tree, _ in results:
        assert 0 < len(tree.leaves) <= 12
        if all(tree.outcome(leaf).valid for leaf in tree.leaves):
            check_tree(tree)
    assert logs(results) == logs(again) != logs(other)
    for tree, result in results:
        read, found = tree_from_json(json.loads(json.dumps(tree_to_json(tree, result))))
        assert (read.parents().tolist(), read.leaves, read.groups) == (
            tree.parents().tolist(),
            tree.leaves,
            tree.groups,
        )
        assert found == result


def test_expansions_under_way_at_once_make_larger_batches() -> None:
    policy = ScriptedPolicy("ttttttab")
    with runner_of(policy) as runner:
        runner.run(RandomExpansion(), tasks_of(1), seed=0)
    # the 12 expansions begin together, in as many requests as there are different nodes; one by one, each had its own
    assert sum(request.n for request in policy.batches[0]) == 4
    assert max(sum(request.n for request in batch) for batch in policy.batches) == 12
