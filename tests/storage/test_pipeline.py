"""Statements that are sent together: what they wrote, what is done about their errors, and that nobody waits for them one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flask_durable.core import codec
from flask_durable.core.events import ExecutionStarted, TaskScheduled
from flask_durable.errors import WorkerLostError
from flask_durable.storage import pipeline
from flask_durable.storage.interface import Batch
from flask_durable.storage.turns import TurnRows

STARTED = ExecutionStarted("orchestrator", "a", "execution")
DIFFICULT = ["", "a\x00b", "\\u0000 \\ \" ' \\' %s ? :name {} \n\r\t", "\u2028\ufeff\uffff", "😀\U0010ffff", "a ", {"a": [None, 2**63, -0.0]}, None]


def scheduled(count: int, text: str | None = None) -> list[TaskScheduled]:
    return [TaskScheduled(number, "work", text, 1) for number in range(1, count + 1)]


def test_many_rows_of_one_statement_come_back_to_the_character(desk):
    texts = [codec.encode(value, what="input") for value in DIFFICULT]
    desk.start("a")
    record = desk.claim_one("a")
    events = [TaskScheduled(number, f"näme '{number}\\", text, 1, number) for number, text in enumerate([*texts, None], 1)]
    desk.turn(record, STARTED, *events)
    assert [entry.event for entry in desk.store.load_history("a", 0)][1:] == events
    queued = {item.task_id: (item.name, item.input) for item in desk.claim().activities}
    assert queued == {event.task_id: (event.name, event.input) for event in events}


def test_more_rows_than_are_sent_one_by_one(desk):
    for number in range(40):
        desk.start(f"i-{number:02}")
    records = [work.record for work in desk.claim().orchestrations]
    assert len(records) == 40
    commits = [desk.commit_of(record, STARTED, *scheduled(2), keep=True) for record in records]
    assert not desk.store.commit(Batch(worker_id=desk.worker_id, turns=commits)).conflicts
    assert all(len(desk.store.load_history(record.instance_id, 0)) == 3 for record in records)


def test_one_stale_turn_among_many_is_found(desk):
    for number in range(40):
        desk.start(f"i-{number:02}")
    records = [work.record for work in desk.claim().orchestrations]
    desk.turn(records[7], STARTED, keep=True)
    commits = [desk.commit_of(record, STARTED, *scheduled(2), keep=True) for record in records]
    assert desk.store.commit(Batch(worker_id=desk.worker_id, turns=commits)).conflicts == [7]
    assert [len(desk.store.load_history(record.instance_id, 0)) for record in records] == [3] * 7 + [1] + [3] * 32


def test_nothing_is_left_of_a_turn_whose_worker_is_gone(desk):
    desk.start("a")
    record = desk.claim_one("a")
    desk.store.release_worker(desk.worker_id)
    with pytest.raises(WorkerLostError):
        desk.turn(record, STARTED, *scheduled(3))
    assert desk.store.load_history("a", 0) == []
    desk.worker_id = desk.register()
    desk.turn(desk.claim_one("a"), STARTED, *scheduled(3))
    assert len(desk.store.load_history("a", 0)) == 4


def test_an_error_of_our_own_half_way_leaves_nothing_and_a_connection_that_works(desk, monkeypatch):
    desk.start("a")
    record = desk.claim_one("a")

    def fail(*_: Any) -> None:
        raise RuntimeError("half way")

    with monkeypatch.context() as patch:
        patch.setattr(TurnRows, "_set_timers", fail)
        with pytest.raises(RuntimeError, match="half way"):
            desk.turn(record, STARTED, *scheduled(3))
    assert desk.store.load_history("a", 0) == []
    desk.turn(record, STARTED, *scheduled(3))
    assert len(desk.store.load_history("a", 0)) == 4


def test_a_turn_waits_for_no_single_statement(desk, monkeypatch):
    waits: list[None] = []
    desk.start("a")
    record = desk.claim_one("a")
    desk.store.now()
    monkeypatch.setattr(pipeline._Pipeline, "wait", lambda self: waits.append(None))
    desk.turn(record, STARTED, *scheduled(3), claimed_activities=3, keep=True)
    assert waits == []


def test_rows_too_large_for_one_parameter_go_in_several(desk, database_url, monkeypatch):
    sent: list[str] = []
    original = pipeline._insert_of_rows
    monkeypatch.setattr(pipeline, "_LARGEST", 1000)
    monkeypatch.setattr(pipeline, "_insert_of_rows", lambda text, kinds: sent.append(text) or original(text, kinds))
    desk.start("a")
    events = scheduled(9, json.dumps("x" * 600))
    desk.turn(desk.claim_one("a"), STARTED, *events)
    assert [entry.event.input for entry in desk.store.load_history("a", 0)[1:]] == [event.input for event in events]
    assert sorted(item.task_id for item in desk.claim().activities) == list(range(1, 10))
    if database_url.startswith("postgresql"):
        assert len(sent) >= 2 * 9
