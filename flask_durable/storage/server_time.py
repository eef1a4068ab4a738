"""Server time: what a database server's clock says now, told from what it said a moment ago, without asking again."""

from __future__ import annotations

from flask_durable.clock import Clock
from flask_durable.core.times import Micros

MAX_AGE = 5.0
"""Seconds after which the server is asked again: its clock may have been set meanwhile."""


class ServerTime:
    """The last reading of a server's clock, carried on by a clock of this process that never steps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reading: tuple[Micros, float] | None = None

    def read(self, now: Micros) -> Micros:
        """The server has just said what time it is.

        The answer was on its way for some time, so the latest of several is the truest: one that another thread has overtaken changes nothing.
        """
        estimate = self.estimate()
        if estimate is None or now >= estimate:
            self._reading = (now, self._clock.monotonic())
        return now

    def estimate(self) -> Micros | None:
        """What it would say now; None when it must be asked."""
        if self._reading is None:
            return None
        now, at = self._reading
        age = self._clock.monotonic() - at
        return now + round(age * 1e6) if age <= MAX_AGE else None
