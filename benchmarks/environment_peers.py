"""Whole episodes with a Python tool: `elpo/Math-v0` beside GEM and skyrl-gym, one at a time and several at once.

An episode is a few calls, each of which uses what the one before computed, and the answer, which is graded. Ours run
in one stateful session of the jailed interpreter. The peers' tools keep nothing between calls: their scripts repeat
the code of earlier calls, as their users' have to. skyrl-gym's REPL keeps state, inside the trainer's own process,
and refuses every import: a limit.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from benchmarks.interpreters import Call
from benchmarks.measure import Contestant, Figures, Role
from benchmarks.sandbox_branches import Contestants
from benchmarks.sandbox_peers import Absent, Peer, PeerSession, scripts
from elpo_envs.tasks.base import Task
from elpo_envs.vector import ConversationVectorEnv

_PROGRAM = Path(__file__).parent / "environment_peer_program.py"
ENV_ID = "elpo/Math-v0"
_TASKS = 50


@dataclass(frozen=True)
class Chain:
    """A question whose answer takes some calls in a row."""

    question: str
    answer: str
    calls: tuple[Call, ...]


def chain(index: int, n_calls: int) -> Chain:
    """Sums that go on from each other; with different numbers at each `index`."""
    start = 100 + 7 * index
    calls, value = [Call(f"v0 = {start} * 3", "v0")], start * 3
    for n in range(1, n_calls):
        calls.append(Call(f"v{n} = v{n - 1} * 2 + {n + index}", f"v{n}"))
        value = value * 2 + n + index
    question = (
        f"Start with {start}, treble it, and {n_calls - 1} times double it and add {index} and how often you did."
    )
    return Chain(question, str(value), tuple(calls))


class Chains:
    """The same chains as a `TaskSource`."""

    name = "chains"
    split = "test"
    size = _TASKS

    def __init__(self, n_calls: int) -> None:
        self._n_calls = n_calls

    def get(self, index: int) -> Task:
        made = chain(index, self._n_calls)
        return Task(f"chains/test/{index}", index, self.split, made.question, made.answer)

    def by_id(self, task_id: str) -> Task:
        return self.get(int(task_id.rpartition("/")[2]))


def turns(index: int, n_calls: int) -> list[str]:
    """An episode of ours: the calls, then the answer."""
    made = chain(index, n_calls)
    return [*(call.turn for call in made.calls), f"\\boxed{{{made.answer}}}"]


@contextmanager
def working(peers: Sequence[Peer]) -> Iterator[tuple[list[PeerSession], list[Absent]]]:
    """The programs of the peers that solve an episode here, each in a scratch directory of its own, and the others."""
    sessions: list[PeerSession] = []
    absent: list[Absent] = []
    with ExitStack() as stack:
        for peer in peers:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            try:
                session = stack.enter_context(closing(PeerSession(peer, folder, _PROGRAM)))
                solved = session.ask({"tasks": [_sent(session, 0, 2)], "count": 1, "at_once": 1})["solved"]
            except RuntimeError as error:
                absent.append(Absent(peer.label, str(error)))
            else:
                if solved == 1:
                    sessions.append(session)
                else:
                    absent.append(Absent(peer.label, "it did not solve an episode; does its tool work here?"))
        yield sessions, absent


def _sent(session: PeerSession, index: int, n_calls: int) -> dict[str, object]:
    made = chain(index, n_calls)
    return {
        "question": made.question,
        "answer": made.answer,
        "scripts": scripts(made.calls, session.peer.keeps_state),
    }


@contextmanager
def episodes(
    backend: str, sessions: Sequence[PeerSession], n_calls: int, at_once: int, ours_count: int, peer_count: int
) -> Iterator[Contestants]:
    """Episodes of `n_calls` tool calls, `at_once` at a time; figures: episodes/s, tool calls/s and the share solved.

    On a busy machine a peer may lose some: GEM counts an answer whose grading took more than a second as wrong.

    Raises:
        RuntimeError: an episode of ours was not graded as right.
    """
    plans = [turns(index, n_calls) for index in range(_TASKS)]
    arguments: dict[str, Any] = {"task_source": Chains(n_calls), "sandbox": backend}

    def figures(seconds: float, solved: int, count: int) -> Figures:
        rates = {"episodes/s": count / seconds, "tool calls/s": count * n_calls / seconds}
        return {**rates, "share solved": solved / count}

    def theirs(session: PeerSession, count: int) -> Contestant:
        tasks = [_sent(session, index, n_calls) for index in range(_TASKS)]

        def run(_: int) -> Figures:
            answer = session.ask({"tasks": tasks, "count": count, "at_once": at_once})
            return figures(float(str(answer["seconds"])), int(str(answer["solved"])), count)

        return run

    env = gym.make(ENV_ID, **arguments) if at_once == 1 else gym.make_vec(ENV_ID, num_envs=at_once, **arguments)
    with closing(env):

        def ours(_: int) -> Figures:
            start = time.perf_counter()
            solved = one_by_one(env, plans, ours_count) if at_once == 1 else side_by_side(env, plans, ours_count)
            seconds = time.perf_counter() - start
            if solved != ours_count:
                raise RuntimeError(f"only {solved} of {ours_count} episodes of ours were graded as right")
            return figures(seconds, solved, ours_count)

        contestants: dict[str, tuple[Role, Contestant]] = {"ours": ("ours", ours)}
        for session in sessions:
            contestants[session.peer.label] = session.peer.role, theirs(session, peer_count)
        yield contestants


def one_by_one(env: Any, plans: Sequence[Sequence[str]], count: int) -> int:
    """Play `count` episodes in one environment; how many were solved."""
    solved = 0
    for number in range(count):
        index = number % len(plans)
        env.reset(options={"index": index})
        for turn in plans[index]:
            _, reward, *_ = env.step(turn)
        solved += int(reward == 1.0)
    return solved


def side_by_side(env: Any, plans: Sequence[Sequence[str]], count: int) -> int:
    """Play `count` episodes in a vector environment, each of whose environments goes on as soon as it can."""
    vector: ConversationVectorEnv = env.unwrapped
    left, solved = iter(range(count)), 0
    plan: dict[int, Iterator[str]] = {}

    def begin(places: Sequence[int]) -> None:
        """Reset these environments, as long as there are episodes left, and start their first turns."""
        given: dict[int, int] = dict(zip(places, left, strict=False))
        if not given:
            return
        for place, number in given.items():
            vector.envs[place].reset(options={"index": number % len(plans)})
            plan[place] = iter(plans[number % len(plans)])
        vector.step_async(list(given), [next(plan[place]) for place in given])

    begin(range(vector.num_envs))
    while vector.pending:
        done = vector.step_wait()
        over = [t.index for t in done if t.terminated or t.truncated]
        solved += sum(int(t.reward == 1.0) for t in done)
        going = [t.index for t in done if t.index not in over]
        vector.step_async(going, [next(plan[place]) for place in going])
        begin(over)
    return solved
