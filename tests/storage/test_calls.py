"""The queue of activity calls: order by priority, limits of names in a process and in the hub, and calls that are begun at most once."""

from __future__ import annotations

import threading

import pytest

from flask_durable.core.events import TaskCompleted, TaskScheduled
from flask_durable.errors import WorkerLostError
from flask_durable.storage.interface import ActivityResult, Batch, ClaimRequest, NameLimit


def queue(desk, *calls):
    """An instance whose first turn made calls, given as name or (name, priority); nobody has them yet."""
    pairs = [(call, 0) if isinstance(call, str) else call for call in calls]
    events = [TaskScheduled(number, name, priority=priority) for number, (name, priority) in enumerate(pairs, 1)]
    record = desk.begin("a", *events)
    # Calls of one turn are queued at the same time, and in no order of their own
    desk.sql("UPDATE durable_activity SET queued_at = queued_at + task_id WHERE hub = ?", desk.store._hub)
    return record


def request(names=(), *limits, most=100):
    return ClaimRequest(activities=most, activity_names=tuple(names), limited=tuple(NameLimit(*limit) for limit in limits))


def names(committed):
    return [item.name for item in committed.activities]


def is_ready(desk, claim):
    return desk.store.peek(desk.worker_id, claim).is_ready


# -- priority


def test_calls_of_a_higher_priority_are_claimed_first_and_the_rest_in_order(desk):  # rule 56
    queue(desk, "one", ("low", -5), ("high", 7), "two", ("low", -5))
    first = desk.claim(request=request(["one", "two", "low", "high"], most=2))
    assert names(first) == ["high", "one"]
    assert [item.priority for item in first.activities] == [7, 0]
    assert names(desk.claim(request=request(["one", "two", "low", "high"]))) == ["two", "low", "low"]


def test_what_a_call_says_of_itself_comes_back_with_its_claim_and_from_the_history(desk):  # rule 56
    given = TaskScheduled(1, "one", "1", 1, 1, -4, 1_500_000)
    again = TaskScheduled(2, "one", "1", 2, 1, 0, 2_000_000)
    plain = TaskScheduled(3, "one", "1", 1, 3)
    record = desk.begin("a", given, again, plain)
    items = {item.task_id: item for item in desk.claim().activities}
    assert [(items[number].priority, items[number].timeout, items[number].attempt) for number in (1, 2, 3)] == [
        (-4, 1_500_000, 1),
        (0, 2_000_000, 2),
        (0, None, 1),
    ]
    assert all(item.worker_id == desk.worker_id and not item.was_begun for item in items.values())
    assert [each.event for each in desk.store.load_history("a", record.generation)][1:] == [given, again, plain]


def test_a_common_call_has_nothing_extra_in_its_row(desk):  # rule 56
    desk.begin("a", TaskScheduled(1, "one", "1", 1, 1))
    assert desk.rows("SELECT extra FROM durable_history WHERE instance_id = 'a' AND event_type = 'TaskScheduled' AND hub = ?", desk.store._hub) == [
        (None,)
    ]


# -- limits in a process


def test_no_more_of_a_limited_name_are_claimed_than_there_is_room_for(desk):  # rule 56
    queue(desk, *["limited"] * 5, "plain", "plain")
    assert sorted(names(desk.claim(request=request(["plain"], ("limited", 2))))) == ["limited", "limited", "plain", "plain"]


def test_a_name_without_room_hides_none_behind_it(desk):  # rule 56
    # Given a long queue of names that have no room, or hardly any, in front of the others
    queue(desk, *["full"] * 30, *["limited"] * 30, *["plain"] * 3)
    claim = request(["plain"], ("full", 0), ("limited", 1), most=3)
    assert is_ready(desk, claim)
    assert names(desk.claim(request=claim)) == ["limited", "plain", "plain"]
    assert names(desk.claim(request=request(["plain"], ("full", 0), ("limited", 0), most=3))) == ["plain"]
    assert not is_ready(desk, request(["plain"], ("full", 0), ("limited", 0)))


def test_a_worker_for_all_names_leaves_those_without_room(desk):  # rule 56
    queue(desk, "full", "any")
    assert names(desk.claim(request=ClaimRequest(activities=9, limited=(NameLimit("full", 0),)))) == ["any"]


# -- limits in the hub


def test_the_calls_that_all_workers_hold_count_for_the_limit_of_the_hub(desk):  # rule 56
    # Given a limit of three, and another worker that holds two
    queue(desk, *["limited"] * 9, "plain")
    other = desk.register()
    assert names(desk.claim(other, request([], ("limited", 2, 3)))) == ["limited"] * 2

    # Then one more is free, whatever the room in the process
    claim = request(["plain"], ("limited", 3, 3))
    assert is_ready(desk, claim)
    assert names(desk.claim(request=claim)) == ["limited", "plain"]
    assert not is_ready(desk, claim)
    assert desk.claim(request=claim).activities == []


def test_a_call_that_ends_makes_room_in_the_same_transaction(desk):  # rule 56
    queue(desk, *["limited"] * 3)
    claim = request([], ("limited", 1, 1))
    (item,) = desk.claim(request=claim).activities
    result = ActivityResult(item, TaskCompleted(item.task_id))
    committed = desk.store.commit(Batch(worker_id=desk.worker_id, results=[result], claim=claim))
    (following,) = committed.activities
    assert following.task_id != item.task_id


def test_calls_of_a_dead_worker_count_until_it_is_reaped(desk):  # rule 56
    queue(desk, *["limited"] * 2)
    dead = desk.register(lease=-1.0)
    claim = request([], ("limited", 1, 1))
    assert len(desk.claim(dead, claim).activities) == 1
    assert desk.claim(request=claim).activities == []
    assert desk.store.reap_workers(desk.worker_id, 5) == [dead]
    assert len(desk.claim(request=claim).activities) == 1


def test_the_limit_of_one_hub_is_not_that_of_another(desk, make_store):  # rule 56
    other = type(desk)(make_store(hub=f"{desk.store._hub}-2"))
    claim = request([], ("limited", 1, 1))
    for each in (desk, other):
        queue(each, "limited")
        assert len(each.claim(request=claim).activities) == 1


def test_workers_that_claim_at_once_never_pass_the_limit_and_reach_it(desk, make_store):  # rule 56
    # Given many workers that claim at the same time, again and again
    queue(desk, *["limited"] * 60, *["other"] * 60)
    stores = [make_store() for _ in range(4)]
    workers = [desk.register() for _ in stores]
    claim = request([], ("limited", 9, 3), ("other", 9, 2))
    barrier, taken = threading.Barrier(len(stores)), []

    def claim_often(store, worker_id):
        barrier.wait(10)
        for _ in range(5):
            taken.extend(names(store.commit(Batch(worker_id=worker_id, claim=claim))))

    threads = [threading.Thread(target=claim_often, args=pair) for pair in zip(stores, workers, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    # Then they hold, together, as many as there may be
    assert sorted(taken) == ["limited"] * 3 + ["other"] * 2


# -- calls that are begun at most once


def test_only_the_worker_that_holds_a_call_begins_it(desk):  # rule 54
    queue(desk, "one")
    (item,) = desk.claim().activities
    assert not desk.store.begin_activity(desk.register(), item, 5)
    assert desk.store.begin_activity(desk.worker_id, item, 5)
    assert desk.store.begin_activity(desk.worker_id, item, 5)  # the same beginning, whose answer was lost
    assert not desk.store.begin_activity(desk.worker_id, item, 6)


@pytest.mark.parametrize("how", ["reaped", "released"])
def test_a_call_that_was_begun_says_so_to_the_next_worker(desk, how):  # rule 54
    queue(desk, "begun", "queued")
    first = desk.register(lease=-1.0 if how == "reaped" else 60.0)
    items = {item.name: item for item in desk.claim(first).activities}
    assert desk.store.begin_activity(first, items["begun"], 5)
    if how == "reaped":
        assert desk.store.reap_workers(desk.worker_id, 5) == [first]
    else:
        desk.store.release_worker(first)
    assert not desk.store.begin_activity(first, items["queued"], 5)
    assert {item.name: item.was_begun for item in desk.claim().activities} == {"begun": True, "queued": False}


def test_a_call_that_was_begun_is_not_taken_for_poison(desk):  # rule 54, rule 9
    queue(desk, "begun")
    dead = desk.register(lease=-1.0)
    (item,) = desk.claim(dead).activities
    assert desk.store.begin_activity(dead, item, 5)
    desk.store.reap_workers(desk.worker_id, 1)
    assert desk.get("a").parked_reason is None
    (item,) = desk.claim(request=ClaimRequest(activities=9, max_deliveries=1)).activities
    assert item.was_begun


def test_calls_are_given_back_only_by_the_worker_that_holds_them(desk):  # WRK-2
    queue(desk, "one")
    (item,) = desk.claim().activities
    other = desk.register()
    desk.store.commit(Batch(worker_id=other, released_activities=[item]))
    assert desk.claim(other).activities == []
    desk.store.commit(Batch(worker_id=desk.worker_id, released_activities=[item]))
    (again,) = desk.claim(other).activities
    assert again.deliveries == 1


def test_a_lost_worker_claims_nothing_limited(desk):  # DESIGN 3.2
    queue(desk, "limited")
    with pytest.raises(WorkerLostError):
        desk.claim("nobody", request([], ("limited", 1, 1)))
