"""The numbers that the laboratory's tables are made of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import laboratory
from benchmarks.laboratory import Cache, Pair, Plan, compare, run_pair
from benchmarks.laboratory_statistics import Difference, mean_while_spending


def test_the_area_is_the_mean_over_what_is_spent_unit_by_unit() -> None:
    success = np.array([[0.1, 0.5, 0.7], [0.2, 0.2, 0.9]])
    cost = np.array([[3, 4], [2, 2]])
    for budget in (1, 3, 5, 7, 10):
        for run in range(2):
            units = [success[run, 0]] * int(cost[run, 0]) + [success[run, 1]] * int(cost[run, 1])
            units += [success[run, 2]] * budget
            expected = float(np.mean(units[:budget]))
            assert mean_while_spending(success, cost, budget)[run] == pytest.approx(expected)


def test_intervals_are_those_of_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 12)
    found = Difference.of(values)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert Difference.of(values[:1]).half_width == math.inf
    assert [Difference(m, 0.1).verdict for m in (-0.2, 0.05, 0.2)] == ["loss", "tie", "win"]


def pair(arm: str, gain: float) -> Pair:
    success = np.tile(np.linspace(0.1, 0.5, 4), (3, 1)) + gain + np.array([[0.0], [0.01], [0.02]])
    return Pair(arm, "irr_4_.06", 0.1, {"0.1": 0.2}, success, np.full((3, 3), 10), np.full((3, 3), 2))


def test_differences_are_paired_by_seed() -> None:
    plan = Plan(seeds=3, updates=3, rollouts=2)
    result = compare([pair("grpo", 0.0), pair("elpo", 0.05)], ["grpo", "elpo"], ["irr_4_.06"], plan)
    for what in ("rollouts", "steps"):
        assert result["elpo"][what]["mean"] == pytest.approx(0.05)
        assert result["elpo"][what]["win"] == 1
        mean, half = result["elpo"][what]["families"]["irr_4_.06"]
        assert (mean, half) == (pytest.approx(0.05), pytest.approx(0.0, abs=1e-12))
    assert result["elpo"]["cost"] == 1.0


def test_finished_pairs_are_kept_and_a_changed_plan_is_another(tmp_path: Path) -> None:
    plan = Plan(seeds=2, updates=2, rollouts=16)
    done = run_pair("grpo", "irr_4_.06", plan)
    cache = Cache(tmp_path / "cache", plan)
    cache.put(done)
    again = cache.get("grpo", "irr_4_.06")
    assert again is not None
    assert (again.arm, again.family, again.lr, again.tuning) == (done.arm, done.family, done.lr, done.tuning)
    np.testing.assert_array_equal(again.success, done.success)
    assert done.lr == float(max(done.tuning, key=lambda lr: done.tuning[lr]))
    assert cache.get("elpo", "irr_4_.06") is None
    assert Cache(tmp_path / "cache", Plan(3, 2, 16)).get("grpo", "irr_4_.06") is None
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


def test_what_tuning_found_is_kept_for_other_numbers_of_seeds(tmp_path: Path) -> None:
    plan = Plan(seeds=2, updates=2, rollouts=16)
    run_pair("grpo", "irr_4_.06", plan, tmp_path)
    longer, other = Cache(tmp_path, Plan(3, 2, 16)), Cache(tmp_path, Plan(2, 3, 16))
    assert longer.get_tuning("grpo", "irr_4_.06") == laboratory.tune("grpo", "irr_4_.06", plan)
    assert other.get_tuning("grpo", "irr_4_.06") is None
    assert longer.get_tuning("elpo", "irr_4_.06") is None
    longer.put_tuning("elpo", "irr_4_.06", {0.04: 0.1, 0.08: 0.3, 0.16: 0.2})
    assert set(run_pair("elpo", "irr_4_.06", Plan(3, 2, 16), tmp_path).tuning) == {"0.04", "0.08", "0.16"}, (
        "tuned again"
    )


def test_the_best_rate_must_stay_the_best_on_more_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {0.04: 0.9, 0.08: 0.1, 0.16: 0.45}
    tried: list[float] = []

    def mean_areas(arm: str, family: str, plan: Plan, lrs: list[float], seeds: tuple[int, ...]) -> dict[float, float]:
        assert not set(seeds) & set(laboratory.TUNING_SEEDS)
        tried.extend(lrs)
        return {lr: more[lr] for lr in lrs}

    monkeypatch.setattr(laboratory, "_mean_areas", mean_areas)
    found = laboratory.confirm("grpo", "irr_4_.06", Plan(2, 2), {0.04: 0.2, 0.08: 0.6, 0.16: 0.5})
    assert tried == [0.08, 0.16]
    assert found == pytest.approx({0.04: 0.2, 0.08: (4 * 0.6 + 12 * 0.1) / 16, 0.16: (4 * 0.5 + 12 * 0.45) / 16})
