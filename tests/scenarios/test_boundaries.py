"""Between two generations: what arrives in the very turn that continues as new, and what everybody sees meanwhile."""

from __future__ import annotations

import threading

import pytest
from support import finish, look, run, until

from flask_durable import RuntimeStatus


@pytest.mark.parametrize("saves", [True, False])
def test_what_arrives_during_the_turn_that_continues_reaches_the_next_generation(durable, make_durable, gate, ledger, saves):  # CAN-2, rule 32
    @durable.orchestrator
    def continues(ctx, generation):
        if generation:
            return (yield ctx.wait_for_external_event("E"))
        yield ctx.wait_for_external_event("Next")
        ledger.write("in the turn")
        gate.wait()
        ctx.continue_as_new(1, save_events=saves)

    durable.start_worker()
    elsewhere = make_durable()
    instance_id = durable.client.start(continues, 0)
    durable.client.raise_event(instance_id, "Next")
    until(ledger.read, "the turn ran")
    elsewhere.client.raise_event(instance_id, "E", "just in time")
    gate.open()
    assert finish(durable, instance_id).output == "just in time"


def test_a_termination_during_the_turn_that_continues_wins(durable, make_durable, gate, ledger):  # rules 33, 38
    @durable.orchestrator
    def continues(ctx, generation):
        yield ctx.wait_for_external_event("Next")
        ledger.write("in the turn")
        gate.wait()
        ctx.continue_as_new(generation + 1)

    durable.start_worker()
    elsewhere = make_durable()
    instance_id = durable.client.start(continues, 0)
    durable.client.raise_event(instance_id, "Next")
    until(ledger.read, "the turn ran")
    elsewhere.client.terminate(instance_id, "enough")
    gate.open()
    status = finish(durable, instance_id)
    assert (status.runtime_status, status.output, status.input) == (RuntimeStatus.TERMINATED, "enough", 0)


def test_nobody_sees_another_status_than_running_between_generations(durable):  # rule 35, CAN-1
    @durable.orchestrator
    def generations(ctx, number):
        yield ctx.call_activity("double", number)
        if number < 20:
            ctx.continue_as_new(number + 1)

    seen: set[RuntimeStatus] = set()
    is_over = threading.Event()

    def watch():
        while not is_over.is_set():
            status = durable.client.get_status(instance_id)
            if status is not None:
                seen.add(status.runtime_status)

    durable.start_worker()
    instance_id = durable.client.start(generations, 0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert finish(durable, instance_id).input == 20
    finally:
        is_over.set()
        watcher.join()
    assert seen <= {RuntimeStatus.PENDING, RuntimeStatus.RUNNING, RuntimeStatus.COMPLETED}


def test_an_instance_keeps_what_it_is_over_generations(durable):  # rule 31, CAN-1
    @durable.orchestrator
    def child(ctx, number):
        ctx.set_custom_status(f"generation {number}") if number == 0 else None
        if number < 2:
            ctx.continue_as_new(number + 1)
        return [ctx.parent_instance_id, number]

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator(child, 0, instance_id="child"))

    durable.start_worker()
    status = run(durable, parent, instance_id="p")
    assert status.output == ["p", 2]
    below = look(durable, "child")
    assert (below.custom_status, below.parent_instance_id) == ("generation 0", "p")
    assert below.created_time <= below.last_updated_time


@pytest.mark.parametrize("how", ["returns", "yields", "raises"])
def test_what_the_code_does_after_continue_as_new(durable, how):  # CAN-3, rule 33
    @durable.orchestrator
    def continues(ctx, is_second):
        if is_second:
            return "the second"
        ctx.continue_as_new(True)
        if how == "raises":
            raise ValueError("boom")
        if how == "yields":
            yield ctx.call_activity("double", 1)
        return "not this"

    durable.start_worker()
    status = run(durable, continues, False)
    assert (status.runtime_status, status.output) == ((RuntimeStatus.FAILED, "boom") if how == "raises" else (RuntimeStatus.COMPLETED, "the second"))
