"""Threads of a worker: the daemon threads that run activities, and the APScheduler ticker for what is periodic."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

Item = TypeVar("Item")

logger = logging.getLogger("flask_durable.pool")


class ActivityPool(Generic[Item]):
    """Daemon threads that run items in order; a thread is made only when none is free.

    Args:
        size: at most so many threads.
        run: what to do with an item; it must not raise.
    """

    def __init__(self, size: int, run: Callable[[Item], None], *, name: str = "durable-activity") -> None:
        self._name = name
        self.size = size
        self._run = run
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._waiting = 0

    @property
    def busy_count(self) -> int:
        """Threads that are running an item, or about to look for one."""
        with self._lock:
            return len(self._threads) - self._idle

    def submit(self, item: Item) -> None:
        """Run an item as soon as a thread is free."""
        with self._lock:
            self._waiting += 1
            thread = self._add_thread() if self._waiting > self._idle and len(self._threads) < self.size else None
        self._items.put(item)
        if thread is not None:
            thread.start()

    def fill(self) -> None:
        """Make all threads now, for a pool whose threads are few and always needed."""
        with self._lock:
            threads = [self._add_thread() for _ in range(self.size - len(self._threads))]
        for thread in threads:
            thread.start()

    def _add_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.add(thread)
        return thread

    def drain(self) -> list[Item]:
        """Take back the items that no thread has begun."""
        taken: list[Item] = []
        while True:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                return taken
            if item is not None:
                taken.append(item)
                with self._lock:
                    self._waiting -= 1

    def stop(self) -> None:
        """Let every thread end after its present item."""
        with self._lock:
            count = len(self._threads)
        for _ in range(count):
            self._items.put(None)

    def join(self) -> None:
        """Wait until all threads have ended, but for the calling one."""
        with self._lock:
            threads = [thread for thread in self._threads if thread is not threading.current_thread() and thread.ident is not None]
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        try:
            while True:
                with self._lock:
                    self._idle += 1
                item = self._items.get()
                with self._lock:
                    self._idle -= 1
                    if item is not None:
                        self._waiting -= 1
                if item is None:
                    return
                self._run(item)
                del item
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())


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


class Ticker:
    """Calls functions at intervals, in threads of its own.

    Late ticks are made up for once, never dropped for being late, and never overlap.
    """

    def __init__(self) -> None:
        logging.getLogger("apscheduler").setLevel(max(logging.WARNING, logging.getLogger("apscheduler").level))
        self._scheduler = BackgroundScheduler(
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
