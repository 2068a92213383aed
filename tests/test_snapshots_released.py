"""What a finished search leaves behind while its trees wait for the learner: no session, no snapshot, no prefix."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import gymnasium as gym
import pytest
import torch
from _fork_watch import needs_fork, nodes, wait_until
from _runs import EASY

import elpo_envs
from elpo_agent.algorithms import registry
from elpo_agent.config import EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.rollout.base import Expander, SearchResult
from elpo_agent.rollout.runner import Runner, TaskRef
from elpo_agent.training.session import Session, env_factory
from elpo_agent.tree import RolloutTree
from elpo_envs.env import ConversationEnv
from elpo_envs.sandbox import SandboxSnapshot
from elpo_envs.sandbox.fork.pools import running_pool

pytestmark = needs_fork

PROMPTS, N_TOTAL = 2, 4
CALL = '<tool_call>{"name": "python", "arguments": {"code": "%s"}}</tool_call>'


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Session.open(ModelConfig(device="cpu"))
    torch.set_num_threads(threads)


@contextmanager
def runner_of(session: Session, conversations: int) -> Iterator[Runner]:
    config = RolloutConfig(prompts=PROMPTS, max_new_tokens=40, max_context=400, temperature=1.3, tool_threads=2)
    make = env_factory(EnvConfig(kwargs=EASY), evaluating=False)
    with session.runner(config, make, 1.3, conversations) as runner:
        yield runner


def processes() -> int:
    """Processes of sessions that the sandbox still means to keep."""
    pool = running_pool()
    return 0 if pool is None else pool.processes()


def living_snapshots() -> int:
    """Interpreter snapshots that anything in this process still refers to and that hold a process."""
    return sum(type(thing) is SandboxSnapshot and thing.live is not None for thing in gc.get_objects())


class Peak:
    """The largest value seen while the block runs."""

    def __init__(self, value: Callable[[], int]) -> None:
        self.largest = 0
        self._value, self._over = value, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.largest = max(self.largest, self._value())


def run(runner: Runner, name: str) -> tuple[list[tuple[RolloutTree, SearchResult]], int]:
    """The trees of a run, and how many sandbox processes it had at a time."""
    tasks = [TaskRef(i) for i in range(PROMPTS)]
    with Peak(processes) as peak:
        pairs = runner.run(registry.load(name, n_total=N_TOTAL).strategy, tasks, seed=1)
    return pairs, peak.largest


# "few": conversations take each other's environments away, so that most states are in snapshots.
@pytest.mark.parametrize(("name", "conversations"), [("elpo", 2), ("elpo", 8), ("grpo", 8)])
def test_nothing_of_a_search_lives_on(name: str, conversations: int, session: Session) -> None:
    """No garbage collection is needed for it; what the next update rolls out finds the same environments again."""
    before, held = processes(), living_snapshots()
    gc.disable()
    try:
        with runner_of(session, conversations) as runner:
            first, peak = run(runner, name)
            assert sum(len(tree.leaves) for tree, _ in first) == PROMPTS * N_TOTAL
            assert peak > before  # sessions were there
            assert (processes(), living_snapshots()) == (before, held)
            pool = running_pool()
            assert pool is not None and wait_until(lambda: len(nodes(pool)) <= before)
            assert all(node.snapshot is None for tree, _ in first for node in tree.nodes)
            assert session.policy.cached_tokens == 0
            second, _ = run(runner, name)
            assert processes() == before
    finally:
        gc.enable()
    assert [shape(tree) for tree, _ in second] == [shape(tree) for tree, _ in first]


def shape(tree: RolloutTree) -> list[tuple[int, tuple[int, ...]]]:
    return [(node.parent, node.step.ids if node.step else ()) for node in tree.nodes]


def test_a_search_that_fails_leaves_nothing_either(session: Session) -> None:
    class Breaks:
        """Branches, so that there are snapshots, and then fails."""

        n_total = 4

        async def grow(self, expander: Expander) -> SearchResult:
            leaves = await expander.expand(0, 2)
            inner = [i for i in expander.tree.path(leaves[0])[:-1] if expander.tree.nodes[i].snapshot is not None]
            assert inner and living_snapshots() > held
            raise RuntimeError("this strategy has a bug")

    before, held = processes(), living_snapshots()
    with runner_of(session, 8) as runner:
        with pytest.raises(RuntimeError, match="this strategy has a bug"):
            runner.run(Breaks(), [TaskRef(i) for i in range(PROMPTS)], seed=1)
        gc.collect()  # the exception's frames refer to the trees
        assert living_snapshots() == held
        pairs, _ = run(runner, "grpo")
        assert sum(len(tree.leaves) for tree, _ in pairs) == PROMPTS * N_TOTAL
        assert processes() == before


def test_an_environment_at_rest() -> None:
    """It has no process, and a reset or a restore brings it back, from snapshots taken before as well."""

    def observe(env: gym.Env[Any, Any], *codes: str) -> Sequence[str]:
        return [env.step(CALL % code)[0] for code in codes]

    before = processes()
    with closing(gym.make("elpo/Math-v0", disable_env_checker=True, **EASY)) as env:
        inner = env.unwrapped
        assert isinstance(inner, ConversationEnv)
        env.reset(options={"index": 0})
        observe(env, "x = 41")
        kept = elpo_envs.snapshot(env)
        observe(env, "x = 0")
        assert processes() > before
        inner.rest()
        inner.rest()
        assert processes() == before + 1  # the snapshot's own
        elpo_envs.restore(env, kept)
        assert observe(env, "x + 1") == ["42"]
        inner.rest()
        del kept
        gc.collect()
        assert processes() == before
        env.reset(options={"index": 0})
        (text,) = observe(env, "x")
        assert "NameError" in text
    assert wait_until(lambda: processes() == before)
