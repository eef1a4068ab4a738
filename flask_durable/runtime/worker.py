"""Worker: the engine with its threads, its row, its heartbeat, and an orderly end."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

from flask_durable.config import Settings
from flask_durable.core.failure import FailureDetails
from flask_durable.errors import DurableError, NotRegisteredError, StoreUnavailableError
from flask_durable.registry import Registry
from flask_durable.runtime.activities import ActivityRunner
from flask_durable.runtime.engine import SLOW_TURN, Engine
from flask_durable.runtime.pool import ActivityPool, Ticker
from flask_durable.storage.interface import ActivityWorkItem, Batch, Command, FailInstance, Outcome, Store
from flask_durable.telemetry import Telemetry
from flask_durable.watchers import Watchers

logger = logging.getLogger("flask_durable.worker")

REAP_SECONDS = 1.0
UNKNOWN_SECONDS = 5.0


class Worker:
    """One worker of one app in one process.

    Args:
        activity_context: makes the context each activity runs in.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: Settings,
        *,
        watchers: Watchers,
        telemetry: Telemetry,
        activity_context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._runner = ActivityRunner(registry, settings, telemetry, context=activity_context, is_current=store.is_activity_current)
        self._pool: ActivityPool[ActivityWorkItem] = ActivityPool(settings.max_activities, self._run_activity)
        self._ticker = Ticker()
        self._engine = Engine(store, registry, settings, watchers, worker_id=_new_id(), hand_out=self._pool.submit, on_lost=self._register_anew)

    @property
    def worker_id(self) -> str:
        """Id of the worker's present row."""
        return self._engine.worker_id

    @property
    def engine(self) -> Engine:
        """The loop."""
        return self._engine

    def start(self) -> None:
        """Register, take over what the dead have left, and begin."""
        self._store.reap_workers(None, self._settings.max_deliveries)
        self._store.register_worker(self._engine.worker_id, self._settings.lease_seconds)
        self._engine.start()
        self._ticker.every(self._settings.lease_seconds / 3, self._renew)
        self._ticker.every(REAP_SECONDS, self._reap)
        self._ticker.every(SLOW_TURN / 2, self._engine.watch)
        self._ticker.every(UNKNOWN_SECONDS, self._fail_unknown)
        self._ticker.start()
        logger.info("Worker %s started", self._engine.worker_id)

    def execute(self, command: Command) -> Outcome:
        """Hand a command to the engine and wait for its commit."""
        return self._engine.execute(command)

    def wake(self) -> None:
        """Look for work now."""
        self._engine.wake()

    def stop(self, grace: float | None) -> bool:
        """End in order: claim nothing, give back what was not begun, let activities end, give back the rest.

        Args:
            grace: seconds that running activities get; None waits for all of them.

        Returns:
            Whether no user code runs any more.
        """
        engine = self._engine
        engine.drain()
        self._give_back(self._pool.drain())
        is_idle = _wait_until(lambda: engine.busy_count + self._pool.busy_count == 0, grace)
        is_over = engine.stop(grace if grace is None else max(1.0, grace))
        self._ticker.stop()
        self._pool.stop()
        try:
            self._store.release_worker(engine.worker_id)
        except StoreUnavailableError as error:
            logger.warning("Worker %s could not give its work back; others take it when its lease is over: %s", engine.worker_id, error)
        logger.info("Worker %s stopped%s", engine.worker_id, "" if is_idle and is_over else "; what was still running is given to others")
        return is_idle and is_over

    def _give_back(self, items: list[ActivityWorkItem]) -> None:
        try:
            self._engine.release(items)
        except DurableError as error:
            logger.warning("Activities that were not begun could not be given back one by one; they go with the worker: %s", error)

    def _register_anew(self, lost_id: str) -> str:
        self._store.release_worker(lost_id)
        worker_id = _new_id()
        self._store.register_worker(worker_id, self._settings.lease_seconds)
        return worker_id

    def _renew(self) -> None:
        if not self._store.renew_worker(self._engine.worker_id, self._settings.lease_seconds):
            self._engine.check_fence()

    def _reap(self) -> None:
        reaped = self._store.reap_workers(self._engine.worker_id, self._settings.max_deliveries)
        if reaped:
            logger.warning("Took over the work of dead workers: %s", ", ".join(reaped))
            self._engine.check_fence()

    def _fail_unknown(self) -> None:
        """Fail instances whose orchestrator nobody has known for too long (rule 8, REG-5)."""
        limit = self._settings.unknown_orchestrator_timeout
        names = self._registry.orchestrator_names()
        for record in self._store.unknown_orchestrations(names, self._store.now() - round(limit * 1e6), 100):
            error = NotRegisteredError("orchestrator", record.name, names)
            logger.error("Instance %s fails: %s", record.instance_id, error)
            self._store.commit(Batch(commands=[FailInstance(record.instance_id, FailureDetails.from_exception(error))]))

    def _run_activity(self, item: ActivityWorkItem) -> None:
        began = time.perf_counter()
        event = self._runner.run(item)
        self._engine.activity_done(item, event, time.perf_counter() - began)


def _new_id() -> str:
    return uuid.uuid4().hex


def _wait_until(is_true: Callable[[], bool], seconds: float | None) -> bool:
    deadline = None if seconds is None else time.monotonic() + seconds
    while not is_true():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(0.005)
    return True
