"""Running a model over packed conversations: the attention, which models can take it, and their logits."""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elpo_agent.engines.attention import TREE_ATTENTION
from elpo_agent.learner.packing import Packed, pack, predicting

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_takes_trees: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class TreeLayout:
    """What every layer's attention needs to know of a packed sequence.

    Attributes:
        segments: tokens of each segment.
        queries: tokens of each block, which together are the sequence.
        blocks: for each, the segments that hold its keys, and the mask (None: plainly causal) as in `Block`.
    """

    segments: list[int]
    queries: list[int]
    blocks: list[tuple[tuple[int, ...], Tensor | None]]

    @staticmethod
    def of(packed: Packed, device: torch.device) -> TreeLayout:
        blocks = packed.blocks()
        return TreeLayout(
            segments=np.diff(np.append(packed.segments, len(packed.ids))).tolist(),
            queries=[block.stop - block.start for block in blocks],
            blocks=[
                (block.keys, None if block.visible is None else torch.from_numpy(block.visible).to(device))
                for block in blocks
            ],
        )


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree: TreeLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in the blocks of `tree`, of (1, heads, U, size); as transformers calls it, with its arguments.

    A kernel that knows such masks, FlexAttention for one, would take the place of the loop.

    Raises:
        ValueError: the layer has a sliding window, which counts tokens where they do not lie.
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if tree is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if kwargs.get("sliding_window") is not None:
        raise ValueError("a layer with a sliding window cannot attend over packed conversations")
    shared = query.shape[1] // key.shape[1]
    keys = repeat_kv(key, shared).split(tree.segments, dim=2)
    values = repeat_kv(value, shared).split(tree.segments, dim=2)
    queries = query.split(tree.queries, dim=2)  # type: ignore[no-untyped-call]
    out = [
        F.scaled_dot_product_attention(
            own,
            torch.cat([keys[s] for s in seen], dim=2),
            torch.cat([values[s] for s in seen], dim=2),
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=dropout,
            scale=scaling,
        )
        for own, (seen, mask) in zip(queries, tree.blocks, strict=True)
    ]
    return torch.cat(out, dim=2).transpose(1, 2).contiguous(), None


def packed_logits(model: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Logits at every packed position that predicts an agent token, each once.

    Args:
        model: one that `takes_trees`.
        ids: int64 (B, T), right-padded rows; tokens after a row's last agent token are not computed.
        mask: (B, T), 1 on agent tokens; at least one beyond the first column.
    Returns:
        The logits, (K, vocabulary), and for the N agent tokens, row by row, which of the K predicts them, int64 (N,).
    """
    agent: NDArray[np.bool_] = mask.cpu().numpy() > 0
    packed = pack([predicting(row, own) for row, own in zip(ids.cpu().numpy(), agent, strict=True)])
    before = np.concatenate(
        [places[own[1 : len(places) + 1]] for places, own in zip(packed.places, agent, strict=True)]
    )
    positions, at = np.unique(before, return_inverse=True)
    keep = torch.from_numpy(positions).to(ids.device)
    logits = model(
        input_ids=torch.from_numpy(packed.ids)[None].to(ids.device),
        position_ids=torch.from_numpy(packed.positions)[None].to(ids.device),
        # No mask is made of four dimensions, and any attention that would use this one fails.
        attention_mask=torch.zeros((1, 1, 0, 0), dtype=torch.bool, device=ids.device),
        use_cache=False,
        logits_to_keep=keep,
        tree=TreeLayout.of(packed, ids.device),
    ).logits[0]
    if len(logits) != len(keep):  # the model knows no logits_to_keep
        logits = logits[keep]
    return logits, torch.from_numpy(at).to(ids.device)


def takes_trees(model: nn.Module) -> bool:
    """Whether `model` computes packed rows as it does flat ones; found out once, on a small tree of random ids.

    A model that does has its attention switched to `TREE_ATTENTION`, for good; why another does not is logged.
    """
    if model not in _takes_trees:
        reason = _obstacle(model)
        _takes_trees[model] = reason is None
        if reason is not None:
            logger.warning("%s is trained on flat rows, not on packed ones: %s", type(model).__name__, reason)
    return _takes_trees[model]


def _obstacle(model: nn.Module) -> str | None:
    """Why packed rows cannot be computed."""
    config = getattr(model, "config", None)
    attention = getattr(config, "_attn_implementation", None)
    if config is None or attention not in ("sdpa", TREE_ATTENTION):
        return f"its attention is {attention!r}; load it with 'sdpa'"
    # These depend on lengths beyond those of the small tree.
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        return f"its rotary embedding of type {rope['rope_type']!r} depends on the length of a batch"
    _register()
    config._attn_implementation = TREE_ATTENTION
    try:
        reason = _disagreement(model)
    except Exception as error:  # whatever a model does with arguments that it does not know
        reason = f"it raises {type(error).__name__}: {error}"
    if reason is not None:
        config._attn_implementation = attention
    return reason


def _disagreement(model: nn.Module) -> str | None:
    """What a small tree's packed logits say against packing."""
    ids = _small_tree(int(model.get_input_embeddings().weight.shape[0]))  # type: ignore[operator]
    ids = ids.to(next(model.parameters()).device)
    with torch.no_grad():
        flat = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        logits, at = packed_logits(model, ids, torch.ones_like(ids))
    error = float((logits[at] - flat).float().square().mean().sqrt() / flat.float().square().mean().sqrt())
    if error <= torch.finfo(flat.dtype).eps ** 0.5 / 4.0:
        return None
    return f"its logits differ by {error:.2g} of their size"


def _small_tree(vocabulary: int) -> Tensor:
    """Rows (6, 13) of random ids that part at several depths, two of them at the first token."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, vocabulary, (6, 13))
    ids[1:4, :5] = ids[0, :5]
    ids[2:4, :9] = ids[1, :9]
    ids[5, :2] = ids[4, :2]
    return torch.from_numpy(ids)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(TREE_ATTENTION, tree_attention)
    AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
