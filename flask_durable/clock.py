"""Clock: where the shell takes time from; tests put a fake one in its place."""

from __future__ import annotations

import time
from typing import Protocol

from flask_durable.core.times import Micros


class Clock(Protocol):
    """Wall time for what is recorded, monotonic time for what is waited for."""

    def now(self) -> Micros:
        """Wall time in microseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds of a clock that never steps."""


class SystemClock:
    """The clocks of the operating system."""

    def now(self) -> Micros:
        """Wall time in microseconds since the epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds of a clock that never steps."""
        return time.monotonic()
