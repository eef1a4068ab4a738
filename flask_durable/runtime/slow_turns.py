"""The turn that runs now, and the watch over it: when it has run too long, the loop goes on without it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from flask_durable.logs import get_logger
from flask_durable.runtime.interruption import hog_found, hog_gone, interrupt, press
from flask_durable.runtime.steps import Overdue
from flask_durable.runtime.turns import Held

logger = get_logger("flask_durable.engine")

SLOW_TURN = 0.25
"""Seconds after which the loop goes on without an orchestrator that does not yield."""

INTERRUPT_AGAIN = 0.1
"""Seconds until code that has had its time is interrupted once more."""

HOPELESS = 10.0
"""Seconds after which code that still runs is interrupted more seldom, and reported as what only a restart of the process ends."""

INTERRUPT_HOPELESS = 2.0

LOOK = 0.1
LOOKS = 10
"""So many looks, so many seconds apart, are taken after the last turn began; then nothing is running any more, or it has been overtaken."""


class RunningTurn:
    """What the loop's thread is doing, as others see it.

    ``epoch`` counts the threads that the loop has had: a thread of an earlier epoch has been overtaken.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._guard = threading.Lock()
        self._running: tuple[Held, float, threading.Thread] | None = None

    def begin(self, held: Held) -> None:
        """The calling thread begins a turn."""
        with self._guard:
            self._running = (held, time.monotonic(), threading.current_thread())

    def end(self, epoch: int) -> bool:
        """The turn is over; False when the thread of that epoch has been overtaken in it."""
        with self._guard:
            if self.epoch != epoch:
                return False
            self._running = None
            return True

    def overtake(self) -> Held | None:
        """Begin a new epoch if the present turn is slow; returns the instance whose turn it is."""
        with self._guard:
            if self._running is None or time.monotonic() - self._running[1] <= SLOW_TURN:
                return None
            held, _, thread = self._running
            held.thread = thread
            self._running = None
            self.epoch += 1
            return held


class Overtaking:
    """Watches while turns are run, and costs nothing while none are.

    Args:
        running: the turn to watch.
        limit: seconds that a turn may take at most.
        go_on: makes another thread take the loop over, when this instance's turn is slow.
        put: gives the loop an Overdue, when a turn has had all its time.
        make_thread: makes the thread that watches.
    """

    def __init__(
        self,
        running: RunningTurn,
        limit: float,
        go_on: Callable[[Held], None],
        put: Callable[[Overdue], None],
        make_thread: Callable[..., threading.Thread] = threading.Thread,
    ) -> None:
        self._running = running
        self._limit = limit
        self._go_on = go_on
        self._put = put
        self._is_needed = threading.Event()
        self._is_over = threading.Event()
        self._thread = make_thread(target=self._watch, name="durable-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def turns_begin(self) -> None:
        """Turns are about to run; called often, so it is cheap."""
        if not self._is_needed.is_set():
            self._is_needed.set()

    def stop(self) -> None:
        """End; nothing is overtaken after this."""
        self._is_over.set()
        self._is_needed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def interrupt(self, overdue: Overdue) -> None:
        """End the code of a turn, now and again until it has ended: it may catch what is raised in it."""
        thread = overdue.held.thread
        if thread is not None and thread.is_alive():
            threading.Thread(target=self._end_code, args=(overdue.held, thread), name="durable-interrupter", daemon=True).start()

    def _end_code(self, held: Held, thread: threading.Thread) -> None:
        interrupt(thread, anywhere=True)
        began, is_hopeless = time.monotonic(), False
        while not self._is_over.wait(INTERRUPT_HOPELESS if is_hopeless else INTERRUPT_AGAIN) and thread.is_alive():
            press(thread)
            if not is_hopeless and time.monotonic() - began > HOPELESS and thread.is_alive():
                is_hopeless, record = True, held.record
                logger.error(
                    "The code of orchestrator %s of instance %s cannot be ended; it keeps thread %s, and may take time from all others. "
                    "If it does not end by itself, restart process %d",
                    record.name, record.instance_id, thread.name, os.getpid(),
                )  # fmt: skip
        if not thread.is_alive():
            hog_gone(thread)

    def _watch(self) -> None:
        while self._is_needed.wait() and not self._is_over.is_set():
            self._is_needed.clear()
            for _ in range(LOOKS):
                if self._is_over.wait(LOOK):
                    return
                try:
                    self._look()
                except Exception:
                    logger.exception("The watch over slow turns failed; it goes on")

    def _look(self) -> None:
        held = self._running.overtake()
        if held is not None:
            record = held.record
            logger.info("Orchestrator %s of instance %s has not yielded for %g s; the others go on", record.name, record.instance_id, SLOW_TURN)
            if held.thread is not None:
                hog_found(held.thread)
            self._go_on(held)
            self._later(max(0.0, self._limit - SLOW_TURN), Overdue(held))

    def _later(self, seconds: float, overdue: Overdue) -> None:
        timer = threading.Timer(seconds, self._put, (overdue,))
        timer.daemon = True
        timer.start()
