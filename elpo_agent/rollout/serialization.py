"""Rollout trees as JSON values, one object per tree, for logs that are read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elpo_agent.rollout.base import Anchor, Localization, SearchResult
from elpo_agent.tree import Outcome, RolloutTree, Step

FORMAT_VERSION = 1
_ENTROPY_DECIMALS = 5


def tree_to_json(tree: RolloutTree, result: SearchResult) -> dict[str, Any]:
    """JSON values from which `tree_from_json` makes an equal tree.

    Log-probabilities are exact (the shortest decimal that gives the same float32), entropies are rounded to 5
    decimals, snapshots are left out.
    """
    return {
        "version": FORMAT_VERSION,
        "task_id": tree.task_id,
        "prompt_ids": list(tree.prompt_ids),
        "nodes": [
            {
                "parent": node.parent,
                **_step_to_json(node.step),
                "outcome": None if node.outcome is None else asdict(node.outcome),
            }
            for node in tree.nodes[1:]
            if node.step is not None
        ],
        "groups": [[leaf, group] for leaf, group in tree.groups.items()],
        "localizations": [asdict(found) for found in result.localizations],
    }


def tree_from_json(data: Mapping[str, Any]) -> tuple[RolloutTree, SearchResult]:
    """The tree and search result in `data`, which `tree_to_json` made.

    Raises:
        ValueError: another format version, or a field is missing or malformed.
    """
    if data.get("version") != FORMAT_VERSION:
        raise ValueError(f"version={data.get('version')!r} of a rollout tree cannot be read; this is {FORMAT_VERSION}")
    try:
        tree = RolloutTree(data["task_id"], tuple(data["prompt_ids"]))
        for node in data["nodes"]:
            outcome = None if node["outcome"] is None else Outcome(**node["outcome"])
            tree.add(node["parent"], _step_from_json(node), outcome=outcome)
        tree.groups.update((int(leaf), int(group)) for leaf, group in data.get("groups", ()))
        found = tuple(_localization_from_json(item) for item in data["localizations"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a rollout tree written by tree_to_json: {error!r}") from error
    return tree, SearchResult(found)


def _step_to_json(step: Step) -> dict[str, Any]:
    return {
        "ids": list(step.ids),
        # str() of a float32 is its shortest exact decimal.
        "logprobs": [float(str(value)) for value in step.logprobs],
        "entropies": [round(float(value), _ENTROPY_DECIMALS) for value in step.entropies],
        "feedback_ids": list(step.feedback_ids),
        "text": step.text,
        "tool_calls": step.tool_calls,
        "tool_errors": step.tool_errors,
        "kinds": list(step.kinds),
        "reward": step.reward,
    }


def _step_from_json(data: Mapping[str, Any]) -> Step:
    return Step(
        ids=tuple(data["ids"]),
        logprobs=_float32(data["logprobs"]),
        entropies=_float32(data["entropies"]),
        feedback_ids=tuple(data["feedback_ids"]),
        text=data["text"],
        tool_calls=data["tool_calls"],
        tool_errors=data["tool_errors"],
        kinds=tuple(data.get("kinds", ())),  # not in logs of earlier versions
        reward=data.get("reward", 0.0),
    )


def _float32(values: Any) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def _localization_from_json(data: Mapping[str, Any]) -> Localization:
    anchors = tuple(Anchor(**{**anchor, "probes": tuple(anchor["probes"])}) for anchor in data["anchors"])
    posterior = tuple(data.get("posterior", ()))
    return Localization(**{**data, "anchors": anchors, "posterior": posterior})
