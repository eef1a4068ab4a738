"""Database time that is set forward or back (F7): leases are not over because of it, and what was ready stays ready."""

from __future__ import annotations

import pytest

from flask_durable.core.events import EventRaised
from flask_durable.storage.clock_steps import TOLERANCE, ClockSteps
from flask_durable.storage.interface import RaiseEvent
from flask_durable.storage.sql_store import SqlStore

from .conftest import ALL, Desk, FakeClock

HOUR = 3600


class Watch(FakeClock):
    """A clock that is set, beside one that never steps."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def wait(self, seconds: float) -> None:
        self.passed += seconds
        self.forward(seconds)


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def stepping(watch, tmp_path):
    store = SqlStore(f"sqlite:///{tmp_path}/steps.db", clock=watch)
    store.create_tables()
    yield Desk(store)
    store.close()


def test_time_that_passes_is_no_step_and_neither_is_a_slow_answer(watch):
    steps = ClockSteps(watch)
    steps.note(steps.begin(), watch.now())
    watch.wait(1000)
    steps.note(steps.begin(), watch.now())
    began = steps.begin()
    watch.wait(30)
    now = watch.now()
    watch.wait(30)  # the answer was on its way
    steps.note(began, now)
    steps.note(steps.begin(), watch.now())
    assert not steps.was_set_back
    assert not steps.is_fresh(1e9)


@pytest.mark.parametrize("seconds", [TOLERANCE + 0.1, HOUR, 24 * HOUR])
def test_a_step_is_noticed_whenever_the_last_look_was(watch, seconds, caplog):
    steps = ClockSteps(watch)
    steps.note(steps.begin(), watch.now())
    watch.wait(100)
    watch.forward(seconds)
    steps.note(steps.begin(), watch.now())
    assert steps.is_fresh(15)
    watch.wait(16)
    assert not steps.is_fresh(15)
    assert "leases begin anew" in caplog.text
    assert not steps.was_set_back
    watch.forward(-seconds)
    steps.note(steps.begin(), watch.now())
    assert steps.was_set_back


def test_a_lease_is_not_over_because_the_clock_was_set_forward(stepping, watch):
    store, other = stepping.store, stepping.register(lease=15)
    assert store.reap_workers(stepping.worker_id, 5) == []
    watch.forward(HOUR)
    neighbours = store.peek(stepping.worker_id, ALL).neighbours
    assert not store.may_be_dead(neighbours)
    assert store.reap_workers(stepping.worker_id, 5) == []
    watch.wait(10)
    assert store.renew_worker(other, 15)
    watch.wait(6)
    assert store.reap_workers(stepping.worker_id, 5) == []
    watch.wait(10)
    assert store.reap_workers(stepping.worker_id, 5) == [other]


def test_what_was_ready_before_the_clock_was_set_back_is_ready(stepping, watch):
    store = stepping.store
    stepping.begin("running")
    stepping.sql("UPDATE durable_instance SET worker_id = NULL")
    store.peek(stepping.worker_id, ALL)
    stepping.start("new")
    stepping.start("later", start_at=watch.now() + 60_000_000)
    stepping.do(RaiseEvent("running", "Go", '"data"'))
    watch.forward(-HOUR)
    assert not store.peek(stepping.worker_id, ALL).is_ready
    assert store.may_be_dead(())
    assert store.reap_workers(stepping.worker_id, 5) == []
    assert not store.may_be_dead(())
    found = {work.record.instance_id: [message.event for message in work.messages] for work in stepping.claim().orchestrations}
    assert found == {"new": [], "running": [EventRaised("Go", '"data"')]}
    assert stepping.get("later").ready_at > watch.now() + HOUR * 1_000_000


def test_on_every_backend_what_is_ready_comes_back_and_timers_stay(desk):
    """The rows of a clock that was ahead by an hour, put right by another process."""
    hour = HOUR * 1_000_000
    record = desk.begin("timer")
    for name in ("new", "later"):
        desk.start(name)
    desk.begin("running")
    desk.sql("UPDATE durable_instance SET worker_id = NULL")
    desk.do(RaiseEvent("running", "Go", "1"))
    now = desk.store.now()
    desk.sql("UPDATE durable_instance SET ready_at = ? WHERE instance_id <> 'later'", now + hour)
    desk.sql("UPDATE durable_instance SET ready_at = ?, start_at = ? WHERE instance_id = 'later'", now + 2 * hour, now + 2 * hour)
    desk.sql("UPDATE durable_message SET visible_at = ?", now + hour)
    desk.store._sql.transaction(lambda: desk.store._inbox.put_timers([("timer", record.execution_id, 1, now + hour)]))
    desk.sql("UPDATE durable_worker SET heartbeat_at = ?, expires_at = ?", now + hour, now + hour + 60_000_000)
    assert desk.claim().orchestrations == []
    desk.store._steps.was_set_back = True
    desk.store.reap_workers(desk.worker_id, 5)
    found = {work.record.instance_id: [message.event for message in work.messages] for work in desk.claim().orchestrations}
    assert found == {"new": [], "running": [EventRaised("Go", "1")]}
    assert desk.get("timer").ready_at == now + hour
    assert desk.get("later").ready_at == now + 2 * hour
    (worker,) = desk.store.workers()
    assert worker.expires_at - worker.heartbeat_at == 60_000_000
    assert worker.expires_at < now + 120_000_000
