"""What to lower where memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from elpo_agent.config import LearnerConfig, RolloutConfig

# What torch's allocator for the CPU says, in a plain RuntimeError.
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


class OutOfMemoryError(RuntimeError):
    """Too little memory for the settings; what was saved before is intact."""


def while_sampling(config: RolloutConfig) -> AbstractContextManager[None]:
    """Raises OutOfMemoryError where rollouts run out of memory in the block."""
    lower = f"rollout.prompts={config.prompts} or rollout.max_context={config.max_context} in a new run"
    return _naming_settings("sampling", lower)


def while_learning(config: LearnerConfig) -> AbstractContextManager[None]:
    """Raises OutOfMemoryError where the learner runs out of memory in the block."""
    lower = f"learner.micro_batch_tokens={config.micro_batch_tokens}, which a resumed run may change"
    return _naming_settings("learning", lower)


@contextmanager
def _naming_settings(doing: str, settings: str) -> Iterator[None]:
    """Say which settings to lower where memory runs out in the block.

    Args:
        doing: what it was needed for, as in "the learner".
        settings: names and values, as in "learner.micro_batch_tokens=8192".
    Raises:
        OutOfMemoryError: in place of the error that tells of no memory, on a GPU or the CPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _tells_of_no_memory(error):
            raise
        raise OutOfMemoryError(f"{doing} ran out of memory ({_first_line(error)}); lower {settings}") from error


def _tells_of_no_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in _CPU_ALLOCATOR)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
