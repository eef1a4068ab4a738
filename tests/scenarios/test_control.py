"""Suspend, resume, terminate, restart and purge."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support import before_its_time, event_names, finish, has_status, look, run, until

from flask_durable import (
    InstanceFilter,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    RuntimeStatus,
    current_activity,
)


def test_what_comes_while_suspended_is_kept_and_delivered_in_order(durable, make_gate):  # rules 36, 37, MGT-1
    # Given an instance that is suspended while its activity runs
    release, ended = make_gate(), make_gate()

    @durable.activity
    def slow():
        release.wait()
        ended.open()
        return "slow"

    @durable.orchestrator
    def steps(ctx):
        first = yield ctx.call_activity(slow)
        ctx.set_custom_status(first)
        yield ctx.create_timer(timedelta(milliseconds=1))
        return [first, (yield ctx.wait_for_external_event("A")), (yield ctx.wait_for_external_event("A"))]

    durable.start_worker()
    instance_id = durable.client.start(steps)
    durable.client.wait_for_start(instance_id, timeout=10)
    durable.client.suspend(instance_id, "hold on")
    durable.client.suspend(instance_id)
    assert look(durable, instance_id).runtime_status is RuntimeStatus.SUSPENDED

    # When the result and events come
    release.open()
    durable.client.raise_event(instance_id, "A", 1)
    durable.client.raise_event(instance_id, "A", 2)
    ended.wait()
    run(durable, "wait_for_go_now")

    # Then it does not go on until it is resumed (what another process was just about to run is not committed)
    assert look(durable, instance_id).runtime_status is RuntimeStatus.SUSPENDED
    assert look(durable, instance_id).custom_status is None
    assert "TaskCompleted" not in event_names(durable, instance_id)
    durable.client.resume(instance_id, "go on")
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == ["slow", 1, 2]
    assert event_names(durable, instance_id).count("ExecutionSuspended") == 1
    assert event_names(durable, instance_id).count("ExecutionResumed") == 1


@pytest.fixture
def durable(durable):
    @durable.orchestrator
    def wait_for_go_now(ctx):
        return (yield ctx.call_activity("double", 1))

    return durable


def test_a_timer_that_falls_due_while_suspended_waits(durable):  # rule 36
    @durable.orchestrator
    def waits(ctx, seconds):
        yield ctx.create_timer(timedelta(seconds=seconds))
        return "fired"

    def attempt(seconds):
        instance_id = durable.client.start(waits, seconds)
        until(lambda: "TimerCreated" in event_names(durable, instance_id))
        try:
            durable.client.suspend(instance_id)
        except InstanceFinishedError:
            return None
        return instance_id, seconds

    durable.start_worker()
    instance_id, seconds = before_its_time(attempt)
    run(durable, waits, seconds)
    assert look(durable, instance_id).runtime_status is RuntimeStatus.SUSPENDED
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == "fired"


def test_a_suspended_pending_instance_does_not_start(durable):  # rule 37
    instance_id = durable.client.start("wait_for_go")
    durable.client.suspend(instance_id)
    durable.start_worker()
    durable.client.raise_event(instance_id, "Go", "now")
    run(durable, "wait_for_go_now")
    assert event_names(durable, instance_id) == ["ExecutionSuspended"]
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == "now"


def test_resuming_before_the_scheduled_start_keeps_that_time(durable):  # rule 37
    from datetime import UTC, datetime

    durable.start_worker()
    instance_id = durable.client.start("wait_for_go", start_at=datetime.now(UTC) + timedelta(hours=1))
    durable.client.suspend(instance_id)
    durable.client.resume(instance_id)
    durable.client.raise_event(instance_id, "Go")
    run(durable, "wait_for_go_now")
    assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING


def test_children_of_a_suspended_instance_go_on(durable):  # rule 36
    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator("wait_for_go", instance_id="child"))

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(has_status(durable, "child", RuntimeStatus.RUNNING))
    durable.client.suspend(instance_id)
    durable.client.raise_event("child", "Go", "done")
    assert finish(durable, "child").output == "done"
    assert look(durable, instance_id).runtime_status is RuntimeStatus.SUSPENDED
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == "done"


@pytest.mark.parametrize("state", ["pending", "running", "suspended"])
def test_every_open_instance_can_be_terminated(durable, state):  # MGT-2, rules 37, 38
    if state != "pending":
        durable.start_worker()
    instance_id = durable.client.start("wait_for_go")
    if state != "pending":
        until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    if state == "suspended":
        durable.client.suspend(instance_id)
    durable.client.terminate(instance_id, {"why": state})
    status = look(durable, instance_id)
    assert (status.runtime_status, status.output, status.is_finished) == (RuntimeStatus.TERMINATED, {"why": state}, True)
    assert event_names(durable, instance_id)[-2:] == ["ExecutionTerminated", "ExecutionCompleted"]
    for call in (durable.client.terminate, durable.client.suspend, durable.client.resume):
        with pytest.raises(InstanceFinishedError):
            call(instance_id)


def test_nothing_revives_a_terminated_instance(durable, ledger, gate):  # rule 38, MGT-2
    # Given an instance that is terminated while its activity runs and its timer is set
    @durable.activity
    def slow():
        gate.wait()
        ledger.write(current_activity.is_cancelled)
        return "late"

    @durable.orchestrator
    def waits(ctx):
        ctx.create_timer(timedelta(milliseconds=30))
        yield ctx.call_activity(slow)

    durable.start_worker()
    instance_id = durable.client.start(waits)
    until(lambda: "TimerCreated" in event_names(durable, instance_id))
    durable.client.terminate(instance_id, "over")
    before = look(durable, instance_id)
    history = event_names(durable, instance_id)

    # When the activity ends, which sees that it is not wanted any more
    gate.open()
    until(ledger.read)
    durable.stop_worker()
    durable.start_worker()
    run(durable, "wait_for_go_now")

    # Then nothing has changed
    assert ledger.read() == [True]
    assert look(durable, instance_id) == before
    assert event_names(durable, instance_id) == history


@pytest.mark.parametrize("call", ["terminate", "suspend", "resume", "purge", "restart", "history"])
def test_an_unknown_instance_is_an_error(durable, call):  # MGT-4, QRY-4
    with pytest.raises(InstanceNotFoundError):
        getattr(durable.client, call)("unknown")


def test_restarting_runs_the_same_again_under_a_new_id(durable):  # MGT-4, rule 47
    durable.start_worker()
    first = durable.client.start("wait_for_go", "input", tags={"k": "v"}, version="7")
    with pytest.raises(InstanceNotFinishedError):
        durable.client.restart(first)
    durable.client.raise_event(first, "Go", 1)
    finish(durable, first)
    second = durable.client.restart(first)
    durable.client.raise_event(second, "Go", 2)
    status = finish(durable, second)
    assert (status.output, status.input, status.tags, status.version, status.restarted_from) == (2, "input", {"k": "v"}, "7", first)
    assert look(durable, first).output == 1


def test_restarting_under_the_same_id_begins_with_an_empty_history(durable):  # MGT-4, rule 47
    durable.start_worker()
    instance_id = durable.client.start("wait_for_go", "input")
    durable.client.raise_event(instance_id, "Go", 1)
    finish(durable, instance_id)
    assert durable.client.restart(instance_id, new_instance_id=False) == instance_id
    until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    assert look(durable, instance_id).output is None
    durable.client.raise_event(instance_id, "Go", 2)
    status = finish(durable, instance_id)
    assert (status.output, status.restarted_from) == (2, instance_id)
    assert event_names(durable, instance_id) == ["ExecutionStarted", "EventRaised", "ExecutionCompleted"]


def test_only_ended_instances_can_be_purged(durable):  # MGT-5
    durable.start_worker()
    running = durable.client.start("wait_for_go")
    with pytest.raises(InstanceNotFinishedError):
        durable.client.purge(running)
    durable.client.suspend(running)
    durable.client.terminate(running)
    assert durable.client.purge(running) == 1
    assert durable.client.get_status(running) is None
    with pytest.raises(InstanceNotFoundError):
        durable.client.purge(running)


def test_purging_by_filter_takes_ended_ones_only(durable):  # MGT-6
    durable.start_worker()
    running = durable.client.start("wait_for_go")
    kept = durable.client.start("wait_for_go", tags={"keep": "yes"})
    failed = run(durable, "fails").instance_id
    for _ in range(3):
        durable.client.raise_event(durable.client.start("wait_for_go"), "Go")
    durable.client.raise_event(kept, "Go")
    finish(durable, kept)
    until(lambda: durable.client.count(InstanceFilter(statuses=(RuntimeStatus.COMPLETED,))) == 4)
    assert durable.client.purge_by(InstanceFilter(statuses=(RuntimeStatus.RUNNING,))) == 0
    assert durable.client.purge_by(InstanceFilter(statuses=(RuntimeStatus.FAILED, RuntimeStatus.RUNNING))) == 1
    assert durable.client.get_status(failed) is None
    assert durable.client.purge_by(InstanceFilter(tags={"keep": "yes"})) == 1
    assert durable.client.purge_by(InstanceFilter()) == 3
    assert [each.instance_id for each in durable.client.list().items] == [running]


@pytest.fixture(autouse=True)
def fails(durable):
    @durable.orchestrator
    def fails(ctx):
        raise RuntimeError("no")


def test_an_id_can_be_used_again_after_a_purge(durable):  # MGT-5
    durable.start_worker()
    for number in range(3):
        assert run(durable, "wait_for_go_now", number, instance_id="again").input == number
        assert durable.client.purge("again") == 1


def test_the_statuses_of_an_instance_in_order(durable):  # SCH-5, rule 36
    seen = []
    instance_id = durable.client.start("wait_for_go")
    seen.append(look(durable, instance_id).runtime_status)
    durable.start_worker()
    until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    durable.client.suspend(instance_id)
    seen.append(look(durable, instance_id).runtime_status)
    durable.client.resume(instance_id)
    seen.append(look(durable, instance_id).runtime_status)
    durable.client.raise_event(instance_id, "Go")
    seen.append(finish(durable, instance_id).runtime_status)
    assert seen == [RuntimeStatus.PENDING, RuntimeStatus.SUSPENDED, RuntimeStatus.RUNNING, RuntimeStatus.COMPLETED]
