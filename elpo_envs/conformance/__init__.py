"""A kit that tests environments for tool-integrated reasoning: ours, and anybody's.

In a test module of your own::

    from elpo_envs.conformance import Subject, conformance_tests

    TestMyEnv = conformance_tests(Subject(lambda: gym.make("my/Env-v0")))

or from the command line, for a registered id (`module:namespace/Name-v0` imports the module first)::

    pytest -p elpo_envs.conformance.plugin --pyargs elpo_envs.conformance --tir-env my_envs:my/Env-v0

An environment takes the assistant's raw turn as a string and gives text back, after Gymnasium's API. What is
checked stands in the docstrings of `CHECKS`.
"""

from __future__ import annotations

from elpo_envs.conformance.checks import CHECKS
from elpo_envs.conformance.subject import Subject
from elpo_envs.conformance.suite import conformance_tests
from elpo_envs.conformance.verdict import NonConformanceError

__all__ = ["CHECKS", "NonConformanceError", "Subject", "conformance_tests"]
