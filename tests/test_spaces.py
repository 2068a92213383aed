"""The space of texts that observations and actions are from."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from elpo_envs.spaces import UnicodeText


def test_unicode_text() -> None:
    space = UnicodeText(1000, seed=1)
    for text in ("", "é☃\n\x00", "\ud800", "x" * 1000, np.str_("x")):
        assert text in space
    for other in ("x" * 1001, b"x", 3, None):
        assert other not in space
    samples = [space.sample() for _ in range(50)]
    assert all(s in space and len(s) <= 256 for s in samples)
    assert all(c.isprintable() or c == "\n" for s in samples for c in s)
    assert len(set(samples)) > 45
    assert space == UnicodeText(1000) and space != UnicodeText(999) and space != gym.spaces.Text(1000)
    assert repr(space) == "UnicodeText(0, 1000)"
    assert UnicodeText(5, min_length=2) != UnicodeText(5)
    assert len(space.sample(mask=(7, None))) == 7
    assert "x" * 1001 not in space
