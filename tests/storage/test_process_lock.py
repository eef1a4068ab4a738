"""The lock beside the SQLite file: a dead process is seen at once, a live one never taken for dead."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid

import pytest
from support import until

from flask_durable.storage.process_lock import ProcessLock
from flask_durable.storage.sql_store import SqlStore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


@pytest.fixture
def sqlite_desk(desk, database_url):
    if not database_url.startswith("sqlite"):
        pytest.skip("the lock lies beside a file")
    return desk


def test_a_slot_belongs_to_one_process(tmp_path):
    lock = ProcessLock(tmp_path / "durable.db")
    assert lock.hold(7)
    assert not lock.is_free(7)  # also not to the process that holds it
    assert lock.is_free(8)
    lock.release(7)
    assert lock.is_free(7)


def test_a_killed_process_is_seen_at_once_and_its_work_taken_over(sqlite_desk, hold):  # WRK-4, DESIGN 3.2
    desk = sqlite_desk
    desk.start("a")
    worker_id = uuid.uuid4().hex
    process = hold(worker_id)

    # While it lives, also when it is only frozen, nobody takes its work
    assert desk.store.reap_workers(desk.worker_id, 5) == []
    process.send_signal(signal.SIGSTOP)
    assert desk.store.reap_workers(desk.worker_id, 5) == []
    assert desk.claim().orchestrations == []

    # When it is killed, then its work is free within a moment, an hour before its lease is over
    killed = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    assert until(lambda: desk.store.reap_workers(desk.worker_id, 5)) == [worker_id]
    assert time.monotonic() - killed < 5
    assert [work.record.instance_id for work in desk.claim().orchestrations] == ["a"]


def test_workers_of_one_process_do_not_take_each_other_for_dead(sqlite_desk, make_store):
    desk = sqlite_desk
    other = make_store()
    assert isinstance(other, SqlStore)
    first, second = desk.register(), uuid.uuid4().hex
    other.register_worker(second, 60)
    assert desk.store.reap_workers(desk.worker_id, 5) == []
    assert other.reap_workers(second, 5) == []
    other.release_worker(second)
    assert {worker.worker_id for worker in desk.store.workers()} == {desk.worker_id, first}


def test_a_worker_that_left_in_order_leaves_its_slot_free(sqlite_desk):
    desk = sqlite_desk
    slots = [row[0] for row in desk.rows("SELECT lock_slot FROM durable_worker WHERE worker_id = ?", desk.worker_id)]
    lock = desk.store._sign._lock
    assert not lock.is_free(slots[0])
    desk.store.release_worker(desk.worker_id)
    assert lock.is_free(slots[0])
