"""All attempts."""

from __future__ import annotations

from collections.abc import Collection

from _attempt import Attempt
from _attempts_files import FILE_ATTEMPTS
from _attempts_imports import IMPORT_ATTEMPTS
from _attempts_objects import OBJECT_ATTEMPTS
from _attempts_protocol import PROTOCOL_ATTEMPTS
from _attempts_resources import RESOURCE_ATTEMPTS
from _attempts_system import SYSTEM_ATTEMPTS

from elpo_envs.sandbox.jail import machine

ATTEMPTS: tuple[Attempt, ...] = (
    *OBJECT_ATTEMPTS,
    *IMPORT_ATTEMPTS,
    *FILE_ATTEMPTS,
    *SYSTEM_ATTEMPTS,
    *RESOURCE_ATTEMPTS,
    *PROTOCOL_ATTEMPTS,
)


def applicable(attempt: Attempt, disabled: Collection[str] = ()) -> bool:
    """Whether an attempt means something on this machine, and is to be stopped without the layers in `disabled`."""
    return attempt.machine in ("", machine()) and (attempt.opens is None or not attempt.opens <= set(disabled))
