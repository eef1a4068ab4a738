"""Decisions that the database makes when many ask at once: threads and processes, on every backend."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections import Counter

import pytest

from flask_durable.core.events import EventRaised, EventSent, ExecutionCompleted, ExecutionStarted, SubOrchestrationCreated, TaskScheduled
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.turn import NextGeneration
from flask_durable.errors import InstanceExistsError, InstanceFinishedError
from flask_durable.storage.interface import ActivityWorkItem, Batch, IfExists, RaiseEvent, Resume, StartInstance, Suspend, Terminate

from .conftest import ALL

STARTER = """
import json, sys, uuid
from flask_durable.storage.interface import Batch, StartInstance, IfExists
from flask_durable.storage.sql_store import SqlStore

url, hub, policy, number = sys.argv[1:]
store = SqlStore(url, hub=hub, timeout=20.0)
print("ready", flush=True)
sys.stdin.readline()
outcomes = []
for each in range(int(number)):
    command = StartInstance(f"race-{each}", uuid.uuid4().hex, "orchestrator", if_exists=IfExists(policy))
    outcome = store.commit(Batch(commands=[command])).outcomes[0]
    outcomes.append(outcome if isinstance(outcome, str) else type(outcome).__name__)
print(json.dumps(outcomes), flush=True)
store.close()
"""


def start_from_many_threads(desk, instance_id, policy, count=8):
    barrier, outcomes = threading.Barrier(count), []

    def start():
        barrier.wait()
        outcomes.append(desk.do(StartInstance(instance_id, uuid.uuid4().hex, "orchestrator", if_exists=policy)))

    threads = [threading.Thread(target=start) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_of_many_starts_one_wins_and_the_others_are_told(desk):  # SCH-2
    outcomes = start_from_many_threads(desk, "one", IfExists.ERROR)
    assert Counter(map(type, outcomes)) == {str: 1, InstanceExistsError: 7}
    assert desk.get("one").status is RuntimeStatus.PENDING


def test_of_many_starts_all_get_the_one_instance(desk):  # SCH-2
    assert start_from_many_threads(desk, "one", IfExists.RETURN) == ["one"] * 8
    assert len(desk.rows("SELECT 1 FROM durable_instance WHERE hub = ?", desk.store._hub)) == 1


@pytest.mark.parametrize("round_number", range(4))
def test_an_ended_instance_is_replaced_once(desk, round_number):  # SCH-2
    desk.start("one")
    desk.do(Terminate("one"))
    before = desk.get("one").execution_id
    outcomes = start_from_many_threads(desk, "one", IfExists.REPLACE_FINISHED)
    assert Counter(map(type, outcomes)) == {str: 1, InstanceExistsError: 7}
    after = desk.get("one")
    assert (after.status, after.execution_id != before) == (RuntimeStatus.PENDING, True)


@pytest.mark.parametrize("policy", list(IfExists))
def test_processes_that_start_the_same_ids_agree(desk, database_url, policy):  # SCH-2
    number, processes = 12, []
    if policy is IfExists.REPLACE_FINISHED:
        for each in range(number):
            desk.start(f"race-{each}")
            desk.do(Terminate(f"race-{each}"))
    for _ in range(3):
        command = [sys.executable, "-c", STARTER, database_url, desk.store._hub, policy.value, str(number)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [json.loads(process.stdout.readline()) for process in processes]
    finally:
        for process in processes:
            process.communicate(timeout=30)
    for each in range(number):
        got = Counter(result[each] for result in results)
        if policy is IfExists.RETURN:
            assert got == {f"race-{each}": 3}
        else:
            assert got == {f"race-{each}": 1, "InstanceExistsError": 2}
        assert desk.get(f"race-{each}").status is RuntimeStatus.PENDING


def continuing(desk, record):
    """A turn in which that instance continues as new."""
    commit = desk.commit_of(record, ExecutionStarted(record.name, record.instance_id, record.execution_id))
    commit.turn.next_generation = NextGeneration("next", None, None)
    return commit


@pytest.mark.parametrize("command", [Terminate, Suspend])
def test_a_command_in_the_batch_of_a_turn_that_continues_wins(desk, command):  # rule 33, MGT-2
    record = desk.claim_one(desk.start())
    committed = desk.store.commit(Batch(worker_id=desk.worker_id, commands=[command(record.instance_id)], turns=[continuing(desk, record)]))
    assert committed.conflicts == [0]
    after = desk.get(record.instance_id)
    assert after.status is (RuntimeStatus.TERMINATED if command is Terminate else RuntimeStatus.SUSPENDED)
    assert after.generation == 0


def test_nothing_after_a_termination_in_its_batch_has_an_effect(desk):  # MGT-2, rule 38
    record = desk.claim_one(desk.start())
    ended = desk.commit_of(
        record, ExecutionStarted(record.name, record.instance_id, record.execution_id), ExecutionCompleted(RuntimeStatus.COMPLETED)
    )
    commands = [Terminate(record.instance_id, '"first"'), RaiseEvent(record.instance_id, "E"), Terminate(record.instance_id, '"second"')]
    committed = desk.store.commit(Batch(worker_id=desk.worker_id, commands=commands, turns=[ended]))
    assert [type(outcome) for outcome in committed.outcomes] == [type(None), InstanceFinishedError, InstanceFinishedError]
    assert (desk.get(record.instance_id).status, desk.get(record.instance_id).output) == (RuntimeStatus.TERMINATED, '"first"')
    assert committed.conflicts == [0]


def test_an_event_sent_to_itself_by_one_that_ends_leaves_nothing(desk):  # EVT-6
    record = desk.claim_one(desk.start())
    commit = desk.commit_of(record, ExecutionCompleted(RuntimeStatus.COMPLETED))
    commit.turn.sent_events = [EventSent(1, record.instance_id, "E"), EventSent(2, "nobody", "E")]
    desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    assert desk.rows("SELECT 1 FROM durable_message WHERE hub = ?", desk.store._hub) == []


def test_two_that_end_in_one_batch_drop_what_they_send_each_other(desk):  # EVT-6
    first, second = desk.start(), desk.start()
    records = {work.record.instance_id: work.record for work in desk.claim().orchestrations}
    turns = []
    for sender, receiver in ((first, second), (second, first)):
        turns.append(desk.commit_of(records[sender], ExecutionCompleted(RuntimeStatus.COMPLETED)))
        turns[-1].turn.sent_events = [EventSent(1, receiver, "E")]
    assert desk.store.commit(Batch(worker_id=desk.worker_id, turns=turns)).conflicts == []
    assert desk.rows("SELECT 1 FROM durable_message WHERE hub = ?", desk.store._hub) == []


def test_events_at_one_moment_keep_their_order(timed_desk):  # rule 20
    record = timed_desk.begin()
    commands = [RaiseEvent(record.instance_id, f"E{number % 3}", str(number)) for number in range(20)]
    timed_desk.store.commit(Batch(commands=commands))
    assert len(set(timed_desk.rows("SELECT visible_at FROM durable_message"))) == 1
    (work,) = timed_desk.claim().orchestrations
    assert [message.event for message in work.messages] == [EventRaised(f"E{number % 3}", str(number)) for number in range(20)]


def test_events_keep_their_order_when_the_clock_goes_back(timed_desk, clock):  # rule 20
    record = timed_desk.begin()
    for number in range(5):
        timed_desk.do(RaiseEvent(record.instance_id, "E", str(number)))
        clock.forward(-0.01)
    clock.forward(10)
    (work,) = timed_desk.claim().orchestrations
    assert [message.event.data for message in work.messages] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("way", ["stops", "is dead", "gives it back"])
def test_calls_of_a_suspended_instance_stay_out_of_the_queue_whatever_their_worker_does(desk, way):  # rule 36
    record = desk.begin(None, TaskScheduled(1, "a"), TaskScheduled(2, "a"), claimed_activities=1)
    desk.do(Suspend(record.instance_id))
    assert desk.claim().activities == []
    other = desk.register()
    if way == "stops":
        desk.store.release_worker(desk.worker_id)
    elif way == "is dead":
        desk.sql("UPDATE durable_worker SET expires_at = 0, lock_slot = NULL WHERE worker_id = ?", desk.worker_id)
        assert desk.store.reap_workers(other, 5) == [desk.worker_id]
    else:
        item = ActivityWorkItem(record.instance_id, record.execution_id, 0, 1, "a", None, 1, 1, 1, {})
        desk.store.commit(Batch(worker_id=desk.worker_id, released_activities=[item]))
    assert desk.claim(other).activities == []
    desk.do(Resume(record.instance_id))
    assert sorted(item.task_id for item in desk.claim(other).activities) == [1, 2]


def test_held_calls_do_not_count_against_a_limit_of_the_hub(desk):  # rules 36, 56
    record = desk.begin(None, TaskScheduled(1, "a"))
    desk.do(Suspend(record.instance_id))
    assert desk.store._sql.read(lambda: desk.store._claims._calls.count_taken("a")) == 0


def test_a_message_that_is_written_while_a_turn_is_committed_makes_the_instance_ready(desk, make_store):  # G: an acknowledged event is not lost
    # Given an instance in the middle of a turn, and another process that has written a message for it and not committed yet
    desk.start("a")
    record = desk.claim_one("a")
    other, is_written, goes_on = make_store(), threading.Event(), threading.Event()

    def deliver():
        def write():
            assert other._inbox.put("a", EventRaised("Go"), other._sql.now())
            is_written.set()
            goes_on.wait(10)

        other._sql.transaction(write)

    delivering = threading.Thread(target=deliver)
    delivering.start()
    assert is_written.wait(10)

    # When the turn is committed at the same time
    committing = threading.Thread(target=desk.turn, args=(record, ExecutionStarted(record.name, "a", record.execution_id)))
    committing.start()
    committing.join(0.3)  # it waits for the other's transaction
    goes_on.set()
    for thread in (delivering, committing):
        thread.join(10)

    # Then whoever comes second sees to it that the message is found
    assert desk.get("a").ready_at is not None
    (work,) = desk.claim().orchestrations
    assert [message.event for message in work.messages] == [EventRaised("Go")]


def test_what_a_worker_claims_while_it_is_released_is_given_back_too(desk, make_store):  # WRK-3
    # Given a worker that has claimed an instance and an activity call, in a transaction that is not committed yet
    desk.begin("b", TaskScheduled(1, "a"))
    desk.start("a")
    other, is_written, goes_on = make_store(), threading.Event(), threading.Event()

    def claim():
        def write():
            other._write(Batch(worker_id=desk.worker_id, claim=ALL), is_careful=False, mark=None)
            is_written.set()
            goes_on.wait(10)

        other._sql.transaction(write)

    claiming = threading.Thread(target=claim)
    claiming.start()
    assert is_written.wait(10)

    # When its row is released at the same time
    releasing = threading.Thread(target=desk.store.release_worker, args=(desk.worker_id,))
    releasing.start()
    releasing.join(0.3)  # it waits for the other's transaction
    goes_on.set()
    for thread in (claiming, releasing):
        thread.join(10)

    # Then nothing belongs to a worker that is no more
    for table in ("durable_instance", "durable_activity"):
        assert desk.rows(f"SELECT 1 FROM {table} WHERE hub = ? AND worker_id IS NOT NULL", desk.store._hub) == []
    claimed = desk.claim(desk.register())
    assert [work.record.instance_id for work in claimed.orchestrations] == ["a"]
    assert [item.task_id for item in claimed.activities] == [1]


def test_a_child_is_made_when_the_one_in_its_place_is_deleted_just_then(desk, monkeypatch):  # rule 41
    # Given an ended instance that is deleted after its id was found in use, and before it was looked at
    desk.start("child")
    desk.do(Terminate("child"))
    turns = desk.store._turns
    insert, attempts = turns._insert_child, []

    def insert_too_soon(row):
        attempts.append(row)
        if len(attempts) == 1:
            turns.delete([("child", desk.store._instances.get("child").execution_id)])
            return False
        return insert(row)

    monkeypatch.setattr(turns, "_insert_child", insert_too_soon)

    # When a turn calls a child of that id
    record = desk.claim_one(desk.start("parent"))
    commit = desk.commit_of(record, ExecutionStarted(record.name, "parent", record.execution_id))
    commit.turn.children = [SubOrchestrationCreated(1, "orchestrator", "child", "e", None)]
    assert desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit])).conflicts == []

    # Then it is made
    assert (desk.get("child").status, desk.get("child").parent_instance_id) == (RuntimeStatus.PENDING, "parent")
    assert desk.rows("SELECT 1 FROM durable_message WHERE hub = ?", desk.store._hub) == []
