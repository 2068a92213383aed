"""The fault table: what can happen to a run, what is said, what is saved, and that going on gives the same run.

Every row is a real run of the shipped model by the command line. After the fault it is mended, and the run resumed
with `--resume`: it must then be the run that nothing happened to, to the last bit.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from _faulty_runs import Ended, FaultyRun, tiny
from _fork_watch import descendants, launcher, zygote
from _runs import EASY, assert_same_run, metrics, train

from elpo_agent.config import EnvConfig
from elpo_agent.engines.transformers_engine import TransformersPolicy
from elpo_agent.learner.learner import Learner
from elpo_agent.objective import clipping
from elpo_agent.runs import checkpoint, run_folder
from elpo_agent.runs.run_folder import RunFolder
from elpo_envs.math_env import MathEnv
from elpo_envs.sandbox.fork.pools import current_pool


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        what: happens.
        status: of the command; minus the signal's number where one ends the process.
        says: in standard error, a regular expression.
        saved: updates of the checkpoints that are there afterwards.
        inject: runs the command with the fault.
        finished: the run goes on in spite of it and ends as it should.
        shows: on standard output, a regular expression.
        same: resumed, or if it is finished at once, the run is the one that nothing happened to.
        slow: left out of the quick tests.
    """

    what: str
    status: int
    says: str
    saved: tuple[int, ...]
    inject: Callable[[FaultyRun], Ended]
    finished: bool = False
    shows: str = ""
    same: bool = True
    slow: bool = False


TABLE: list[Row] = []
GOES_ON = r"continue with: elpo train --output .*run --resume\n"


def row(what: str, status: int, says: str, saved: tuple[int, ...], **more: Any) -> Callable[..., Any]:
    def add(inject: Callable[[FaultyRun], Ended]) -> Callable[[FaultyRun], Ended]:
        TABLE.append(Row(what, status, says, saved, inject, **more))
        return inject

    return add


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    return fail


def call(code: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'python', 'arguments': {'code': code}})}\n</tool_call>"


def kill(number: signal.Signals, process: int | None = None) -> Callable[..., None]:
    return lambda *args, **kwargs: os.kill(process or os.getpid(), number)


# --- The disk -------------------------------------------------------------------------------------------------------


def half_written(code: int) -> Callable[..., None]:
    """Fails where the optimiser's state of update 2 is written, in the middle of the file."""

    def write(path: Path, value: object) -> None:
        if path.name == "optimizer.pt" and path.parent.name.endswith("2"):
            path.write_bytes(b"half")
            raise OSError(code, os.strerror(code), str(path))

    return write


@row(
    "the disk is full while a checkpoint is written",
    1,
    rf"checkpoints is full; .*update 0 is saved, {GOES_ON}",
    (0,),
    slow=True,
)
def _(run: FaultyRun) -> Ended:
    run.before(checkpoint, "_write", half_written(errno.ENOSPC))
    return run.train()


@row("the disk becomes read-only", 1, rf"Read-only file system.*update 0 is saved, {GOES_ON}", (0,), slow=True)
def _(run: FaultyRun) -> Ended:
    run.before(checkpoint, "_write", half_written(errno.EROFS))
    return run.train()


@row("the disk is full while metrics are logged", 1, rf"is full; .*update 0 is saved, {GOES_ON}", (0,), slow=True)
def _(run: FaultyRun) -> Ended:
    def append(file: Any, record: dict[str, Any]) -> None:
        if record.get("update") == 2:
            file.write(b'{"kind": "tr')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run.before(run_folder, "_append", append)
    return run.train()


@row(
    "the newest checkpoint is damaged",
    0,
    r"\A\Z",
    (1, 2),
    finished=True,
    shows=r"update_000001 is damaged: optimizer\.pt does not match its checksum; going on from update_000000, the",
)
def _(run: FaultyRun) -> Ended:
    run.config = tiny(run.output, checkpoint_every=1)
    run.in_rollouts(TransformersPolicy, "sample", kill(signal.SIGINT))
    assert run.train().saved == [0, 1]
    run.mend()
    file = run.output / "checkpoints" / "update_000001" / "optimizer.pt"
    bits = bytearray(file.read_bytes())
    bits[len(bits) // 2] ^= 1
    file.write_bytes(bits)
    return run.train("--resume")


@row(
    "every checkpoint is damaged",
    1,
    r"no checkpoint in .* is intact \(update_000000 is damaged: model.pt ",
    (0,),
    slow=True,
)
def _(run: FaultyRun) -> Ended:
    run.in_rollouts(TransformersPolicy, "sample", kill(signal.SIGINT), update=0)
    run.train()
    run.mend()
    file = run.output / "checkpoints" / "update_000000" / "model.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    ended = run.train("--resume")
    file.write_bytes(whole)  # put back a copy
    return ended


@row("the last line of metrics.jsonl is torn", 0, r"\A\Z", (1, 2), finished=True, slow=True)
def _(run: FaultyRun) -> Ended:
    run.in_rollouts(TransformersPolicy, "sample", kill(signal.SIGINT))
    run.train()
    run.mend()
    with (run.output / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "upd')
    return run.train("--resume")


# --- The process ----------------------------------------------------------------------------------------------------


@row("kill -9 while a checkpoint is written", -signal.SIGKILL, r"\A(?!.*Traceback)", (0,))
def _(run: FaultyRun) -> Ended:
    def write(path: Path, value: object) -> None:
        if path.name == "optimizer.pt" and path.parent.name.endswith("2"):
            path.write_bytes(b"half")
            kill(signal.SIGKILL)()

    run.before(checkpoint, "_write", write)
    return run.train_in_child()


@row("kill -9 during rollouts", -signal.SIGKILL, "", (0,), slow=True)
def _(run: FaultyRun) -> Ended:
    run.in_rollouts(TransformersPolicy, "sample", kill(signal.SIGKILL))
    return run.train_in_child()


@row("kill -9 while the learner is at work", -signal.SIGKILL, "", (0,), slow=True)
def _(run: FaultyRun) -> Ended:
    run.in_learner(kill(signal.SIGKILL))
    return run.train_in_child()


@row("SIGTERM during rollouts", 0, rf"\Aterminated; update 1 is saved, {GOES_ON}\Z", (0, 1))
def _(run: FaultyRun) -> Ended:
    run.in_rollouts(TransformersPolicy, "sample", kill(signal.SIGTERM))
    return run.train()


@row("SIGTERM while the learner is at work", 0, rf"\Aterminated; update 1 is saved, {GOES_ON}\Z", (0, 1))
def _(run: FaultyRun) -> Ended:
    run.in_learner(kill(signal.SIGTERM))
    return run.train()


@row("SIGTERM before the first checkpoint", 0, rf"\Aterminated; no update is saved yet, {GOES_ON}\Z", (), slow=True)
def _(run: FaultyRun) -> Ended:
    run.before(Learner, "__init__", kill(signal.SIGTERM))
    return run.train()


@row("SIGTERM twice", -signal.SIGTERM, r"\A\Z", (0,))
def _(run: FaultyRun) -> Ended:
    def twice() -> None:
        kill(signal.SIGTERM)()
        kill(signal.SIGTERM)()

    run.in_learner(twice)
    return run.train_in_child()


@row("Ctrl-C during rollouts", 130, rf"\Ainterrupted; update 1 is saved, {GOES_ON}\Z", (0, 1), slow=True)
def _(run: FaultyRun) -> Ended:
    run.in_rollouts(TransformersPolicy, "sample", kill(signal.SIGINT))
    return run.train()


@row(
    "Ctrl-C twice while the learner is at work", 130, rf"\Ainterrupted; update 0 is saved, {GOES_ON}\Z", (0,), slow=True
)
def _(run: FaultyRun) -> Ended:
    def twice() -> None:
        kill(signal.SIGINT)()
        kill(signal.SIGINT)()

    run.in_learner(twice)
    return run.train()


@row(
    "another process uses the folder",
    1,
    "is being written by another process; choose another --output",
    (0, 1),
    slow=True,
)
def _(run: FaultyRun) -> Ended:
    run.in_rollouts(TransformersPolicy, "sample", kill(signal.SIGTERM))
    run.train()
    run.mend()
    with RunFolder(run.output):
        return run.train("--resume")


@row("no file can be opened when a checkpoint is due", 1, rf"Too many open files.*{GOES_ON}", (0,), slow=True)
def _(run: FaultyRun) -> Ended:
    def take_all(path: Path, value: object) -> None:
        if path.parent.name.endswith("2"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    os.dup(2)

    run.before(checkpoint, "_write", take_all)
    return run.train_in_child()


# --- Numbers and memory ---------------------------------------------------------------------------------------------


@row("the loss is NaN", 1, r"loss=nan, .*this step was not taken; the last checkpoint is from before", (0,), slow=True)
def _(run: FaultyRun) -> Ended:
    real = clipping._weighted_loss

    def breaks_down(*args: Any) -> Any:
        loss, figures = real(*args)
        return loss * float("nan"), figures

    run.patch.setattr(clipping, "_weighted_loss", breaks_down)
    return run.train()


@row(
    "a step makes a weight NaN",
    1,
    r"the weights became NaN or infinite at learning rate .*smaller learner\.lr",
    (0,),
    slow=True,
)
def _(run: FaultyRun) -> Ended:
    real = Learner._step

    def stepping(learner: Learner, *args: Any, **kwargs: Any) -> Any:
        out = real(learner, *args, **kwargs)
        with torch.no_grad():
            next(learner.model.parameters())[0] = float("nan")
        return out

    run.patch.setattr(Learner, "_step", stepping)
    return run.train()


@row(
    "the learner runs out of memory",
    1,
    rf"learning ran out .*lower learner\.micro_batch_tokens=.*{GOES_ON}",
    (0,),
    slow=True,
)
def _(run: FaultyRun) -> Ended:
    run.in_learner(failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore about it.")))
    return run.train()


@row(
    "the engine runs out of memory",
    1,
    rf"sampling ran out of memory .*lower rollout\.prompts=2 .*{GOES_ON}",
    (0, 1),
    slow=True,
)
def _(run: FaultyRun) -> Ended:
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory")
    run.in_rollouts(TransformersPolicy, "sample", failing(error))
    return run.train()


# --- The engine, environments and sandboxes -------------------------------------------------------------------------


@row(
    "the engine dies",
    1,
    rf"(?s:.*)RuntimeError: lost\nraised by the engine, .*\nelpo train stopped; update 1 is saved, {GOES_ON}",
    (0, 1),
)
def _(run: FaultyRun) -> Ended:
    run.in_rollouts(TransformersPolicy, "sample", failing(RuntimeError("lost")))
    return run.train()


class Unsound(MathEnv):
    """An environment of somebody else; what is wrong with it is set from outside."""

    reward: float | None = None
    action: str | None = None

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest = super().step(action if Unsound.action is None else Unsound.action)
        return observation, reward if Unsound.reward is None else Unsound.reward, *rest


@row(
    "an environment's step raises",
    1,
    rf"KeyError: 'a bug'\nraised by the environment .*\nelpo train stopped; update 1 is saved, {GOES_ON}",
    (0, 1),
    slow=True,
)
def _(run: FaultyRun) -> Ended:
    run.config = tiny(run.output, env=EnvConfig(id="elpo-test/Unsound-v0", kwargs=EASY))
    run.in_rollouts(Unsound, "step", failing(KeyError("a bug")))
    return run.train()


def unsound_from(run: FaultyRun, name: str, value: object) -> None:
    """Its `name` is `value` from the first step of the second update on."""
    run.config = tiny(
        run.output, env=EnvConfig(id="elpo-test/Unsound-v0", kwargs={**EASY, "max_turns": 2, "tool_timeout_s": 1.0})
    )
    run.in_rollouts(Unsound, "step", lambda *_: run.patch.setattr(Unsound, name, value))


@row(
    "a reward is NaN",
    1,
    r"\Aelpo train: .*Unsound.* gave the reward nan; rewards must be finite numbers\n\Z",
    (0, 1),
    same=False,
)
def _(run: FaultyRun) -> Ended:
    unsound_from(run, "reward", float("nan"))
    return run.train()


@row("every tool call hangs", 0, r"\A\Z", (0, 2), finished=True, same=False, slow=True)
def _(run: FaultyRun) -> Ended:
    unsound_from(run, "action", call("while True: pass"))
    ended = run.train()
    before, after = metrics(run.output)
    assert before["tool_errors"] == 0 and after["tool_errors"] == after["tool_calls"] >= 4
    assert (after["invalid"], after["success"]) == (0, 0.0)
    return ended


@row("the sandboxes' supervisor is killed between two calls", 0, r"\A\Z", (0, 2), finished=True)
def _(run: FaultyRun) -> Ended:
    run.in_rollouts(TransformersPolicy, "sample", lambda *_: os.kill(launcher(current_pool()), signal.SIGKILL))
    return run.train()


@row("every interpreter is killed between two calls", 0, r"\A\Z", (0, 2), finished=True, slow=True)
def _(run: FaultyRun) -> Ended:
    samples = 0

    def kill_all(*args: Any, **kwargs: Any) -> None:
        nonlocal samples
        samples += 1
        if samples == 3:
            for process in descendants(zygote(current_pool())):
                kill(signal.SIGKILL, process)()

    run.before(TransformersPolicy, "sample", kill_all)
    return run.train()


@pytest.fixture
def unsound() -> Any:
    gym.register("elpo-test/Unsound-v0", entry_point=Unsound)
    yield
    del gym.registry["elpo-test/Unsound-v0"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    train(tiny(folder))
    assert all(r["grad_norm"] > 0 for r in metrics(folder)), "a run that learns nothing proves nothing"
    return folder


@pytest.mark.parametrize(
    "fault", [pytest.param(r, id=r.what, marks=[pytest.mark.slow] if r.slow else []) for r in TABLE]
)
def test_a_fault(
    fault: Row, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], unsound: None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        run = FaultyRun(tmp_path, patch, capsys)
        ended = fault.inject(run)
        run.mend()
        assert ended.status == fault.status, ended.said
        assert re.search(fault.says, ended.said), ended.said
        assert re.search(fault.shows, ended.shown), ended.shown
        assert ended.saved == list(fault.saved)
        assert fault.finished == (run.output / "summary.json").exists()
        if not fault.finished:
            again = run.train("--resume")
            assert again.status == 0, again.said
        if fault.same:
            assert_same_run(run.output, reference)
