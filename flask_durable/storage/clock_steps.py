"""Clock steps: when database time is set forward or back, and what that must not do to leases and to what is ready."""

from __future__ import annotations

import math
from collections.abc import Callable

from flask_durable.clock import Clock
from flask_durable.core.times import Micros
from flask_durable.logs import get_logger
from flask_durable.storage.database import Sql

logger = get_logger("flask_durable.storage")

TOLERANCE = 1.0
"""Seconds by which database time and a clock that never steps may differ from one look to the next."""


class ClockSteps:
    """Compares database time with a clock of this process that never steps.

    Args:
        clock: the latter.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: tuple[float, float, Micros] | None = None
        self._forward_at = -math.inf
        self.was_set_back = False

    def begin(self) -> float:
        """The moment before database time is asked for."""
        return self._clock.monotonic()

    def note(self, began: float, now: Micros) -> Micros:
        """Database time was this at some moment since ``began``; two such spans tell for sure how much time has passed, at least and at most."""
        ended, last = self._clock.monotonic(), self._last
        self._last = (began, ended, now)
        if last is None:
            return now
        passed = (now - last[2]) / 1e6
        if passed > ended - last[0] + TOLERANCE:
            self._forward_at = ended
            logger.warning("The clock of the database was set forward by %.1f s; leases begin anew", passed - (ended - last[0]))
        elif passed < began - last[1] - TOLERANCE:
            self.was_set_back = True
            logger.warning("The clock of the database was set back by %.1f s", began - last[1] - passed)
        return now

    def is_fresh(self, seconds: float) -> bool:
        """Whether it was set forward less than so many seconds ago: a lease of that length says nothing yet."""
        return self._clock.monotonic() - self._forward_at < seconds


def catch_up(sql: Sql, hub: str, tell: Callable[[], None]) -> None:
    """Database time was set back: what was ready is so now, and not when that time comes again; timers keep their moments."""
    now = sql.now()
    sql.run("UPDATE durable_message SET visible_at = ? WHERE hub = ? AND visible_at > ? AND event_type <> 'TimerFired'", (now, hub, now))
    sql.run(
        "UPDATE durable_instance SET ready_at = CASE WHEN start_at > ? THEN start_at ELSE ? END"
        " WHERE hub = ? AND status = 'Pending' AND ready_at > ? AND ready_at > COALESCE(start_at, 0)",
        (now, now, hub, now),
    )
    sql.run(
        "UPDATE durable_instance SET ready_at = ? WHERE hub = ? AND status = 'Running' AND ready_at > ? AND (NOT has_started OR EXISTS"
        " (SELECT 1 FROM durable_message m WHERE m.hub = durable_instance.hub AND m.instance_id = durable_instance.instance_id AND m.visible_at <= ?))",
        (now, hub, now, now),
    )
    # In this order: MySQL sets one column after the other
    sql.run(
        "UPDATE durable_worker SET expires_at = ? + expires_at - heartbeat_at, heartbeat_at = ? WHERE hub = ? AND heartbeat_at > ?",
        (now, now, hub, now),
    )
    tell()
