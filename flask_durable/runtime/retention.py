"""Retention: deletes ended instances that are older than the configuration says, a little at a time, beside everything else."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.logs import get_logger
from flask_durable.storage.interface import Store, SweepPosition

logger = get_logger("flask_durable.retention")

INTERVAL = 30.0
"""Seconds between two passes."""

STEP = 500
"""So many ended instances are looked at in one step; a step is at most one short transaction."""


class Retention:
    """Passes over the ended instances of one task hub; any number of workers may make them at the same time.

    Args:
        ages: how long an instance stays after it ended, by status; those of other statuses stay for ever.
    """

    def __init__(self, store: Store, ages: Mapping[RuntimeStatus, Micros]) -> None:
        self._store = store
        self._ages = ages
        self._is_stopped = threading.Event()

    def sweep(self) -> int:
        """One pass, in small steps with a rest half as long as the step after each; returns how many were deleted."""
        now = self._store.now()
        cutoffs = {status: now - age for status, age in self._ages.items()}
        total, position = 0, None
        while cutoffs and not self._is_stopped.is_set():
            began = time.perf_counter()
            deleted, position = self._step(cutoffs, position)
            total += deleted
            if position is None:
                break
            # Where there is one writer at a time the engine waits behind this one
            if deleted:
                self._is_stopped.wait((time.perf_counter() - began) / 2)
        if total:
            logger.info("Retention deleted %d ended instances", total)
        return total

    def stop(self) -> None:
        """End the present pass after its step."""
        self._is_stopped.set()

    def _step(self, cutoffs: Mapping[RuntimeStatus, Micros], after: SweepPosition | None) -> tuple[int, SweepPosition | None]:
        swept = self._store.sweep(cutoffs, after=after, limit=STEP)
        return swept.deleted, swept.next_position
