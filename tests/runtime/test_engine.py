"""The engine's loop: one bad instance costs itself, a lost worker begins anew, nothing stale is written."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time

import pytest
from support import event_names, finish, has_status, look, run, until

from flask_durable import InstanceFinishedError, InvalidArgumentError, RuntimeStatus, StoreUnavailableError
from flask_durable.runtime.steps import ActivityDone, LateTurn


@pytest.fixture
def gate():
    """An event that is set at the end of the test, whatever happens."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def durable(durable):
    durable.activity(name="double")(lambda value: value * 2)

    @durable.orchestrator
    def quick(ctx):
        return (yield ctx.call_activity("double", 21))

    @durable.orchestrator
    def wait_for_go(ctx):
        return (yield ctx.wait_for_external_event("Go"))

    return durable


# -- changed from outside


def test_an_instance_suspended_in_the_middle_of_a_turn_is_not_advanced(durable, make_durable, gate):  # rule 36
    # Given an orchestrator that is inside its turn
    inside_turn, turns = threading.Event(), []

    @durable.orchestrator
    def slow_turn(ctx):
        yield ctx.wait_for_external_event("Go")
        turns.append(1)
        inside_turn.set()
        gate.wait(15)
        return "advanced"

    durable.start_worker()
    instance_id = durable.client.start(slow_turn)
    until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    durable.client.raise_event(instance_id, "Go")
    assert inside_turn.wait(15)

    # When another process suspends it, then the turn is dropped
    other = make_durable(DURABLE_WORKER=False)
    other.client.suspend(instance_id)
    gate.set()
    run(durable, "quick")
    assert look(durable, instance_id).runtime_status is RuntimeStatus.SUSPENDED
    assert event_names(durable, instance_id) == ["ExecutionStarted", "ExecutionSuspended"]

    # and it is done again, with its message, when it is resumed
    other.client.resume(instance_id)
    assert finish(durable, instance_id).output == "advanced"
    assert len(turns) == 2


def test_results_that_come_after_a_termination_are_dropped(durable, inside, gate):  # rule 38
    ended = []

    @durable.activity
    def slow():
        gate.wait(15)
        ended.append(1)

    @durable.orchestrator
    def calls(ctx):
        yield ctx.when_all([ctx.call_activity(slow) for _ in range(3)])

    durable.start_worker()
    instance_id = durable.client.start(calls)
    until(lambda: "TaskScheduled" in event_names(durable, instance_id))
    durable.client.terminate(instance_id)
    before = look(durable, instance_id)
    gate.set()
    until(lambda: len(ended) == 3 and inside(durable).engine.busy_count == 0)
    run(durable, "quick")
    assert look(durable, instance_id) == before
    assert inside(durable).rows("SELECT task_id FROM durable_activity WHERE instance_id = ?", instance_id) == []
    assert inside(durable).rows("SELECT message_id FROM durable_message WHERE instance_id = ?", instance_id) == []


def test_results_of_a_purged_and_restarted_instance_do_not_reach_its_successor(durable, gate):  # rule 31, CAN-4
    begun = threading.Semaphore(0)

    @durable.activity
    def slow(number):
        begun.release()
        gate.wait(15)
        return number

    @durable.orchestrator
    def calls(ctx, number):
        return (yield ctx.call_activity(slow, number))

    durable.start_worker()
    for number in (1, 2):
        durable.client.start(calls, number, instance_id="same")
        assert begun.acquire(timeout=15)
        if number == 1:
            durable.client.terminate("same")
            durable.client.purge("same")
    gate.set()
    assert finish(durable, "same").output == 2


def test_suspending_and_resuming_while_results_come_loses_none(durable, gate):  # rule 36
    @durable.orchestrator
    def many(ctx):
        return (yield ctx.when_all([ctx.call_activity("double", number) for number in range(150)]))

    durable.start_worker()
    instance_ids = [durable.client.start(many) for _ in range(4)]
    for _ in range(15):
        for instance_id in instance_ids:
            if not look(durable, instance_id).is_finished:
                try:
                    durable.client.suspend(instance_id)
                    durable.client.resume(instance_id)
                except InstanceFinishedError:
                    continue  # it was faster
    for instance_id in instance_ids:
        assert finish(durable, instance_id).output == [2 * number for number in range(150)]


# -- a lost worker


def test_a_worker_whose_row_is_gone_begins_anew_and_writes_nothing_stale(durable, inside, gate):  # DESIGN 3.2
    # Given a worker with a running activity
    calls, begun = [], threading.Event()

    @durable.activity
    def slow():
        calls.append(1)
        begun.set()
        gate.wait(15)
        return len(calls)

    @durable.orchestrator
    def waits(ctx):
        return (yield ctx.call_activity(slow))

    durable.start_worker()
    instance_id = durable.client.start(waits)
    assert begun.wait(15)
    first = inside(durable).worker.worker_id

    # When it is taken for dead
    inside(durable).store.release_worker(first)
    assert run(durable, "quick").output == 42

    # Then it goes on as another, its old result does not count, and the activity is run again
    assert inside(durable).worker.worker_id != first
    assert inside(durable).engine.lost_count == 1
    until(lambda: len(calls) == 2)
    gate.set()
    assert finish(durable, instance_id).output == 2
    assert event_names(durable, instance_id).count("TaskCompleted") == 1


def test_a_command_in_the_commit_that_finds_the_row_gone_is_carried_out(durable, inside):  # G: acknowledged is durable
    durable.start_worker()
    run(durable, "quick")
    for _ in range(3):
        inside(durable).store.release_worker(inside(durable).worker.worker_id)
        instance_id = durable.client.start("wait_for_go")
        inside(durable).store.release_worker(inside(durable).worker.worker_id)
        durable.client.raise_event(instance_id, "Go", "kept")
        assert finish(durable, instance_id).output == "kept"
    assert inside(durable).engine.lost_count >= 3


def test_a_worker_whose_row_vanished_notices_by_its_heartbeat(make_durable, inside):
    durable = make_durable(DURABLE_LEASE_SECONDS=1.0)
    durable.start_worker()
    first = inside(durable).worker.worker_id
    until(lambda: inside(durable).store.workers())
    inside(durable).store.release_worker(first)
    until(lambda: [worker.worker_id for worker in inside(durable).store.workers()] not in ([], [first]))
    until(lambda: inside(durable).worker.worker_id != first)


def test_a_heartbeat_keeps_a_worker_alive_beyond_its_lease(make_durable, inside):
    durable = make_durable(DURABLE_LEASE_SECONDS=1.0)
    durable.start_worker()
    (before,) = inside(durable).store.workers()
    until(lambda: inside(durable).store.workers()[0].expires_at > before.expires_at + 1_000_000)
    assert inside(durable).worker.worker_id == before.worker_id


# -- bad instances


def test_an_endless_orchestrator_stops_no_others_and_ends_failed(make_durable):  # DESIGN 3.1.8
    durable = make_durable(DURABLE_TURN_TIMEOUT=1.5)

    @durable.orchestrator
    def endless(ctx):
        while True:
            pass

    @durable.orchestrator
    def quick(ctx):
        return "quick"

    durable.start_worker()
    durable.client.start(endless, instance_id="bad")
    assert run(durable, quick).output == "quick"
    status = finish(durable, "bad")
    assert status.runtime_status is RuntimeStatus.FAILED
    assert status.output == "The orchestrator ran for more than 1.5 s without a yield (DURABLE_TURN_TIMEOUT)"
    assert run(durable, quick).output == "quick"


def test_an_endless_orchestrator_that_catches_everything_is_ended_too(make_durable):  # DESIGN 3.1.8
    usual = sys.getswitchinterval()
    durable = make_durable(DURABLE_TURN_TIMEOUT=0.5)

    @durable.orchestrator
    def stubborn(ctx):
        while True:
            try:
                sum(range(100))
            except BaseException:  # noqa: BLE001 - that is the point
                continue

    durable.start_worker()
    durable.client.start(stubborn, instance_id="bad")
    assert finish(durable, "bad").runtime_status is RuntimeStatus.FAILED
    until(lambda: sum(each.name.startswith("durable-engine") for each in threading.enumerate()) == 1)
    until(lambda: sys.getswitchinterval() == usual)


def test_code_that_cannot_be_brought_back_in_time_is_parked(make_durable):  # DESIGN 3.1.8, rule 2
    # Given a deploy whose orchestrator never gets to where it was
    durable, is_changed = make_durable(DURABLE_TURN_TIMEOUT=0.5, DURABLE_CACHE_SIZE=0), threading.Event()

    @durable.orchestrator
    def changed(ctx):
        while is_changed.is_set():
            pass
        first = yield ctx.wait_for_external_event("Go")
        return [first, (yield ctx.wait_for_external_event("Go"))]

    @durable.orchestrator
    def quick(ctx):
        return "quick"

    durable.start_worker()
    instance_id = durable.client.start(changed)
    until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    is_changed.set()

    # When it is needed again, then it is parked, and the others go on
    durable.client.raise_event(instance_id, "Go", 1)
    assert run(durable, quick).output == "quick"
    until(lambda: look(durable, instance_id).parked_reason)
    assert look(durable, instance_id).parked_reason == "Its code could not be brought back from its history within 0.5 s (DURABLE_TURN_TIMEOUT)"

    # And with the right code it goes on from there
    is_changed.clear()
    durable.client.resume(instance_id)
    durable.client.raise_event(instance_id, "Go", 2)
    assert finish(durable, instance_id).output == [1, 2]


def test_a_slow_orchestrator_that_ends_in_time_is_none_the_worse(make_durable, gate):  # DESIGN 3.1.8
    durable = make_durable()

    @durable.orchestrator
    def slow(ctx):
        gate.wait(15)
        return "slow"

    @durable.orchestrator
    def quick(ctx):
        return "quick"

    durable.start_worker()
    durable.client.start(slow, instance_id="slow")
    assert run(durable, quick).output == "quick"  # the loop has gone on without it
    gate.set()
    assert finish(durable, "slow").output == "slow"


def test_what_comes_with_a_slow_turn_waits_for_the_next_turn(make_durable, inside, gate, monkeypatch, caplog):  # DESIGN 3.1.8
    # Given an instance in a turn that the loop has gone on without, while another of its activities runs
    durable = make_durable()
    parts, thinks, goes_on, is_held_up = inside(durable), threading.Event(), threading.Event(), threading.Event()
    durable.activity(name="first")(lambda: 1)
    durable.activity(name="second")(lambda: gate.wait(15))

    @durable.orchestrator
    def main(ctx):
        second = ctx.call_activity("second")
        first = yield ctx.call_activity("first")
        if not ctx.is_replaying:
            thinks.wait(15)
        return [first, (yield second)]

    @durable.orchestrator
    def quick(ctx):
        return "quick"

    durable.start_worker()
    instance_id = durable.client.start(main)
    engine = parts.engine
    until(lambda: engine._holdings.slow)

    # When the loop is held up in a commit until the turn has ended, and after it the activity
    commit, put, came = parts.store.commit, engine._inbox.put, []

    def note(item):
        put(item)
        came.append(type(item))

    def slow_commit(batch):
        if not is_held_up.is_set():
            is_held_up.set()
            goes_on.wait(15)
        return commit(batch)

    monkeypatch.setattr(engine._inbox, "put", note)
    monkeypatch.setattr(parts.store, "commit", slow_commit)
    starting = threading.Thread(target=durable.client.start, args=(quick,))
    starting.start()
    assert is_held_up.wait(15)
    thinks.set()
    until(lambda: LateTurn in came)
    gate.set()
    until(lambda: ActivityDone in came)
    goes_on.set()

    # Then each has a turn of its own
    assert finish(durable, instance_id).output == [1, True]
    starting.join(15)
    assert "A commit was refused" not in caplog.text


def test_stopping_does_not_wait_for_an_endless_orchestrator(make_durable):  # WRK-2
    durable = make_durable()

    @durable.orchestrator
    def endless(ctx):
        ctx.set_custom_status("never committed")
        while True:
            pass

    durable.start_worker()
    durable.client.start(endless, instance_id="bad", if_exists="return")
    durable.client.start(endless)
    durable.stop_worker()
    status = look(durable, "bad")
    assert (status.runtime_status, status.custom_status) == (RuntimeStatus.PENDING, None)


def test_a_damaged_history_parks_only_its_instance(make_durable, inside):  # DESIGN 3.1.8
    # Given two instances that wait, of which one has a history that cannot be read
    durable = make_durable(DURABLE_CACHE_SIZE=0)

    @durable.orchestrator
    def wait_for_go(ctx):
        return (yield ctx.wait_for_external_event("Go"))

    durable.start_worker()
    bad, good = (durable.client.start(wait_for_go) for _ in range(2))
    for instance_id in (bad, good):
        until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    inside(durable).sql("UPDATE durable_history SET event_type = 'Nonsense' WHERE instance_id = ?", bad)

    # When both get an event
    for instance_id in (bad, good):
        durable.client.raise_event(instance_id, "Go", 1)

    # Then one is parked, with the reason, and the other goes on
    assert finish(durable, good).output == 1
    until(lambda: look(durable, bad).parked_reason)
    assert "an event of type 'Nonsense'" in look(durable, bad).parked_reason
    assert look(durable, bad).runtime_status is RuntimeStatus.RUNNING

    # and it ends when the damage is repaired and somebody resumes it
    inside(durable).sql("UPDATE durable_history SET event_type = 'ExecutionStarted' WHERE instance_id = ? AND event_type = 'Nonsense'", bad)
    durable.client.resume(bad)
    assert finish(durable, bad).output == 1


def test_the_result_of_an_activity_outlives_the_parking_of_its_instance(make_durable, inside, gate):  # DESIGN 3.1.8
    durable = make_durable(DURABLE_CACHE_SIZE=0)
    calls = []

    @durable.activity
    def slow():
        gate.wait(15)
        calls.append(1)
        return "result"

    @durable.orchestrator
    def waits(ctx):
        return (yield ctx.call_activity(slow))

    durable.start_worker()
    instance_id = durable.client.start(waits)
    until(lambda: "TaskScheduled" in event_names(durable, instance_id))
    inside(durable).sql("UPDATE durable_history SET event_type = 'Nonsense' WHERE instance_id = ? AND event_type = 'TaskScheduled'", instance_id)
    gate.set()
    until(lambda: look(durable, instance_id).parked_reason)
    inside(durable).sql("UPDATE durable_history SET event_type = 'TaskScheduled' WHERE instance_id = ? AND event_type = 'Nonsense'", instance_id)
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == "result"
    assert calls == [1]


def test_a_damaged_message_parks_only_its_instance(durable, inside):  # DESIGN 3.1.8
    bad, good = (durable.client.start("wait_for_go") for _ in range(2))
    for instance_id in (bad, good):
        durable.client.raise_event(instance_id, "Go", 1)
    inside(durable).sql("UPDATE durable_message SET extra = '{broken' WHERE instance_id = ?", bad)
    durable.start_worker()
    assert finish(durable, good).output == 1
    until(lambda: look(durable, bad).parked_reason)
    assert run(durable, "quick").output == 42


def test_what_the_database_refuses_parks_only_its_instance(durable, inside, caplog):  # DESIGN 3.1.8
    # Given an instance whose next event would be written over a row that is there already
    durable.start_worker()
    bad, good = (durable.client.start("wait_for_go") for _ in range(2))
    for instance_id in (bad, good):
        until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    hub = inside(durable).state.settings.task_hub
    inside(durable).sql(
        "INSERT INTO durable_history (hub, instance_id, generation, sequence, at, event_type) VALUES (?, ?, 0, 2, 1, 'EventRaised')", hub, bad
    )

    # When both get their event in one go, beside other work
    durable.stop_worker()
    for instance_id in (bad, good):
        durable.client.raise_event(instance_id, "Go", 1)
    with caplog.at_level(logging.CRITICAL, "flask_durable.engine"):
        durable.start_worker()
        assert finish(durable, good).output == 1
        until(lambda: look(durable, bad).parked_reason)

    # Then only the bad one is parked
    assert run(durable, "quick").output == 42


@pytest.mark.parametrize("how", ["exit", "interrupt", "generator-exit", "recursion"])
def test_what_an_orchestrator_raises_ends_it_and_nothing_else(durable, how):  # rule 7
    @durable.orchestrator
    def breaks(ctx):
        yield ctx.call_activity("double", 1)
        if how == "recursion":

            def deeper():
                return deeper()

            deeper()
        raise {"exit": SystemExit(1), "interrupt": KeyboardInterrupt(), "generator-exit": GeneratorExit()}[how]

    durable.start_worker()
    assert run(durable, breaks).runtime_status is RuntimeStatus.FAILED
    assert run(durable, "quick").output == 42


def test_an_orchestrator_that_asks_for_too_much_at_once_fails(make_durable):  # rule 10
    durable = make_durable(DURABLE_MAX_ACTIONS_PER_TURN=10)

    @durable.orchestrator
    def greedy(ctx, count):
        return (yield ctx.when_all([ctx.create_timer(ctx.current_utc_datetime) for _ in range(count)]))

    durable.start_worker()
    assert run(durable, greedy, 10).runtime_status is RuntimeStatus.COMPLETED
    assert "DURABLE_MAX_ACTIONS_PER_TURN" in run(durable, greedy, 11).output


def test_a_history_beyond_its_limit_fails_its_instance(make_durable):  # rule 10
    durable = make_durable(DURABLE_MAX_HISTORY_EVENTS=100)
    durable.activity(name="double")(lambda value: value * 2)

    @durable.orchestrator
    def endless(ctx):
        while True:
            yield ctx.call_activity("double", 1)

    durable.start_worker()
    status = run(durable, endless)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert "continue_as_new" in status.output


def test_results_and_outputs_have_a_largest_size(make_durable):  # S9, SCH-8
    durable = make_durable(DURABLE_MAX_PAYLOAD_BYTES=1024)
    durable.activity(name="large")(lambda size: "x" * size)

    @durable.orchestrator
    def asks(ctx, size):
        return len((yield ctx.call_activity("large", size)))

    @durable.orchestrator
    def returns(ctx, size):
        return "x" * size

    durable.start_worker()
    assert run(durable, asks, 1022).output == 1022
    assert "The result of activity 'large' is 1025 bytes of JSON; at most 1024 are allowed" in run(durable, asks, 1023).output
    assert len(run(durable, returns, 1022).output) == 1022
    assert "The output is 1025 bytes of JSON" in run(durable, returns, 1023).output


# -- unknown code


def test_an_orchestrator_nobody_knows_waits_and_then_fails(make_durable, inside, monkeypatch):  # rule 8, REG-5
    monkeypatch.setattr("flask_durable.runtime.worker.UNKNOWN_SECONDS", 0.05)
    durable = make_durable(DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT=0.4)
    durable.orchestrator(name="known")(lambda ctx: "known")
    durable.start_worker()
    instance_id = durable.client.start("unknown")
    assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING
    status = finish(durable, instance_id)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert status.output == "No orchestrator named 'unknown' is registered here. Registered: known"
    assert (status.completed_time - status.created_time).total_seconds() >= 0.4


def test_a_child_nobody_knows_fails_its_parents_call(make_durable, monkeypatch):  # rule 8
    monkeypatch.setattr("flask_durable.runtime.worker.UNKNOWN_SECONDS", 0.05)
    durable = make_durable(DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT=0)

    @durable.orchestrator
    def parent(ctx):
        yield ctx.call_sub_orchestrator("unknown")

    durable.start_worker()
    assert "No orchestrator named 'unknown'" in run(durable, parent).output


# -- who may call what


def test_the_client_refuses_to_work_inside_an_orchestrator(durable):  # rule 6, B6
    @durable.orchestrator
    def misuses(ctx):
        try:
            durable.client.start("quick")
        except InvalidArgumentError as error:
            return str(error)
        yield

    durable.start_worker()
    assert run(durable, misuses).output.startswith("The client cannot be used inside an orchestrator")
    assert durable.client.count() == 1


def test_the_client_works_inside_an_activity(durable):
    @durable.activity
    def starts():
        return durable.client.start("quick", instance_id="from-an-activity")

    @durable.orchestrator
    def outer(ctx):
        return (yield ctx.call_activity(starts))

    durable.start_worker()
    assert run(durable, outer).output == "from-an-activity"
    assert finish(durable, "from-an-activity").output == 42


# -- capacity


def test_no_more_activities_run_at_a_time_than_allowed(make_durable):  # WRK-1
    durable = make_durable(DURABLE_MAX_ACTIVITIES=3)
    lock, running, most = threading.Lock(), 0, 0

    @durable.activity
    def counted(number):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return number

    @durable.orchestrator
    def fan(ctx):
        return (yield ctx.when_all([ctx.call_activity(counted, number) for number in range(60)]))

    durable.start_worker()
    assert run(durable, fan).output == list(range(60))
    assert most == 3


def test_long_activities_leave_the_rest_to_other_workers(make_durable, gate):  # DESIGN 3.1.4
    workers = [make_durable(DURABLE_MAX_ACTIVITIES=2) for _ in range(2)]
    ran = [[], []]
    for number, durable in enumerate(workers):

        def work(item, number=number):
            ran[number].append(item)
            gate.wait(15)

        durable.activity(name="work")(work)

        @durable.orchestrator
        def fan(ctx):
            yield ctx.when_all([ctx.call_activity("work", item) for item in range(4)])

        durable.start_worker()
    instance_id = workers[0].client.start("fan")
    until(lambda: len(ran[0]) == len(ran[1]) == 2)
    gate.set()
    finish(workers[0], instance_id)
    assert sorted(ran[0] + ran[1]) == [0, 1, 2, 3]


# -- stopping


def test_commands_go_on_after_the_worker_has_stopped(durable):  # WRK-2
    durable.start_worker()
    durable.stop_worker()
    instance_id = durable.client.start("quick")
    assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING
    durable.start_worker()
    assert finish(durable, instance_id).output == 42


def test_starting_and_stopping_twice_changes_nothing(durable, inside):
    durable.stop_worker()
    durable.start_worker()
    durable.start_worker()
    assert len(inside(durable).store.workers()) == 1
    durable.stop_worker()
    durable.stop_worker()
    assert inside(durable).store.workers() == []


def test_a_stop_during_a_commit_waits_for_the_activities_that_it_hands_out(durable, inside, gate, monkeypatch):  # WRK-2
    # Given a worker that is told to stop while the commit that claims an activity is on its way
    parts, calls, go_on, committed = inside(durable), [], threading.Event(), threading.Event()
    commit = parts.store.commit

    def slow_commit(batch):
        outcome = commit(batch)
        if any(turn.claimed_activities for turn in batch.turns):
            committed.set()
            go_on.wait(15)
        return outcome

    @durable.activity
    def once():
        calls.append(1)
        gate.wait(15)
        return "once"

    @durable.orchestrator
    def calls_once(ctx):
        return (yield ctx.call_activity(once))

    monkeypatch.setattr(parts.store, "commit", slow_commit)
    durable.start_worker()
    engine = parts.engine
    starting = threading.Thread(target=durable.client.start, args=(calls_once,), kwargs={"instance_id": "mine"})
    starting.start()
    committed.wait(15)
    stopping = threading.Thread(target=durable.stop_worker)
    stopping.start()
    with contextlib.suppress(AssertionError):  # it must not get there, however long it has
        until(lambda: engine._is_stopped, seconds=0.2)

    # When the activity is handed out and ends after that
    go_on.set()
    until(lambda: calls)
    gate.set()
    stopping.join(15)
    starting.join(15)
    durable.start_worker()

    # Then its result was kept, and it is not run again
    assert finish(durable, "mine").output == "once"
    assert calls == [1]


def test_a_stop_with_a_grace_leaves_what_takes_longer_to_others(make_durable, inside, gate):  # DESIGN: SIGTERM
    durable = make_durable(DURABLE_SHUTDOWN_GRACE=0.05)
    calls = []

    @durable.activity
    def slow():
        calls.append(1)
        if len(calls) == 1:
            gate.wait(15)
        return len(calls)

    @durable.orchestrator
    def waits(ctx):
        return (yield ctx.call_activity(slow))

    durable.start_worker()
    instance_id = durable.client.start(waits)
    until(lambda: calls)
    assert inside(durable).state.stop_worker() is False
    durable.start_worker()
    assert finish(durable, instance_id).output == 2
    gate.set()


def test_starts_from_many_threads_while_the_worker_stops_are_all_kept(durable):  # G: acknowledged is durable
    started, gate = [], threading.Event()

    def start():
        while not gate.is_set():
            started.append(durable.client.start("quick"))

    threads = [threading.Thread(target=start) for _ in range(4)]
    durable.start_worker()
    for thread in threads:
        thread.start()
    for _ in range(3):
        count = len(started)
        until(lambda count=count: len(started) > count + 5)
        durable.stop_worker()
        durable.start_worker()
    gate.set()
    for thread in threads:
        thread.join()
    assert {finish(durable, instance_id).output for instance_id in started} == {42}


# -- the database


def test_a_busy_database_is_waited_for(durable, inside, database_url):
    if not database_url.startswith("sqlite"):
        pytest.skip("one writer at a time is SQLite's rule")
    import sqlite3

    durable.start_worker()
    other = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(durable.client.start("quick")))
    thread.start()
    until(inside(durable).engine._inbox.is_empty)
    assert outcomes == []
    other.execute("ROLLBACK")
    other.close()
    thread.join(15)
    assert finish(durable, outcomes[0]).output == 42


def test_a_database_that_stays_busy_is_told_to_the_caller_and_nothing_is_lost(make_durable, database_url):
    if not database_url.startswith("sqlite"):
        pytest.skip("one writer at a time is SQLite's rule")
    import sqlite3

    durable = make_durable(DURABLE_DATABASE_TIMEOUT=0.2, DURABLE_POLL_INTERVAL=0.05)

    @durable.orchestrator
    def wait_for_go(ctx):
        return (yield ctx.wait_for_external_event("Go"))

    durable.start_worker()
    instance_id = durable.client.start(wait_for_go)
    until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    other = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        durable.client.raise_event(instance_id, "Go", "refused")
    other.execute("ROLLBACK")
    other.close()
    durable.client.raise_event(instance_id, "Go", "taken")
    assert finish(durable, instance_id).output == "taken"
