"""Events from orchestration to orchestration, and large payloads of every kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from support import event_names, finish, look, run, until

from flask_durable import RuntimeStatus


def test_an_event_is_sent_once_however_often_the_sender_replays(durable):  # EVT-6, DET-1
    @durable.orchestrator
    def sends(ctx, target):
        for number in range(3):
            ctx.send_event(target, "E", number)
            yield ctx.call_activity("double", number)
        ctx.send_event(target, "end")

    @durable.orchestrator
    def receives(ctx):
        end, got = ctx.wait_for_external_event("End"), []
        while True:
            wait = ctx.wait_for_external_event("e")
            if (yield ctx.when_any([wait, end])) is end:
                return got
            got.append(wait.result)

    durable.start_worker()
    target = durable.client.start(receives)
    run(durable, sends, target)
    assert finish(durable, target).output == [0, 1, 2]


def test_what_is_sent_in_the_last_turn_arrives(durable):  # EVT-6, DET-10
    @durable.orchestrator
    def fails(ctx, target):
        ctx.send_event(target, "Go", "last words")
        raise ValueError("boom")

    durable.start_worker()
    target = durable.client.start("wait_for_go")
    assert run(durable, fails, target).runtime_status is RuntimeStatus.FAILED
    assert finish(durable, target).output == "last words"


def test_events_to_nobody_are_dropped_silently(durable):  # EVT-6
    @durable.orchestrator
    def sends(ctx, target):
        for name in ("unknown", target, ctx.instance_id):
            ctx.send_event(name, "Go", 1)
        return "done"

    durable.start_worker()
    ended = run(durable, sends, "nobody")
    assert run(durable, sends, ended.instance_id).output == "done"
    assert durable.client.get_status("unknown") is None
    assert event_names(durable, ended.instance_id)[-1] == "ExecutionCompleted"


def test_an_orchestration_can_send_to_itself_also_over_generations(durable):  # EVT-6, rule 32
    @durable.orchestrator
    def talks(ctx, number):
        if number:
            return (yield ctx.wait_for_external_event("Self"))
        ctx.send_event(ctx.instance_id, "Self", "now")
        first = yield ctx.wait_for_external_event("Self")
        ctx.send_event(ctx.instance_id, "Self", f"{first} and later")
        ctx.continue_as_new(1)

    durable.start_worker()
    assert run(durable, talks, 0).output == "now and later"


def test_a_child_gets_what_its_parent_sends_in_the_turn_that_calls_it(durable):  # EVT-6, rule 20
    @durable.orchestrator
    def parent(ctx):
        child = ctx.call_sub_orchestrator("wait_for_go", instance_id="child")
        ctx.send_event("child", "Go", "welcome")
        return (yield child)

    durable.start_worker()
    assert run(durable, parent).output == "welcome"


def test_events_before_a_scheduled_start_are_kept_in_order_and_start_nothing(durable):  # rule 20, SCH-3, Scheduled start
    @durable.orchestrator
    def collects(ctx):
        got = []
        for _ in range(5):
            got.append((yield ctx.wait_for_external_event("E")))
        return got, ctx.current_utc_datetime.timestamp()

    durable.start_worker()
    start_at = datetime.now(UTC) + timedelta(seconds=0.7)
    instance_id = durable.client.start(collects, start_at=start_at)
    for number in range(5):
        durable.client.raise_event(instance_id, "e", number)
        assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING or datetime.now(UTC) >= start_at
    got, began = finish(durable, instance_id).output
    assert got == [0, 1, 2, 3, 4]
    assert began >= start_at.timestamp()


@pytest.mark.parametrize("suspended", [False, True])
def test_a_scheduled_start_can_be_terminated_and_purged(durable, suspended):  # Scheduled start, rules 37, 38
    durable.start_worker()
    instance_id = durable.client.start("wait_for_go", start_at=datetime.now(UTC) + timedelta(hours=1))
    durable.client.raise_event(instance_id, "Go", 1)
    if suspended:
        durable.client.suspend(instance_id)
    durable.client.terminate(instance_id, "not needed")
    status = look(durable, instance_id)
    assert (status.runtime_status, status.output) == (RuntimeStatus.TERMINATED, "not needed")
    assert durable.client.purge(instance_id) == 1
    assert durable.client.get_status(instance_id) is None


def test_null_is_a_payload_and_wins_over_the_default(durable):  # rule 24, rule 22, EVT-1
    @durable.orchestrator
    def waits(ctx):
        first = yield ctx.wait_for_external_event("E", timeout=timedelta(hours=1), default="late")
        second = yield ctx.wait_for_external_event("E", timeout=timedelta(milliseconds=30), default="late")
        return [first, second]

    durable.start_worker()
    instance_id = durable.client.start(waits)
    durable.client.raise_event(instance_id, "E", None)
    assert finish(durable, instance_id).output == [None, "late"]


def test_a_hundred_kilobytes_survive_on_every_way(durable):  # SCH-9
    text = "ü€😀x" * 12_000

    @durable.activity
    def echo(value):
        return value

    @durable.orchestrator
    def passes(ctx, value):
        ctx.set_custom_status("waiting")
        event = yield ctx.wait_for_external_event("E")
        result = yield ctx.call_activity(echo, value)
        child = yield ctx.call_sub_orchestrator("wait_for_go", instance_id="child") if event is None else ctx.call_activity(echo, event)
        return [result, child]

    durable.start_worker()
    instance_id = durable.client.start(passes, text)
    durable.client.raise_event(instance_id, "E", text)
    status = finish(durable, instance_id)
    assert (status.input, status.output) == (text, [text, text])
    ended = durable.client.start("wait_for_go")
    durable.client.terminate(ended, text)
    assert look(durable, ended).output == text
    until(lambda: durable.client.history(instance_id).events, "the history can be read")
