"""Health: whether a worker's loop goes round and its lease holds, for those who watch over the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flask_durable.runtime.lease import Lease

STILL_SECONDS = 60.0
"""A loop that has not gone round for so long, and for its longest rest, hangs: it is overtaken far sooner, whatever its orchestrators do."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a worker says of itself.

    Args:
        is_live: False when only a restart of the process helps.
        is_ready: whether it takes work now.
        reason: why it is not live or not ready; None when it is both.
    """

    is_live: bool
    is_ready: bool
    reason: str | None = None


class Pulse:
    """Signs of life of one worker.

    Args:
        monotonic: seconds of a clock that never steps.
        lease: that of its row.
        longest_rest: seconds for which an idle loop may wait for something to do.
    """

    def __init__(self, monotonic: Callable[[], float], lease: Lease, longest_rest: float) -> None:
        self._monotonic = monotonic
        self._lease = lease
        self._limit = STILL_SECONDS + longest_rest
        self._round_at = monotonic()
        self._is_draining = False

    def went_round(self) -> None:
        """The loop begins another round."""
        self._round_at = self._monotonic()

    def drains(self) -> None:
        """The worker takes nothing more."""
        self._is_draining = True

    def health(self) -> Health:
        """How the worker is now."""
        still = self._monotonic() - self._round_at
        if still > self._limit:
            return Health(False, False, f"the loop has stood still for {still:.0f} s")
        if self._lease.is_over:
            return Health(True, False, "the lease is over: the database does not answer")
        if self._is_draining:
            return Health(True, False, "the worker stops")
        return Health(True, True)
