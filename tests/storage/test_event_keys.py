"""De-duplication keys of external events: the database decides, on every backend."""

from __future__ import annotations

import threading

import pytest

from flask_durable.core.events import ExecutionCompleted
from flask_durable.core.status import RuntimeStatus
from flask_durable.errors import InstanceFinishedError, InstanceNotFoundError
from flask_durable.storage.interface import IfExists, Purge, RaiseEvent, StartInstance, Terminate


def messages(desk, instance_id):
    return [
        row[0]
        for row in desk.rows("SELECT name FROM durable_message WHERE hub = ? AND instance_id = ? ORDER BY message_id", desk.store._hub, instance_id)
    ]


def keys(desk, instance_id):
    return sorted(
        row[0] for row in desk.rows("SELECT dedup_key FROM durable_event_key WHERE hub = ? AND instance_id = ?", desk.store._hub, instance_id)
    )


def test_a_second_event_with_the_same_key_is_accepted_and_dropped(desk):  # rule 23
    instance_id = desk.start()
    assert [desk.do(RaiseEvent(instance_id, "E", "1", key)) for key in ("a", "a", "A", None, None)] == [None] * 5
    assert messages(desk, instance_id) == ["E"] * 4
    assert keys(desk, instance_id) == ["A", "a"]


def test_a_key_belongs_to_its_instance(desk):  # rule 23
    first, second = desk.start(), desk.start()
    for instance_id in (first, second):
        desk.do(RaiseEvent(instance_id, "E", None, "a"))
    assert (messages(desk, first), messages(desk, second)) == (["E"], ["E"])


def test_an_event_that_is_refused_uses_no_key(desk):  # rules 23, 24
    assert isinstance(desk.do(RaiseEvent("nobody", "E", None, "a")), InstanceNotFoundError)
    instance_id = desk.start()
    desk.do(RaiseEvent(instance_id, "E", None, "used"))
    desk.do(Terminate(instance_id))
    assert isinstance(desk.do(RaiseEvent(instance_id, "E", None, "new")), InstanceFinishedError)
    assert keys(desk, instance_id) == ["used"]


def test_a_repeated_event_is_answered_alike_after_the_end(desk):  # rule 23
    instance_id = desk.start()
    assert desk.do(RaiseEvent(instance_id, "E", None, "a")) is None
    desk.end(instance_id)
    assert desk.do(RaiseEvent(instance_id, "E", None, "a")) is None
    assert messages(desk, instance_id) == []


@pytest.mark.parametrize("way", ["purge", "replace"])
def test_keys_go_with_their_instance(desk, way):  # rule 23
    instance_id = desk.start()
    desk.do(RaiseEvent(instance_id, "E", None, "a"))
    desk.do(Terminate(instance_id))
    if way == "purge":
        assert desk.do(Purge(instance_id)) == 1
        assert keys(desk, instance_id) == []
        desk.start(instance_id)
    else:
        desk.do(StartInstance(instance_id, "another", "orchestrator", if_exists=IfExists.REPLACE_FINISHED))
    desk.do(RaiseEvent(instance_id, "E", None, "a"))
    assert messages(desk, instance_id) == ["E"]


def test_of_many_at_once_one_counts(desk, make_store):  # rule 23
    instance_id = desk.start()
    barrier, outcomes = threading.Barrier(8), []

    def send():
        barrier.wait()
        for number in range(5):
            outcomes.append(desk.do(RaiseEvent(instance_id, "E", None, f"key-{number}")))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [None] * 40
    assert messages(desk, instance_id) == ["E"] * 5


def test_keys_outlive_a_generation(desk):  # rules 23, 31
    record = desk.begin()
    desk.do(RaiseEvent(record.instance_id, "E", None, "a"))
    record = desk.claim_one(record.instance_id)
    desk.turn(record, ExecutionCompleted(RuntimeStatus.CONTINUED_AS_NEW))
    assert desk.do(RaiseEvent(record.instance_id, "E", None, "a")) is None
    assert keys(desk, record.instance_id) == ["a"]
