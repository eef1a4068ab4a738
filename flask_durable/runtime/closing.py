"""Closing: ending abandoned orchestrator code, whose cleanup may take for ever, away from the engine's loop.

Laws:

1. Code that somebody else wrote never runs in the loop when its execution is given up.
2. A cleanup that does not end costs its own thread: another one goes on with the rest, and the code is interrupted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from flask_durable.core.execution import Execution
from flask_durable.logs import get_logger
from flask_durable.runtime.interruption import TurnTimeoutError, hog_found, hog_gone, press, settle

logger = get_logger("flask_durable.engine")

SLOW_CLOSING = 0.25
"""Seconds after which another thread goes on with the other closings."""

CLOSING_TIME = 1.0
"""Seconds after which a cleanup is interrupted, now and again until it ends."""

MAX_STUCK = 8
"""So many threads at most wait for cleanups that do not end; more executions that are given up are kept unclosed meanwhile."""

LOOK = 0.1
IDLE = 1.0


class _Closing:
    """An execution that is being closed."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.began = time.monotonic()
        self.is_slow = False
        self.is_reported = False


class Closer:
    """Closes executions in a thread of its own, which is there when it is needed, and watched by another one."""

    def __init__(self) -> None:
        self._backlog: deque[Execution] = deque()
        self._guard = threading.Lock()
        self._wake = threading.Condition(self._guard)
        self._running: dict[threading.Thread, _Closing | None] = {}
        self._watch: threading.Thread | None = None
        self._made = 0
        self._over = threading.Event()

    def close(self, execution: Execution) -> None:
        """Close an execution that nobody uses any more; one without code that waits is closed at once."""
        if not execution.has_code:
            execution.close()
            return
        with self._guard:
            self._backlog.append(execution)
            self._serve_if_needed()
            self._wake.notify_all()

    def has(self, thread: threading.Thread) -> bool:
        """Whether that thread is one of those that close."""
        return thread in self._running

    def stop(self, seconds: float) -> bool:
        """End, after the closings that are due.

        Args:
            seconds: what they get; then they are interrupted.

        Returns:
            Whether no cleanup runs any more.
        """
        with self._wake:
            self._wake.wait_for(lambda: not self._backlog and not any(self._running.values()), seconds)
            self._over.set()
            self._wake.notify_all()
        deadline = time.monotonic() + seconds
        for thread in list(self._running):
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(LOOK)
                if self._running.get(thread) is not None:
                    press(thread)
        return not any(closing is not None and thread.is_alive() for thread, closing in list(self._running.items()))

    # -- with the guard held

    def _slow(self) -> Sequence[_Closing]:
        return [each for each in self._running.values() if each is not None and each.is_slow]

    def _serve_if_needed(self) -> None:
        slow = len(self._slow())
        if self._over.is_set() or len(self._running) > slow or slow >= MAX_STUCK or not self._backlog:
            return
        self._made += 1
        thread = threading.Thread(target=self._serve, name=f"durable-closer-{self._made}", daemon=True)
        self._running[thread] = None
        thread.start()
        if self._watch is None:
            self._watch = threading.Thread(target=self._look_on, name="durable-closer-watch", daemon=True)
            self._watch.start()

    # -- the threads that close

    def _serve(self) -> None:
        thread = threading.current_thread()
        try:
            while self._close_next(thread):
                pass
        except TurnTimeoutError:  # it came when the code had just ended
            logger.debug("A closing was interrupted at its end")
        finally:
            with self._guard:
                self._ended(thread)
                self._running.pop(thread, None)
                self._serve_if_needed()
                self._wake.notify_all()

    def _close_next(self, thread: threading.Thread) -> bool:
        with self._guard:
            self._wake.wait_for(lambda: self._backlog or self._over.is_set(), IDLE)
            if not self._backlog or self._over.is_set():
                return False
            closing = self._running[thread] = _Closing(self._backlog.popleft())
        try:
            closing.execution.close()
        finally:
            settle()
        with self._guard:
            return not self._ended(thread)

    def _ended(self, thread: threading.Thread) -> bool:
        """The thread's closing is over; returns whether another thread took this one's place."""
        closing, self._running[thread] = self._running.get(thread), None
        self._wake.notify_all()
        if closing is not None and closing.is_slow:
            hog_gone(thread)
            return True
        return False

    # -- the thread that watches

    def _look_on(self) -> None:
        while not self._over.wait(LOOK):
            with self._guard:
                for thread in [each for each in self._running if not each.is_alive()]:
                    del self._running[thread]
                    hog_gone(thread)
                if not self._running:
                    self._watch = None
                    return
                overdue = self._overdue(time.monotonic())
            for thread in overdue:
                press(thread)

    def _overdue(self, now: float) -> list[threading.Thread]:
        found: list[threading.Thread] = []
        for thread, closing in list(self._running.items()):
            if closing is None or now - closing.began < SLOW_CLOSING:
                continue
            if not closing.is_slow:
                closing.is_slow = True
                hog_found(thread)
                self._serve_if_needed()
            if now - closing.began >= CLOSING_TIME:
                found.append(thread)
                self._report(closing)
        return found

    def _report(self, closing: _Closing) -> None:
        if not closing.is_reported:
            closing.is_reported = True
            logger.error(
                "Abandoned code of instance %s has not ended its cleanup (finally, except GeneratorExit) in %g s; it is interrupted",
                closing.execution.instance_id, CLOSING_TIME,
            )  # fmt: skip
