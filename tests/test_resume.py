"""A run that was killed, at whatever moment, and resumed is the run that was not."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _faulty_runs import tiny
from _runs import Silent, assert_same_run, environment, metrics, micro, records, summary, train

from elpo_agent.config import TrainConfig
from elpo_agent.learner.learner import Learner
from elpo_agent.runs import checkpoint
from elpo_agent.runs.run_folder import RunFolder, RunFolderError
from elpo_agent.runs.saved_config import differences, settings, write_config
from elpo_agent.training import trainer
from elpo_agent.training.ahead import AheadCollector
from elpo_agent.training.collection import Collector
from elpo_agent.training.trainer import Trainer


class Moments:
    """Copies of a run's folder, taken while the run goes on: what a process killed then would leave behind."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store
        self.taken: dict[str, Path] = {}

    def take(self, name: str) -> None:
        if name not in self.taken:
            self.taken[name] = self.store / name
            shutil.copytree(self.folder, self.store / name)


def spy(patch: pytest.MonkeyPatch, owner: Any, name: str, before: Callable[..., None]) -> None:
    """Call `before` with the arguments of every call of `owner.name`, then let it go ahead."""
    real = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        before(*args, **kwargs)
        return real(*args, **kwargs)

    patch.setattr(owner, name, call)


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Moments:
    """An uninterrupted run, and its folder at the moments at which it could have been killed."""
    root = tmp_path_factory.mktemp("reference")
    out = Moments(root / "run", root)

    def logging(folder: RunFolder, record: dict[str, Any]) -> None:
        name = record["kind"] if record["kind"] == "train" else record["when"].split()[0]
        out.take(f"logging {name} at {record['update']}")

    def writing(path: Path, value: object) -> None:
        out.take(f"writing {path.parent.name}-{path.stem}")

    def listing(folder: Path) -> None:
        if folder.name == "checkpoints":
            out.take(f"with {'+'.join(sorted(p.name for p in folder.iterdir() if p.name.startswith('update')))}")

    def dropping(path: Path, *args: Any, **kwargs: Any) -> None:
        out.take(f"dropping {Path(path).name}")

    with pytest.MonkeyPatch.context() as patch:
        spy(patch, RunFolder, "log", logging)
        spy(patch, RunFolder, "log_tree", lambda folder, tree: out.take(f"in the trees of {tree['update']}"))
        spy(patch, checkpoint, "_write", writing)
        spy(patch, checkpoint, "list_checkpoints", listing)
        spy(patch, shutil, "rmtree", dropping)
        spy(patch, trainer, "write_atomic", lambda path, text: out.take("before the summary"))
        train(micro(out.folder))
    return out


# Name -> updates that the newest whole checkpoint holds at that moment; None where there is none yet.
KILLED = {
    "writing .partial-update_000000-model": None,
    "dropping update_000000": 4,
    "before the summary": 4,
}
KILLED_SLOW = {
    "writing .partial-update_000002-optimizer": 0,
    "in the trees of 3": 2,
    "logging after at 4": 4,
    "logging before at 0": None,
    "logging train at 1": 0,
    "writing .partial-update_000002-model": 0,
    "with update_000000+update_000002": 2,
    "logging update at 3": 2,
    "logging train at 4": 2,
}


def test_logs_hold_every_update_once(moments: Moments) -> None:
    lines = metrics(moments.folder)
    assert [r["update"] for r in lines if r["kind"] == "train"] == [1, 2, 3, 4]
    assert [r["when"] for r in lines if r["kind"] == "eval_sampled"] == ["before", "update 3", "after"]
    assert [r["update"] for r in records(moments.folder / "trees.jsonl")] == [u for u in (1, 2, 3, 4) for _ in range(2)]
    assert any(r.get("grad_norm", 0) > 0 for r in lines), "a run that learns nothing proves nothing"
    assert {"before", "update 3", "after"} <= summary(moments.folder).keys()
    assert sorted(p.name for p in (moments.folder / "checkpoints").iterdir()) == ["update_000002", "update_000004"]


@pytest.mark.parametrize("name", [*KILLED, *(pytest.param(n, marks=pytest.mark.slow) for n in KILLED_SLOW)])
def test_killed_then_resumed(moments: Moments, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(moments.taken[name], folder)
    found = checkpoint.list_checkpoints(folder / "checkpoints")
    assert (checkpoint.load_state(found[-1]).update if found else None) == (KILLED | KILLED_SLOW)[name]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "upd')  # torn in the middle of a line
    with (folder / "trees.jsonl").open("a") as file:
        file.write('{"update": 9, "version": 1}\n{"upd')
    train(micro(folder), resume=True)
    assert_same_run(folder, moments.folder)
    left = [p.name for p in (folder / "checkpoints").iterdir()]
    assert sorted(left) == ["update_000002", "update_000004"], "nothing of the torn checkpoints is left"


@pytest.mark.parametrize("when", ["update 3 is evaluated", pytest.param("update 4 begins", marks=pytest.mark.slow)])
def test_interrupted_then_resumed(moments: Moments, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved then is update 3, though no checkpoint was due; what was logged after it is not repeated."""
    real = RunFolder.log
    evaluated = False

    def log(folder: RunFolder, record: dict[str, Any]) -> None:
        nonlocal evaluated
        real(folder, record)
        evaluated = evaluated or record.get("when") == "update 3"
        if evaluated and when == "update 3 is evaluated":
            raise KeyboardInterrupt

    def collecting(collector: Collector, update: int, used: int) -> None:
        if update == 3 and when == "update 4 begins":
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", log)
        spy(patch, Collector, "collect", collecting)
        with pytest.raises(KeyboardInterrupt):
            train(micro(folder))
    assert evaluated
    newest = checkpoint.list_checkpoints(folder / "checkpoints")[-1]
    state = checkpoint.load_state(newest)
    assert (state.update, "update 3" in state.results) == (3, when == "update 4 begins")
    train(micro(folder), resume=True)
    assert_same_run(folder, moments.folder)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["rollouts", "learner"])
def test_interrupted_with_rollouts_made_ahead(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(output: Path) -> TrainConfig:
        plain = tiny(output, updates=3)
        loss = {"loss": {"importance_cap": 2.0}}
        return replace(
            plain,
            rollout=replace(plain.rollout, ahead=True),
            algorithm=replace(plain.algorithm, name="grpo", options={"n_total": 2, **loss}),
        )

    train(config(tmp_path / "reference"))
    learnt = 0

    def interrupt(*args: Any, **kwargs: Any) -> None:
        nonlocal learnt
        learnt += 1
        if learnt == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        if where == "learner":
            spy(patch, Learner, "update", interrupt)
        else:
            spy(patch, AheadCollector, "collect", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config(tmp_path / "run"))
    assert [p.name[-1] for p in checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")] == [
        "0",
        "2" if where == "learner" else "1",
    ]
    train(config(tmp_path / "run"), resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "reference")


def test_a_finished_run_is_left_alone(moments: Moments, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(moments.folder, folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    display = Silent()
    again = Trainer(micro(folder), display, resume=True).run()
    assert "finished" in display.notes[0]
    assert again["folder"] == str(folder)
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize("moment", ["in the trees of 3", "logging before at 0"])
def test_other_settings_are_refused(moments: Moments, moment: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(moments.taken[moment], folder)
    config = micro(folder)
    older = {**settings(config), "learner": {k: v for k, v in settings(config)["learner"].items() if k != "packing"}}
    flat = replace(config, learner=replace(config.learner, packing="never"))
    assert differences(older, settings(flat)) == []  # a run of before there was packing can go on as it was
    assert differences(older, settings(config)) == ["learner.packing was 'never', now 'auto'"]
    changed = replace(config, seed=1, learner=replace(config.learner, lr=0.5))
    with pytest.raises(ValueError, match=r"seed was 0, now 1; learner\.lr was 0\.001, now 0\.5"):
        train(changed, resume=True)
    harmless = Trainer(replace(config, checkpoint_every=1, save_trees_every=0), Silent(), resume=True)
    with RunFolder(folder) as held:
        harmless._start(held)


def test_a_folder_with_a_run_is_not_overwritten(moments: Moments, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(moments.taken["in the trees of 3"], folder)
    with pytest.raises(RunFolderError, match="already holds a run; continue it with --resume"):
        train(micro(folder))
    (folder / "config.yaml").unlink()
    with pytest.raises(RunFolderError, match="already holds a run"):
        train(micro(folder))


def test_an_interrupt_waits_for_the_line_to_be_written(tmp_path: Path) -> None:
    seen: list[str] = []

    class Interrupted:
        """A tracker in whose work Ctrl-C falls."""

        def log(self, kind: str, update: int, figures: object) -> None:
            seen.append("begun")
            signal.raise_signal(signal.SIGINT)
            seen.append("done")

        def flush(self) -> None: ...

        def close(self) -> None:
            seen.append("closed")

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path) as folder:
        folder.open_logs(metrics_bytes=0, trees_bytes=0, trackers=[Interrupted()])
        folder.log({"kind": "train", "update": 1})
    assert seen == ["begun", "done", "closed"]
    assert records(tmp_path / "metrics.jsonl") == [{"kind": "train", "update": 1}]
    assert signal.getsignal(signal.SIGINT) is handler


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, f"ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


@pytest.mark.slow
def test_the_command_line_killed_again_and_again(moments: Moments, tmp_path: Path) -> None:
    """kill -9 in update 1 and right after a checkpoint, Ctrl-C between two; every time on with --resume alone."""
    folder, file = tmp_path / "run", tmp_path / "micro.yaml"
    write_config(file, micro(folder))
    saved = folder / "checkpoints"

    def logged(updates: int) -> bool:
        path = folder / "metrics.jsonl"
        return path.exists() and path.read_text().count('"kind": "train"') >= updates

    stops: list[tuple[str, Callable[[], bool], signal.Signals]] = [
        ("update 1", lambda: (folder / "metrics.jsonl").exists(), signal.SIGKILL),
        ("checkpoint 2", lambda: (saved / "update_000002").exists(), signal.SIGKILL),
        ("update 3", lambda: logged(3), signal.SIGINT),
    ]
    command = [sys.executable, "-m", "elpo_agent.cli.main", "train"]
    options = ["--config", str(file)]
    for what, reached, how in stops:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        try:
            wait_for(reached, process, what)
            process.send_signal(how)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        if how == signal.SIGINT:
            assert process.returncode == 130
            told = re.fullmatch(
                rf"interrupted; update ([23]) is saved, continue with: elpo train --output {folder} --resume\n", said
            )
            assert told is not None, said
            interrupted_after = int(told[1])
        else:
            assert process.returncode == -signal.SIGKILL
        options = ["--output", str(folder), "--resume"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"resumed from update_{interrupted_after:06d}" in done.stdout
    assert_same_run(folder, moments.folder)
