"""Waiting for instances: woken by the commit in the process of the worker, by looking again and again elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from support import finish, has_status, until

from flask_durable import InstanceNotFoundError, RuntimeStatus
from flask_durable.errors import InstanceExistsError, WaitTimeoutError


@contextmanager
def counted_looks(durable):
    """The times at which the status of an instance was read from the database."""
    store, looks = durable._only.store, []
    original = store.get_instance

    def get_instance(instance_id):
        looks.append(time.monotonic())
        return original(instance_id)

    store.get_instance = get_instance
    try:
        yield looks
    finally:
        del store.get_instance


@pytest.fixture
def durable(durable):
    @durable.activity
    def add_one(number):
        return number + 1

    @durable.orchestrator
    def counts(ctx, number):
        for _ in range(5):
            number = yield ctx.call_activity(add_one, number)
        return number

    @durable.orchestrator
    def waits(ctx):
        return (yield ctx.wait_for_external_event("Go"))

    @durable.orchestrator
    def sleeps(ctx):
        yield ctx.create_timer(timedelta(milliseconds=600))

    return durable


def waiting(durable, instance_id, results, method="wait_for_completion"):
    """A thread that waits for an instance."""
    thread = threading.Thread(target=lambda: results.append(getattr(durable.client, method)(instance_id, timeout=20)))
    thread.start()
    until(lambda: instance_id in durable._only._watchers._waiting, "the thread waited")
    return thread


def test_a_wait_beside_the_only_worker_looks_when_it_is_woken(durable):  # SCH-6
    durable.start_worker()
    with counted_looks(durable) as looks:
        assert finish(durable, durable.client.start("sleeps")).runtime_status is RuntimeStatus.COMPLETED
    assert len(looks) <= 4  # at the beginning, after the first turn, at the end, and once more on a machine that is slow


def test_a_wait_of_many_turns_is_not_woken_by_each(durable):  # SCH-6
    durable.start_worker()
    with counted_looks(durable) as looks:
        assert durable.client.start_and_wait("counts", 1, timeout=20).output == 6
    assert len(looks) <= 4


def test_a_wait_elsewhere_looks_less_and_less_often(make_durable):  # SCH-6
    durable = make_durable(DURABLE_POLL_INTERVAL=0.2)
    durable.orchestrator(lambda ctx: None, name="nothing")
    instance_id = durable.client.start("nothing")
    with counted_looks(durable) as looks, pytest.raises(WaitTimeoutError):
        durable.client.wait_for_completion(instance_id, timeout=1.0)
    assert 3 < len(looks) < 14


def test_a_second_worker_makes_waits_look_for_themselves(durable, make_durable):  # SCH-6, WRK-1
    durable.start_worker()
    assert durable._only._watchers.sees_all
    other = make_durable()
    other.start_worker()
    until(lambda: not durable._only._watchers.sees_all, "the first had noticed the second")
    other.stop_worker()
    until(lambda: durable._only._watchers.sees_all, "it was alone again")
    durable.stop_worker()
    assert not durable._only._watchers.sees_all


@pytest.mark.parametrize("command", ["terminate", "suspend"])
def test_a_command_of_another_process_is_seen_soon(durable, make_durable, command):  # SCH-6
    durable.start_worker()
    other, results = make_durable(), []
    start_at = None if command == "terminate" else datetime.now(UTC) + timedelta(hours=1)
    instance_id = durable.client.start("waits", start_at=start_at)
    thread = waiting(durable, instance_id, results, "wait_for_completion" if command == "terminate" else "wait_for_start")
    getattr(other.client, command)(instance_id)
    thread.join(10)
    assert [status.runtime_status for status in results] == [RuntimeStatus.TERMINATED if command == "terminate" else RuntimeStatus.SUSPENDED]


def test_start_and_wait_gives_the_status_at_the_end(durable):  # SCH-6
    durable.start_worker()
    status = durable.client.start_and_wait("counts", 1, timeout=20, instance_id="mine", tags={"a": "b"}, version="3")
    assert (status.output, status.instance_id, status.tags, status.version) == (6, "mine", {"a": "b"}, "3")
    assert durable.client.start_and_wait("counts", 9, timeout=20, instance_id="mine", if_exists="return").output == 6
    assert durable.client.start_and_wait("counts", 2, timeout=20, instance_id="mine", if_exists="replaceFinished").output == 7
    with pytest.raises(InstanceExistsError):
        durable.client.start_and_wait("counts", 2, timeout=20, instance_id="mine")


def test_start_and_wait_gives_up_in_time_and_says_for_what(durable):  # SCH-6
    durable.start_worker()
    with pytest.raises(WaitTimeoutError) as caught:
        durable.client.start_and_wait("waits", timeout=0.05)
    instance_id = caught.value.instance_id
    durable.client.raise_event(instance_id, "Go", 1)
    assert finish(durable, instance_id).output == 1


def test_start_and_wait_for_what_is_purged_meanwhile(durable, monkeypatch):  # SCH-6
    monkeypatch.setattr(durable.client, "wait_for_completion", lambda *_args, **_options: None)
    with pytest.raises(InstanceNotFoundError):
        durable.client.start_and_wait("counts", 1, timeout=1)


def test_a_wait_begun_after_a_restart_does_not_see_the_old_result(durable):  # MGT-4
    durable.start_worker()
    instance_id = durable.client.start("waits")
    for number in range(5):
        durable.client.raise_event(instance_id, "Go", number)
        assert finish(durable, instance_id).output == number
        durable.client.restart(instance_id, new_instance_id=False)
        results = []
        thread = waiting(durable, instance_id, results)
        assert results == []
        until(has_status(durable, instance_id, RuntimeStatus.RUNNING), "it ran again")
        durable.client.raise_event(instance_id, "Go", -number)
        thread.join(20)
        assert [status.output for status in results] == [-number]
        durable.client.restart(instance_id, new_instance_id=False)


def test_a_failure_from_outside_wakes_who_waits(make_durable):  # rule 8, SCH-6
    durable = make_durable(DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT=0)
    durable.start_worker()
    instance_id = durable.client.start("nobody knows this")
    assert finish(durable, instance_id).runtime_status is RuntimeStatus.FAILED
