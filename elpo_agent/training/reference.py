"""The reference policy: the model as it was when reinforcement learning began, and never trained after."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.credit.base import FloatArray, ReferenceLogprobs, valid_leaves
from elpo_agent.learner.logprobs import row_logprobs
from elpo_agent.learner.packing import Packing
from elpo_agent.learner.precision import check_same_names
from elpo_agent.learner.rows import LeafTokens, leaf_tokens
from elpo_agent.ranks import ALONE, Ranks
from elpo_agent.runs.checkpoint import naming_full_disk
from elpo_agent.runs.run_folder import RunFolderError
from elpo_agent.tree import RolloutTree

FILE = "reference.pt"


def needs_reference(algorithm: Algorithm) -> bool:
    """Whether its loss has a KL term, or its credit rule asks for the reference's log-probabilities."""
    options = getattr(algorithm.objective, "options", None)
    return bool(getattr(algorithm.credit, "needs_reference", False) or (options is not None and options.kl_coef > 0.0))


@dataclass(frozen=True)
class _Known:
    """Looks up what was computed, by the tokens: credit rules may ask with a copy of a tree that has other rewards."""

    values: Mapping[tuple[bytes, bytes], NDArray[np.float32]]

    def __call__(self, tree: RolloutTree, leaf: int) -> Sequence[FloatArray]:
        tokens = leaf_tokens(tree, leaf)
        line = self.values[_key(tokens)]
        return [line[span].astype(np.float64) for span in tokens.spans]


def _key(tokens: LeafTokens) -> tuple[bytes, bytes]:
    return tokens.ids.tobytes(), tokens.mask.tobytes()


class Reference:
    """A frozen copy of a model. It takes as much memory as the model itself.

    Of one that has frozen parameters, as with adapters, only the trained ones are copied; the model computes with the
    copies while it is asked. As long as fine-tuning has not touched the adapters, that is the model without them.

    Args:
        model: copied as it is now.
        pad_id: see `Learner`.
        temperature: that of sampling: the two policies are compared as they would sample.
        micro_batch_tokens, packing: see `LearnerConfig`.
        ranks: they share the work; each asks for the same trees.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pad_id: int,
        temperature: float,
        micro_batch_tokens: int,
        packing: Packing = "never",
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if len(self._trained) < len(list(model.parameters())):
            self.model = model
            self._kept = {name: p.detach().clone() for name, p in self._trained.items()}
        else:
            self.model = copy.deepcopy(model).eval().requires_grad_(False)
            self._trained, self._kept = {}, self.model.state_dict()
            for parameter in self.model.parameters():
                parameter.grad = None
        self.pad_id = pad_id
        self.temperature = temperature
        self.micro_batch_tokens = micro_batch_tokens
        self.packing: Packing = packing

    def logprobs(self, trees: Sequence[RolloutTree]) -> ReferenceLogprobs:
        """One pass over the valid leaves of `trees`; what comes back looks them up, and knows no others (KeyError)."""
        of_leaves = (leaf_tokens(tree, leaf) for tree in trees for leaf in valid_leaves(tree))
        rows = {_key(tokens): tokens for tokens in of_leaves}
        with self._in_place():
            values = row_logprobs(
                self.model,
                list(rows.values()),
                pad_id=self.pad_id,
                temperature=self.temperature,
                micro_batch_tokens=self.micro_batch_tokens,
                packing=self.packing,
                ranks=self._ranks,
            )
        return _Known(dict(zip(rows, values, strict=True)))

    def save(self, folder: Path) -> None:
        """Write `folder/reference.pt`, if this rank is the first; it gets its name once all of it is there.

        Raises:
            DiskFullError, OSError: it cannot be written.
        """
        if not self._ranks.leads:
            return
        partial = folder / f".{FILE}.partial"
        with naming_full_disk(folder), partial.open("wb") as file:
            torch.save(self._kept, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / FILE)

    def load(self, folder: Path) -> None:
        """Take the weights that `save` wrote.

        Raises:
            RunFolderError: they are not there.
        """
        path = folder / FILE
        if not path.is_file():
            raise RunFolderError(
                f"{path} is missing: this run compares with the model as it was before; start a new run"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_same_names(self._kept, state)
        for name, value in self._kept.items():
            value.copy_(state[name])

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """The model computes with the copies of what is trained."""
        self._exchange()
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)
            self._exchange()

    def _exchange(self) -> None:
        with torch.no_grad():
            for name, parameter in self._trained.items():
                value = parameter.detach().clone()
                parameter.copy_(self._kept[name])
                self._kept[name].copy_(value)
