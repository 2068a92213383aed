"""GRPO and its kin against the published formulas, written out in plain floats: rewards -> advantages -> loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import _formula_batch as fixed
import pytest
from _formula_batch import CHAINS, Turn
from _literal_loss import Literal, check, literal_result

from elpo_agent.algorithms import load

Reward = Callable[[list[Turn], int], float]


def grpo_scores(rewards: list[float]) -> list[float]:
    """verl's compute_grpo_outcome_advantage: (R - mean) / (s + 1e-6), s with ddof 1; alone: mean 0, std 1."""
    n = len(rewards)
    if n == 1:
        return [rewards[0] / (1.0 + 1e-6)]
    mean = sum(rewards) / n
    s = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (n - 1))
    return [(r - mean) / (s + 1e-6) for r in rewards]


def rloo_scores(rewards: list[float]) -> list[float]:
    """Ahmadian et al., equation 8: R_i - 1/(k-1) sum of the others."""
    n = len(rewards)
    if n == 1:
        return rewards
    return [r - sum(rewards[j] for j in range(n) if j != i) / (n - 1) for i, r in enumerate(rewards)]


def by_trajectory(reward: Reward, scores: Callable[[list[float]], list[float]] = grpo_scores) -> dict[str, object]:
    """The same advantage on all tokens of a trajectory."""
    rows, advantages = [], []
    for p, turns in enumerate(CHAINS):
        leaves = fixed.ends(turns)
        given = scores([reward(turns, leaf) for leaf in leaves]) if leaves else []
        for leaf, a in zip(leaves, given, strict=True):
            rows.append((p, leaf))
            advantages.append([a] * sum(turns[i - 1].tokens for i in fixed.path(turns, leaf)))
    return {"rows": rows, "advantages": advantages}


def sign(turns: list[Turn], leaf: int) -> float:
    """1 for a success, -1 for anything else."""
    end = turns[leaf - 1].end
    assert end is not None
    return (1.0 if end.success else -1.0) + sum(turns[i - 1].reward for i in fixed.path(turns, leaf)[:-1])


def response_length(turns: list[Turn], leaf: int) -> int:
    """Tokens after the prompt, tool tokens included."""
    nodes = fixed.path(turns, leaf)
    return sum(turns[i - 1].tokens + (len(turns[i - 1].feedback) if i != leaf else 0) for i in nodes)


def test_the_batch_covers_what_formulas_distinguish() -> None:
    pairs = [
        (math.exp(fixed.current(p, i, t) - fixed.old(p, i, t)))
        for p, turns in enumerate(CHAINS)
        for i, turn in enumerate(turns, start=1)
        for t in range(turn.tokens)
    ]
    ranges = [(0.0, 0.6), (0.685, 0.8), (0.8, 1.0), (1.0, 1.2), (1.2, 1.28), (1.28, 1.31), (3.0, 10.0), (10.0, 20.0)]
    for low, high in ranges:
        assert any(low < rho < high for rho in pairs), (low, high)
    assert sum(not turn.end.valid for turns in CHAINS for turn in turns if turn.end) == 3


def test_grpo() -> None:
    literal = Literal(**by_trajectory(fixed.total), aggregation="seq-mean-token-mean")  # type: ignore[arg-type]
    check(fixed.run(load("grpo"), CHAINS), literal_result(CHAINS, literal))


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_grpo_with_the_options_that_all_share(kl: str, aggregation: str) -> None:
    loss = {"aggregation": aggregation, "dual_clip": 3.0, "kl_coef": 0.05, "kl": kl}
    literal = Literal(
        **by_trajectory(fixed.total),  # type: ignore[arg-type]
        eps_high=0.315,
        aggregation=aggregation,
        dual_clip=3.0,
        kl=(kl, 0.05),
    )
    check(fixed.run(load("grpo", eps_high=0.315, loss=loss), CHAINS), literal_result(CHAINS, literal))


def test_rloo() -> None:
    literal = Literal(**by_trajectory(fixed.total, rloo_scores), aggregation="seq-mean-token-sum")  # type: ignore[arg-type]
    check(fixed.run(load("rloo"), CHAINS), literal_result(CHAINS, literal))


@pytest.mark.parametrize(("length", "buffer"), [(20480, 4096), (16, 6), (9, 8)])
def test_dapo(length: int, buffer: int) -> None:
    def reward(turns: list[Turn], leaf: int) -> float:
        """Equation 13 as verl writes it: R + min(-(len - (L_max - L_cache)) / L_cache * 1.0, 0)."""
        exceed = response_length(turns, leaf) - (length - buffer)
        return sign(turns, leaf) + min(-exceed / buffer * 1.0, 0.0)

    literal = Literal(**by_trajectory(reward), eps_high=0.28, dual_clip=10.0)  # type: ignore[arg-type]
    ours = fixed.run(load("dapo", overlong_length=length, overlong_buffer=buffer), CHAINS)
    check(ours, literal_result(CHAINS, literal))
    if length < 20480:
        assert ours.advantages != fixed.run(load("dapo"), CHAINS).advantages


def test_every_term_of_dapos_loss_is_felt() -> None:
    """The batch tells the published loss from its neighbours, so that agreement means something."""
    usual = fixed.run(load("dapo"), CHAINS)
    others = [
        {"eps_high": 0.2},
        {"eps_low": 0.28},
        {"loss": {"dual_clip": 3.0}},
        {"loss": {"dual_clip": None}},
        {"loss": {"aggregation": "seq-mean-token-mean"}},
        {"ddof": 0},
        {"wrong_reward": 0.0},
    ]
    for options in others:
        other = fixed.run(load("dapo", **options), CHAINS)
        assert abs(other.loss - usual.loss) > 1e-6, options
        if options != {"loss": {"dual_clip": 3.0}}:  # above both bounds a gradient of 0
            assert max(abs(a - b) for a, b in zip(other.gradient, usual.gradient, strict=True)) > 1e-6, options


def test_dapo_samples_until_outcomes_are_mixed() -> None:
    """The recipe: filter_groups on `acc`, at most 10 generation batches."""
    selection = load("dapo").selection
    assert selection.mixed_only
    assert selection.refill_rounds + 1 == 10


@pytest.mark.parametrize(("wrong", "penalty"), [(-1.0, 0.0), (-1.0, 0.5), (-0.5, 0.0)])
def test_torl(wrong: float, penalty: float) -> None:
    def reward(turns: list[Turn], leaf: int) -> float:
        """1 or -1 (v2: -0.5); -0.5 more if `execution_passes` is 0, which each execution overwrites."""
        end = turns[leaf - 1].end
        assert end is not None
        passes = 1
        for i in fixed.path(turns, leaf):
            for kind in turns[i - 1].kinds:
                if kind != "no_action":
                    passes = 1 if kind in ("ok", "empty") else 0
        outcome = 1.0 if end.success else wrong
        inner = sum(turns[i - 1].reward for i in fixed.path(turns, leaf)[:-1])
        return outcome - (penalty if passes == 0 else 0.0) + inner

    literal = Literal(**by_trajectory(reward))  # type: ignore[arg-type]
    ours = fixed.run(load("torl", wrong_reward=wrong, execution_penalty=penalty), CHAINS)
    check(ours, literal_result(CHAINS, literal))
    if penalty:
        assert ours.advantages != fixed.run(load("torl"), CHAINS).advantages


@pytest.mark.parametrize("count_turns", [False, True])
def test_demyagent(count_turns: bool) -> None:
    def reward(turns: list[Turn], leaf: int) -> float:
        """R = 1, else min(-0.6, -1 + (turns - 2) / 2 * 0.1), turns = user + assistant + 1, or 0 as released."""
        end = turns[leaf - 1].end
        assert end is not None
        nodes = fixed.path(turns, leaf)
        num_turns = ((len(nodes) - 1) + len(nodes) + 1) if count_turns else 0
        outcome = 1.0 if end.success else min(-0.6, -1.0 + (num_turns - 2) / 2 * 0.1)
        exceed = response_length(turns, leaf) - (14 - 4)
        return outcome + min(-exceed / 4 * 1.0, 0.0) + sum(turns[i - 1].reward for i in nodes[:-1])

    literal = Literal(**by_trajectory(reward), eps_high=0.28, dual_clip=10.0)  # type: ignore[arg-type]
    algorithm = load("demyagent", count_turns=count_turns, overlong_length=14, overlong_buffer=4)
    check(fixed.run(algorithm, CHAINS), literal_result(CHAINS, literal))


def test_demyagents_failures_have_minus_1_1_as_released() -> None:
    """Rewards 1 and -1.1 against 1 and -1 change no z-score but where rewards of steps are added."""
    bare = [[Turn(t.parent, t.tokens, t.feedback, t.kinds, 0.0, t.end) for t in turns] for turns in CHAINS]
    ours = fixed.run(load("demyagent"), bare)
    torl = fixed.run(load("torl", eps_high=0.28, loss={"dual_clip": 10.0}), bare)
    lone = [i for i, (p, _) in enumerate(ours.leaves) if p == 3]
    assert len(lone) == 1
    assert ours.advantages[-4:] == torl.advantages[-4:]  # the trajectory alone: R itself
    assert ours.advantages == pytest.approx(torl.advantages, abs=2e-6)


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_simpletirs_filter_on_top(aggregation: str) -> None:
    """Statistics over all trajectories of the prompt; the loss over those without a void turn."""
    given = by_trajectory(fixed.total)
    pairs = [
        (row, a)
        for row, a in zip(given["rows"], given["advantages"], strict=True)  # type: ignore[call-overload]
        if not any("no_action" in CHAINS[row[0]][i - 1].kinds for i in fixed.path(CHAINS[row[0]], row[1]))
    ]
    assert len(pairs) == len(given["rows"]) - 2  # type: ignore[arg-type]
    literal = Literal([row for row, _ in pairs], [a for _, a in pairs], aggregation=aggregation)
    algorithm = load("grpo", drop_void_turns=True, loss={"aggregation": aggregation})
    check(fixed.run(algorithm, CHAINS), literal_result(CHAINS, literal))


def test_turn_rewards_and_weighted_successes_on_top() -> None:
    """R + the sum over turns of each kind's amount, once per turn; then A > 0 times w."""
    amounts = {"error": -0.25, "timeout": -0.5, "empty": 0.125, "no_action": -1.0}

    def reward(turns: list[Turn], leaf: int) -> float:
        kinds = [set(turns[i - 1].kinds) for i in fixed.path(turns, leaf)]
        return fixed.total(turns, leaf) + sum(amounts.get(kind, 0.0) for turn in kinds for kind in turn)

    given = by_trajectory(reward)
    weighted = [[a * 1.6 if a > 0 else a for a in row] for row in given["advantages"]]  # type: ignore[attr-defined]
    literal = Literal(given["rows"], weighted, aggregation="seq-mean-token-mean")  # type: ignore[arg-type]
    algorithm = load("grpo", turn_rewards=amounts, positive_weight=1.6)
    check(fixed.run(algorithm, CHAINS), literal_result(CHAINS, literal))
