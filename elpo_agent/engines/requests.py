"""What an engine demands of every request, whichever engine it is."""

from __future__ import annotations

from collections.abc import Sequence

from elpo_agent.policy import SampleRequest


def check_stop_ids(stop_ids: Sequence[int]) -> None:
    """Raises ValueError where there are none."""
    if not stop_ids:
        raise ValueError("stop_ids is empty, so no turn would ever end; give the ids that end a turn")


def check_request(request: SampleRequest, vocab: int | None, positions: int | None, limit: str) -> None:
    """Refuse what no engine can sample from.

    Args:
        request: as it came.
        vocab: ids are 0 to vocab - 1; None where the engine does not know.
        positions: the longest prefix; None where the engine does not know.
        limit: what the engine calls `positions`, for the message.
    Raises:
        ValueError: an empty or too long prefix, an id outside the vocabulary, n < 0, max_new_tokens < 1, or a negative
            seed or temperature.
    """
    ids = request.prefix_ids
    if not ids:
        raise ValueError("prefix_ids is empty; a model needs at least one token to continue from")
    if positions is not None and len(ids) > positions:
        raise ValueError(
            f"prefix_ids has {len(ids)} tokens, but {limit} is {positions}; shorten the prefix or use a model with a "
            "longer context"
        )
    if vocab is not None and (min(ids) < 0 or max(ids) >= vocab):
        raise ValueError(
            f"prefix_ids has ids from {min(ids)} to {max(ids)}, but the model's vocabulary is 0 to {vocab - 1}; use "
            "the model's own tokenizer"
        )
    if request.n < 0 or request.max_new_tokens < 1:
        raise ValueError(f"n={request.n}, max_new_tokens={request.max_new_tokens}: give n >= 0 and max_new_tokens >= 1")
    if request.seed < 0 or not request.temperature >= 0:
        raise ValueError(f"seed={request.seed}, temperature={request.temperature}: both must be 0 or more")
