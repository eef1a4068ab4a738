"""Retention: what is old enough goes, with all it has; what has a parent, is live, is held or is kept by its status stays."""

from __future__ import annotations

import itertools
import threading

import pytest

from flask_durable.core.status import RuntimeStatus
from flask_durable.runtime import retention
from flask_durable.runtime.retention import Retention
from flask_durable.storage import retention as retention_rows
from flask_durable.storage.interface import RaiseEvent, Terminate

HOUR = 3_600_000_000
TABLES = ("durable_instance", "durable_history", "durable_message", "durable_activity", "durable_event_key")


@pytest.fixture
def age(desk, hub):
    """Makes instances as if they had ended so many hours ago."""

    def make(hours, *instance_ids):
        for instance_id in instance_ids:
            changed = desk.sql(
                "UPDATE durable_instance SET completed_at = ? WHERE hub = ? AND instance_id = ?",
                desk.store.now() - round(hours * HOUR),
                hub,
                instance_id,
            )
            assert changed == 1

    return make


@pytest.fixture
def ended(desk, age, hub):
    """Makes an ended instance of that age, perhaps with a parent and another status."""

    def make(instance_id, hours, *, parent=None, status="Completed"):
        desk.begin(instance_id)
        desk.do(Terminate(instance_id))
        desk.sql("UPDATE durable_instance SET status = ?, parent_instance_id = ? WHERE hub = ? AND instance_id = ?", status, parent, hub, instance_id)
        age(hours, instance_id)

    return make


def sweep(desk, hours=1.0, statuses=(RuntimeStatus.COMPLETED,)):
    return Retention(desk.store, dict.fromkeys(statuses, round(hours * HOUR))).sweep()


def kept(desk, hub):
    return sorted(row[0] for row in desk.rows("SELECT instance_id FROM durable_instance WHERE hub = ?", hub))


def test_what_ended_long_ago_goes_with_all_it_has(desk, hub, ended):  # retention
    ended("old", 2)
    ended("young", 0.5)
    desk.do(RaiseEvent(desk.begin("live").instance_id, "Go", dedup_key="k"))
    for table, columns, values in (
        ("durable_event_key", "hub, instance_id, dedup_key, at", (hub, "old", "k", 1)),
        ("durable_message", "hub, instance_id, visible_at, event_type", (hub, "old", 1, "EventRaised")),
    ):
        desk.sql(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", *values)

    assert sweep(desk) == 1
    assert kept(desk, hub) == ["live", "young"]
    for table in TABLES:
        assert desk.rows(f"SELECT 1 FROM {table} WHERE hub = ? AND instance_id = 'old'", hub) == [], table
    assert len(desk.store.load_history("young", 0)) > 0


def test_each_status_has_its_own_age_and_the_others_stay(desk, hub, ended):
    for status in ("Completed", "Failed", "Terminated"):
        ended(f"{status}-3", 3, status=status)
        ended(f"{status}-9", 9, status=status)
    ages = {RuntimeStatus.COMPLETED: 2 * HOUR, RuntimeStatus.FAILED: 5 * HOUR}

    assert Retention(desk.store, ages).sweep() == 3
    assert kept(desk, hub) == ["Failed-3", "Terminated-3", "Terminated-9"]


@pytest.mark.parametrize("parent_status", ["Running", "Failed", "Completed"])
def test_a_child_stays_while_its_parent_is_there(desk, hub, ended, parent_status):  # retention
    if parent_status == "Running":
        desk.begin("parent")
    else:
        ended("parent", 0.1, status=parent_status)
    ended("child", 9, parent="parent")
    ended("grandchild", 9, parent="child")

    assert sweep(desk) == 0
    assert kept(desk, hub) == ["child", "grandchild", "parent"]


def test_when_the_root_has_gone_its_descendants_follow(desk, hub, ended):
    ended("grandchild", 9, parent="child")
    ended("child", 8, parent="root")
    ended("root", 7)

    assert [sweep(desk) for _ in range(4)] == [1, 1, 1, 0]
    assert kept(desk, hub) == []


def test_what_has_not_ended_never_goes(desk, hub):
    desk.begin("running")
    desk.start("pending")
    assert sweep(desk, 1e-9) == 0
    assert kept(desk, hub) == ["pending", "running"]


def test_other_task_hubs_are_left_alone(desk, hub, make_store, ended):  # S1
    ended("old", 9)
    other = make_store(hub=f"{hub}-b")
    assert Retention(other, {RuntimeStatus.COMPLETED: HOUR}).sweep() == 0
    assert kept(desk, hub) == ["old"]


def test_every_one_of_many_is_reached_whatever_lies_between(desk, hub, ended, age, monkeypatch):
    monkeypatch.setattr(retention, "STEP", 3)
    desk.begin("parent")
    for number in range(20):
        ended(f"old-{number:02}", 5, parent="parent" if number % 3 == 0 else None, status="Failed" if number % 4 == 0 else "Completed")
    desk.sql("UPDATE durable_instance SET completed_at = ? WHERE hub = ? AND status = 'Completed'", desk.store.now() - 5 * HOUR, hub)

    gone = {f"old-{number:02}" for number in range(20) if number % 3 and number % 4}
    assert sweep(desk) == len(gone)
    assert set(kept(desk, hub)) == {f"old-{number:02}" for number in range(20)} - gone | {"parent"}


def test_a_long_history_goes_in_slices(desk, hub, monkeypatch):  # retention
    monkeypatch.setattr(retention_rows, "MOST_EVENTS", 10)
    for instance_id, events in (("a", 4), ("b", 35), ("c", 9)):
        desk.begin(instance_id)
        desk.do(Terminate(instance_id))
        there = len(desk.store.load_history(instance_id, 0))
        for sequence in range(there + 1, there + events + 1):
            values = (hub, instance_id, 0, sequence, 1, "EventRaised")
            desk.sql("INSERT INTO durable_history (hub, instance_id, generation, sequence, at, event_type) VALUES (?, ?, ?, ?, ?, ?)", *values)
        columns = "sequence = ?, status = 'Completed', completed_at = 1"
        desk.sql(f"UPDATE durable_instance SET {columns} WHERE hub = ? AND instance_id = ?", there + events, hub, instance_id)

    changed = []
    run = desk.store._sql.run
    monkeypatch.setattr(desk.store._sql, "run", lambda text, values=(): changed.append((text, run(text, values))) or changed[-1][1])
    assert sweep(desk) == 3
    assert kept(desk, hub) == []
    assert desk.rows("SELECT 1 FROM durable_history WHERE hub = ?", hub) == []
    assert max(count for text, count in changed if "durable_history" in text) <= 12


def test_what_was_restarted_or_held_between_look_and_deletion_stays(desk, hub, ended):
    ended("again", 9)
    ended("gone", 9)
    rows = desk.store._retention
    candidates, _ = desk.store._sql.read(lambda: rows.look({RuntimeStatus.COMPLETED: desk.store.now()}, None, 10))
    assert {each.instance_id for each in candidates} == {"again", "gone"}
    desk.sql("UPDATE durable_instance SET status = 'Running', completed_at = NULL WHERE hub = ? AND instance_id = 'again'", hub)

    assert desk.store._sql.transaction(lambda: rows.delete(candidates)) == 1
    assert kept(desk, hub) == ["again"]


def test_a_row_that_somebody_has_locked_is_left_for_the_next_time(desk, hub, ended, database_url, make_store):
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer and no row locks")
    ended("held", 9)
    ended("free", 9)
    other = make_store()
    database = other._sql.database
    with database.connection_context(), database.atomic():
        other._sql.row(f"SELECT 1 FROM durable_instance WHERE hub = ? AND instance_id = 'held'{other._sql.for_update}", (hub,))
        assert sweep(desk) == 1
        assert kept(desk, hub) == ["held"]
    assert sweep(desk) == 1


def test_several_workers_delete_each_instance_once(desk, hub, ended, make_store, monkeypatch):  # retention
    monkeypatch.setattr(retention, "STEP", 5)
    for number in range(40):
        ended(f"old-{number:02}", 5)
    counts, errors = [], []

    def work(store):
        try:
            counts.append(Retention(store, {RuntimeStatus.COMPLETED: HOUR}).sweep())
        except Exception as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(make_store(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.append(sweep(desk))
    assert errors == []
    assert sum(counts) == 40
    assert kept(desk, hub) == []


def test_a_pass_can_be_stopped_after_a_step(desk, ended, monkeypatch):
    monkeypatch.setattr(retention, "STEP", 1)
    for number in range(3):
        ended(f"old-{number}", 5)
    running = Retention(desk.store, {RuntimeStatus.COMPLETED: HOUR})
    step, steps = running._step, itertools.count(1)

    def one_step(*arguments):
        if next(steps) == 2:
            running.stop()
        return step(*arguments)

    monkeypatch.setattr(running, "_step", one_step)
    assert running.sweep() == 2
    assert running.sweep() == 0
