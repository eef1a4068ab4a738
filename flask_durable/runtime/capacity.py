"""Capacity: how many activities this worker takes at a time: its threads, and a short queue so that they never run dry."""

from __future__ import annotations

QUEUE_SECONDS = 0.05
"""The queue holds about so much work; more would keep it from other workers."""

MAX_QUEUE = 512


class Capacity:
    """Counts activities taken and not ended; used by the engine's thread only.

    Args:
        threads: how many run at the same time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._taken = 0
        self._mean_seconds = QUEUE_SECONDS

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
        queue = int(self._threads * QUEUE_SECONDS / max(self._mean_seconds, 1e-5))
        return self._threads + min(queue, MAX_QUEUE)
