"""Rate limits as token buckets: pure arithmetic on a clock that the caller reads."""

from __future__ import annotations

_BURST = 0.1  # of a minute's amount may come at once; the rest is spread over the minute


class RateBucket:
    """How long each request must wait so that no minute sees more than `per_minute` of something.

    Whoever reserves is served in turn: the bucket may owe, and the next one waits until that is paid. What begins
    within any 60 seconds adds up to less than `per_minute` + 1.

    Args:
        per_minute: the limit; > 0.
        now: the clock's reading in seconds; the bucket is full then.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        if not per_minute > 0:
            raise ValueError(f"per_minute={per_minute} must be more than 0")
        self._burst = max(1.0, _BURST * per_minute)
        self._per_second = (1 - _BURST) * per_minute / 60
        self._level = self._burst
        self._read = now

    def reserve(self, amount: float, now: float) -> float:
        """Take `amount`; returns the seconds from `now` on after which it may be used."""
        self._fill(now)
        self._level -= amount
        return max(0.0, -self._level / self._per_second)

    def settle(self, reserved: float, used: float, now: float) -> None:
        """Give back what was reserved and not used, or charge what was used beyond it."""
        self._fill(now)
        self._level = min(self._burst, self._level + reserved - used)

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._read) * self._per_second)
        self._read = max(self._read, now)
