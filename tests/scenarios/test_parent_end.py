"""What becomes of children when their parent ends."""

from __future__ import annotations

import pytest
from support import event_names, finish, has_status, look, until

from flask_durable import RuntimeStatus, current_activity
from flask_durable.storage.interface import InstanceFilter


@pytest.fixture
def family(durable):
    """Orchestrators: a parent with two children, one of which it binds, and a grandchild below that one."""

    @durable.orchestrator
    def below(ctx):
        return (yield ctx.call_sub_orchestrator("wait_for_go", instance_id="grandchild"))

    @durable.orchestrator
    def parent(ctx, how):
        ctx.call_sub_orchestrator("wait_for_go", instance_id="left")
        ctx.call_sub_orchestrator(below, instance_id="bound", on_parent_end="terminate")
        if how == "again":
            yield ctx.wait_for_external_event("Never")
        yield ctx.wait_for_external_event("End")
        if how == "fails":
            yield ctx.call_activity("fail", "boom")
        if how == "continues":
            ctx.continue_as_new("again")

    durable.start_worker()
    return durable


@pytest.mark.parametrize(("how", "status"), [("returns", RuntimeStatus.COMPLETED), ("fails", RuntimeStatus.FAILED)])
def test_bound_children_are_terminated_with_their_own_and_the_others_go_on(family, how, status):  # rule 42
    family.client.start("parent", how, instance_id="top")
    until(lambda: family.client.get_status("grandchild") is not None, "the family was there")
    until(has_status(family, "left", RuntimeStatus.RUNNING), "the other child ran")
    family.client.raise_event("top", "End")
    assert finish(family, "top").runtime_status is status
    assert [look(family, each).runtime_status for each in ("bound", "grandchild")] == [RuntimeStatus.TERMINATED] * 2
    assert look(family, "bound").output == "The parent instance 'top' ended"
    assert event_names(family, "bound")[-2:] == ["ExecutionTerminated", "ExecutionCompleted"]
    family.client.raise_event("left", "Go", "still here")
    assert finish(family, "left").output == "still here"


def test_bound_children_of_a_generation_end_with_it(family):  # rules 31, 42
    family.client.start("parent", "continues", instance_id="top")
    until(lambda: family.client.get_status("grandchild") is not None, "the family was there")
    first = look(family, "bound").created_time
    family.client.raise_event("top", "End")
    until(lambda: look(family, "bound").created_time > first, "the next generation called its child by the same id")
    until(has_status(family, "grandchild", RuntimeStatus.RUNNING), "so did that")
    family.client.terminate("top")


def test_a_parent_that_is_terminated_alone_leaves_even_bound_children(family):  # rules 38, 42
    family.client.start("parent", "returns", instance_id="top")
    until(has_status(family, "grandchild", RuntimeStatus.RUNNING), "the family was there")
    family.client.terminate("top", recursive=False)
    assert look(family, "bound").runtime_status is RuntimeStatus.RUNNING
    family.client.terminate("bound")


def test_a_bound_child_of_the_last_turn_never_runs(durable, ledger):  # rule 42, DET-10
    @durable.orchestrator
    def child(ctx):
        ledger.write(1)

    @durable.orchestrator
    def parent(ctx):
        ctx.call_sub_orchestrator(child, instance_id="bound", on_parent_end="terminate")

    durable.start_worker()
    assert finish(durable, durable.client.start(parent)).runtime_status is RuntimeStatus.COMPLETED
    assert (look(durable, "bound").runtime_status, ledger.read()) == (RuntimeStatus.TERMINATED, [])


def test_activities_of_a_bound_child_are_dropped_with_it(durable, gate, ledger):  # rules 38, 42
    @durable.activity
    def slow():
        ledger.write("began")
        gate.wait()
        ledger.write(current_activity.is_cancelled)

    @durable.orchestrator
    def child(ctx):
        yield ctx.call_activity(slow)
        raise AssertionError("nobody may go on here")

    @durable.orchestrator
    def parent(ctx):
        ctx.call_sub_orchestrator(child, instance_id="bound", on_parent_end="terminate")
        yield ctx.wait_for_external_event("End")

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(ledger.read, "the activity ran")
    durable.client.raise_event(instance_id, "End")
    finish(durable, instance_id)
    gate.open()
    until(lambda: ledger.read() == ["began", True], "the activity saw that it is not wanted any more")
    assert look(durable, "bound").runtime_status is RuntimeStatus.TERMINATED


@pytest.mark.lasting_worker("a replaced worker begins the turn anew, with its time")
def test_an_instance_that_is_failed_from_outside_takes_its_bound_children_along(make_durable):  # rules 8, 42
    durable = make_durable(DURABLE_TURN_TIMEOUT=1.0)

    @durable.orchestrator
    def child(ctx):
        yield ctx.wait_for_external_event("Never")

    @durable.orchestrator
    def parent(ctx):
        ctx.call_sub_orchestrator(child, instance_id="bound", on_parent_end="terminate")
        yield ctx.wait_for_external_event("Loop")
        while True:
            pass

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(lambda: durable.client.get_status("bound") is not None, "the child was there")
    durable.client.raise_event(instance_id, "Loop")
    assert finish(durable, instance_id).runtime_status is RuntimeStatus.FAILED
    assert look(durable, "bound").runtime_status is RuntimeStatus.TERMINATED


def test_a_parent_ends_the_children_of_its_present_execution_only(durable):  # rules 42, 47
    @durable.orchestrator
    def parent(ctx):
        policy = yield ctx.wait_for_external_event("Policy")
        child = ctx.call_sub_orchestrator("wait_for_go", on_parent_end=policy)
        yield ctx.when_any([child, ctx.wait_for_external_event("End")])

    def open_children():
        items = durable.client.list(InstanceFilter(parent_instance_id="top")).items
        return {item.instance_id for item in items if not item.is_finished}

    durable.start_worker()
    durable.client.start(parent, instance_id="top")
    for policy, count in (("leave", 1), ("terminate", 2)):
        durable.client.raise_event("top", "Policy", policy)
        until(lambda count=count: len(open_children()) == count, "the child was there")
        if policy == "leave":
            left = open_children()
        durable.client.raise_event("top", "End")
        finish(durable, "top")
        if policy == "leave":
            durable.client.restart("top", new_instance_id=False)
    assert open_children() == left
