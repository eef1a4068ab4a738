"""Timers that are carried out in stages, with the real engine."""

from __future__ import annotations

from datetime import timedelta

from support import event_names, finish, run, until


def test_a_long_timer_is_carried_out_in_stages(make_durable):  # TIM-5
    durable = make_durable(DURABLE_MAX_TIMER_INTERVAL=0.05)

    @durable.orchestrator
    def sleeps(ctx):
        began = ctx.current_utc_datetime
        yield ctx.create_timer(timedelta(milliseconds=180))
        return (ctx.current_utc_datetime - began).total_seconds()

    durable.start_worker()
    status = run(durable, sleeps)
    assert status.output >= 0.18
    assert event_names(durable, status.instance_id).count("TimerCreated") == 1
    assert event_names(durable, status.instance_id).count("TimerFired") in (2, 3, 4)


def test_a_timer_goes_on_under_another_setting(make_durable):  # TIM-5, TIM-4
    def sleeps(ctx):
        yield ctx.create_timer(timedelta(milliseconds=500))
        return "awake"

    first = make_durable(DURABLE_MAX_TIMER_INTERVAL=0.05)
    first.orchestrator(sleeps)
    first.start_worker()
    instance_id = first.client.start("sleeps")
    until(lambda: "TimerFired" in event_names(first, instance_id), "the first stage was over")
    first.stop_worker()
    second = make_durable()
    second.orchestrator(sleeps)
    second.start_worker()
    assert finish(second, instance_id).output == "awake"
    assert event_names(second, instance_id).count("TimerFired") < 11


def test_a_cancelled_long_timer_wakes_nobody(make_durable):  # TIM-3, TIM-5
    durable = make_durable(DURABLE_MAX_TIMER_INTERVAL=0.02)

    @durable.orchestrator
    def cancels(ctx):
        timer = ctx.create_timer(timedelta(hours=1))
        yield ctx.wait_for_external_event("Stop")
        assert timer.cancel()
        yield ctx.create_timer(timedelta(milliseconds=150))

    durable.start_worker()
    instance_id = durable.client.start(cancels)
    until(lambda: event_names(durable, instance_id).count("TimerFired") >= 2, "it had some stages")
    durable.client.raise_event(instance_id, "Stop")
    finish(durable, instance_id)
    events = [each.event for each in durable.client.history(instance_id).events]
    stopped = next(index for index, each in enumerate(events) if type(each).__name__ == "EventRaised")
    assert len([each for each in events[stopped:] if type(each).__name__ == "TimerFired" and each.task_id == 1]) <= 1  # it came in the same turn
