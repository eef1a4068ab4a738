"""Faults of the connection at COMMIT: the answer is lost before or after it was executed, or the database is busy."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import peewee

LOST = "server closed the connection unexpectedly"


class CommitFaults:
    """Makes some of the COMMITs of a store fail.

    Args:
        store: a SqlStore.
        seed: of the lots.
        ambiguous: share of COMMITs whose answer is lost, half of them before they are executed.
        busy: share of COMMITs that are refused for a moment.
    """

    def __init__(self, store: Any, seed: int = 0, ambiguous: float = 0.0, busy: float = 0.0) -> None:
        self.lots = random.Random(seed)
        self.ambiguous = ambiguous
        self.busy = busy
        self.counts: Counter[str] = Counter()
        self.next: list[str] = []
        """What is to happen to the next COMMITs, before lots are drawn: "before", "after", "busy" or "fine"."""
        self._lock = threading.Lock()
        self._commit = store._sql.database.commit
        store._sql.database.commit = self.commit

    def _draw(self) -> str:
        with self._lock:
            if self.next:
                return self.next.pop(0)
            lot = self.lots.random()
            kind = "fine"
            if lot < self.ambiguous:
                kind = "before" if lot < self.ambiguous / 2 else "after"
            elif lot < self.ambiguous + self.busy:
                kind = "busy"
            self.counts[kind] += 1
            return kind

    def commit(self) -> None:
        kind = self._draw()
        if kind == "busy":
            raise peewee.OperationalError("database is locked")
        if kind == "before":
            raise peewee.OperationalError(f"{LOST} before it was executed")
        self._commit()
        if kind == "after":
            raise peewee.OperationalError(f"{LOST} after it was executed")
