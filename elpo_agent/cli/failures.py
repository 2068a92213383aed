"""Failures that are told in one sentence instead of a traceback."""

from __future__ import annotations

from elpo_agent.learner.learner import NonFiniteLossError
from elpo_agent.learner.memory import OutOfMemoryError
from elpo_agent.ranks import RankLostError
from elpo_agent.rollout.env_pool import InfrastructureError
from elpo_agent.runs.checkpoint import DamagedCheckpointError
from elpo_agent.runs.run_folder import RunFolderError
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
