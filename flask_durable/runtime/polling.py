"""Polling: when the engine looks for work that nobody told it of; often after work was found, seldom when all is quiet."""

from __future__ import annotations

import logging
import time

from flask_durable.core.times import Micros
from flask_durable.errors import StoreUnavailableError
from flask_durable.storage.interface import ClaimRequest, Store

logger = logging.getLogger("flask_durable.engine")

SHORTEST = 0.02


class Polling:
    """The times at which to look.

    Args:
        longest: longest pause between two looks, in seconds.
    """

    def __init__(self, store: Store, longest: float) -> None:
        self._store = store
        self._longest = longest
        self._pause = min(SHORTEST, longest)
        self._next = 0.0

    def seconds_left(self) -> float:
        """How long until the next look."""
        return max(0.0, self._next - time.monotonic())

    def now(self) -> None:
        """Look at the next opportunity."""
        self._next = 0.0

    def work_was_done(self) -> None:
        """Look often for a while: work brings work."""
        self._pause = min(SHORTEST, self._longest)

    def at(self, moment: Micros) -> None:
        """Look at that moment, at the latest."""
        left = (moment - self._store.now()) / 1e6
        self._next = min(self._next, time.monotonic() + max(left, 0.001))

    def look(self, worker_id: str, claim: ClaimRequest) -> bool:
        """Look, and set the time of the next look; returns whether something can be claimed."""
        self._next = time.monotonic() + self._pause
        try:
            ready = self._store.peek(worker_id, claim)
        except StoreUnavailableError as error:
            self._pause = self._longest
            self._next = time.monotonic() + self._pause
            logger.warning("The database does not answer; looking again in %.2f s: %s", self._pause, error)
            return False
        if ready.is_ready:
            self.work_was_done()
            return True
        self._pause = min(self._pause * 2, self._longest)
        if ready.next_due is not None:
            self.at(ready.next_due)
        return False
