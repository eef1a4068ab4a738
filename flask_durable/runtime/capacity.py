"""Capacity: how many activities this worker takes at a time: its threads, and a short queue so that they never run dry."""

from __future__ import annotations

from collections.abc import Callable

QUEUE_SECONDS = 0.05
"""The queue holds about so much work; more would keep it from other workers."""

MAX_QUEUE = 512

FIRST_GUESS = 1.0
"""Seconds that an activity is taken to need before any has ended: long enough for an empty queue, since other workers may be idle."""


class Capacity:
    """Counts activities taken and not ended; used by the engine's thread only.

    Args:
        threads: how many run at the same time.
        stuck: how many of them are of no use now.
    """

    def __init__(self, threads: int, stuck: Callable[[], int] = lambda: 0) -> None:
        self._threads = threads
        self._stuck = stuck
        self._taken = 0
        self._mean_seconds = FIRST_GUESS

    @property
    def free(self) -> int:
        """How many more can be taken."""
        return max(0, self._limit() - self._taken)

    @property
    def is_roomy(self) -> bool:
        """Whether a claim is worth its cost: half of the room is free."""
        return self._taken * 2 <= self._limit()

    def take(self, wanted: int) -> int:
        """Take up to that many; returns how many."""
        got = min(wanted, self.free)
        self._taken += got
        return got

    def force(self, count: int) -> None:
        """Take that many, room or not."""
        self._taken += count

    def give_back(self, count: int) -> None:
        """Return what was taken and not used."""
        self._taken = max(0, self._taken - count)

    def ended(self, seconds: float) -> None:
        """One has ended after so many seconds."""
        self._taken = max(0, self._taken - 1)
        self._mean_seconds += (seconds - self._mean_seconds) * 0.1

    def reset(self) -> None:
        """Nothing is taken."""
        self._taken = 0

    def _limit(self) -> int:
        threads = self._threads - self._stuck()
        queue = int(threads * QUEUE_SECONDS / max(self._mean_seconds, 1e-5))
        return threads + min(queue, MAX_QUEUE)
