"""What every store does, on every database: commands, turns, claims, fencing, reaping."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace

import pytest
from support import until

from flask_durable.core.capabilities import Capabilities, Runnable
from flask_durable.core.events import (
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    SubOrchestrationCompleted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.turn import NextGeneration
from flask_durable.core.versions import VersionMatch, VersionRule, version_key
from flask_durable.errors import InstanceExistsError, InstanceFinishedError, InstanceNotFinishedError, InstanceNotFoundError, WorkerLostError
from flask_durable.storage.interface import (
    ActivityResult,
    Batch,
    ClaimRequest,
    FailInstance,
    IfExists,
    InstanceFilter,
    Order,
    Park,
    Purge,
    PurgeBy,
    RaiseEvent,
    Resume,
    StartInstance,
    Suspend,
    Terminate,
)

COMPLETED = ExecutionCompleted(RuntimeStatus.COMPLETED, '"out"')


def events_of(desk, instance_id, generation=0):
    return [recorded.event for recorded in desk.store.load_history(instance_id, generation)]


# -- starting


def test_a_started_instance_is_as_it_was_asked_for(desk):
    before = desk.store.now()
    desk.start("a", input='{"k":[1]}', version="2", tags={"b": "2", "a": "1"}, trace={"traceparent": "00-1"}, restarted_from="old")
    record = desk.get("a")
    assert (record.instance_id, record.name, record.status, record.input, record.version) == (
        "a",
        "orchestrator",
        RuntimeStatus.PENDING,
        '{"k":[1]}',
        "2",
    )
    assert (record.tags, record.trace, record.restarted_from) == ({"a": "1", "b": "2"}, {"traceparent": "00-1"}, "old")
    assert (record.generation, record.sequence, record.has_started, record.worker_id, record.deliveries) == (0, 0, False, None, 0)
    assert before <= record.created_at == record.updated_at <= desk.store.now()
    assert record.completed_at is record.output is record.custom_status is record.failure is record.parked_reason is None


def test_an_id_in_use_is_an_error_as_a_value(desk):
    desk.start("a")
    committed = desk.store.commit(Batch(commands=[StartInstance("a", "other", "x"), StartInstance("b", "another", "x")]))
    assert isinstance(committed.outcomes[0], InstanceExistsError)
    assert committed.outcomes[1] == "b"
    assert desk.get("a").name == "orchestrator"


def test_the_same_start_again_is_the_same_start(desk):
    command = StartInstance("a", "execution", "x")
    assert [desk.do(command), desk.do(command)] == ["a", "a"]
    assert desk.store.count_instances(InstanceFilter()) == 1


def test_if_exists_decides_what_a_second_start_does(desk):
    desk.start("a", input="1")
    assert desk.do(StartInstance("a", "e2", "x", if_exists=IfExists.RETURN)) == "a"
    assert isinstance(desk.do(StartInstance("a", "e3", "x", if_exists=IfExists.REPLACE_FINISHED)), InstanceExistsError)
    assert desk.get("a").input == "1"
    desk.do(Terminate("a"))
    assert desk.do(StartInstance("a", "e4", "x", input="2", if_exists=IfExists.REPLACE_FINISHED)) == "a"
    record = desk.get("a")
    assert (record.input, record.status, record.sequence, record.execution_id) == ("2", RuntimeStatus.PENDING, 0, "e4")
    assert events_of(desk, "a") == []


@pytest.mark.parametrize("name", ["x", "naïve", "\N{SNOWMAN}\N{GRINNING FACE}", "a'b\"c", "%_!", "x" * 100])
def test_texts_come_back_as_they_were(desk, name):  # B4, B5
    payload = f'"{name}\\u0000"' if '"' not in name else '"x"'
    desk.start(name, name=name, input=payload, tags={name: name})
    record = desk.get(name)
    assert (record.instance_id, record.name, record.input, record.tags) == (name, name, payload, {name: name})


def test_a_large_payload_comes_back_whole(desk):  # B4
    payload = '"' + "\N{SNOWMAN}x" * 500_000 + '"'
    desk.start("large", input=payload)
    assert desk.get("large").input == payload


def test_ids_differ_by_case_and_by_trailing_blanks(desk):  # B5
    ids = ["a", "A", "a ", "á", "a\u0301"]
    for instance_id in ids:
        desk.start(instance_id, input=f'"{instance_id}"')
    assert [desk.get(instance_id).input for instance_id in ids] == [f'"{instance_id}"' for instance_id in ids]


def test_hubs_on_one_database_do_not_see_each_other(desk, make_store):
    other = make_store(hub=f"other-{uuid.uuid4().hex[:8]}")
    desk.start("a")
    assert other.get_instance("a") is None
    assert other.count_instances(InstanceFilter()) == 0
    assert isinstance(other.commit(Batch(commands=[Terminate("a")])).outcomes[0], InstanceNotFoundError)
    worker_id = uuid.uuid4().hex
    other.register_worker(worker_id, 60)
    assert other.commit(Batch(worker_id=worker_id, claim=ClaimRequest(instances=10))).orchestrations == []
    assert [worker.worker_id for worker in other.workers()] == [worker_id]
    other.release_worker(worker_id)


# -- claims


def test_a_claim_takes_what_is_ready_once(desk):
    first, second = desk.worker_id, desk.register()
    desk.start("a")
    desk.start("b", start_at=desk.store.now() + 3_600_000_000)
    assert [work.record.instance_id for work in desk.claim(first).orchestrations] == ["a"]
    assert desk.claim(second).orchestrations == []
    record = desk.get("a")
    assert (record.worker_id, record.deliveries) == (first, 1)


def test_a_claim_takes_the_oldest_first_and_no_more_than_asked_for(desk):
    made = [desk.start() for _ in range(5)]
    committed = desk.claim(request=ClaimRequest(instances=3))
    assert [work.record.instance_id for work in committed.orchestrations] == made[:3]
    assert committed.has_more
    second = desk.register()
    rest = desk.claim(second, ClaimRequest(instances=3))
    assert [work.record.instance_id for work in rest.orchestrations] == made[3:]
    assert not rest.has_more


def test_a_claim_takes_only_known_names(desk):
    desk.start("a", name="known")
    desk.start("b", name="other")
    known, others = Runnable(("known", "more")), Runnable(("other",))
    assert claimed(desk, Runnable(())) == []
    assert claimed(desk, known) == ["a"]
    assert left_over(desk, [known]) == ["b"]
    assert left_over(desk, [Runnable(())]) == ["b"]
    assert left_over(desk, [known, others]) == []
    assert left_over(desk, [known], ready_before=desk.store.now() - 60_000_000) == []


def claimed(desk, runnable, worker_id=None):
    return [work.record.instance_id for work in desk.claim(worker_id, ClaimRequest(instances=10, runnable=runnable)).orchestrations]


def left_over(desk, takers, bounds=None, ready_before=None):
    return [each.instance_id for each in desk.store.unclaimable(takers, bounds, ready_before or desk.store.now(), 10)]


@pytest.mark.parametrize(
    ("runnable", "expected"),
    [
        (Runnable(), ["none", "1.9", "1.10", "2", "Beta"]),
        (Runnable(bounds=("", version_key("1.9"))), ["none", "1.9"]),
        (Runnable(bounds=(version_key("1.10"), version_key("01.10"))), ["1.10"]),
        (Runnable(bounds=("", "")), ["none"]),
        (Runnable(bounds=("", version_key("alpha"))), ["none", "1.9", "1.10", "2"]),
        (Runnable(("order",), {"order": version_key("1.10")}), ["1.10", "2", "Beta"]),
        (Runnable(("order", "other"), {"order": version_key("1.10"), "other": version_key("1")}, ("", version_key("2"))), ["1.10", "2"]),
        (Runnable(("other", "order")), ["none", "1.9", "1.10", "2", "Beta"]),
        (Runnable(("other",), {"other": version_key("1")}), []),
    ],
)
def test_a_claim_takes_only_versions_that_fit(desk, runnable, expected):  # VER-2, rules 49, 50
    for version in ("none", "1.9", "1.10", "2", "Beta"):
        desk.start(version, name="order", version=None if version == "none" else version)
    rest = [each for each in ("none", "1.9", "1.10", "2", "Beta") if each not in expected]
    assert desk.store.peek(desk.worker_id, ClaimRequest(instances=10, runnable=runnable)).is_ready is bool(expected)
    assert left_over(desk, [runnable]) == rest
    assert claimed(desk, runnable) == expected
    assert claimed(desk, Runnable(), desk.register()) == rest


def test_instances_that_nobody_takes_can_be_asked_for_within_versions(desk):  # VER-3
    desk.start("old", name="order", version="1")
    desk.start("new", name="order", version="2")
    assert left_over(desk, [Runnable(())], ("", version_key("1"))) == ["old"]


def test_the_version_of_a_child_and_of_a_new_generation_decides_who_takes_it(desk):  # VER-2, rule 49
    record = desk.claim_one(desk.start("a"))
    commit = desk.commit_of(record, ExecutionStarted("orchestrator", "a", record.execution_id))
    commit.turn.children = [SubOrchestrationCreated(1, "child", "c", "child-execution", None, "1.10", tags={"k": "v"})]
    commit.turn.next_generation = NextGeneration("next-execution", None, "1.9")
    desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    assert (desk.get("c").version, desk.get("c").tags, desk.get("a").version) == ("1.10", {"k": "v"}, "1.9")
    assert claimed(desk, Runnable(bounds=("", version_key("1.9")))) == ["a"]
    assert claimed(desk, Runnable(bounds=("", version_key("1.10"))), desk.register()) == ["c"]


def test_workers_say_what_they_run(desk):  # REG-5, WRK-5
    first, second = (
        Capabilities({"order": (None, "2")}, frozenset({"pack"}), VersionRule("2", VersionMatch.STRICT), True, True, False),
        Capabilities({}, frozenset()),
    )
    worker_id = uuid.uuid4().hex
    desk.store.register_worker(worker_id, 60, first)
    said = {each.worker_id: each.capabilities for each in desk.store.live_workers()}
    assert said == {desk.worker_id: Capabilities(), worker_id: first}
    assert desk.store.renew_worker(worker_id, 60)
    assert desk.store.renew_worker(desk.worker_id, 0.001, second)
    assert {each.worker_id: each.capabilities for each in desk.store.workers()} == {desk.worker_id: second, worker_id: first}
    until(lambda: [each.worker_id for each in desk.store.live_workers()] == [worker_id])


def test_a_look_says_what_a_claim_would_find(desk):
    request = ClaimRequest(instances=10, activities=10)
    look = desk.store.peek(desk.worker_id, request)
    assert (look.is_ready, look.next_due) == (False, None)
    soon = desk.store.now() + 3_600_000_000
    desk.start("later", start_at=soon)
    look = desk.store.peek(desk.worker_id, request)
    assert (look.is_ready, look.next_due) == (False, soon)
    desk.start("now")
    assert desk.store.peek(desk.worker_id, request).is_ready
    assert not desk.store.peek(desk.worker_id, replace(request, runnable=Runnable(("another",)))).is_ready


def test_many_workers_that_claim_at_once_get_different_work(desk):  # I2
    made = [desk.start() for _ in range(40)]
    workers = [desk.register() for _ in range(4)]
    gate = threading.Barrier(4, timeout=15)
    claimed = []

    def claim(worker_id):
        gate.wait()
        for _ in range(10):
            committed = desk.claim(worker_id, ClaimRequest(instances=5))
            claimed.extend(work.record.instance_id for work in committed.orchestrations if work.record.worker_id is None)

    threads = [threading.Thread(target=claim, args=(worker_id,)) for worker_id in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == made


def test_a_start_can_be_claimed_in_the_same_commit(desk):
    batch = Batch(worker_id=desk.worker_id, commands=[StartInstance("a", "e", "known")], claimed_starts=frozenset({"a"}))
    committed = desk.store.commit(batch)
    assert [record.instance_id for record in committed.started] == ["a"]
    assert committed.started[0] == desk.get("a")
    assert desk.claim(desk.register()).orchestrations == []


# -- turns


def test_a_turn_writes_all_that_follows_from_it(desk):  # DET-12
    target = desk.start("target")
    desk.claim_one(target)
    instance_id = desk.start("a", version="1")
    record = desk.get(instance_id)
    record = desk.claim_one("a")
    far = desk.store.now() + 3_600_000_000
    started = ExecutionStarted("orchestrator", "a", record.execution_id, version="1", tags={"k": "v"})
    commit = desk.commit_of(
        record,
        started,
        TaskScheduled(1, "one", "1", 1, 1),
        TaskScheduled(2, "two", None, 2, 1),
        TimerCreated(3, far),
        SubOrchestrationCreated(4, "child", "the-child", "child-execution", '"in"', "9", tags={"k": "v"}),
        EventSent(5, "target", "Go", '"data"'),
        claimed_activities=1,
        keep=True,
    )
    turn = commit.turn
    turn.timers, turn.children, turn.sent_events = [turn.events[3]], [turn.events[4]], [turn.events[5]]
    turn.custom_status, turn.custom_status_changed = '"status"', True
    committed = desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    assert (committed.conflicts, committed.ended) == ([], [])

    # the instance
    after = desk.get("a")
    assert (after.status, after.sequence, after.has_started, after.custom_status) == (RuntimeStatus.RUNNING, 6, True, '"status"')
    assert (after.worker_id, after.deliveries, after.ready_at) == (desk.worker_id, 0, far)

    # its history, each event with its number and the time of the turn
    history = desk.store.load_history("a", 0)
    assert [(each.sequence, each.at) for each in history] == [(number, turn.at) for number in range(1, 7)]
    assert [each.event for each in history] == turn.events

    # the calls: one is kept by the worker, one is for everybody
    claimed = desk.claim(desk.register()).activities
    assert [(item.task_id, item.name, item.input, item.attempt, item.first_task_id, item.deliveries) for item in claimed] == [
        (2, "two", None, 2, 1, 1)
    ]
    assert (claimed[0].instance_id, claimed[0].execution_id, claimed[0].generation) == ("a", record.execution_id, 0)

    # the child
    child = desk.get("the-child")
    assert (child.name, child.version, child.input, child.status) == ("child", "9", '"in"', RuntimeStatus.PENDING)
    assert (child.parent_instance_id, child.parent_execution_id, child.parent_task_id) == ("a", record.execution_id, 4)


def test_messages_come_in_order_of_arrival_and_are_consumed_by_a_turn(desk):  # rule 20
    record = desk.begin("a")
    for number in range(5):
        desk.do(RaiseEvent("a", "Go", str(number)))
    work = desk.claim().orchestrations[0]
    assert [message.event for message in work.messages] == [EventRaised("Go", str(number)) for number in range(5)]
    consumed = work.messages[:2]
    desk.turn(work.record, *(message.event for message in consumed), messages=[message.message_id for message in consumed])
    rest = desk.claim().orchestrations[0]
    assert rest.record.sequence == record.sequence + 2
    assert [message.event.data for message in rest.messages] == ["2", "3", "4"]


def test_a_held_instance_with_a_new_message_comes_back_to_its_holder(desk):
    desk.begin("a", TaskScheduled(1, "one"), keep=True, claimed_activities=1)
    assert desk.claim().orchestrations == []
    desk.do(RaiseEvent("a", "Go"))
    assert desk.claim(desk.register()).orchestrations == []
    assert [work.record.instance_id for work in desk.claim().orchestrations] == ["a"]


def test_a_timer_is_a_message_that_becomes_visible(timed_desk, clock):  # rules 16, 19
    desk = timed_desk
    fire_at = clock.micros + 10_000_000
    desk.start("a")
    record = desk.claim_one("a")
    commit = desk.commit_of(record, ExecutionStarted("orchestrator", "a", record.execution_id), TimerCreated(1, fire_at))
    commit.turn.timers = [commit.turn.events[1]]
    desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    assert desk.store.peek(desk.worker_id, ClaimRequest(instances=1)).next_due == fire_at
    clock.forward(9)
    assert desk.claim().orchestrations == []
    clock.forward(2)
    work = desk.claim().orchestrations[0]
    assert [message.event for message in work.messages] == [TimerFired(1, fire_at)]


def test_a_cancelled_timer_is_gone(timed_desk, clock):  # rule 17
    desk = timed_desk
    desk.start("a")
    record = desk.claim_one("a")
    commit = desk.commit_of(record, ExecutionStarted("orchestrator", "a", record.execution_id), TimerCreated(1, clock.micros + 1_000_000))
    commit.turn.timers, commit.turn.cancelled_timers = [commit.turn.events[1]], [1]
    desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    clock.forward(5)
    assert desk.claim().orchestrations == []
    assert desk.get("a").ready_at is None


def test_events_that_come_after_a_timer_is_due_come_after_it(timed_desk, clock):  # rule 36
    desk = timed_desk
    desk.start("a")
    record = desk.claim_one("a")
    commit = desk.commit_of(record, ExecutionStarted("orchestrator", "a", record.execution_id), TimerCreated(1, clock.micros + 1_000_000))
    commit.turn.timers = [commit.turn.events[1]]
    desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    desk.do(RaiseEvent("a", "Before"))
    clock.forward(2)
    desk.do(RaiseEvent("a", "After"))
    clock.forward(-10)
    desk.do(RaiseEvent("a", "Clock set back"))
    clock.forward(20)
    events = [message.event for message in desk.claim().orchestrations[0].messages]
    assert [getattr(event, "name", "timer") for event in events] == ["Before", "timer", "After", "Clock set back"]


def test_an_ended_instance_leaves_nothing_behind_but_its_history(desk):  # rule 15
    record = desk.begin("a", TaskScheduled(1, "one"))
    desk.do(RaiseEvent("a", "Go", "1"))
    work = desk.claim().orchestrations[0]
    commit = desk.commit_of(work.record, COMPLETED)
    commit.turn.open_activities = 1
    committed = desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    assert committed.ended == ["a"]
    after = desk.get("a")
    assert (after.status, after.output, after.worker_id, after.ready_at) == (RuntimeStatus.COMPLETED, '"out"', None, None)
    assert after.completed_at is not None
    assert not desk.store.is_activity_current(record.execution_id, 1)
    assert desk.claim().activities == []
    assert isinstance(desk.do(RaiseEvent("a", "Go")), InstanceFinishedError)
    assert events_of(desk, "a")[-1] == COMPLETED


def test_a_child_gives_its_outcome_to_its_parent(desk):  # SUB-2
    outcomes = []
    for number, how in enumerate(("complete", "fail", "terminate"), 1):
        child = f"child-{number}"
        desk.start(f"parent-{number}")
        record = desk.claim_one(f"parent-{number}")
        created = SubOrchestrationCreated(1, "child", child, f"e-{number}")
        commit = desk.commit_of(record, ExecutionStarted("orchestrator", record.instance_id, record.execution_id), created)
        commit.turn.children = [created]
        desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
        if how == "terminate":
            desk.do(Terminate(child, '"why"'))
        else:
            failure = FailureDetails("Broken", "text") if how == "fail" else None
            status = RuntimeStatus.FAILED if failure else RuntimeStatus.COMPLETED
            desk.turn(desk.claim_one(child), ExecutionCompleted(status, None if failure else '"out"', failure))
        found = {work.record.instance_id: work for work in desk.claim().orchestrations}
        outcomes.append(found[f"parent-{number}"].messages[0].event)
    assert outcomes[0] == SubOrchestrationCompleted(1, '"out"')
    assert outcomes[1] == SubOrchestrationFailed(1, FailureDetails("Broken", "text"))
    assert outcomes[2].failure.message == "Instance 'child-3' was terminated"


def test_a_generation_that_follows_begins_with_nothing_but_what_is_carried(desk):  # rules 31, 32
    record = desk.begin("a", TaskScheduled(1, "one"))
    desk.do(RaiseEvent("a", "Late", "1"))
    work = desk.claim().orchestrations[0]
    commit = desk.commit_of(work.record, ExecutionCompleted(RuntimeStatus.CONTINUED_AS_NEW, "2"))
    commit.turn.next_generation = NextGeneration("next-execution", "2", "v2", (EventRaised("Kept", "0"), EventRaised("Kept", None)))
    desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    after = desk.get("a")
    assert (after.generation, after.execution_id, after.input, after.version, after.sequence, after.has_started) == (
        1,
        "next-execution",
        "2",
        "v2",
        0,
        False,
    )
    assert after.status is RuntimeStatus.RUNNING
    assert after.carried == (EventRaised("Kept", "0"), EventRaised("Kept", None))
    assert events_of(desk, "a", 0) == events_of(desk, "a", 1) == []
    assert not desk.store.is_activity_current(record.execution_id, 1)
    claimed = desk.claim().orchestrations[0]
    assert [message.event for message in claimed.messages] == [EventRaised("Late", "1")]  # it was not consumed
    desk.turn(claimed.record, ExecutionStarted("orchestrator", "a", "next-execution", 1))
    assert desk.get("a").carried == ()


# -- turns that no longer fit


@pytest.mark.parametrize("change", ["suspend", "terminate", "purge", "replace", "resume"])
def test_a_turn_of_an_instance_that_was_changed_meanwhile_is_a_conflict(desk, change):  # rules 36, 38
    desk.start("a")
    record = desk.claim_one("a")
    other = desk.begin("b")
    if change in ("suspend", "resume"):
        desk.do(Suspend("a"))
    if change == "resume":
        desk.do(Resume("a"))
    if change in ("terminate", "purge", "replace"):
        desk.do(Terminate("a"))
    if change == "purge":
        desk.do(Purge("a"))
    if change == "replace":
        desk.do(StartInstance("a", "new", "orchestrator", if_exists=IfExists.REPLACE_FINISHED))
    before = desk.store.get_instance("a")
    desk.do(RaiseEvent("b", "Go"))
    held = desk.claim(request=ClaimRequest(instances=10, runnable=Runnable(("none",)))).orchestrations
    assert held == []
    good = desk.claim(request=ClaimRequest(instances=1)).orchestrations
    good = [work.record for work in good if work.record.instance_id == "b"] or [desk.claim_one("b")]
    commits = [desk.commit_of(record, ExecutionStarted("orchestrator", "a", record.execution_id), COMPLETED), desk.commit_of(good[0], COMPLETED)]
    committed = desk.store.commit(Batch(worker_id=desk.worker_id, turns=commits))
    assert committed.conflicts == [0]
    assert committed.ended == ["b"]
    assert desk.get("b").sequence == other.sequence + 1
    after = desk.store.get_instance("a")
    if change != "resume":
        assert after == before or after.worker_id is not None
    assert after is None or after.status is not RuntimeStatus.COMPLETED


def test_a_turn_cannot_be_committed_twice(desk):  # G: a step recorded twice
    desk.start("a")
    record = desk.claim_one("a")
    first = ExecutionStarted("orchestrator", "a", record.execution_id)
    assert desk.turn(record, first).conflicts == []
    assert desk.turn(record, first).conflicts == [0]
    assert events_of(desk, "a") == [first]


# -- activities


def test_a_result_goes_to_the_inbox_of_its_instance(desk):
    desk.begin("a", TaskScheduled(1, "one"))
    item = desk.claim().activities[0]
    assert item.idempotency_key == f"a:{item.execution_id}:1"
    desk.store.commit(Batch(worker_id=desk.worker_id, results=[ActivityResult(item, TaskCompleted(1, '"r"'))]))
    assert [message.event for message in desk.claim().orchestrations[0].messages] == [TaskCompleted(1, '"r"')]
    assert not desk.store.is_activity_current(item.execution_id, 1)


def test_a_result_counts_once_and_only_from_its_holder(desk):  # I: one result per call
    desk.begin("a", TaskScheduled(1, "one"))
    item = desk.claim().activities[0]
    failure = TaskFailed(1, FailureDetails("X", "x"))
    desk.store.commit(Batch(worker_id=desk.register(), results=[ActivityResult(item, failure)]))
    for _ in range(2):
        desk.store.commit(Batch(worker_id=desk.worker_id, results=[ActivityResult(item, TaskCompleted(1))]))
    assert [message.event for message in desk.claim().orchestrations[0].messages] == [TaskCompleted(1)]


def test_a_result_of_a_terminated_instance_is_dropped(desk):  # rule 38
    desk.begin("a", TaskScheduled(1, "one"))
    item = desk.claim().activities[0]
    assert desk.store.is_activity_current(item.execution_id, 1)
    desk.do(Terminate("a"))
    before = desk.get("a")
    desk.store.commit(Batch(worker_id=desk.worker_id, results=[ActivityResult(item, TaskCompleted(1))]))
    assert desk.get("a") == before
    assert desk.rows("SELECT 1 FROM durable_message WHERE hub = ?", desk.store._hub) == []


def test_a_call_that_was_not_begun_goes_back_as_if_nothing_had_been(desk):  # WRK-2
    desk.begin("a", TaskScheduled(1, "one"))
    item = desk.claim().activities[0]
    desk.store.commit(Batch(worker_id=desk.worker_id, released_activities=[item]))
    again = desk.claim(desk.register()).activities[0]
    assert (again.task_id, again.deliveries) == (1, 1)


def test_activities_of_unknown_names_are_left(desk):  # REG-5, WRK-5
    desk.begin("a", TaskScheduled(1, "one"), TaskScheduled(2, "two"))
    request = ClaimRequest(activities=10, activity_names=("two",))
    assert [item.name for item in desk.claim(request=request).activities] == ["two"]
    assert desk.store.unclaimable_activities(["two"], desk.store.now() + 1) == ["one"]
    assert desk.store.unclaimable_activities(["one", "two"], desk.store.now() + 1) == []
    assert desk.store.unclaimable_activities([], desk.store.now() - 60_000_000) == []
    assert desk.claim(request=ClaimRequest(activities=10, activity_names=())).activities == []


# -- commands


@pytest.mark.parametrize(
    "command", [RaiseEvent("x", "Go"), Terminate("x"), Suspend("x"), Resume("x"), Purge("x")], ids=lambda command: type(command).__name__
)
def test_commands_for_an_unknown_instance_are_errors_as_values(desk, command):
    assert isinstance(desk.do(command), InstanceNotFoundError)


@pytest.mark.parametrize("command", [RaiseEvent("a", "Go"), Terminate("a"), Suspend("a"), Resume("a")], ids=lambda command: type(command).__name__)
def test_commands_for_an_ended_instance_are_errors_as_values(desk, command):
    desk.start("a")
    desk.do(Terminate("a"))
    assert isinstance(desk.do(command), InstanceFinishedError)


def test_a_suspended_instance_is_not_handed_out(desk):  # rule 36
    desk.begin("a")
    desk.do(Suspend("a", '"why"'))
    desk.do(Suspend("a"))
    desk.do(RaiseEvent("a", "Go"))
    assert desk.get("a").status is RuntimeStatus.SUSPENDED
    assert desk.claim().orchestrations == []
    desk.do(Resume("a", '"on"'))
    desk.do(Resume("a"))
    work = desk.claim().orchestrations[0]
    assert [message.event.name for message in work.messages] == ["Go"]
    assert events_of(desk, "a")[1:] == [ExecutionSuspended('"why"'), ExecutionResumed('"on"')]


def test_terminating_writes_history_and_takes_open_children_along(desk):  # rule 38
    desk.start("p")
    record = desk.claim_one("p")
    created = SubOrchestrationCreated(1, "child", "c", "ce")
    commit = desk.commit_of(record, ExecutionStarted("orchestrator", "p", record.execution_id), created)
    commit.turn.children = [created]
    desk.store.commit(Batch(worker_id=desk.worker_id, turns=[commit]))
    committed = desk.store.commit(Batch(commands=[Terminate("p", '"why"')]))
    assert sorted(committed.ended) == ["c", "p"]
    for instance_id in ("c", "p"):
        assert (desk.get(instance_id).status, desk.get(instance_id).output) == (RuntimeStatus.TERMINATED, '"why"')
        assert events_of(desk, instance_id)[-2:] == [ExecutionTerminated('"why"'), ExecutionCompleted(RuntimeStatus.TERMINATED, '"why"')]


def test_an_instance_that_cannot_be_run_is_failed(desk):  # rule 8
    desk.start("a")
    failure = FailureDetails("Unknown", "nobody knows it", "trace", FailureDetails("Cause", "c"), True)
    assert desk.do(FailInstance("a", failure)) is None
    assert (desk.get("a").status, desk.get("a").failure) == (RuntimeStatus.FAILED, failure)
    assert desk.do(FailInstance("a", failure)) is None
    assert len(events_of(desk, "a")) == 1


def test_a_parked_instance_is_not_handed_out_and_keeps_its_messages(desk):  # rule 9
    desk.begin("a", TaskScheduled(1, "one"))
    desk.do(Park("a", "meant for another", "an execution that is gone"))
    assert desk.get("a").parked_reason is None
    desk.do(Park("a", "no good", desk.get("a").execution_id))
    desk.do(RaiseEvent("a", "Go"))
    assert (desk.get("a").parked_reason, desk.get("a").status) == ("no good", RuntimeStatus.RUNNING)
    assert desk.claim().orchestrations == []
    assert not desk.store.peek(desk.worker_id, ClaimRequest(instances=1)).is_ready
    desk.do(Resume("a"))
    work = desk.claim().orchestrations[0]
    assert [message.event.name for message in work.messages] == ["Go"]
    assert desk.get("a").parked_reason is None


def test_purging_deletes_every_row_of_an_ended_instance(desk):  # MGT-5
    desk.begin("a", TaskScheduled(1, "one"))
    desk.do(RaiseEvent("a", "Go"))
    assert isinstance(desk.do(Purge("a")), InstanceNotFinishedError)
    desk.do(Terminate("a"))
    assert desk.do(Purge("a")) == 1
    for table in ("instance", "history", "message", "activity"):
        assert desk.rows(f"SELECT 1 FROM durable_{table} WHERE hub = ?", desk.store._hub) == []


def test_purging_by_filter_takes_the_oldest_ended_ones_up_to_its_limit(desk):  # MGT-6
    made = [desk.start() for _ in range(5)]
    for instance_id in made[:4]:
        desk.do(Terminate(instance_id))
    assert desk.do(PurgeBy(InstanceFilter(), limit=3)) == 3
    assert [
        record.instance_id for record in desk.store.list_instances(InstanceFilter(), limit=9, after=None, order=Order.OLDEST_FIRST).records
    ] == made[3:]
    assert desk.do(PurgeBy(InstanceFilter(statuses=(RuntimeStatus.PENDING,)))) == 0
    assert desk.do(PurgeBy(InstanceFilter(id_prefix="nothing"))) == 0
    assert desk.do(PurgeBy(InstanceFilter())) == 1


# -- workers


def test_a_worker_without_a_row_can_write_nothing(desk):  # DESIGN 3.2: fencing
    desk.start("a")
    record = desk.claim_one("a")
    desk.store.release_worker(desk.worker_id)
    with pytest.raises(WorkerLostError):
        desk.turn(record, ExecutionStarted("orchestrator", "a", record.execution_id))
    with pytest.raises(WorkerLostError):
        desk.do(StartInstance("b", "e", "x"), desk.worker_id)
    assert desk.store.get_instance("b") is None
    assert events_of(desk, "a") == []
    assert not desk.store.renew_worker(desk.worker_id, 60)


def test_a_released_worker_gives_everything_back(desk):  # WRK-2
    desk.begin("a", TaskScheduled(1, "one"), claimed_activities=1, keep=True)
    desk.store.release_worker(desk.worker_id)
    assert desk.store.workers() == []
    second = desk.register()
    item = desk.claim(second).activities[0]
    assert (item.task_id, item.deliveries) == (1, 1)


def test_what_a_dead_worker_held_is_taken_over(desk):  # WRK-4
    dead = desk.register(lease=-1)
    desk.start("a")
    desk.claim_one("a", dead)
    desk.store._workers._slots.pop(dead, None)
    assert desk.store.reap_workers(desk.worker_id, 5) == [dead]
    assert desk.store.reap_workers(desk.worker_id, 5) == []
    record = desk.claim_one("a")
    assert record.deliveries == 1
    assert desk.get("a").deliveries == 2
    assert [worker.worker_id for worker in desk.store.workers()] == [desk.worker_id]


def test_only_one_of_many_takes_a_dead_worker_over(desk):  # WRK-4
    dead = [desk.register(lease=-1) for _ in range(3)]
    gate = threading.Barrier(4, timeout=15)
    reaped = []

    def reap():
        gate.wait()
        reaped.extend(desk.store.reap_workers(desk.worker_id, 5))

    threads = [threading.Thread(target=reap) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reaped) == sorted(dead)


def test_an_expired_worker_that_renews_in_time_lives(desk):
    late = desk.register(lease=-1)
    assert desk.store.renew_worker(late, 60)
    assert desk.store.reap_workers(desk.worker_id, 5) == []


def test_an_instance_that_every_worker_dies_with_is_parked(desk):  # rule 9
    desk.start("poison")
    for _ in range(3):
        dead = desk.register(lease=-1)
        desk.claim_one("poison", dead)
        desk.store.reap_workers(desk.worker_id, 3)
    assert desk.claim(request=ClaimRequest(instances=9, max_deliveries=3)).orchestrations == []
    record = desk.get("poison")
    assert record.parked_reason == "Handed out 3 times, and each time the worker died with it"
    assert (record.status, record.ready_at) == (RuntimeStatus.PENDING, None)


def test_an_activity_that_every_worker_dies_with_parks_its_instance(desk):  # rule 9
    desk.begin("poison", TaskScheduled(1, "bad"), TaskScheduled(2, "good", priority=-1))
    for delivery in range(1, 4):
        dead = desk.register(lease=-1)
        items = [item for item in desk.claim(dead).activities if item.task_id == 1]
        assert [item.deliveries for item in items] == [delivery]
        desk.store.reap_workers(desk.worker_id, 3)
    record = desk.get("poison")
    assert record.parked_reason == "Activity 'bad': handed out 3 times, and each time the worker died with it"
    desk.do(Resume("poison"))
    assert [item.deliveries for item in desk.claim().activities if item.task_id == 1] == [1]


def test_suspects_are_taken_one_at_a_time(desk):  # rule 9
    for number in range(4):
        desk.start(f"s-{number}")
    for _ in range(2):
        dead = desk.register(lease=-1)
        desk.claim(dead)
        desk.store.reap_workers(desk.worker_id, 9)
    # Two deaths: now each is taken alone, beside any number of others
    desk.start("fresh")
    claimed = [work.record.instance_id for work in desk.claim(request=ClaimRequest(instances=9, max_deliveries=9)).orchestrations]
    assert claimed[0] == "fresh"
    assert len(claimed) == 2
    assert desk.claim(desk.register(), ClaimRequest(instances=9, with_suspects=False, max_deliveries=9)).orchestrations == []


def test_stopping_in_order_again_and_again_poisons_nothing(desk):  # WRK-2, rule 9
    desk.begin("a", TaskScheduled(1, "long"))
    for _ in range(10):
        worker_id = desk.register()
        assert len(desk.claim(worker_id, ClaimRequest(activities=9, max_deliveries=5)).activities) == 1
        desk.store.release_worker(worker_id)
    assert len(desk.claim(request=ClaimRequest(activities=9, max_deliveries=5)).activities) == 1


def test_what_is_no_longer_handed_out_says_so_also_without_a_death(desk):  # rule 9: never silent
    desk.begin("a", TaskScheduled(1, "bad"))
    desk.start("b")
    desk.sql("UPDATE durable_activity SET deliveries = 7 WHERE hub = ?", desk.store._hub)
    desk.sql("UPDATE durable_instance SET deliveries = 7 WHERE hub = ? AND instance_id = 'b'", desk.store._hub)
    desk.store.reap_workers(desk.worker_id, 5)
    assert "Activity 'bad'" in desk.get("a").parked_reason
    assert "Handed out 5 times" in desk.get("b").parked_reason


# -- transactions


def test_a_batch_is_written_whole_or_not_at_all(desk):  # DET-12
    desk.start("a")
    record = desk.claim_one("a")
    broken = desk.commit_of(record, ExecutionStarted("orchestrator", "a", record.execution_id), TaskScheduled(1, "one"), TaskScheduled(1, "one"))
    with pytest.raises(Exception, match="(?i)unique|duplicate"):
        desk.store.commit(Batch(worker_id=desk.worker_id, commands=[StartInstance("b", "e", "x")], turns=[broken]))
    assert desk.store.get_instance("b") is None
    assert events_of(desk, "a") == []
    assert desk.claim(request=ClaimRequest(activities=9)).activities == []
