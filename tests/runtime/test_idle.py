"""What an idle worker costs: statements that reach the database, everything that the worker does counted, in virtual time."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flask_durable.clock import SystemClock
from flask_durable.config import load_settings
from flask_durable.registry import Registry
from flask_durable.runtime.polling import TOLD_SECONDS
from flask_durable.runtime.surroundings import REAL
from flask_durable.runtime.worker import Worker
from flask_durable.storage.interface import Batch, StartInstance
from flask_durable.storage.sql_store import SqlStore
from flask_durable.telemetry import Telemetry
from flask_durable.watchers import Watchers

SECONDS = 300


class VirtualClock(SystemClock):
    """Monotonic time that a test moves; wall time goes along, as far as this process tells it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> int:
        return 1_700_000_000_000_000 + round(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


class VirtualTicker:
    """Knows what is to be called when, and calls nothing by itself."""

    def __init__(self) -> None:
        self.jobs: list[tuple[float, Callable[[], object]]] = []

    def every(self, seconds: float, call: Callable[[], object]) -> None:
        self.jobs.append((seconds, call))

    def start(self) -> None:
        """Nothing ticks by itself."""

    def stop(self) -> None:
        """Nothing ticked."""


class NoThread(threading.Thread):
    """One that is never run: the test steps the engine."""

    def start(self) -> None:
        pass


class CountingCursor:
    """A cursor that notes what it executes."""

    def __init__(self, cursor: Any, seen: list[str]) -> None:
        self._cursor = cursor
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)

    def execute(self, text: str, *rest: Any) -> Any:
        self._seen.append(text)
        return self._cursor.execute(text, *rest)


class Idle:
    """One worker with its store, in virtual time."""

    def __init__(self, url: str, hub: str, **config: Any) -> None:
        self.clock = VirtualClock()
        self.store = SqlStore(url, hub=hub, timeout=5.0, clock=self.clock)
        self.store._steps.note = lambda _began, now: now  # type: ignore[method-assign]  # a server's clock does not go along
        self.store.create_tables()
        self.seen: list[str] = []
        database = self.store._sql.database
        cursor = database.cursor
        database.cursor = lambda *args, **options: CountingCursor(cursor(*args, **options), self.seen)
        self.ticker = VirtualTicker()
        registry = Registry()
        registry.add_orchestrator(lambda ctx: None, "known")
        self.worker = Worker(
            self.store,
            registry,
            load_settings({"DURABLE_DATABASE": url, "DURABLE_TASK_HUB": hub, **config}),
            watchers=Watchers(),
            telemetry=Telemetry(is_enabled=False),
            surroundings=replace(REAL, clock=self.clock, make_ticker=lambda: self.ticker, make_thread=NoThread),
        )

    def run(self, seconds: float) -> list[str]:
        """Let so many seconds pass; returns the statements of that time."""
        before, end = len(self.seen), self.clock.seconds + seconds
        due = [[self.clock.seconds + every, every, call] for every, call in self.ticker.jobs]
        engine = self.worker.engine
        while self.clock.seconds < end:
            engine.step(0, waits=False)
            for job in due:
                if job[0] <= self.clock.seconds:
                    job[0] += job[1]
                    job[2]()
            self.clock.seconds += max(1e-4, min(engine._polling.seconds_left(), *(job[0] - self.clock.seconds for job in due)))
        return self.seen[before:]


@pytest.fixture
def make_idle(database_url: str, hub: str) -> Iterator[Callable[..., Idle]]:
    with contextlib.ExitStack() as stack:

        def make(**config: Any) -> Idle:
            idle = Idle(database_url, hub, **config)
            stack.callback(idle.store.close)
            stack.enter_context(idle.store.connection())  # the engine's thread has one for itself
            stack.callback(idle.worker.stop, 1.0)
            stack.callback(idle.worker.engine._finished.set)
            return idle

        yield make


def sleepers(idle: Idle, count: int) -> None:
    """Instances that are due in an hour."""
    later = idle.store.now() + 3_600_000_000
    commands = [StartInstance(f"sleeper-{number}", uuid.uuid4().hex, "known", start_at=later) for number in range(count)]
    idle.store.commit(Batch(commands=commands))


def a_second(statements: list[str]) -> float:
    return len(statements) / SECONDS


def test_an_idle_worker_costs_few_statements_however_many_instances_wait(make_idle):  # S8
    idle = make_idle(DURABLE_RETENTION=7)
    idle.worker.start()
    sleepers(idle, 10)
    idle.run(60)
    few = idle.run(SECONDS)
    sleepers(idle, 1000)
    idle.run(60)
    many = idle.run(SECONDS)
    assert abs(len(few) - len(many)) <= 3  # at the borders of the window
    limit = 0.5 if idle.store._sql.is_sqlite else 1.4
    assert 0.2 < a_second(many) <= limit, sorted(set(many))


def test_an_idle_worker_that_is_told_of_work_costs_less(make_idle):
    idle = make_idle(DURABLE_RETENTION=7)
    idle.worker.start()
    sleepers(idle, 100)
    idle.worker._sightings.is_told = True
    idle.run(60)
    assert a_second(idle.run(SECONDS)) <= 0.48


def test_while_there_is_work_now_and_then_the_pauses_are_as_configured(make_idle):
    idle = make_idle(DURABLE_POLL_INTERVAL=0.1)
    idle.worker.start()
    polling = idle.worker.engine._polling
    idle.run(1)
    polling.work_was_done()
    idle.run(3)
    assert polling._pause == pytest.approx(TOLD_SECONDS if idle.store._sql.is_sqlite else 0.1, rel=0.5)
    idle.run(10)
    assert polling._pause == (TOLD_SECONDS if idle.store._sql.is_sqlite else 1.0)


def test_a_long_interval_that_is_configured_is_kept(make_idle):
    idle = make_idle(DURABLE_POLL_INTERVAL=20)
    idle.worker.start()
    idle.run(120)
    assert idle.worker.engine._polling._pause == 20


def test_a_timer_is_looked_for_when_it_is_due(make_idle):
    idle = make_idle()
    idle.worker.start()
    idle.run(60)
    due = idle.store.now() + 3_300_000
    idle.store.commit(Batch(commands=[StartInstance("soon", uuid.uuid4().hex, "known", start_at=due)]))
    idle.worker.wake()
    idle.run(0.2)
    polling = idle.worker.engine._polling
    assert polling._next - idle.clock.seconds <= 3.3
    if idle.store._sql.is_sqlite:  # database time is the virtual clock
        idle.run(3.05)
        assert idle.store.get_instance("soon").status.value == "Pending"
        idle.run(0.1)
        assert idle.store.get_instance("soon").status.value == "Completed"


def test_what_others_commit_is_seen_within_moments_on_sqlite(make_idle):
    idle = make_idle()
    if not idle.store._sql.is_sqlite:
        pytest.skip("only SQLite has a mark")
    idle.worker.start()
    idle.run(60)
    thread = threading.Thread(target=lambda: idle.store.commit(Batch(commands=[StartInstance("new", uuid.uuid4().hex, "known")])))
    thread.start()
    thread.join()
    idle.run(0.05)
    assert idle.store.get_instance("new").status.value == "Completed"


def test_signs_that_are_of_no_use_bring_few_looks(make_idle):
    idle = make_idle()
    if not idle.store._sql.is_sqlite:
        pytest.skip("only SQLite has a mark")
    idle.worker.start()
    idle.run(60)
    looks = 0
    for _ in range(500):  # another hub in the same file is busy
        thread = threading.Thread(
            target=lambda: idle.store._sql.transaction(lambda: idle.store._sql.run("DELETE FROM durable_limit WHERE hub = 'x'"))
        )
        thread.start()
        thread.join()
        looks += sum("durable_activity" in text for text in idle.run(0.02))
    assert looks <= 50


def test_a_worker_whose_row_is_gone_learns_it_from_its_look(make_idle):  # S3
    idle = make_idle()
    idle.worker.start()
    idle.run(60)
    lost = idle.worker.worker_id
    idle.store.release_worker(lost)
    idle.run(5)
    assert idle.worker.worker_id != lost
    assert [each.worker_id for each in idle.store.workers()] == [idle.worker.worker_id]
