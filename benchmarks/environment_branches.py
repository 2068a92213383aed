"""What `elpo/Math-v0` costs: steps, snapshots and branches, beside the bare sandbox and plain subprocesses.

    python -m benchmarks.environment_branches [--quick] [--repeats 5] [--json PATH]

All times are wall-clock microseconds per operation, one environment, one thread. A branch is always taken after
the same four tool calls and ends with the result of a fifth. The peer keeps no session: to continue a
conversation it runs the code of all earlier calls again in a new `python -c`, as projects with a stateless
tool do. `--threads` has no effect here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import gymnasium as gym

import elpo_envs
from benchmarks.interpreters import Call, bare_session, replay_by_calls, run_script
from benchmarks.measure import Contestant, Options, Ratio, Report, Role, Row, interleave, parse_options
from elpo_envs.sandbox import Sandbox, make_sandbox

PREFIX = 4
STEPS = 32  # timed steps per episode
MAX_TURNS = STEPS + PREFIX + 2
BRANCHES = 4  # environments per fork
WORDS = "I will think about the question before I calculate anything."


def arithmetic() -> list[Call]:
    """Calls as in the generated problems: microseconds of computing each."""
    return [Call(f"v{i} = {127 + i} * {6 + i}", f"v{i}") for i in range(PREFIX + 1)]


def computing(terms: int) -> list[Call]:
    """Calls that take a while by themselves, whoever runs them."""
    return [Call(f"v{i} = sum(j * j for j in range({terms}))", f"v{i}") for i in range(PREFIX + 1)]


def per_operation(work: Callable[[], object], count: int) -> float:
    """Microseconds per call of `work`."""
    start = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - start) / count * 1e6


def make_env() -> gym.Env[str, str]:
    return gym.make("elpo/Math-v0", max_turns=MAX_TURNS, max_tool_calls=MAX_TURNS, disable_env_checker=True)


def steps(env: gym.Env[str, str], action: str, warm: Sequence[str], episodes: int) -> float:
    """Microseconds per step with `action`, after a reset and the steps `warm`, which are not timed."""
    times = []
    for index in range(episodes):
        env.reset(options={"index": index})
        for turn in warm:
            env.step(turn)
        times.append(per_operation(lambda: env.step(action), STEPS))
    return sum(times) / episodes


def sandbox_calls(sandbox: Sandbox, call: Call, warm: Sequence[Call], episodes: int) -> float:
    """The same as `steps`, by the sandbox alone."""
    times = []
    for seed in range(episodes):
        sandbox.open(seed)
        for before in warm:
            sandbox.run(before.code)
        times.append(per_operation(lambda: sandbox.run(call.code), STEPS))
    return sum(times) / episodes


def forks(env: gym.Env[str, str], count: int) -> float:
    """Microseconds per forked environment; closing them is not timed."""
    total = 0.0
    for _ in range(count):
        start = time.perf_counter()
        branches = elpo_envs.fork(env, BRANCHES)
        total += time.perf_counter() - start
        for branch in branches:
            branch.close()
    return total / (count * BRANCHES) * 1e6


def single(role: Role, work: Callable[[], float]) -> tuple[Role, Contestant]:
    """A contestant that gives microseconds per operation."""
    return role, lambda _: {"us": work()}


@contextmanager
def step_contestants(n: int) -> Iterator[dict[str, tuple[Role, Contestant]]]:
    """Single steps and their limits."""
    calls = arithmetic()
    warm, last = calls[:PREFIX], calls[-1]
    turns = [call.turn for call in warm]
    few = max(1, n // 2)
    with closing(make_env()) as env, closing(make_sandbox()) as sandbox, bare_session() as bare:
        for call in warm:
            bare(call, False)
        yield {
            "step without a call": single("ours", lambda: steps(env, WORDS, (), n)),
            "step with a python call": single("ours", lambda: steps(env, last.turn, turns, few)),
            "bare sandbox round trip": single("limit", lambda: sandbox_calls(sandbox, last, warm, few)),
            "exec in a bare child process": single(
                "limit", lambda: per_operation(lambda: bare(last, False), STEPS * few)
            ),
            "plain subprocess, all code again": single("peer", lambda: per_operation(lambda: run_script(calls), n)),
        }


@contextmanager
def branch_contestants(calls: Sequence[Call], n: int) -> Iterator[dict[str, tuple[Role, Contestant]]]:
    """Ways of continuing after the first `PREFIX` of `calls` with the last one."""
    first, last = calls[:PREFIX], calls[-1]
    with (
        closing(make_env()) as parent,
        closing(make_env()) as other,
        closing(make_sandbox()) as sandbox,
        bare_session() as bare,
    ):
        parent.reset(options={"index": 0})
        sandbox.open(0)
        for call in first:
            parent.step(call.turn)
            sandbox.run(call.code)
            bare(call, False)
        snap, frozen = elpo_envs.snapshot(parent), sandbox.snapshot()

        def branch() -> str:
            elpo_envs.restore(other, snap)
            return str(other.step(last.turn)[0]).strip()

        def branch_sandbox() -> str:
            sandbox.restore(frozen)
            return sandbox.run(last.code).text.strip()

        answers = {branch(), branch_sandbox(), bare(last, True), run_script(calls), replay_by_calls(calls)}
        if len(answers) != 1:
            raise RuntimeError(f"the contestants disagree on the result of the branch: {sorted(answers)}")
        few, fewer = max(1, n // 4), max(1, n // 8)
        yield {
            "snapshot": single("ours", lambda: per_operation(lambda: elpo_envs.snapshot(parent), 20 * n)),
            "restore": single("ours", lambda: per_operation(lambda: elpo_envs.restore(other, snap), 20 * n)),
            "fork": single("ours", lambda: forks(parent, n)),
            "restore + first call": single("ours", lambda: per_operation(branch, n)),
            "bare sandbox restore + call": single("limit", lambda: per_operation(branch_sandbox, n)),
            "os.fork of a bare child + call": single("limit", lambda: per_operation(lambda: bare(last, True), n)),
            "subprocess, one script": single("peer", lambda: per_operation(lambda: run_script(calls), few)),
            "subprocess, call by call": single("peer", lambda: per_operation(lambda: replay_by_calls(calls), fewer)),
        }


def measure(
    report: Report,
    group: str,
    contestants: Mapping[str, tuple[Role, Contestant]],
    ratios: Sequence[tuple[str, str]],
    options: Options,
) -> None:
    """Run one group and add its rows, and the ratios between the named pairs."""
    result = interleave({name: run for name, (_, run) in contestants.items()}, options.repeats)
    for name, (role, _) in contestants.items():
        report.add(Row(name, role, "us", result[name]["us"], group))
    for above, below in ratios:
        sample = result[above]["us"].over(result[below]["us"])
        report.ratios.append(Ratio(f"{above} / {below}", sample, group))


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options("Costs of steps, snapshots and branches of elpo/Math-v0.", argv)
    n, terms = (2, 3_000) if options.quick else (80, 300_000)
    report = Report(
        "environment_branches", {"prefix_calls": PREFIX, "computing_terms": terms, "sandbox": make_sandbox().name}
    )
    step, branch = "step with a python call", "restore + first call"
    with step_contestants(n) as contestants:
        pairs = [(step, name) for name in ("bare sandbox round trip", "exec in a bare child process")]
        measure(report, "steps", contestants, [*pairs, ("plain subprocess, all code again", step)], options)
    pairs = [(branch, name) for name in ("bare sandbox restore + call", "os.fork of a bare child + call")]
    pairs += [(peer, branch) for peer in ("subprocess, one script", "subprocess, call by call")]
    for name, calls, count in (("arithmetic", arithmetic(), n), ("computing", computing(terms), max(1, n // 4))):
        with branch_contestants(calls, count) as contestants:
            measure(report, f"branch after {PREFIX} calls: {name}", contestants, pairs, options)
    report.finish(options)


if __name__ == "__main__":
    main()
