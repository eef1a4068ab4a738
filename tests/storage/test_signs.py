"""The sign of life on a server: a dead process is seen at once, a live one is not taken for dead, whatever becomes of its connection."""

from __future__ import annotations

import logging
import os
import signal
import time
import uuid

import pytest
from support import until
from tcp_proxy import TcpProxy

from flask_durable.storage.database import ServerOptions
from flask_durable.storage.sql_store import SqlStore


@pytest.fixture
def server_desk(desk, database_url):
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has a sign of its own: test_process_lock.py")
    return desk


@pytest.fixture
def proxy(database_url):
    proxy = TcpProxy(database_url)
    yield proxy
    proxy.thaw()
    proxy.close()


def slot_of(desk, worker_id):
    return desk.rows("SELECT lock_slot FROM durable_worker WHERE worker_id = ?", worker_id)[0][0]


def test_a_killed_process_is_seen_at_once_and_its_work_taken_over(server_desk, hold):  # WRK-4, DESIGN 3.2
    desk = server_desk
    desk.start("a")
    worker_id = uuid.uuid4().hex
    process = hold(worker_id)

    # While it lives, also when it is only frozen, nobody takes its work
    assert desk.store.reap_workers(desk.worker_id, 5) == []
    process.send_signal(signal.SIGSTOP)
    assert desk.store.reap_workers(desk.worker_id, 5) == []

    # When it is killed, then its work is free within a moment, an hour before its lease is over
    killed = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    assert until(lambda: desk.store.reap_workers(None, 5)) == [worker_id]
    assert time.monotonic() - killed < 5
    assert [work.record.instance_id for work in desk.claim().orchestrations] == ["a"]


def test_workers_of_one_process_do_not_take_each_other_for_dead(server_desk, make_store):
    other, second = make_store(), uuid.uuid4().hex
    first = server_desk.register()
    other.register_worker(second, 60)
    assert server_desk.store.reap_workers(server_desk.worker_id, 5) == []
    assert other.reap_workers(second, 5) == []
    assert not other.has_lost_sign(second)
    server_desk.store.release_worker(first)
    assert other.reap_workers(second, 5) == []
    other.release_worker(second)


def test_looking_at_the_living_costs_no_further_statement(server_desk, monkeypatch):
    server_desk.register()
    sql, seen = server_desk.store._sql, []
    execute = sql.database.execute_sql
    monkeypatch.setattr(sql.database, "execute_sql", lambda *args: seen.append(args[0]) or execute(*args))
    server_desk.store.reap_workers(server_desk.worker_id, 5)
    assert sum("durable_worker" in text for text in seen) == 1
    assert not any(word in text.lower() for text in seen if "durable_worker" not in text for word in ("advisory", "free_lock", "uptime"))


def test_a_heartbeat_is_one_statement_on_the_connection_of_the_sign(server_desk, monkeypatch):
    desk, seen = server_desk, []
    before = desk.rows("SELECT heartbeat_at, expires_at FROM durable_worker WHERE worker_id = ?", desk.worker_id)[0]
    monkeypatch.setattr(desk.store._sql.database, "execute_sql", lambda *args: seen.append(args))
    assert desk.store.renew_worker(desk.worker_id, 100)
    monkeypatch.undo()
    assert seen == []
    after = desk.rows("SELECT heartbeat_at, expires_at FROM durable_worker WHERE worker_id = ?", desk.worker_id)[0]
    assert after[0] > before[0]
    assert after[1] - after[0] == pytest.approx(100_000_000, abs=50_000)
    assert not desk.store.renew_worker("nobody", 100)


def test_who_loses_the_connection_of_the_sign_takes_a_new_slot(server_desk, proxy, hub):
    # Given a worker whose connections go through a proxy
    desk, worker_id = server_desk, uuid.uuid4().hex
    store = SqlStore(proxy.url, hub=hub, timeout=5.0)
    store.register_worker(worker_id, 60)
    first = slot_of(desk, worker_id)
    assert not store.has_lost_sign(worker_id)

    # When the connections are cut, then it knows without asking, and its next heartbeat names a new slot
    proxy.cut()
    until(lambda: store.has_lost_sign(worker_id), "the loss was seen")
    assert store.renew_worker(worker_id, 60)
    assert not store.has_lost_sign(worker_id)
    assert slot_of(desk, worker_id) not in (first, None)
    assert desk.store.reap_workers(desk.worker_id, 5) == []
    store.release_worker(worker_id)
    store.close()


def test_a_living_worker_whose_connection_was_cut_has_a_moment_to_take_a_new_slot(server_desk, proxy, hub, monkeypatch):
    desk, worker_id = server_desk, uuid.uuid4().hex
    store = SqlStore(proxy.url, hub=hub, timeout=5.0)
    store.register_worker(worker_id, 60)
    proxy.cut()
    # It takes a new slot between the two looks of another worker
    monkeypatch.setattr("flask_durable.storage.sql_store.time.sleep", lambda seconds: store.renew_worker(worker_id, 60))
    for _ in range(3):
        assert desk.store.reap_workers(desk.worker_id, 5) == []
    monkeypatch.undo()
    store.release_worker(worker_id)
    store.close()


def test_a_slot_of_another_run_of_the_server_says_nothing(server_desk):
    desk, other = server_desk, server_desk.register()
    # A free lock, and the number of another run: after a restart all locks are free
    desk.sql("UPDATE durable_worker SET lock_slot = lock_slot + 1 WHERE worker_id = ?", other)
    assert desk.store._sql.read(lambda: desk.store._workers.has_dead(desk.worker_id)) is not None
    desk.sql("UPDATE durable_worker SET lock_slot = lock_slot + 4294967296 WHERE worker_id = ?", other)
    assert desk.store.reap_workers(desk.worker_id, 5) == []


def test_on_mysql_a_heartbeat_from_before_the_servers_start_says_nothing(server_desk):
    desk, other = server_desk, server_desk.register()
    if desk.store._sql.is_postgresql:
        pytest.skip("PostgreSQL tells the time of its start with the number of the run")
    desk.sql("UPDATE durable_worker SET lock_slot = lock_slot + 1, heartbeat_at = 1 WHERE worker_id = ?", other)
    assert desk.store.reap_workers(desk.worker_id, 5) == []


def test_behind_a_pooler_only_the_lease_counts(server_desk, make_store):
    pooled, worker_id = make_store(server=ServerOptions(sessions="off")), uuid.uuid4().hex
    pooled.register_worker(worker_id, 60)
    assert slot_of(server_desk, worker_id) is None
    assert pooled.renew_worker(worker_id, 60)
    assert server_desk.store.reap_workers(server_desk.worker_id, 5) == []
    pooled.release_worker(worker_id)


def test_where_locks_of_sessions_do_not_hold_there_is_no_sign(make_store, database_url, monkeypatch, caplog):
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has no sessions")
    store, worker_id = make_store(), uuid.uuid4().hex
    monkeypatch.setattr(store._sign, "_take", "SELECT 1 + 0 * %s")
    with caplog.at_level(logging.WARNING):
        store.register_worker(worker_id, 60)
    assert "do not hold" in caplog.text
    assert store._sql.read(lambda: store._sql.value("SELECT lock_slot FROM durable_worker WHERE worker_id = ?", (worker_id,))) is None
    assert store.renew_worker(worker_id, 60)
    store.release_worker(worker_id)
