"""Episodes and tool calls a second beside GEM and skyrl-gym, and steps without tools beside a trivial environment.

    python -m benchmarks.environments [--quick] [--repeats 5] [--json PATH]
        [--sandbox auto] [--only steps,peers] [--gem-python PATH] [--skyrl-python PATH]

All take part in one run, in turns. Episodes are wall-clock time, what is made once (environments, workers) not
counted, every episode graded; see `environment_peers`. Steps without tools are CPU time, through
`gym.make` with its default wrappers, without the resets: Gymnasium's own text environments (its family "Toy Text"), and
the smallest ones with `spaces.Text` that there can be, one of which gives a constant observation of the same length as
ours and one of which samples it. Ours reads the turn, looks for an answer, keeps the conversation and copies it into
`info`. Give the interpreters of
the environments that have `gem-llm` and `skyrl-gym` installed, here or as ELPO_GEM_PYTHON and ELPO_SKYRL_PYTHON.
`--threads` has no effect here.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import gymnasium as gym

from benchmarks import environment_peers, sandbox_peers
from benchmarks.measure import Options, Ratio, Report, Role, Row, Sample, Stopwatch, interleave, parse_options
from benchmarks.sandbox_branches import Contestants
from benchmarks.sandbox_peers import PeerSession
from benchmarks.trivial_env import TURN
from elpo_envs.sandbox import make_sandbox

GROUPS = ("steps", "peers")
TURNS = (4, 16)
CALLS = (2, 8)
AT_ONCE = (1, 8)
TOY_TEXT = ("FrozenLake-v1", "CliffWalking-v1", "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3")

gym.register("elpo-benchmarks/Trivial-v0", "benchmarks.trivial_env:Trivial")


def cpu_per_step(env: gym.Env[Any, Any], action: Any, episodes: int) -> float:
    """Seconds of CPU time for a step, repeated until the episode is truncated."""
    seconds, n_steps = 0.0, 0
    for index in range(episodes):
        env.reset(options={"index": index % 50})
        over = False
        watch = Stopwatch.start()
        while not over:
            *_, over, _info = env.step(action)
            n_steps += 1
        seconds += watch.read().cpu
    return seconds / n_steps


def steps(report: Report, options: Options) -> None:
    """Steps without tools."""
    for max_turns in TURNS:
        group = f"steps without tools, {max_turns} turns an episode"
        episodes = 2 if options.quick else 4_000 // max_turns
        trivial = "elpo-benchmarks/Trivial-v0"
        with ExitStack() as stack:

            def single(role: Role, name: str, action: Any, n: int = episodes, **given: Any) -> tuple[Role, Any]:
                """A contestant that gives steps a second of CPU time."""
                env = stack.enter_context(closing(gym.make(name, **given)))
                return role, lambda _: {"steps/s": 1 / cpu_per_step(env, action, n)}

            contestants: Contestants = {
                "ours": single("ours", environment_peers.ENV_ID, TURN, max_turns=max_turns),
                # An action that leads nowhere, so that only the limit ends the episode.
                **{f"Gymnasium's {n}": single("peer", n, 0, max_episode_steps=max_turns) for n in TOY_TEXT},
                "trivial, a constant text": single("limit", trivial, TURN, max_turns=max_turns, sampled=False),
                "trivial, a sampled text": single(
                    "limit", trivial, TURN, max(1, episodes // 10), max_turns=max_turns, sampled=True
                ),
            }
            result = measure(report, group, contestants, options)
        for name in list(contestants)[1:]:
            compare(report, group, "ours", name, result, "steps/s")


def peers(report: Report, options: Options, backend: str, sessions: Sequence[PeerSession]) -> None:
    """Episodes with tools, of two lengths, one at a time and several at once."""
    for n_calls in CALLS:
        for at_once in AT_ONCE:
            group = f"{n_calls} tool calls and the answer, {at_once} at once"
            unit = at_once * (1 if n_calls == max(CALLS) else 4)
            counts = (at_once, at_once) if options.quick else (2 * unit if at_once > 1 else 8 * unit, unit)
            with environment_peers.episodes(backend, sessions, n_calls, at_once, *counts) as contestants:
                result = measure(report, group, contestants, options)
            for name in list(contestants)[1:]:
                compare(report, group, "ours", name, result, "tool calls/s")


def measure(
    report: Report, group: str, contestants: Contestants, options: Options
) -> Mapping[str, Mapping[str, Sample]]:
    """Run a group and add a row for each figure."""
    result = interleave({name: run for name, (_, run) in contestants.items()}, options.repeats)
    for name, (role, _) in contestants.items():
        for unit, sample in result[name].items():
            report.add(Row(name, role, unit, sample, group))
    return result


def compare(
    report: Report, group: str, above: str, below: str, result: Mapping[str, Mapping[str, Sample]], unit: str
) -> None:
    report.ratios.append(Ratio(f"{above} / {below}", result[above][unit].over(result[below][unit]), group))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--only", default=",".join(GROUPS))
    parser.add_argument("--gem-python", type=Path)
    parser.add_argument("--skyrl-python", type=Path)
    own, rest = parser.parse_known_args(argv)
    options = parse_options(f"{__doc__.splitlines()[0]} Also: {parser.format_usage().partition(' ')[2]}", rest)
    chosen = own.only.split(",")
    if unknown := sorted(set(chosen) - set(GROUPS)):
        parser.error(f"--only {', '.join(unknown)} is not among {', '.join(GROUPS)}")
    settings: dict[str, Any] = {"sandbox": make_sandbox(own.sandbox).name, "kernel": platform.release()}
    report = Report("environments", settings)
    if "steps" in chosen:
        steps(report, options)
    if "peers" in chosen:
        present, absent = sandbox_peers.find_peers(
            sandbox_peers.interpreter(own.gem_python, "ELPO_GEM_PYTHON"),
            sandbox_peers.interpreter(own.skyrl_python, "ELPO_SKYRL_PYTHON"),
        )
        with environment_peers.working(present) as (sessions, broken):
            settings["peers"] = {session.peer.label: session.version for session in sessions}
            settings["skipped"] = {peer.label: peer.reason for peer in (*absent, *broken)}
            peers(report, options, own.sandbox, sessions)
    report.finish(options)


if __name__ == "__main__":
    main()
