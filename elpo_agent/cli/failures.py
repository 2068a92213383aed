"""Failures that are told in one sentence instead of a traceback."""

from __future__ import annotations

from elpo_agent.rollout.env_pool import InfrastructureError
from elpo_agent.training.checkpoint import DamagedCheckpointError
from elpo_agent.training.learner import NonFiniteLossError
from elpo_agent.training.memory import OutOfMemoryError
from elpo_agent.training.ranks import RankLostError
from elpo_agent.training.run_folder import RunFolderError
from elpo_envs.sandbox import SandboxError

# What the packages' public functions document that they raise; anything else is a bug and shows where it happened.
EXPECTED: tuple[type[Exception], ...] = (
    ValueError,
    OSError,
    ImportError,
    RunFolderError,
    DamagedCheckpointError,
    NonFiniteLossError,
    OutOfMemoryError,
    RankLostError,
    InfrastructureError,
    SandboxError,
)
