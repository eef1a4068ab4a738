"""Worker: the engine with its threads, its row, its heartbeat, and an orderly end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from flask_durable.config import Settings
from flask_durable.core.capabilities import Capabilities
from flask_durable.core.events import HistoryEvent
from flask_durable.errors import DurableError, StoreUnavailableError
from flask_durable.logs import get_logger
from flask_durable.registry import Registry
from flask_durable.runtime import retention
from flask_durable.runtime.abilities import Abilities, WorkFilter
from flask_durable.runtime.activities import ActivityRunner
from flask_durable.runtime.calls import Calls
from flask_durable.runtime.engine import Engine
from flask_durable.runtime.health import Health, Pulse
from flask_durable.runtime.lease import Lease
from flask_durable.runtime.polling import Polling
from flask_durable.runtime.sightings import Sightings
from flask_durable.runtime.strays import UNKNOWN_SECONDS, Strays
from flask_durable.runtime.surroundings import REAL, Surroundings
from flask_durable.runtime.wakeups import Wakeups
from flask_durable.storage.interface import ActivityWorkItem, Command, Outcome, Store
from flask_durable.telemetry import Telemetry
from flask_durable.watchers import Watchers

logger = get_logger("flask_durable.worker")

REAP_SECONDS = 0.5
"""Between two glances at what the engine has last seen of its neighbours; they ask the database nothing while these live."""

STUCK_SECONDS = 1.0

INSPECTION_SECONDS = 300.0
"""Between two looks for what too many workers died with, when no look of the engine gives a reason for one."""


class Worker:
    """One worker of one app in one process.

    Args:
        activity_context: makes the context each activity runs in.
        work_filter: the names of orchestrators and activities that it is limited to (WRK-5).
        surroundings: where it takes time and threads from.
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
        work_filter: WorkFilter = WorkFilter(),  # noqa: B008 - frozen
        surroundings: Surroundings = REAL,
    ) -> None:
        self._surroundings = surroundings
        self._store = store
        self._settings = settings
        self._watchers = watchers
        runner = ActivityRunner(registry, settings, telemetry, context=activity_context, is_current=store.is_activity_current)
        self.lease = Lease(settings.lease_seconds, surroundings.clock)
        self._calls = Calls(store, registry, runner, settings.max_activities, self._activity_done, surroundings, self.lease)
        self._ticker = surroundings.make_ticker()
        self._retention = retention.Retention(store, settings.retention)
        self._abilities = abilities = Abilities(store, registry, settings, work_filter)
        self._said: Capabilities | None = None
        self._pulse = Pulse(surroundings.clock.monotonic, self.lease, settings.poll_interval)
        self._ended_calls = 0
        self._counting = threading.Lock()
        self._sightings = Sightings(watchers)
        self._strays = Strays(store, registry, settings, abilities, watchers)
        self._engine = Engine(
            store,
            registry,
            settings,
            watchers,
            abilities,
            Polling(store, settings.poll_interval, self._sightings, surroundings.clock.monotonic),
            worker_id=surroundings.new_id(),
            hand_out=self._calls.hand_out,
            on_lost=self._register_anew,
            stuck=lambda: self._calls.stuck_count,
            went_round=self._pulse.went_round,
            surroundings=surroundings,
        )
        self._wakeups = Wakeups(store, self._sightings, lambda: self._engine.wake(by_sign=True), lambda: self._engine.worker_id, surroundings)

    def health(self) -> Health:
        """Whether the loop goes round and the lease holds."""
        return self._pulse.health()

    @property
    def ended_calls(self) -> int:
        """How many activity calls have ended here."""
        return self._ended_calls

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
        self._register(self._engine.worker_id)
        self._look_around()
        self._engine.start()
        self._wakeups.start()
        self._ticker.every(self._settings.lease_seconds / 3, self._renew)
        if self._store.sign_interval is not None:
            self._ticker.every(self._store.sign_interval, self._keep_sign)
        self._ticker.every(REAP_SECONDS, self._reap)
        self._ticker.every(STUCK_SECONDS, self._give_back_stuck)
        self._ticker.every(UNKNOWN_SECONDS, self._look_after_strays)
        self._ticker.every(INSPECTION_SECONDS, self._reap_all)
        if self._settings.retention:
            self._ticker.every(retention.INTERVAL, self._retention.sweep)
        self._ticker.start()
        self._abilities.warn_of_unknown_names()
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
        self._pulse.drains()
        engine.drain()
        self._wakeups.stop()
        self._give_back(self._calls.drain())
        is_idle = self._surroundings.wait_until(lambda: engine.busy_count + self._calls.busy_count == 0, grace)
        is_over = engine.stop(grace if grace is None else max(1.0, grace))
        self._retention.stop()
        self._ticker.stop()
        self._watchers.sees_all = False
        self._calls.stop()
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
        self._calls.take_back()  # they belong to others now, or come back with the next claim
        self._store.release_worker(lost_id)
        worker_id = self._surroundings.new_id()
        self._register(worker_id)
        return worker_id

    def _register(self, worker_id: str) -> None:
        self._said = self._abilities.present()
        at = self.lease.now()
        self._store.register_worker(worker_id, self._settings.lease_seconds, self._said)
        self.lease.begin(worker_id, at)

    def _renew(self) -> None:
        present = self._abilities.present()
        news = present if present != self._said else None
        at = self.lease.now()
        if self._store.renew_worker(self._engine.worker_id, self._settings.lease_seconds, news):
            self.lease.renew(at)
            self._said = present
        else:
            self._engine.check_fence()

    def _keep_sign(self) -> None:
        if self._store.has_lost_sign(self._engine.worker_id):
            self._renew()

    def _reap(self) -> None:
        if self._store.may_be_dead(self._sightings.neighbours):
            self._reap_all()

    def _reap_all(self) -> None:
        reaped = self._store.reap_workers(self._engine.worker_id, self._settings.max_deliveries)
        if reaped:
            logger.warning("Took over the work of dead workers: %s", ", ".join(reaped))
            self._engine.check_fence()

    def _look_around(self) -> None:
        """Find out whether there are other workers, which would not wake those who wait in this process."""
        self._watchers.sees_all = [worker.worker_id for worker in self._store.workers()] == [self._engine.worker_id]

    def _look_after_strays(self) -> None:
        strays: tuple[str, ...] = ()
        if self._sightings.is_left:
            self._reap_all()  # what too many workers died with is taken by nobody either
            strays = self._strays.look(self._engine.worker_id)
        self._engine.fail_activities(strays)

    def _activity_done(self, item: ActivityWorkItem, event: HistoryEvent | None, seconds: float, is_recorded: bool) -> None:
        if event is not None or is_recorded:
            with self._counting:
                self._ended_calls += 1
        self._engine.activity_done(item, event, seconds, is_recorded)

    def _give_back_stuck(self) -> None:
        """Calls that wait here while every thread is kept by others that ran out of time are of more use elsewhere."""
        self._calls.grow()
        self._give_back(self._calls.take_back_if_stuck())
