"""Deadlines: calls at given moments, made by one thread for all of them; it lives only while there is something to wait for."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from flask_durable.logs import get_logger

logger = get_logger("flask_durable.activities")

IDLE_SECONDS = 5.0
"""So long the thread waits for another deadline before it ends."""

_SMALL = 64


class Deadline:
    """One moment to wait for; ``call`` is None once it is over or cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call


class Deadlines:
    """Watches deadlines; it may be used from many threads."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Deadline]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def watch(self, seconds: float, call: Callable[[], None]) -> Deadline:
        """Call that after so many seconds, unless it is cancelled; it must be short."""
        deadline = Deadline(call)
        with self._condition:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), deadline))
            if self._thread is None and not self._is_stopped:
                self._thread = threading.Thread(target=self._run, name="durable-deadlines", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is deadline:
                self._condition.notify()
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Do not call any more; a call that has begun goes on."""
        with self._condition:
            if deadline.call is None:
                return
            deadline.call = None
            self._cancelled += 1
            if self._cancelled > max(_SMALL, len(self._heap) // 2):  # far ones must not pile up
                self._heap = [entry for entry in self._heap if entry[2].call is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def stop(self) -> None:
        """End; returns when no call runs. Deadlines that are still open are not kept."""
        with self._condition:
            self._is_stopped = True
            thread = self._thread
            self._condition.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                call = self._next()
                if call is None:
                    self._thread = None
                    return
            try:
                call()
            except Exception:
                logger.exception("What follows from a deadline failed")

    def _next(self) -> Callable[[], None] | None:
        """The next call that is due; None when the thread is to end."""
        while not self._is_stopped:
            left = self._heap[0][0] - time.monotonic() if self._heap else IDLE_SECONDS
            if self._heap and (left <= 0 or self._heap[0][2].call is None):
                deadline = heapq.heappop(self._heap)[2]
                call, deadline.call = deadline.call, None
                if call is not None:
                    return call
                self._cancelled -= 1
            elif not self._condition.wait(left) and not self._heap:
                return None
        return None
