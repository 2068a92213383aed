"""`recoverable`: against a search on the real environment, at every budget, and through snapshots and wrappers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import pytest
from _episodes import Flaky, OneTask, call, small
from _plan_search import MathRules, Memo, ProgramRules, Rules, ScienceRules, solvable, walk
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeLimit

import elpo_envs
from elpo_envs.code_env import CodeExecEnv
from elpo_envs.math_env import MathEnv
from elpo_envs.protocols import ParsedCall
from elpo_envs.recovery import continuation, first_irrecoverable_turn, recoverable
from elpo_envs.science_env import ScienceQAEnv
from elpo_envs.task_env import TaskEnv
from elpo_envs.tasks import Task
from elpo_envs.tasks.generated import GeneratedSource
from elpo_envs.tasks.programs import ProgramSource
from elpo_envs.tasks.science import ScienceSource
from elpo_envs.wrappers import TokenBudget
from elpo_envs.wrappers.token_budget import estimate_tokens

RULES: dict[type[TaskEnv], Any] = {MathEnv: MathRules, ScienceQAEnv: ScienceRules, CodeExecEnv: ProgramRules}


@pytest.fixture
def three() -> Iterator[MathEnv]:
    """A word problem of three steps with one turn to spare."""
    env = MathEnv(max_turns=5, dataset_options={"min_steps": 3, "max_steps": 3})
    env.reset(options={"index": 2})
    yield env
    env.close()


def wrong(variable: str) -> str:
    return call(f"{variable} = -1\n{variable}")


# ---------------------------------------------------------------- against a search


def agree(kind: type[TaskEnv], index: int, walks: int, slacks: tuple[int, ...], steps: int) -> tuple[int, int]:
    """How many prefixes are recoverable, and how many are not; both ways of telling agree at every one."""
    options = {"min_steps": steps, "max_steps": steps}
    counts = {True: 0, False: 0}
    with_expert = kind(dataset_options=options)
    with_expert.reset(options={"index": index})
    turns = len(with_expert.expert_turns())
    with_expert.close()
    for slack in slacks:
        env = kind(max_turns=turns + slack, dataset_options=options)
        memo: Memo = {}
        for number in range(walks):
            env.reset(options={"index": index})
            rules: Rules = RULES[kind](env)
            episode = walk(rules, random.Random(f"{index}/{slack}/{number}"), 0.35)
            while True:
                told = env.recoverable("expert")
                assert told == solvable(rules, memo), [m.content for m in env._current().messages]
                over = env._current().over
                assert env.recoverable() == (not over or env._current().is_correct)
                counts[told] += 1
                if next(episode, over) is over:
                    break
        env.close()
    return counts[True], counts[False]


@pytest.mark.parametrize(
    ("kind", "index", "steps"),
    [(MathEnv, 0, 3), (ScienceQAEnv, 1, 2), (CodeExecEnv, 1, 2)],
)
def test_it_agrees_with_a_search_at_every_prefix(kind: type[TaskEnv], index: int, steps: int) -> None:
    able, lost = agree(kind, index, 2, (1,), steps)
    assert able and lost


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(RULES))
@pytest.mark.parametrize("index", range(6))
def test_it_agrees_with_a_search_over_many_prefixes(kind: type[TaskEnv], index: int) -> None:
    able, lost = agree(kind, index, 4, (0, 1, 2), 3 if kind is MathEnv else 2)
    assert able and lost


def test_the_search_agrees_where_characters_and_calls_run_out() -> None:
    options = {"min_steps": 2, "max_steps": 2}
    free = MathEnv(dataset_options=options)
    free.reset(options={"index": 0})
    for turn in free.expert_turns():
        free.step(turn)
    chars = free._current().chars
    free.close()
    seen = set()
    for budget in ({"max_chars": chars + 60}, {"max_chars": chars - 1}, {"max_tool_calls": 2}, {"max_tool_calls": 3}):
        env = MathEnv(max_turns=4, dataset_options=options, **budget)
        memo: Memo = {}
        for number in range(3):
            env.reset(options={"index": 0})
            rules = MathRules(env)
            for _ in walk(rules, random.Random(number), 0.5):
                told = env.recoverable("expert")
                assert told == solvable(rules, memo, by_chars=True)
                seen.add(told)
        env.close()
    assert seen == {True, False}


# ---------------------------------------------------------------- what makes a prefix lost


def test_a_wrong_value_costs_the_turn_and_every_turn_built_on_it(three: MathEnv) -> None:
    a, b, c, answer = three.expert_turns()
    assert first_irrecoverable_turn(three, [a, wrong("b"), b, c, answer]) is None
    # The only spare turn went into b; c is built on it, so that both must be made again.
    assert first_irrecoverable_turn(three, [a, wrong("b"), c, b]) == 3
    assert first_irrecoverable_turn(three, ["hm", a, "hm", b]) == 3
    assert first_irrecoverable_turn(three, [a, b, c, "\\boxed{-1}"]) == 4
    assert first_irrecoverable_turn(three, [a, "\\boxed{-1}"], "omniscient") == 2
    assert first_irrecoverable_turn(three, ["hm"] * 9, "omniscient") == 5


def test_what_is_overwritten_after_its_use_need_not_be_made_again(three: MathEnv) -> None:
    a, b, c, answer = three.expert_turns()
    for turn in (a, b, c, wrong("b")):
        three.step(turn)
        assert three.recoverable("expert")
    assert continuation(three, "expert") == [answer]


def test_values_count_however_they_came_about(three: MathEnv) -> None:
    a, b, c, answer = three.expert_turns()
    for turn in (a, b, c):
        three.step(turn)
    values = [message["content"] for message in three._current().info()["messages"] if message["role"] == "tool"]
    three.reset(options={"index": 2})
    three.step(call(f"a = b = -1\nc = {values[2]}.0"))
    assert continuation(three, "expert") == [answer]
    three.step(call("c = c + 0.5"))
    assert continuation(three, "expert") is None  # three calculations and the answer, in three turns


def test_hostile_values_are_not_taken_for_right_ones(three: MathEnv) -> None:
    forged = (
        "class Any:\n    def __eq__(self, other): return True\n    def __repr__(self): return 'Any()'\nc = Any()",
        "c = float('nan')",
        "c = True",
        "c = '1' * 10**6",
        "c = [" * 60 + "]" * 60,
    )
    for code in forged:
        three.reset(options={"index": 2})
        three.step(call(code))
        assert len(continuation(three, "expert") or ()) == 4, code


def test_after_the_end_it_says_how_it_ended(three: MathEnv) -> None:
    for turns, solved in (([three.expert_turns()[-1]], True), (["\\boxed{-1}"], False), (["hm"] * 5, False)):
        three.reset(options={"index": 2})
        for turn in turns:
            three.step(turn)
        for policy in ("omniscient", "expert"):
            assert three.recoverable(policy) is solved  # type: ignore[arg-type]
    assert continuation(three) is None
    assert first_irrecoverable_turn(three, ["hm"]) == 0


def test_the_last_character_counts(three: MathEnv) -> None:
    turns = three.expert_turns()
    for turn in turns:
        three.step(turn)
    chars = three._current().chars
    for spare in (0, -1):
        env = MathEnv(max_chars=chars + spare, dataset_options={"min_steps": 3, "max_steps": 3})
        env.reset(options={"index": 2})
        for turn in turns[:-1]:
            assert (env.recoverable("expert"), env.recoverable()) == (spare == 0, True)
            env.step(turn)
        assert env.recoverable() is (spare == 0)
        assert env.step(turns[-1])[1] == 1.0 + spare
        env.close()


def test_a_program_is_handed_in_without_a_call_where_none_is_left() -> None:
    env = CodeExecEnv(max_tool_calls=1, dataset_options={"kinds": ["write"], "min_steps": 2, "max_steps": 2})
    env.reset(options={"index": 0})
    trial, submission = env.expert_turns()
    assert continuation(env) == [submission]
    env.step(trial)
    assert not env.recoverable("expert")
    (fenced,) = continuation(env) or [""]
    assert fenced.startswith("```python\n") and env.step(fenced)[1] == 1.0
    env.close()


def test_passages_are_looked_up_once_and_by_any_words() -> None:
    env = ScienceQAEnv(dataset_options={"min_steps": 2, "max_steps": 2})
    for index in range(6):
        env.reset(options={"index": index})
        titles = env.task.metadata["lookups"]
        turns = env.expert_turns()
        assert continuation(env, "expert") == turns
        for title in titles:
            env.step(f'<tool_call>{{"name": "lookup", "arguments": {{"title": "{title}"}}}}</tool_call>')
        assert continuation(env, "expert") == turns[1:]
    env.close()


def test_only_what_the_rest_needs_is_looked_up() -> None:
    env = ScienceQAEnv(dataset_options={"min_steps": 3, "max_steps": 3})
    seen = set()
    for index in range(8):
        env.reset(options={"index": index})
        first, *later = ScienceSource.from_id(env.task.task_id).problem(index).steps
        env.step(env.expert_turns()[1])
        rest = continuation(env, "expert") or []
        needed = {title for step in later for title in step.lookups}
        assert len(rest) == 3 + bool(needed)
        asked = env.protocol.parse(rest[0]).calls if needed else ()
        assert {call.arguments["query"] for call in asked if isinstance(call, ParsedCall)} == needed
        seen.add(bool(set(first.lookups) - needed))
    assert seen == {True, False}
    env.close()


@pytest.mark.parametrize("exercise", ["write", "repair", "output"])
def test_a_program_that_was_overwritten_is_tried_again(exercise: str) -> None:
    source = ProgramSource(kinds=[exercise], min_steps=2, max_steps=2)
    env = CodeExecEnv(task_source=source)
    env.reset(options={"index": 1})
    wrong_trace = next(trace for trace in (source.corrupt(env.task, step) for step in range(2)) if trace is not None)
    *sight, trial, answer = env.expert_turns()
    again = [answer] if exercise == "output" else [trial, answer]  # what was shown stays shown
    for turn, rest in (
        (env.write_turn(wrong_trace[-2]), [*sight, trial, answer]),
        (trial, [answer]),
        (env.write_turn(wrong_trace[-2]), again if exercise != "repair" else [*sight, trial, answer]),
        *((turn, [trial, answer]) for turn in sight),
        (trial, [answer]),
    ):
        env.step(turn)
        assert continuation(env, "expert") == rest
    env.close()


@pytest.mark.parametrize("kind", list(RULES))
def test_no_turn_may_be_missing(kind: type[TaskEnv]) -> None:
    free = kind()
    for index in range(3):
        free.reset(options={"index": index})
        turns = len(free.expert_turns())
        for max_turns in (turns, turns - 1):
            env = kind(max_turns=max_turns)
            env.reset(options={"index": index})
            assert (env.recoverable("expert"), env.recoverable()) == (max_turns == turns, True)
            env.close()
    free.close()


# ---------------------------------------------------------------- wrappers, snapshots, vector environments


def test_budgets_of_wrappers() -> None:
    base = MathEnv(dataset_options={"min_steps": 2, "max_steps": 2})
    base.reset(options={"index": 0})
    turns = base.expert_turns()
    tokens = sum(map(estimate_tokens, turns))
    for wrapped, enough in (
        (TokenBudget(base, tokens), True),
        (TokenBudget(base, tokens - 1), False),
        (TimeLimit(base, len(turns)), True),
        (TimeLimit(base, len(turns) - 1), False),
        (TokenBudget(TimeLimit(base, len(turns) - 1), tokens), False),
    ):
        wrapped.reset(options={"index": 0})
        for turn in turns[:-1]:
            assert recoverable(wrapped, "expert") is enough
            assert wrapped.unwrapped.recoverable("expert") is True
            wrapped.step(turn)
    base.close()


def test_it_goes_through_snapshots_and_bytes() -> None:
    options = {"min_steps": 2, "max_steps": 2, "families": ["marbles"]}
    env = gym.make("elpo/Math-v0", max_turns=3, dataset_options=options)
    env.reset(options={"index": 4})
    env.step(env.unwrapped.expert_turns()[0])
    good = elpo_envs.snapshot(env)
    env.step("hm")
    lost = elpo_envs.Snapshot.from_bytes(elpo_envs.snapshot(env).to_bytes())
    env.close()
    other = gym.make("elpo/Math-v0", max_turns=3, dataset_options=options)
    for snap, able in ((lost, False), (good, True), (elpo_envs.Snapshot.from_bytes(good.to_bytes()), True)):
        elpo_envs.restore(other, snap)
        assert (other.unwrapped.recoverable("expert"), recoverable(other)) == (able, True)
    other.close()


def test_each_of_a_vector_environment_is_asked() -> None:
    vector = gym.make_vec("elpo/Math-v0", num_envs=2, vectorization_mode="vector_entry_point", max_turns=1)
    vector.reset(seed=1)
    assert vector.call("recoverable") == (True, True)
    vector.step(["hm", "hm"])
    assert vector.call("recoverable") == (False, False)
    vector.close()


def test_the_environment_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    asked, other = MathEnv(render_mode="human"), MathEnv()
    steps = []
    for env in (other, asked):
        env.reset(options={"index": 1})
        seen = []
        for turn in [call("import random\nrandom.random()"), *env.expert_turns()]:
            if env is asked:
                before = capsys.readouterr().out
                assert env.recoverable() and env.recoverable("expert")
                assert before and not capsys.readouterr().out
            seen.append(env.step(turn))
        steps.append(seen)
        env.close()
    assert steps[0] == steps[1]


@pytest.mark.filterwarnings("ignore:sandbox 'replay' does not isolate")
def test_a_session_that_is_replayed() -> None:
    env = MathEnv(sandbox="replay", isolation="preferred", dataset_options={"min_steps": 2, "max_steps": 2})
    env.reset(options={"index": 0})
    env.step(env.expert_turns()[0])
    assert len(continuation(env, "expert") or ()) == 2
    env.step(call("import time\nprint(time.perf_counter())"))
    assert env.recoverable()
    with pytest.raises(RuntimeError, match="cannot be told: the sandbox failed in a copy"):
        env.recoverable("expert")
    assert env.step(env.expert_turns()[1])[4]["valid"]
    env.close()


def test_a_failed_sandbox_ends_it() -> None:
    env = MathEnv(extra_tools=(Flaky,))
    env.reset(options={"index": 0})
    env.step('<tool_call>{"name": "flaky", "arguments": {}}</tool_call>')
    assert not env.recoverable() and not env._current().valid
    env.close()


# ---------------------------------------------------------------- what it refuses, and ids


def test_what_it_refuses() -> None:
    env = small()
    with pytest.raises(ResetNeeded, match="no episode has begun"):
        env.recoverable()
    env.reset(seed=1)
    with pytest.raises(ValueError, match=r"'one/test/0' has no model .* only tasks of dataset='generated' have one"):
        env.reset(options={"index": 0})
        recoverable(env)
    with pytest.raises(ValueError, match="policy='sage' is unknown; choose omniscient or expert"):
        env.recoverable("sage")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="CartPoleEnv has no tasks"):
        recoverable(gym.make("CartPole-v1"))
    env.close()
    tags = ScienceQAEnv(protocol="python_tags")
    tags.reset(seed=1)
    assert tags.recoverable()
    with pytest.raises(ValueError, match=r"can only call python .* calls search"):
        tags.recoverable("expert")
    tags.close()


@pytest.mark.parametrize("protocol", ["fences", "python_tags", "openai"])
def test_every_protocol(protocol: str) -> None:
    for kind in (MathEnv, CodeExecEnv) if protocol != "fences" else (MathEnv,):
        env = kind(protocol=protocol)
        env.reset(options={"index": 3})
        turns = env.expert_turns()
        assert continuation(env, "expert") == turns
        env.step(turns[0])
        assert continuation(env, "expert") == turns[1:]
        env.close()


def test_ids_say_all_that_a_task_depends_on() -> None:
    """Two sources once gave different questions under one id."""
    one, two = (GeneratedSource(families=[name]) for name in ("marbles", "cards"))
    assert one.get(0).task_id != two.get(0).task_id
    sources = (
        (one, two, GeneratedSource("test", min_steps=3, max_steps=9, seed=4)),
        (ScienceSource(), ScienceSource("test", families=["gases"], kinds=["choice"])),
        (ProgramSource(), ProgramSource("test", kinds=["repair"], min_steps=2, max_steps=2, families=["list"])),
    )
    for kind in sources:
        for source in kind:
            task = source.get(7)
            assert type(source).from_id(task.task_id).get(7) == task
            for foreign in ("x/train/0-2-4/7", "gsm8k/test/3", f"{task.task_id}/1", task.task_id.replace("-", "-x", 1)):
                with pytest.raises(KeyError):
                    type(source).from_id(foreign)
            for index in ("07", "-1", "\u00b2", "", str(2**31), "9" * 5000):
                with pytest.raises(KeyError):
                    source.by_id(f"{task.task_id.rpartition('/')[0]}/{index}")


def test_a_task_under_a_generated_id_that_is_not_the_generated_one() -> None:
    """As in a snapshot that somebody made, or of another version."""

    class Renamed(OneTask):
        def get(self, index: int) -> Task:
            return replace(super().get(index), task_id=f"{GeneratedSource().prefix}/{index}")

    env = MathEnv(task_source=Renamed())
    env.reset(seed=1)
    with pytest.raises(ValueError, match="has no model"):
        env.recoverable()
    env.close()
