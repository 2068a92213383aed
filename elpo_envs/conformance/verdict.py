"""How a check says that an environment does not conform."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


class NonConformanceError(AssertionError):
    """An environment does not keep the conventions."""


def require(holds: object, complaint: str) -> None:
    """Raise NonConformanceError with `complaint` unless `holds`."""
    if not holds:
        raise NonConformanceError(complaint)


@contextlib.contextmanager
def no_exception(what: str) -> Iterator[None]:
    """An exception inside is a NonConformanceError that names `what`."""
    try:
        yield
    except Exception as error:
        raise NonConformanceError(f"{what} raised {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def gymnasium_content(who: str) -> Iterator[None]:
    """A warning of Gymnasium's own, or an exception, inside is a NonConformanceError that names `who`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*WARN:")  # how Gymnasium's own begin
        # It says so of every wrapped environment.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        try:
            yield
        except NonConformanceError:
            raise
        except Exception as error:
            raise NonConformanceError(f"{who}: {type(error).__name__}: {error}") from error
