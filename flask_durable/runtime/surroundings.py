"""Surroundings: time, threads and names as a worker finds them; a simulator puts its own in their place."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask_durable.clock import Clock, SystemClock
from flask_durable.runtime.closing import Closer
from flask_durable.runtime.pool import ActivityPool, Ticker


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a worker takes from what is not its own.

    Args:
        clock: wall time, and monotonic time for all that is waited for.
        sleep: lets the calling thread wait for so many seconds.
        new_id: makes an id that no other worker has.
        make_event: makes what some threads wait for and others set.
        make_thread: makes a thread, as ``threading.Thread`` does.
        make_closer: makes what closes abandoned orchestrator code.
        make_pool: makes the threads that activities run on.
        make_ticker: makes what calls functions at intervals.
    """

    clock: Clock = SystemClock()  # noqa: RUF009 - it has no state
    sleep: Callable[[float], None] = time.sleep
    new_id: Callable[[], str] = _new_id
    make_event: Callable[[], threading.Event] = threading.Event
    make_thread: Callable[..., threading.Thread] = threading.Thread
    make_closer: Callable[[], Closer] = Closer
    make_pool: Callable[..., ActivityPool[Any]] = ActivityPool
    make_ticker: Callable[[], Ticker] = Ticker

    def wait_until(self, is_true: Callable[[], bool], seconds: float | None) -> bool:
        """Wait for a condition, for so long at most; None waits for as long as it takes."""
        deadline = None if seconds is None else self.clock.monotonic() + seconds
        while not is_true():
            if deadline is not None and self.clock.monotonic() >= deadline:
                return False
            self.sleep(0.005)
        return True


REAL = Surroundings()
"""Those of the operating system."""
