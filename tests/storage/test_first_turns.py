"""A start and its first turn in one commit: the row is inserted as it is after the turn, and is what an insert and an update would have left."""

from __future__ import annotations

import uuid

import pytest

from flask_durable.core.events import ExecutionCompleted, ExecutionStarted, SubOrchestrationCreated, TaskScheduled, TimerCreated
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.turn import NextGeneration
from flask_durable.storage.interface import Batch, StartInstance, record_of_start

SOON, LATER = 10_000_000_000_000_000, 20_000_000_000_000_000
OF_ITS_OWN = ("instance_id", "execution_id", "created_at", "updated_at", "completed_at")
"""Columns that differ between any two instances."""


def batch_of(desk, *events, change=lambda turn: None, keep=True, **options):
    """A start of a new id together with its first turn."""
    command = StartInstance(uuid.uuid4().hex, uuid.uuid4().hex, "orchestrator", input='"x"', tags={"a": "b"}, is_id_generated=True, **options)
    record = record_of_start(command, desk.store.now(), desk.worker_id)
    commit = desk.commit_of(record, ExecutionStarted(record.name, record.instance_id, record.execution_id), *events, keep=keep)
    commit.turn.timers = [event for event in events if isinstance(event, TimerCreated)]
    commit.turn.children = [event for event in events if isinstance(event, SubOrchestrationCreated)]
    commit.claimed_activities = min(1, len(commit.turn.activities))
    change(commit.turn)
    return Batch(worker_id=desk.worker_id, commands=[command], turns=[commit], claimed_starts=frozenset([command.instance_id]))


def row_of(desk, batch):
    cursor = desk.store._sql.read(
        lambda: desk.store._sql.database.execute_sql(
            desk.store._sql._translated("SELECT * FROM durable_instance WHERE instance_id = ?"), (batch.commands[0].instance_id,)
        )
    )
    names = [column[0] for column in cursor.description]
    row = dict(zip(names, cursor.fetchone(), strict=True))
    row["ready_at"] = "now" if row["ready_at"] == row["updated_at"] else row["ready_at"]
    return {name: value for name, value in row.items() if name not in OF_ITS_OWN}


def continue_as_new(turn):
    turn.next_generation = NextGeneration(uuid.uuid4().hex, '"y"', None, ())


def set_custom_status(turn):
    turn.custom_status, turn.custom_status_changed = '"half"', True


CASES = {
    "nothing": {},
    "activities": {"events": (TaskScheduled(1, "one"), TaskScheduled(2, "two"))},
    "timers": {"events": (TimerCreated(1, LATER), TimerCreated(2, SOON))},
    "not kept": {"events": (TimerCreated(1, SOON),), "keep": False},
    "a child": {"events": (SubOrchestrationCreated(1, "child", "c", "e"),)},
    "its end": {"events": (ExecutionCompleted(RuntimeStatus.COMPLETED, '"done"'),), "keep": False},
    "continue as new": {"change": continue_as_new},
    "a custom status": {"change": set_custom_status},
}


@pytest.mark.parametrize("case", CASES)
def test_the_row_is_the_same_as_by_an_update(desk, case):
    options = dict(CASES[case])
    events = options.pop("events", ())
    at_once, one_by_one = (batch_of(desk, *events, **options) for _ in range(2))
    if case == "a child":
        one_by_one.turns[0].turn.children = [SubOrchestrationCreated(1, "child", "d", "f")]
    assert desk.store.commit(at_once).outcomes == [at_once.commands[0].instance_id]
    assert desk.store._commit(one_by_one, is_careful=True).conflicts == []
    assert row_of(desk, at_once) == row_of(desk, one_by_one)


def test_a_timer_of_the_first_turn_wakes_the_instance(desk):
    batch = batch_of(desk, TimerCreated(1, 1), keep=False)
    desk.store.commit(batch)
    assert [work.record.instance_id for work in desk.claim().orchestrations] == [batch.commands[0].instance_id]


def test_no_row_is_updated_or_locked_that_was_just_inserted(desk, monkeypatch):
    sql, seen = desk.store._sql, []
    translated = sql._translated
    monkeypatch.setattr(sql, "_translated", lambda text: seen.append(text) or translated(text))
    desk.store.commit(batch_of(desk, TaskScheduled(1, "one")))
    touching = [text for text in seen if "durable_instance" in text]
    assert [text.split()[0] for text in touching] == ["INSERT"], touching
