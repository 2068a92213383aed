"""Budgets: nobody overspends, whoever samples and however much of it at once; who was cut says why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from _word_env import ScriptedPolicy, WordEnv, check_tree, logs, runner_of, tasks_of

from elpo_agent.config import BudgetConfig, RolloutConfig
from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.base import Expander, RolloutStrategy, SearchResult
from elpo_agent.rollout.batcher import Batcher
from elpo_agent.rollout.bel import BinaryErrorLocalization
from elpo_agent.rollout.budget import Account, Budget, BudgetLimits
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.rollout.runner import tree_metrics
from elpo_agent.training.collection import remaining
from elpo_agent.tree import Outcome, RolloutTree


@dataclass(frozen=True)
class BranchEverywhere:
    """Full rollouts, then suffixes from every inner node, many expansions in flight at once, until nothing is left."""

    n_total: int = 20

    async def grow(self, expander: Expander) -> SearchResult:
        await asyncio.gather(expander.expand(0, 3), expander.expand(0, 2))
        while expander.budget.left:
            inner = [n.index for n in expander.tree.nodes if n.children]
            await asyncio.gather(*(expander.expand(i, 2) for i in inner))
        return SearchResult()


STRATEGIES = [IndependentSampling(12), BinaryErrorLocalization(12), BranchEverywhere()]


class Calls(tuple[str, ...]):
    @property
    def calls(self) -> Calls:
        return self


class CountedEnv(WordEnv):
    """A `WordEnv` whose protocol knows which letters are calls; three of them in an m."""

    class protocol:  # noqa: N801 - an attribute of environments
        @staticmethod
        def parse(text: str) -> Calls:
            return Calls(c for letter in text if letter not in "ab" for c in ("mmm" if letter == "m" else letter))


class Jittery(CountedEnv):
    jitter = 0.003


class Obedient(ScriptedPolicy):
    """Cuts its turns where it is told to."""

    def _turn(self, request: SampleRequest, j: int) -> SampledTurn:
        turn, most = super()._turn(request, j), request.max_new_tokens
        if len(turn.ids) <= most:
            return turn
        return SampledTurn(turn.ids[:most], turn.logprobs[:most], turn.entropies[:most], "length")


# --- The object ------------------------------------------------------------------------------------------------------


def test_accounts_reserve_and_settle() -> None:
    account = Account(10)
    assert (account.reserve(6), account.reserve(6), account.reserve(1), account.left) == (6, 4, 0, 0)
    assert not account.used_up, "what is reserved may come back"
    account.settle(6, 2)
    assert (account.spent, account.left) == (2, 4)
    account.settle(4, 4)
    assert account.reserve(9) == 4
    account.settle(4, 4)
    assert account.used_up
    for granted, used in ((1, 0), (0, 1), (0, -1)):
        with pytest.raises(ValueError, match="overdraws"):
            account.settle(granted, used)
    unlimited = Account(None)
    assert unlimited.reserve(10**9) == 10**9 and unlimited.left is None
    unlimited.settle(10**9, 5)
    assert unlimited.spent == 5 and not unlimited.used_up


def test_rollouts_end_when_any_limit_does() -> None:
    now = 0.0
    budget = Budget(4, BudgetLimits(tokens=5, tool_calls=3, seconds=2.0), clock=lambda: now)
    assert (budget.take(-1), budget.take(3), budget.left) == (0, 3, 1)
    budget.give_back(2)
    assert (budget.spent, budget.left) == (1, 3)
    with pytest.raises(ValueError, match="n=2 rollouts cannot be given back of 1"):
        budget.give_back(2)
    now = 1.9
    assert budget.left == 3 and not budget.out_of_time
    now = 2.0
    assert (budget.left, budget.take(1), budget.out_of_time) == (0, 0, True)
    now = 0.0
    assert budget.charge_calls(2) and not budget.charge_calls(2) and budget.charge_calls(0)
    assert (budget.tool_calls.spent, budget.tool_calls.reserved, budget.left) == (2, 0, 3)
    assert budget.charge_calls(1)
    assert (budget.take(1), budget.left) == (0, 0)
    tokens = Budget(4, BudgetLimits(tokens=5))
    tokens.tokens.settle(tokens.tokens.reserve(5), 5)
    assert tokens.left == 0


@pytest.mark.parametrize("seed", range(20))
def test_coroutines_together_never_overspend(seed: int) -> None:
    """Whatever they reserve, and whenever they settle; and nothing is lost on the way."""
    rng = np.random.default_rng(seed)
    limits = BudgetLimits(tokens=int(rng.integers(1, 200)), tool_calls=int(rng.integers(1, 30)))
    budget = Budget(int(rng.integers(1, 40)), limits)
    used = {"rollouts": 0, "tokens": 0, "tool_calls": 0}

    def check() -> None:
        for account in (budget.tokens, budget.tool_calls):
            assert account.limit is not None
            assert account.spent + account.reserved <= account.limit
        assert budget.spent <= budget.total
        assert used["tokens"] <= budget.tokens.spent + budget.tokens.reserved
        assert used["rollouts"] <= budget.spent

    async def walker(own: np.random.Generator) -> None:
        while taken := budget.take(int(own.integers(1, 4))):
            begun = int(own.integers(0, taken + 1)) if own.random() < 0.2 else taken
            budget.give_back(taken - begun)
            used["rollouts"] += begun
            granted = budget.tokens.reserve(int(own.integers(1, 30)))
            check()
            await asyncio.sleep(0 if own.random() < 0.7 else 0.0005)
            spent = int(own.integers(0, granted + 1))
            used["tokens"] += spent
            check()
            budget.tokens.settle(granted, spent)
            calls = int(own.integers(0, 4))
            used["tool_calls"] += calls * budget.charge_calls(calls)
            check()

    async def main() -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*(walker(np.random.default_rng([seed, i])) for i in range(8)))

    asyncio.run(main())
    assert used == {
        "rollouts": budget.spent,
        "tokens": budget.tokens.spent,
        "tool_calls": budget.tool_calls.spent,
    }
    assert budget.tokens.reserved == 0 and budget.left == 0
    assert budget.spent == budget.total or budget.tokens.used_up or budget.tool_calls.used_up


# --- The expander and the batcher ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    "limits",
    [
        BudgetLimits(tokens=1),
        BudgetLimits(tokens=9),
        BudgetLimits(tokens=41),
        BudgetLimits(tool_calls=1),
        BudgetLimits(tool_calls=13),
        BudgetLimits(tokens=30, tool_calls=9),
    ],
    ids=str,
)
def test_no_strategy_overspends_whatever_the_timing(strategy: RolloutStrategy, limits: BudgetLimits) -> None:
    def grown(env: type[WordEnv], **kwargs: Any) -> list[tuple[RolloutTree, SearchResult]]:
        with runner_of(Obedient("ttmeabl"), env, **kwargs) as runner:
            return runner.run(strategy, tasks_of(3), seed=7, limits=limits)

    results = grown(CountedEnv)
    assert logs(results) == logs(grown(Jittery, tool_threads=3)) == logs(grown(CountedEnv, tool_threads=1, max_envs=1))
    cut = 0
    for tree, _ in results:
        outcomes = [tree.outcome(leaf) for leaf in tree.leaves]
        metrics = tree_metrics(tree)
        run = [s for n in tree.nodes if (s := n.step) is not None and (s.kinds or n.outcome is None or n.outcome.valid)]
        asked = sum(len(CountedEnv.protocol.parse(step.text)) for step in run)
        assert metrics.generated_tokens <= (limits.tokens or 10**9)
        assert metrics.tool_calls <= asked <= (limits.tool_calls or 10**9)
        assert metrics.rollouts <= strategy.n_total
        assert all(o.valid != (o.limit is not None) and (o.valid or o.truncated) for o in outcomes)
        cut += sum(not o.valid for o in outcomes)
    assert cut, "limits as small as these leave their marks"


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_limits_that_do_not_bind_change_nothing(strategy: RolloutStrategy) -> None:
    wide = BudgetLimits(tokens=10**6, tool_calls=10**6, seconds=1e6)
    with runner_of(ScriptedPolicy(), CountedEnv) as runner:
        without = runner.run(strategy, tasks_of(4), seed=2)
        assert logs(runner.run(strategy, tasks_of(4), seed=2, limits=wide)) == logs(without)
    for tree, _ in without:
        check_tree(tree)


def test_each_prompt_may_have_its_own_number_of_rollouts() -> None:
    with runner_of(ScriptedPolicy()) as runner:
        results = runner.run(BinaryErrorLocalization(9), tasks_of(3), seed=0, rollouts=[2, 9, 30])
        assert [len(tree.leaves) for tree, _ in results] == [2, 9, 9]
        with pytest.raises(ValueError, match="2 numbers for 3 tasks"):
            runner.run(BinaryErrorLocalization(9), tasks_of(3), seed=0, rollouts=[2, 9])


class Long(ScriptedPolicy):
    """Turns of t's as long as they may be."""

    def _turn(self, request: SampleRequest, j: int) -> SampledTurn:
        n = request.max_new_tokens
        values = np.full(n, 0.5, dtype=np.float32)
        return SampledTurn((ord("t"),) * n, -values, values, "length")


def test_what_is_left_shortens_the_last_turn_and_ends_its_trajectory() -> None:
    """4 + 4 + 2 tokens: the third turn is cut by the budget, so the environment never sees it."""
    policy = Long()
    with runner_of(policy, max_new_tokens=4) as runner:
        ((tree, _),) = runner.run(IndependentSampling(3), tasks_of(1), seed=0, limits=BudgetLimits(tokens=10))
    assert [[(r.n, r.max_new_tokens) for r in batch] for batch in policy.batches] == [[(2, 4)], [(1, 2)]]
    steps = [tree.nodes[leaf].step for leaf in tree.leaves]
    assert [len(step.ids) for step in steps if step is not None] == [4, 4, 2]
    assert {tree.outcome(leaf) for leaf in tree.leaves} == {
        Outcome(reward=0.0, success=False, truncated=True, valid=False, limit="tokens")
    }
    assert tree.nodes[tree.leaves[2]].step.kinds == (), "not run"  # type: ignore[union-attr]


def test_requests_wait_for_what_others_may_yet_give_back() -> None:
    """Reservations of 4 come back as 3 of 4: five walkers share 10 tokens, one turn each, and none is cut."""

    class Short(ScriptedPolicy):
        def _turn(self, request: SampleRequest, j: int) -> SampledTurn:
            values = np.zeros(1, dtype=np.float32)
            return SampledTurn((0,), values, values, "stop")

    policy, tokens = Short(), Account(10)
    batcher = Batcher(policy, patience_s=5)

    async def walker(key: int) -> list[SampledTurn]:
        with batcher.walker():
            return await batcher.sample((key,), SampleRequest((65 + key,), 1, 0, 4), tokens)

    async def main() -> list[list[SampledTurn]]:
        return await asyncio.gather(*(walker(key) for key in (4, 1, 3, 0, 2)))

    assert [len(turns) for turns in asyncio.run(main())] == [1] * 5
    assert [[r.prefix_ids[0] - 65 for r in batch] for batch in policy.batches] == [[0, 1], [2, 3], [4]]
    assert (tokens.spent, tokens.reserved) == (5, 0)


def test_a_policy_that_takes_more_than_it_may_is_a_bug() -> None:
    class Greedy(ScriptedPolicy):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
            values = np.zeros(9, dtype=np.float32)
            return [[SampledTurn((65,) * 9, values, values, "length")] * r.n for r in requests]

    with runner_of(Greedy()) as runner, pytest.raises(RuntimeError, match="turn of 9 tokens for max_new_tokens=4"):
        runner.run(IndependentSampling(2), tasks_of(1), seed=0)


def test_time_ends_trajectories_before_their_next_turn() -> None:
    policy = ScriptedPolicy(choose=lambda prefix, j: "z")  # a tool that takes 0.3 s
    with runner_of(policy) as runner:
        ((tree, _),) = runner.run(IndependentSampling(2), tasks_of(1), seed=0, limits=BudgetLimits(seconds=0.1))
    assert [len(tree.path(leaf)) for leaf in tree.leaves] == [1, 1]
    for leaf in tree.leaves:
        assert tree.outcome(leaf) == Outcome(0.0, success=False, truncated=True, valid=False, limit="seconds")
        assert tree.nodes[leaf].step.kinds == ("ok",), "the turn that was under way was run"  # type: ignore[union-attr]


def test_calls_can_only_be_limited_where_they_can_be_counted() -> None:
    with runner_of(ScriptedPolicy()) as runner, pytest.raises(ValueError, match=r"budget\.tool_calls needs"):
        runner.run(IndependentSampling(2), tasks_of(1), seed=0, limits=BudgetLimits(tool_calls=5))


# --- Configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BudgetConfig(tokens=0), r"budget\.tokens=0"),
        (lambda: BudgetConfig(tool_calls=-1), r"budget\.tool_calls=-1"),
        (lambda: BudgetConfig(seconds=float("nan")), r"budget\.seconds=nan"),
        (lambda: BudgetConfig(per="run"), r"rollout\.budget\.per='run'"),
        (lambda: RolloutConfig(prompts=8, budget=BudgetConfig(tokens=7, per="update")), r"tokens=7 .* 8 prompts"),
    ],
)
def test_bad_limits(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_limits_on_an_update_are_divided() -> None:
    with runner_of(ScriptedPolicy(), CountedEnv) as runner:
        grown = runner.run(IndependentSampling(2), tasks_of(2), seed=0)
    tokens = sum(tree_metrics(tree).generated_tokens for tree, _ in grown)
    calls = sum(tree_metrics(tree).tool_calls for tree, _ in grown)
    each = RolloutConfig(prompts=2, budget=BudgetConfig(tokens=50, tool_calls=40, seconds=9.0))
    assert remaining(each, grown, 2, 100.0) == BudgetLimits(50, 40, 9.0), "per prompt nothing is shared"
    config = BudgetConfig(tokens=tokens + 11, tool_calls=calls + 6, seconds=9.0, per="update")
    whole = RolloutConfig(prompts=2, budget=config)
    assert remaining(whole, grown, 3, 2.0) == BudgetLimits(3, 2, 7.0)
    assert remaining(whole, grown, 7, 2.0) is None, "6 calls for 7 prompts"
    assert remaining(whole, grown, 3, 9.0) is None
    assert remaining(whole, [], 2, 0.0) == BudgetLimits((tokens + 11) // 2, (calls + 6) // 2, 9.0)
