"""Threads of a worker: the daemon threads that run activities, and the APScheduler ticker for what is periodic."""

from __future__ import annotations

import heapq
import logging
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from flask_durable.errors import StoreUnavailableError
from flask_durable.logs import get_logger

Item = TypeVar("Item")

logger = get_logger("flask_durable.pool")

_STEP = timedelta(seconds=1)
"""By how much the clock of the host has to be set before ticks are moved; they are late by less."""


class ActivityPool(Generic[Item]):
    """Daemon threads that run items, those of the lowest rank first; a thread is made only when none is free.

    A thread whose item never ends can be written off: another takes its place, and it ends when the item does. At most ``size`` threads are written
    off at a time, so that there are never more than twice ``size``; those beyond keep their place until their items end.

    Args:
        size: at most so many threads that are not written off.
        run: what to do with an item; it must not raise.
        rank: items of a lower rank are run first, those of the same rank in order.
    """

    def __init__(self, size: int, run: Callable[[Item], None], *, rank: Callable[[Item], int] | None = None, name: str = "durable-activity") -> None:
        self._name = name
        self.size = size
        self._run = run
        self._rank = rank or (lambda _item: 0)
        self._queue: list[tuple[int, int, Item]] = []
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._submitted = 0
        self._made = 0
        self._threads: set[threading.Thread] = set()
        self._written_off: set[threading.Thread] = set()
        self._stuck: set[threading.Thread] = set()
        self._is_stopped = False
        self._is_short = False

    @property
    def busy_count(self) -> int:
        """Threads that are running an item, or about to look for one; those written off too."""
        with self._lock:
            return len(self._threads) - self._idle + len(self._written_off)

    @property
    def stuck_count(self) -> int:
        """Places that are taken by threads whose items are waited for no more: there are too many of them to be replaced."""
        return len(self._stuck)

    def submit(self, item: Item) -> None:
        """Run an item as soon as a thread is free."""
        with self._lock:
            self._submitted += 1
            heapq.heappush(self._queue, (self._rank(item), self._submitted, item))
            thread = self._add_thread() if len(self._queue) > self._idle and len(self._threads) < self.size else None
        self._tokens.put(True)
        self._begin(thread)

    def grow(self) -> None:
        """Make a thread that could not be made when its item came."""
        with self._lock:
            is_needed = len(self._queue) > self._idle and len(self._threads) < self.size and not self._is_stopped
            thread = self._add_thread() if is_needed else None
        self._begin(thread)

    def fill(self) -> None:
        """Make all threads now, for a pool whose threads are few and always needed."""
        with self._lock:
            threads = [self._add_thread() for _ in range(self.size - len(self._threads))]
        for thread in threads:
            thread.start()

    def write_off(self, thread: threading.Thread) -> bool:
        """Nobody waits for the present item of that thread any more; returns whether another one can take its place."""
        with self._lock:
            if len(self._written_off) >= self.size:
                self._stuck.add(thread)
                return False
            self._threads.discard(thread)
            self._written_off.add(thread)
            successor = self._add_thread() if len(self._queue) > self._idle and not self._is_stopped else None
        self._begin(successor)
        return True

    def _begin(self, thread: threading.Thread | None) -> None:
        if thread is None:
            return
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # the machine gives no more: those that are there do the work
            with self._lock:
                self._threads.discard(thread)
                count, was_told, self._is_short = len(self._threads), self._is_short, True
            if not was_told:
                logger.warning("No thread can be made for what is to be run; %d do it, and it is tried again: %s", count, error)
        else:
            self._is_short = False

    def _add_thread(self) -> threading.Thread:
        self._made += 1
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{self._made}", daemon=True)
        self._threads.add(thread)
        return thread

    def drain(self) -> list[Item]:
        """Take back the items that no thread has begun."""
        with self._lock:
            taken = [entry[2] for entry in sorted(self._queue, key=lambda entry: entry[:2])]
            self._queue.clear()
            return taken

    def stop(self) -> None:
        """Let every thread end after its present item."""
        with self._lock:
            self._is_stopped = True
            count = len(self._threads)
        for _ in range(count):
            self._tokens.put(False)

    def join(self) -> None:
        """Wait until all threads have ended, but for the calling one."""
        with self._lock:
            threads = [thread for thread in self._threads if thread is not threading.current_thread() and thread.ident is not None]
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        thread = threading.current_thread()
        try:
            while True:
                with self._lock:
                    if thread in self._written_off:
                        return
                    self._idle += 1
                    self._stuck.discard(thread)
                goes_on = self._tokens.get()
                with self._lock:
                    self._idle -= 1
                    item = heapq.heappop(self._queue)[2] if goes_on and self._queue else None
                if not goes_on:
                    return
                if item is not None:
                    self._run(item)
                    del item
        finally:
            with self._lock:
                self._threads.discard(thread)
                self._written_off.discard(thread)
                self._stuck.discard(thread)


class _TickThreads(BaseExecutor):  # type: ignore[misc]  # APScheduler has no types
    """Runs ticks in daemon threads: APScheduler's own pool ends before the process does, and would refuse the last heartbeats."""

    def __init__(self) -> None:
        super().__init__()
        self._threads: ActivityPool[tuple[Any, list[Any]]] = ActivityPool(3, self._run, name="durable-tick")

    def start(self, scheduler: Any, alias: str) -> None:
        """Called by the scheduler when it starts."""
        super().start(scheduler, alias)
        self._threads.fill()

    def shutdown(self, wait: bool = True) -> None:
        """Let the threads end, and wait for them."""
        self._threads.stop()
        if wait:
            self._threads.join()

    def _do_submit_job(self, job: Any, run_times: list[Any]) -> None:
        self._threads.submit((job, run_times))

    def _run(self, item: tuple[Any, list[Any]]) -> None:
        job, run_times = item
        self._run_job_success(job.id, run_job(job, job._jobstore_alias, run_times, "flask_durable.pool.ticks"))


class _SteadyScheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler has no types
    """Keeps to intervals when the clock of the host is set: APScheduler goes by it, and a heartbeat would wait until it is there again."""

    def _process_jobs(self) -> float | None:
        now, jobs = datetime.now(UTC), self.get_jobs()
        for job in jobs:
            due = _due(job.next_run_time, now, job.trigger.interval)
            if due != job.next_run_time:
                job.modify(next_run_time=due)
        left: float | None = super()._process_jobs()
        # The clock may have been set since the look at it: the next look is not far
        return left if left is None or not jobs else min(left, *(job.trigger.interval.total_seconds() for job in jobs))


def _due(planned: datetime, now: datetime, interval: timedelta) -> datetime:
    """When a job is due that is never due later than one interval from now; one that was forgotten for long is due now, and not once for each interval."""
    if planned > now + interval + _STEP:
        return now + interval
    return now if planned < now - interval - _STEP else planned


class Ticker:
    """Calls functions at intervals, in threads of its own.

    Late ticks are made up for once, never dropped for being late, and never overlap. The intervals are those of a clock that never steps.
    """

    def __init__(self) -> None:
        logging.getLogger("apscheduler").setLevel(max(logging.WARNING, logging.getLogger("apscheduler").level))
        self._scheduler = _SteadyScheduler(
            executors={"default": _TickThreads()},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
            timezone="UTC",
            daemon=True,
        )

    def every(self, seconds: float, call: Callable[[], object]) -> None:
        """Call that at intervals of so many seconds; what it raises is logged and does not end the ticking."""

        def tick() -> None:
            try:
                call()
            except StoreUnavailableError as error:
                logger.warning("The periodic %s has to wait for its next time: %s", getattr(call, "__name__", call), error)
            except Exception:
                logger.exception("The periodic %s failed; it is called again at its next time", getattr(call, "__name__", call))

        self._scheduler.add_job(tick, IntervalTrigger(seconds=seconds))

    def start(self) -> None:
        """Begin to tick."""
        self._scheduler.start()

    def stop(self) -> None:
        """End; returns when no tick runs."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
