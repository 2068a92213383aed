"""elpo/Math-v0 over files: a file of one's own, missing files, and the real problems."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import gymnasium as gym
import pytest

import elpo_envs

gym.register_envs(elpo_envs)


def test_data_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(3)]
    path = tmp_path / "sums.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    made = gym.make("elpo/Math-v0", dataset=str(path), split="test")
    obs, info = made.reset(options={"index": 2})
    assert obs == "What is 2 + 1?" and info["split"] == "test" and info["index"] == 2
    assert made.step("\\boxed{3}")[1] == 1.0
    again = gym.make("elpo/Math-v0", dataset=str(path), split="test")
    assert made.unwrapped.task_source is again.unwrapped.task_source
    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        gym.make("elpo/Math-v0", dataset="missing.jsonl").reset(seed=1)
    monkeypatch.delenv("ELPO_DATA", raising=False)
    with pytest.raises(ValueError, match="the variable ELPO_DATA"):
        gym.make("elpo/Math-v0", dataset="gsm8k").reset(seed=1)
    with pytest.raises(FileNotFoundError, match=r"holds none of"):
        gym.make("elpo/Math-v0", dataset="gsm8k", data_dir=str(tmp_path)).reset(seed=1)


def test_experts_solve_real_problems() -> None:
    if not os.environ.get("ELPO_DATA"):
        pytest.skip("ELPO_DATA is not set: a folder with gsm8k_test.jsonl.gz")
    made = gym.make("elpo/Math-v0", dataset="gsm8k", split="test")
    solved = tried = 0
    for index in range(20):
        made.reset(options={"index": index})
        reward = 0.0
        for turn in made.unwrapped.expert_turns():
            _, reward, _, _, info = made.step(turn)
            assert info["n_tool_errors"] == 0
        tried += bool(made.unwrapped.expert_turns())
        solved += int(reward)
    made.close()
    assert tried >= 15 and solved >= tried - 1
