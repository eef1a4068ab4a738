"""Timers, external events, and races between them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from support import before_its_time, event_names, finish, has_status, look, run, until

from flask_durable import EventTimeoutError, InstanceFinishedError, InstanceNotFoundError, InvalidArgumentError, RuntimeStatus, TaskCancelledError


@pytest.mark.parametrize("kind", ["delay", "aware", "naive"])
def test_a_timer_fires_once_and_not_early(durable, kind):  # TIM-1, TIM-2, rule 16
    @durable.orchestrator
    def waits(ctx):
        began = ctx.current_utc_datetime
        moment = began + timedelta(milliseconds=60)
        yield ctx.create_timer({"delay": timedelta(milliseconds=60), "aware": moment, "naive": moment.replace(tzinfo=None)}[kind])
        return [ctx.current_utc_datetime >= moment, ctx.current_utc_datetime < moment + timedelta(seconds=10)]

    durable.start_worker()
    status = run(durable, waits)
    assert status.output == [True, True]
    assert event_names(durable, status.instance_id) == ["ExecutionStarted", "TimerCreated", "TimerFired", "ExecutionCompleted"]


def test_a_timer_of_the_past_fires_at_once_through_the_history(durable):  # rule 16
    @durable.orchestrator
    def late(ctx):
        yield ctx.create_timer(datetime(2001, 1, 1, tzinfo=UTC))
        yield ctx.create_timer(timedelta(0))
        yield ctx.create_timer(timedelta(days=-1))
        return "now"

    durable.start_worker()
    status = run(durable, late)
    assert status.output == "now"
    assert event_names(durable, status.instance_id).count("TimerFired") == 3


def test_timers_fire_in_the_order_of_their_times(durable):  # TIM-2
    @durable.orchestrator
    def many(ctx):
        order = []
        timers = {ctx.create_timer(timedelta(milliseconds=delay)): delay for delay in (90, 30, 60)}
        while timers:
            fired = yield ctx.when_any(list(timers))
            order.append(timers.pop(fired))
        return order

    durable.start_worker()
    assert run(durable, many).output == [30, 60, 90]


def test_a_cancelled_timer_neither_fires_nor_keeps_anything_alive(durable):  # TIM-3, rule 17, TSK-5
    @durable.orchestrator
    def cancels(ctx):
        short, long = ctx.create_timer(timedelta(milliseconds=20)), ctx.create_timer(timedelta(milliseconds=40))
        told = [long.cancel(), long.is_cancelled, long.cancel()]
        yield short
        try:
            yield long
        except TaskCancelledError:
            told.append("cancelled")
        yield ctx.create_timer(timedelta(milliseconds=60))
        return [*told, short.cancel()]

    durable.start_worker()
    status = run(durable, cancels)
    assert status.output == [True, True, False, "cancelled", False]
    assert event_names(durable, status.instance_id).count("TimerFired") == 2


def test_a_timer_survives_its_worker(durable):  # TIM-4, rule 19
    # Given a timer that becomes due while no worker runs
    @durable.orchestrator
    def waits(ctx, seconds):
        yield ctx.create_timer(timedelta(seconds=seconds))
        return "fired"

    def attempt(seconds):
        durable.start_worker()
        instance_id = durable.client.start(waits, seconds)
        until(lambda: "TimerCreated" in event_names(durable, instance_id))
        durable.stop_worker()
        return None if look(durable, instance_id).is_finished else (instance_id, seconds)

    instance_id, seconds = before_its_time(attempt)
    created = durable.client.history(instance_id).events[0].at
    until(lambda: datetime.now(UTC).timestamp() * 1e6 > created + seconds * 1e6 + 100_000)
    assert look(durable, instance_id).runtime_status is RuntimeStatus.RUNNING

    # When a worker starts, then it fires
    durable.start_worker()
    assert finish(durable, instance_id).output == "fired"


def test_events_are_kept_from_the_first_moment_and_come_in_order(durable):  # rule 20, EVT-1, EVT-2, EVT-3
    @durable.orchestrator
    def collects(ctx, count):
        collected = []
        for _ in range(count):
            collected.append((yield ctx.wait_for_external_event("Part")))
        return collected

    # Given an instance that nobody runs yet, with four events under different spellings
    instance_id = durable.client.start(collects, 5)
    for index in range(4):
        durable.client.raise_event(instance_id, "pArT", index)

    # When a worker starts and the last one comes, with no data
    durable.start_worker()
    durable.client.raise_event(instance_id, "PART", None)

    # Then all have come, in order
    assert finish(durable, instance_id).output == [0, 1, 2, 3, None]


def test_events_for_an_unknown_or_ended_instance_are_errors(durable):  # EVT-5, rule 24
    durable.start_worker()
    instance_id = durable.client.start("wait_for_go")
    durable.client.raise_event(instance_id, "Go")
    finish(durable, instance_id)
    with pytest.raises(InstanceFinishedError):
        durable.client.raise_event(instance_id, "Go")
    with pytest.raises(InstanceNotFoundError):
        durable.client.raise_event("unknown", "Go")


@pytest.mark.parametrize("name", ["", "  ", "@entity", "a/b", "x" * 201, "new\nline"])
def test_event_names_are_checked(durable, name):  # B5
    instance_id = durable.client.start("wait_for_go")
    with pytest.raises(InvalidArgumentError):
        durable.client.raise_event(instance_id, name)


def test_waits_for_one_name_are_served_in_the_order_they_were_made(durable):  # EVT-4, rule 21
    @durable.orchestrator
    def three(ctx):
        waits = [ctx.wait_for_external_event("Part") for _ in range(3)]
        return (yield ctx.when_all(waits))

    durable.start_worker()
    instance_id = durable.client.start(three)
    for index in range(3):
        durable.client.raise_event(instance_id, "Part", index)
    assert finish(durable, instance_id).output == [0, 1, 2]


def test_the_same_event_twice_is_two_events(durable):  # rule 23
    @durable.orchestrator
    def twice(ctx):
        return [(yield ctx.wait_for_external_event("Pay")), (yield ctx.wait_for_external_event("Pay"))]

    durable.start_worker()
    instance_id = durable.client.start(twice)
    durable.client.raise_event(instance_id, "Pay", {"id": 1})
    durable.client.raise_event(instance_id, "Pay", {"id": 1})
    assert finish(durable, instance_id).output == [{"id": 1}, {"id": 1}]


def test_a_wait_ends_at_its_timeout(durable):  # rule 22
    @durable.orchestrator
    def waits(ctx):
        first = yield ctx.wait_for_external_event("Never", timeout=timedelta(milliseconds=30), default="default")
        second = yield ctx.wait_for_external_event("Never", timeout=timedelta(milliseconds=30), default=None)
        try:
            yield ctx.wait_for_external_event("Never", timeout=timedelta(milliseconds=30))
        except EventTimeoutError as error:
            return [first, second, str(error)]

    durable.start_worker()
    assert run(durable, waits).output == ["default", None, "The external event 'Never' did not come in time"]


def test_an_event_calls_off_the_deadline_of_its_wait(make_durable):  # rule 22
    # Given a wait whose deadline is far, and makes itself felt in short stages
    durable = make_durable(DURABLE_MAX_TIMER_INTERVAL=0.02)

    @durable.orchestrator
    def waits(ctx):
        approval = yield ctx.wait_for_external_event("Approval", timeout=timedelta(hours=1))
        yield ctx.create_timer(timedelta(milliseconds=150))
        return approval

    durable.start_worker()
    instance_id = durable.client.start(waits)
    until(lambda: "TimerFired" in event_names(durable, instance_id), "the deadline had a stage")

    # When the event comes, then nothing more is heard of the deadline
    durable.client.raise_event(instance_id, "Approval", True)
    assert finish(durable, instance_id).output is True
    events = [each.event for each in durable.client.history(instance_id).events]
    deadline, after = (each.task_id for each in events if type(each).__name__ == "TimerCreated")
    came = next(index for index, each in enumerate(events) if type(each).__name__ == "EventRaised")
    fired = [each.task_id for each in events[came:] if type(each).__name__ == "TimerFired"]
    assert fired.count(deadline) <= 1  # it came in the same turn
    assert after in fired


def test_an_event_is_not_lost_to_a_wait_that_timed_out(durable):  # rule 21
    # Given a wait that has lost against its deadline
    @durable.orchestrator
    def loops(ctx):
        collected = []
        while len(collected) < 2:
            found = yield ctx.wait_for_external_event("Part", timeout=timedelta(milliseconds=40), default=None)
            ctx.set_custom_status("timed out once")
            if found is not None:
                collected.append(found)
        return collected

    durable.start_worker()
    instance_id = durable.client.start(loops)
    until(lambda: look(durable, instance_id).custom_status == "timed out once")

    # When events come, then later waits get each of them
    durable.client.raise_event(instance_id, "Part", 1)
    durable.client.raise_event(instance_id, "Part", 2)
    assert finish(durable, instance_id).output == [1, 2]


def test_an_event_is_not_lost_to_a_wait_that_lost_a_race(durable):  # rule 21
    @durable.orchestrator
    def abandons(ctx):
        lost = ctx.wait_for_external_event("Part")
        yield ctx.when_any([lost, ctx.create_timer(timedelta(milliseconds=10))])
        ctx.set_custom_status("lost")
        fresh = yield ctx.wait_for_external_event("Part")
        return [fresh, lost.is_complete, (yield lost)]

    durable.start_worker()
    instance_id = durable.client.start(abandons)
    until(lambda: look(durable, instance_id).custom_status == "lost")
    durable.client.raise_event(instance_id, "Part", 1)
    durable.client.raise_event(instance_id, "Part", 2)
    assert finish(durable, instance_id).output == [1, False, 2]


def test_a_race_is_won_by_what_came_first_and_the_loser_can_be_cancelled(durable):  # rule 14, TSK-3
    @durable.orchestrator
    def races(ctx):
        event = ctx.wait_for_external_event("Go")
        timer = ctx.create_timer(timedelta(hours=1))
        winner = yield ctx.when_any([timer, event])
        return [winner is event, timer.cancel(), winner.result]

    durable.start_worker()
    instance_id = durable.client.start(races)
    durable.client.raise_event(instance_id, "Go", "data")
    assert finish(durable, instance_id).output == [True, True, "data"]


def test_the_winner_of_a_race_stays_the_winner_in_every_replay(durable):  # rule 14
    # Given a race whose loser comes second in time and first in the list
    @durable.orchestrator
    def races(ctx):
        slow, fast = ctx.wait_for_external_event("Slow"), ctx.wait_for_external_event("Fast")
        winner = yield ctx.when_any([slow, fast])
        ctx.set_custom_status("decided")
        yield slow
        yield ctx.create_timer(timedelta(milliseconds=1))
        return "fast" if winner is fast else "slow"

    durable.start_worker()
    instance_id = durable.client.start(races)
    durable.client.raise_event(instance_id, "Fast")
    until(lambda: look(durable, instance_id).custom_status == "decided")
    durable.client.raise_event(instance_id, "Slow")
    assert finish(durable, instance_id).output == "fast"


def test_an_orchestration_can_send_an_event_to_another(durable):  # EVT-6, EVT-7
    @durable.orchestrator
    def sends(ctx, target):
        ctx.send_event(target, "Go", {"from": ctx.instance_id})
        ctx.send_event("nobody", "Go")
        try:
            ctx.send_event("@counter@1", "Go")
        except ValueError as error:
            return str(error)

    durable.start_worker()
    target = durable.client.start("wait_for_go")
    until(has_status(durable, target, RuntimeStatus.RUNNING))
    status = run(durable, sends, target)
    assert finish(durable, target).output == {"from": status.instance_id}
    assert "entities are signalled" in status.output


@pytest.mark.one_worker("it counts the threads of this process")
def test_a_hundred_waiting_instances_hold_no_threads(durable):  # DESIGN 3.1.7
    durable.start_worker()
    first = durable.client.start("wait_for_go")
    durable.client.wait_for_start(first, timeout=10)
    before = threading.active_count()
    instance_ids = [durable.client.start("wait_for_go") for _ in range(100)]
    assert threading.active_count() <= before
    for number, instance_id in enumerate(instance_ids):
        durable.client.raise_event(instance_id, "Go", number)
    assert [finish(durable, instance_id).output for instance_id in instance_ids] == list(range(100))
