"""Polling: when the engine looks for work that nobody told it of; often after work was found, seldom when all is quiet.

A look costs one statement or more. Signs that others have committed cost next to nothing and bring the next look forward: a mark of the
database that is compared all the time (SQLite), or a notification (PostgreSQL). With such signs a look is due every few seconds only, in case
that one was lost. Timers need no sign: a look tells when the next one is due.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flask_durable.core.times import Micros
from flask_durable.errors import StoreUnavailableError
from flask_durable.logs import get_logger
from flask_durable.runtime.sightings import Sightings
from flask_durable.storage.interface import ClaimRequest, Ready, Store

logger = get_logger("flask_durable.engine")

SHORTEST = 0.02
MARK_SECONDS = 0.02
"""Between two comparisons of the database's mark."""

RECENT_SECONDS = 5.0
"""So long after the last work the pauses stay as short as is configured, where there are no signs."""

QUIET_SECONDS = 1.0
"""Longest pause where there are no signs."""

TOLD_SECONDS = 4.75
"""Longest pause where there are: if they are lost, work of others is found within 5 s all the same."""


class Polling:
    """The times at which to look; used by the engine's thread only.

    Args:
        longest: longest pause between two looks while there is work now and then, in seconds.
        sightings: learn from every look.
        monotonic: seconds of a clock that never steps.
    """

    def __init__(self, store: Store, longest: float, sightings: Sightings, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._longest = longest
        self._sightings = sightings
        self._monotonic = monotonic
        self._pause = min(SHORTEST, longest)
        self._next = 0.0
        self._next_mark = 0.0
        self._mark: object = None
        self._looked_at = self._worked_at = -math.inf
        self._sign_pause = 0.0

    def seconds_left(self) -> float:
        """How long until the next look."""
        return max(0.0, min(self._next, self._next_mark) - self._monotonic())

    @property
    def has_neighbours(self) -> bool:
        """Whether other workers were there at the last look."""
        return bool(self._sightings.neighbours)

    def now(self) -> None:
        """Look at the next opportunity."""
        self._next = 0.0

    def work_was_done(self) -> None:
        """Look often for a while: work brings work."""
        self._pause = min(SHORTEST, self._longest)
        self._worked_at = self._monotonic()

    def sign(self) -> None:
        """Others have committed something: look soon. When there was nothing for this worker again and again, it takes its time."""
        self._next = min(self._next, self._looked_at + self._sign_pause)

    def at(self, moment: Micros) -> None:
        """Look at that moment, at the latest."""
        left = (moment - self._store.now()) / 1e6
        self._next = min(self._next, self._monotonic() + max(left, 0.001))

    def look(self, worker_id: str, claim: Callable[[], ClaimRequest]) -> bool:
        """Look if it is time to, and set the time of the next look; returns whether something can be claimed."""
        self._compare_marks()
        now = self._monotonic()
        if now < self._next:
            return False
        self._sign_pause = 0.0 if now - self._looked_at > self._longest else min(max(self._sign_pause * 2, SHORTEST), self._longest)
        self._looked_at, self._next = now, now + self._pause
        try:
            ready = self._store.peek(worker_id, claim())
        except StoreUnavailableError as error:
            self._pause = self._longest
            self._next = self._monotonic() + self._pause
            logger.warning("The database does not answer; looking again in %.2f s: %s", self._pause, error)
            return False
        self._sightings.saw(ready)
        if ready.is_ready or not ready.is_registered:  # a lost worker learns from its next commit that it is
            self.work_was_done()
            self._sign_pause = 0.0
            return True
        self._set_pause(ready, now)
        return False

    def _compare_marks(self) -> None:
        now = self._monotonic()
        if now < self._next_mark:
            return
        mark = self._store.change_mark()
        if mark is None:
            self._next_mark = math.inf
            return
        self._next_mark = now + MARK_SECONDS
        if mark != self._mark:
            self._mark = mark
            self.sign()

    def _set_pause(self, ready: Ready, now: float) -> None:
        has_signs = self._mark is not None or self._sightings.is_told
        most = self._longest
        if ready.waits_for_room:
            pass  # a call that ends elsewhere makes room, and is no work that anybody tells of
        elif has_signs:
            # Nobody tells of a death, and on a server a look shows it.
            is_watching = self._mark is None and any(each.lock_slot is not None for each in ready.neighbours)
            most = max(self._longest, QUIET_SECONDS if is_watching else TOLD_SECONDS)
        elif now - self._worked_at > RECENT_SECONDS:
            most = max(self._longest, QUIET_SECONDS)
        self._pause = min(self._pause * 2, most)
        if ready.next_due is not None:
            self.at(ready.next_due)
