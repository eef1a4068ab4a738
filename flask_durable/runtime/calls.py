"""Calls: the threads that activities run on, with their deadlines and the calls that are begun at most once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from flask_durable.core.events import HistoryEvent, TaskFailed
from flask_durable.core.failure import FailureDetails
from flask_durable.core.options import ActivityOptions, timeout_micros
from flask_durable.core.times import Micros
from flask_durable.errors import ActivityLostError, ActivityTimeoutError
from flask_durable.logs import get_logger
from flask_durable.registry import Registry
from flask_durable.runtime.activities import ActivityContext, ActivityRunner
from flask_durable.runtime.deadlines import Deadlines
from flask_durable.runtime.lease import Lease
from flask_durable.runtime.pool import ActivityPool
from flask_durable.runtime.surroundings import REAL, Surroundings
from flask_durable.runtime.transactional import Ended, MayEnd, TransactionalCalls
from flask_durable.storage.interface import ActivityWorkItem, Store

logger = get_logger("flask_durable.activities")

Done = Callable[[ActivityWorkItem, HistoryEvent | None, float, bool], None]
"""Told of the outcome of a call, its seconds, and whether the outcome is recorded already.

The outcome is None when it is recorded, and when there is none, because the call belongs to another worker now or is not wanted any more.
"""

_BEGIN_AGAIN_SECONDS = 0.2


class Calls:
    """Runs claimed calls on threads.

    Args:
        size: at most so many threads that somebody waits for.
        done: told of each call that ended.
        surroundings: where it takes time and threads from.
        lease: while it is over, no call is begun.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        runner: ActivityRunner,
        size: int,
        done: Done,
        surroundings: Surroundings = REAL,
        lease: Lease | None = None,
    ) -> None:
        self._store = store
        self._lease = lease
        self._registry = registry
        self._runner = runner
        self._done = done
        self._clock = surroundings.clock
        self._pool: ActivityPool[ActivityWorkItem] = surroundings.make_pool(size, self._run, rank=lambda item: -item.priority)
        self._deadlines = Deadlines()
        self._is_stopping = surroundings.make_event()
        self._transactional = TransactionalCalls(store, runner, self._is_stopping)
        self.timeout_count = 0

    @property
    def busy_count(self) -> int:
        """Threads that run a call, whether somebody waits for it or not."""
        return self._pool.busy_count

    @property
    def stuck_count(self) -> int:
        """Threads fewer that are of use, because calls that ran out of time keep them."""
        return self._pool.stuck_count

    def hand_out(self, item: ActivityWorkItem) -> None:
        """Run a call as soon as a thread is free, those of the highest priority first."""
        self._pool.submit(item)

    def grow(self) -> None:
        """Make a thread that could not be made when its call came."""
        self._pool.grow()

    def take_back(self) -> list[ActivityWorkItem]:
        """The calls that no thread has begun; they will not be."""
        return self._pool.drain()

    def take_back_if_stuck(self) -> list[ActivityWorkItem]:
        """The same when no thread is left that could begin one."""
        return self._pool.drain() if self._pool.stuck_count >= self._pool.size else []

    def drain(self) -> list[ActivityWorkItem]:
        """The worker stops: no further call is begun."""
        self._is_stopping.set()
        return self._pool.drain()

    def stop(self) -> None:
        """Let the threads end after their present calls; deadlines are watched no more."""
        self._pool.stop()
        self._deadlines.stop()

    def _run(self, item: ActivityWorkItem) -> None:
        options = self._registry.options_of(item.name)
        if not self._is_covered(item):
            self._done(item, None, 0.0, False)
            return
        if item.was_begun:
            logger.warning("Activity %s of instance %s was begun by a worker that is gone; the call fails", item.name, item.instance_id)
            self._done(item, _failed(item, ActivityLostError(item.name), options), 0.0, False)
            return
        with self._transactional.turn() if options.transactional else contextlib.nullcontext():
            self._run_once(item, options)

    def _is_covered(self, item: ActivityWorkItem) -> bool:
        """Whether the call is still ours to begin; while the worker's lease is in doubt, that is not known yet."""
        if self._lease is None or self._lease.covers(item.worker_id):
            return True
        if self._lease.is_over:
            logger.warning("The worker could not renew its lease; it begins no activity before it has")
        while self._lease.is_over and not self._is_stopping.is_set():
            self._is_stopping.wait(_BEGIN_AGAIN_SECONDS)
        return self._lease.covers(item.worker_id)

    def _run_once(self, item: ActivityWorkItem, options: ActivityOptions) -> None:
        if options.at_most_once and not self._begin(item):
            self._done(item, None, 0.0, False)
            return
        timeout = item.timeout if item.timeout is not None else timeout_micros(options.timeout)
        if timeout is not None:
            self._run_timed(item, options, timeout)
            return
        began = self._clock.monotonic()
        ended = self._call(self._runner.context_of(item), options, lambda: True)
        self._done(item, ended.event, self._clock.monotonic() - began, ended.is_recorded)

    def _call(self, context: ActivityContext, options: ActivityOptions, may_end: MayEnd) -> Ended:
        if options.transactional:
            return self._transactional.run(context, may_end)
        return Ended(self._runner.run(context))

    def _begin(self, item: ActivityWorkItem) -> bool:
        """Write down that the call begins; the database decides between this worker and those who take its work over (rule 54)."""
        at = self._clock.now()
        while not self._is_stopping.is_set():
            try:
                is_ours = self._store.begin_activity(item.worker_id, item, at)
            except Exception as error:  # noqa: BLE001 - whatever the database raises: a call that is never done keeps its worker from stopping
                logger.warning("Activity %s of instance %s cannot begin yet: %s: %s", item.name, item.instance_id, type(error).__name__, error)
                self._is_stopping.wait(_BEGIN_AGAIN_SECONDS)
                continue
            if not is_ours:
                logger.warning("Activity %s of instance %s is not begun: it no longer belongs to this worker", item.name, item.instance_id)
            return is_ours
        return False

    def _run_timed(self, item: ActivityWorkItem, options: ActivityOptions, timeout: Micros) -> None:
        seconds = timeout / 1_000_000
        context = self._runner.context_of(item, seconds)
        thread = threading.current_thread()
        guard = threading.Lock()
        is_over = False

        def expire() -> None:
            with guard:
                if is_over:
                    return
                context.expire()
                is_replaced = self._pool.write_off(thread)
            self.timeout_count += 1
            logger.warning(
                "Activity %s of instance %s did not end within %g s; it goes on in its thread, %s", item.name, item.instance_id, seconds,
                "and another takes the thread's place" if is_replaced else "which is not replaced: too many go on already",
            )  # fmt: skip
            self._done(item, _failed(item, ActivityTimeoutError(item.name, seconds), options), seconds, False)

        def end() -> bool:
            nonlocal is_over
            with guard:
                is_over = not context.is_expired
                return is_over

        began = self._clock.monotonic()
        deadline = self._deadlines.watch(seconds, expire)
        ended = self._call(context, options, end)
        end()
        if context.is_expired:
            logger.info("Activity %s of instance %s ended after its time; what came of it is dropped", item.name, item.instance_id)
            return
        self._deadlines.cancel(deadline)
        self._done(item, ended.event, self._clock.monotonic() - began, ended.is_recorded)


def _failed(item: ActivityWorkItem, error: Exception, options: ActivityOptions) -> TaskFailed:
    return TaskFailed(item.task_id, FailureDetails.from_exception(error, is_non_retriable=options.is_non_retriable(error)))
