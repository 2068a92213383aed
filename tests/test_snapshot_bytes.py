"""The durable form of snapshots: the same snapshot, in another process too; damage is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _episodes import call
from _playing import make, played
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs import Snapshot, snapshot
from elpo_envs.durable import decode, encode, pack

_PLAYED = played()


def test_the_durable_form_is_the_same_snapshot() -> None:
    snap = played()
    data = snap.to_bytes()
    again = Snapshot.from_bytes(data)
    assert again.episode == snap.episode
    assert (again.messages, again.task, again.contract) == (snap.messages, snap.task, snap.contract)
    assert (again.env_id, again.protocol, again.version) == ("elpo/Math-v0", "hermes", 1)
    assert again.spec_digest == snap.spec_digest
    assert again.fidelity == "replay"
    assert again.to_bytes() == data == snap.to_bytes()
    untouched = make()
    untouched.reset(seed=1)
    assert snapshot(untouched).fidelity == "exact"
    assert Snapshot.from_bytes(snapshot(untouched).to_bytes()).fidelity == "exact"


def test_bytes_that_are_no_snapshot() -> None:
    data = played().to_bytes()
    for bad, message in [
        (b"", "are not a snapshot"),
        (b"\x80\x04pickle", "are not a snapshot"),
        (data[:20], "is cut short: 20 bytes"),
        (data[:-1], "digest does not match"),
        (data[:60] + bytes([data[60] ^ 1]) + data[61:], "digest does not match"),
        (data[:8] + b"\x00\x02" + data[10:], "has format version 2, this package reads version 1"),
        (pack({"episode": {}}, 1), "have an unexpected form"),
        (pack([], 1), "have an unexpected form"),
        (pack({"episode": None}, 1), "have an unexpected form"),
    ]:
        with pytest.raises(ValueError, match=message):
            Snapshot.from_bytes(bad)
    with pytest.raises(ValueError, match="is bytes, not str"):
        Snapshot.from_bytes("x")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_byte_is_noticed(data: st.DataObject) -> None:
    good = _PLAYED.to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with pytest.raises(ValueError, match="snapshot"):
        Snapshot.from_bytes(bad)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_values_survive_as_json(value: Any) -> None:
    assert repr(decode(json.loads(json.dumps(encode(value))))) == repr(value)


CHILD = """
import json, sys
import gymnasium as gym
import elpo_envs
snap = elpo_envs.Snapshot.from_bytes(open(sys.argv[1], "rb").read())
env = gym.make("elpo/Math-v0", dataset=sys.argv[2], split="test")
seen = [list(elpo_envs.restore(env, snap))]
for action in json.loads(sys.argv[3]):
    seen.append(list(env.step(action)))
print(json.dumps(seen))
"""


def test_another_process_continues_without_the_data(tmp_path: Path) -> None:
    data = tmp_path / "sums.jsonl"
    data.write_text(json.dumps({"question": "1 + 1?", "answer": "2"}))
    env = make(dataset=str(data), split="test")
    env.reset(seed=1)
    env.step(call("import random\nx = random.random()\nx"))
    obs, *_, info = env.step(call("y = [x]\n1/0"))
    file = tmp_path / "snap.bin"
    file.write_bytes(snapshot(env).to_bytes())
    data.unlink()
    actions = [call("y.append(random.random())\ny"), "hm é", "\\boxed{2}"]
    seen = [[obs, info], *(list(env.step(a)) for a in actions)]
    clean = {k: v for k, v in os.environ.items() if k != "ELPO_DATA"} | {"PYTHONHASHSEED": "77"}
    command = [sys.executable, "-W", "error", "-c", CHILD, str(file), str(data), json.dumps(actions)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == seen
    assert seen[-1][1] == 1.0
