"""Logs of rollout trees: what is written is what is read back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from _word_env import ScriptedPolicy, runner_of, tasks_of

from elpo_agent.rollout.base import Anchor, Localization, SearchResult
from elpo_agent.rollout.bel import BinaryErrorLocalization
from elpo_agent.rollout.serialization import tree_from_json, tree_to_json
from elpo_agent.tree import Outcome, RolloutTree, Step


def test_logs_round_trip() -> None:
    with runner_of(ScriptedPolicy()) as runner:
        results = runner.run(BinaryErrorLocalization(12), tasks_of(4), seed=0)
    assert any(result.localizations for _, result in results)
    for tree, result in results:
        data = json.loads(json.dumps(tree_to_json(tree, result)))
        tree2, result2 = tree_from_json(data)
        assert result2 == result
        assert (tree2.task_id, tree2.prompt_ids, tree2.leaves) == (tree.task_id, tree.prompt_ids, tree.leaves)
        for a, b in zip(tree.nodes, tree2.nodes, strict=True):
            assert (a.parent, a.depth, a.children, a.outcome) == (b.parent, b.depth, b.children, b.outcome)
            if a.step is None or b.step is None:
                assert a.index == 0
                continue
            assert b.step.logprobs.dtype == np.float32
            assert a.step.logprobs.tobytes() == b.step.logprobs.tobytes()
            np.testing.assert_allclose(a.step.entropies, b.step.entropies, atol=1e-5)
            blank = {"logprobs": np.zeros(0), "entropies": np.zeros(0)}
            assert str(replace(a.step, **blank)) == str(replace(b.step, **blank))


def test_logs_of_every_kind_of_localization_and_bad_ones() -> None:
    tree = RolloutTree("t", (1, 2))
    logprobs = np.array([-1e-7, -3.1415927, -123456.79], dtype=np.float32)
    leaf = tree.add(0, Step((5, 6, 7), logprobs, logprobs), outcome=Outcome(-1.1, False, answer="½"))
    found = (
        Localization(leaf, 0, None, None),
        Localization(leaf, 2, 1, leaf, (Anchor(1, leaf, (leaf,), None), Anchor(2, leaf, (), True)), closed=False),
    )
    data = json.loads(json.dumps(tree_to_json(tree, SearchResult(found))))
    again, result = tree_from_json(data)
    assert result.localizations == found
    assert again.nodes[1].step.logprobs.tobytes() == logprobs.tobytes()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="version=9"):
        tree_from_json(data | {"version": 9})
    with pytest.raises(ValueError, match="nodes"):
        tree_from_json({k: v for k, v in data.items() if k != "nodes"})
