"""What a store does with failed instances: what it keeps of them, and how it rewinds them."""

from __future__ import annotations

import pytest

from flask_durable.core.events import (
    EventRaised,
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
)
from flask_durable.core.failure import FailureDetails
from flask_durable.core.rewind import Message
from flask_durable.core.status import RuntimeStatus
from flask_durable.errors import CorruptHistoryError, InstanceFinishedError, InstanceNotFailedError, InstanceNotFoundError
from flask_durable.storage.interface import ActivityResult, Batch, FailInstance, Purge, RaiseEvent, Rewind, Terminate

BOOM = FailureDetails("builtins.ValueError", "boom")
FAILED = ExecutionCompleted(RuntimeStatus.FAILED, None, BOOM, (1,), (), 4)
CALLS = (TaskScheduled(1, "a"), TaskScheduled(2, "b"))


@pytest.fixture
def failed(desk):
    """An instance that failed at its first of two calls; the second one is in the queue, or runs here."""

    def make(instance_id="i", *, running=2):
        record = desk.begin(instance_id, *CALLS, claimed_activities=running, keep=True)
        turn = desk.commit_of(record, TaskFailed(1, BOOM), FAILED, results=[])
        turn.turn.open_activities = 1
        item = next((each for each in desk.claim().activities if each.task_id == 1), None) or item_of(desk, record, 1)
        turn.results = [ActivityResult(item, TaskFailed(1, BOOM))]
        assert desk.store.commit(Batch(worker_id=desk.worker_id, turns=[turn])).conflicts == []
        return desk.get(instance_id)

    return make


def item_of(desk, record, task_id):
    from flask_durable.runtime.turns import call_of

    return call_of(record, next(call for call in CALLS if call.task_id == task_id), desk.worker_id)


def rows(desk, instance_id="i"):
    return desk.rows(
        "SELECT task_id, worker_id FROM durable_activity WHERE hub = ? AND instance_id = ? ORDER BY task_id", desk.store._hub, instance_id
    )


def inbox(desk, instance_id="i"):
    return [message.event for message in desk.store._sql.read(lambda: desk.store._inbox.all(instance_id))]


def test_a_failed_instance_keeps_the_calls_that_run_and_their_results(desk, failed):  # REW-3
    record = failed()
    assert rows(desk) == [(2, desk.worker_id)]
    assert not desk.store.is_activity_current(record.execution_id, 2)
    late = ActivityResult(item_of(desk, record, 2), TaskCompleted(2, '"late"'))
    desk.store.commit(Batch(worker_id=desk.worker_id, results=[late]))
    assert rows(desk) == []
    assert inbox(desk) == [TaskCompleted(2, '"late"')]
    assert desk.get("i").ready_at is None
    assert desk.claim().orchestrations == []


def test_a_failed_instance_takes_no_events(desk, failed):
    failed()
    assert isinstance(desk.do(RaiseEvent("i", "E")), InstanceFinishedError)
    assert inbox(desk) == []


@pytest.mark.parametrize("how", ["release", "reap"])
def test_a_call_of_a_failed_instance_that_is_given_back_is_begun_by_nobody(desk, failed, how):  # REW-3
    failed()
    worker_id, other = desk.worker_id, desk.register()
    if how == "release":
        desk.store.release_worker(worker_id)
    else:
        desk.sql("UPDATE durable_worker SET expires_at = 0 WHERE worker_id = ?", worker_id)
        assert worker_id in desk.store.reap_workers(other, 5)
    assert rows(desk) == []
    assert desk.claim(other).activities == []
    desk.do(Rewind("i"))
    assert sorted(item.task_id for item in desk.claim(other).activities) == [1, 2]


def test_a_call_that_was_given_back_while_its_instance_failed_goes_with_the_next_claim(desk, failed):
    failed()
    desk.sql("UPDATE durable_activity SET worker_id = NULL WHERE hub = ?", desk.store._hub)
    assert desk.claim().activities == []
    assert rows(desk) == []


def test_released_calls_of_a_failed_instance_are_dropped(desk, failed):
    record = failed()
    desk.store.commit(Batch(worker_id=desk.worker_id, released_activities=[item_of(desk, record, 2)]))
    assert rows(desk) == []


def test_a_rewound_instance_is_as_if_it_had_not_failed(desk, failed):  # REW-2, REW-3, REW-5
    before = failed()
    assert desk.do(Rewind("i", '"why"')) is None
    record = desk.get("i")
    assert (record.status, record.failure, record.output, record.completed_at, record.deliveries) == (RuntimeStatus.RUNNING, None, None, None, 0)
    assert (record.sequence, record.execution_id, record.has_started) == (before.sequence + 1, before.execution_id, True)
    assert record.ready_at is not None
    assert rows(desk) == [(1, None), (2, desk.worker_id)]
    history = desk.store.load_history("i", 0)
    assert history[-1].event == ExecutionRewound('"why"', 4, (1,), 2)
    assert [each.sequence for each in history] == list(range(1, before.sequence + 2))


def test_a_rewind_is_refused_unless_the_instance_has_failed(desk, failed):  # REW-1
    assert isinstance(desk.do(Rewind("nobody")), InstanceNotFoundError)
    desk.start("p")
    refused = desk.do(Rewind("p"))
    assert isinstance(refused, InstanceNotFailedError)
    assert (refused.instance_id, refused.status) == ("p", "Pending")
    desk.do(Terminate("p"))
    assert isinstance(desk.do(Rewind("p")), InstanceNotFailedError)
    failed()
    assert [type(desk.do(Rewind("i"))) for _ in range(2)] == [type(None), InstanceNotFailedError]
    assert desk.store.commit(Batch(commands=[Rewind("i"), Purge("i")])).outcomes[0].code == "instance_not_failed"


def test_an_instance_that_could_not_be_started_begins_anew(desk):  # rule 45
    desk.start("i")
    desk.do(RaiseEvent("i", "E", "1"))
    desk.do(FailInstance("i", BOOM))
    assert inbox(desk) == [EventRaised("E", "1")]
    assert desk.do(Rewind("i")) is None
    [work] = desk.claim().orchestrations
    assert not work.record.has_started
    assert [message.event for message in work.messages] == [EventRaised("E", "1")]


def test_a_history_that_cannot_be_read_refuses_the_whole_family(desk):  # REW-4, I13
    child = SubOrchestrationCreated(1, "c", "child", "x1")
    record = desk.begin("i", keep=True)
    turn = desk.commit_of(record, child)
    turn.turn.children = [child]
    turn.keep = True
    desk.store.commit(Batch(worker_id=desk.worker_id, turns=[turn]))
    desk.do(FailInstance("child", BOOM))
    record = desk.claim_one("i")
    desk.turn(record, SubOrchestrationFailed(1, BOOM), ExecutionCompleted(RuntimeStatus.FAILED, None, BOOM, (1,), (), 3))
    desk.sql("UPDATE durable_history SET event_type = 'Nonsense' WHERE hub = ? AND instance_id = 'child'", desk.store._hub)
    before = desk.get("i")
    assert isinstance(desk.do(Rewind("i")), CorruptHistoryError)
    assert desk.get("i") == before
    assert desk.get("child").status is RuntimeStatus.FAILED


def test_an_inbox_can_be_read_and_replaced_in_order(desk):  # rule 20
    record = desk.begin("i")
    messages = [Message(5, EventRaised("E", "1")), Message(3, TimerFired(1, 3)), Message(5, TaskCompleted(2)), Message(9, EventRaised("E", "2"))]
    desk.store._sql.transaction(lambda: desk.store._inbox.replace("i", record.execution_id, messages))
    assert desk.store._sql.read(lambda: desk.store._inbox.all("i")) == messages


def test_the_events_for_a_rewind_survive_the_tables(desk):  # REW-5
    desk.begin("i", ExecutionRewound('"r"', 7, (1, 2), 9))
    desk.do(RaiseEvent("i", "E"))
    completed = ExecutionCompleted(RuntimeStatus.FAILED, None, BOOM, (3,), (4, 5), 6)
    desk.turn(desk.claim_one("i"), completed)
    assert [each.event for each in desk.store.load_history("i", 0)][1:] == [ExecutionRewound('"r"', 7, (1, 2), 9), completed]


def test_a_failure_from_before_there_were_rewinds_can_be_read(desk):
    desk.begin("i", ExecutionStarted("n", "i", "e"))
    desk.sql(
        "INSERT INTO durable_history (hub, instance_id, generation, sequence, at, event_type, extra) VALUES (?, 'i', 0, 9, 1, 'ExecutionCompleted', ?)",
        desk.store._hub,
        '{"status":"Failed"}',
    )
    assert desk.store.load_history("i", 0)[-1].event == ExecutionCompleted(RuntimeStatus.FAILED)
