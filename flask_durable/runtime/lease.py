"""Lease: until when a worker may count on being the only one with its work, told by its own clock, without asking the database.

A worker that cannot renew stops beginning activities before another may take them. What it commits is refused by the fence in any case.
"""

from __future__ import annotations

from flask_durable.clock import Clock

LONGEST_MARGIN = 2.0
"""Seconds, at most, by which a worker takes its lease for over before others do."""


class Lease:
    """The lease of a worker's present row.

    Args:
        seconds: how long it lasts from each renewal.
        clock: a clock that never steps.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds - min(LONGEST_MARGIN, seconds / 5)
        self._clock = clock
        self._until = float("-inf")
        self.worker_id = ""

    def now(self) -> float:
        """The moment to note before a renewal is sent: the database counts from a later one."""
        return self._clock.monotonic()

    def begin(self, worker_id: str, at: float) -> None:
        """A row was registered by something sent at that moment."""
        self.worker_id, self._until = worker_id, at + self._seconds

    def renew(self, at: float) -> None:
        """It was renewed by something sent at that moment."""
        self._until = max(self._until, at + self._seconds)

    @property
    def is_over(self) -> bool:
        """Whether another worker may soon take the work."""
        return self._clock.monotonic() >= self._until

    def covers(self, worker_id: str) -> bool:
        """Whether what that worker holds is ours, for sure, at this moment."""
        return worker_id == self.worker_id and not self.is_over
