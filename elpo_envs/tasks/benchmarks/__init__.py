"""Published benchmarks: each reads its published files, or the hub's copy, as tasks."""

from elpo_envs.tasks.benchmarks.base import Benchmark
from elpo_envs.tasks.benchmarks.hub import Hub
from elpo_envs.tasks.benchmarks.registry import BENCHMARKS

__all__ = ["BENCHMARKS", "Benchmark", "Hub"]
