"""Events that are sent again, and suspending a whole family."""

from __future__ import annotations

import pytest
from support import finish, has_status, look, until

from flask_durable import RuntimeStatus
from flask_durable.errors import InvalidArgumentError


def test_an_event_that_is_sent_again_with_its_key_counts_once(durable):  # rule 23
    @durable.orchestrator
    def collects(ctx, collected):
        collected.append((yield ctx.wait_for_external_event("E")))
        if collected[-1] != "last":
            ctx.continue_as_new(collected)
        return collected

    durable.start_worker()
    instance_id = durable.client.start(collects, [])
    for _ in range(3):
        durable.client.raise_event(instance_id, "E", 1, dedup_key="one")
        until(lambda: look(durable, instance_id).input == [1], "the first generation had its event")
    durable.client.raise_event(instance_id, "E", 2, dedup_key="two")
    durable.client.raise_event(instance_id, "E", "last")
    assert finish(durable, instance_id).output == [1, 2, "last"]
    durable.client.raise_event(instance_id, "E", 1, dedup_key="one")


def test_a_restart_under_the_same_id_forgets_the_keys(durable):  # rules 23, 47
    durable.start_worker()
    instance_id = durable.client.start("wait_for_go")
    durable.client.raise_event(instance_id, "Go", 1, dedup_key="k")
    assert finish(durable, instance_id).output == 1
    durable.client.restart(instance_id, new_instance_id=False)
    durable.client.raise_event(instance_id, "Go", 2, dedup_key="k")
    assert finish(durable, instance_id).output == 2


@pytest.mark.parametrize("key", ["", "  ", "x" * 201, "a\x00b", "\ud800", 7])
def test_a_key_is_a_short_text(durable, key):  # rule 23, B5
    instance_id = durable.client.start("wait_for_go")
    with pytest.raises(InvalidArgumentError, match="de-duplication key"):
        durable.client.raise_event(instance_id, "Go", 1, dedup_key=key)


def test_a_whole_family_can_be_suspended_and_resumed(durable, ledger):  # rule 37
    @durable.orchestrator
    def grandchild(ctx):
        yield ctx.call_activity("double", 1)
        ledger.write((yield ctx.wait_for_external_event("Go")))
        return (yield ctx.call_activity("double", 21))

    @durable.orchestrator
    def child(ctx):
        return (yield ctx.call_sub_orchestrator(grandchild, instance_id=ctx.instance_id + "-below"))

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator(child, instance_id=ctx.instance_id + "-child"))

    family = ["top", "top-child", "top-child-below"]
    durable.start_worker()
    durable.client.start(parent, instance_id="top")
    until(lambda: durable.client.get_status(family[2]) is not None, "the family was there")
    durable.client.suspend("top", "audit", recursive=True)
    assert [look(durable, each).runtime_status for each in family] == [RuntimeStatus.SUSPENDED] * 3
    durable.client.raise_event(family[2], "Go", "now")
    durable.client.suspend("top", recursive=True)
    durable.client.resume("top")
    assert look(durable, "top").runtime_status is RuntimeStatus.RUNNING
    assert [look(durable, each).runtime_status for each in family[1:]] == [RuntimeStatus.SUSPENDED] * 2
    assert ledger.read() == []
    durable.client.resume("top", recursive=True)
    assert finish(durable, "top").output == 42
    assert set(ledger.read()) == {"now"}


def test_suspending_and_resuming_a_family_leaves_the_ended_alone(durable):  # rule 37
    @durable.orchestrator
    def done(ctx):
        return 1

    @durable.orchestrator
    def parent(ctx):
        first = yield ctx.call_sub_orchestrator(done, instance_id="done")
        return first + (yield ctx.call_sub_orchestrator("wait_for_go", instance_id="open"))

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(lambda: durable.client.get_status("open") is not None, "the second child was there")
    durable.client.suspend(instance_id, recursive=True)
    assert look(durable, "done").runtime_status is RuntimeStatus.COMPLETED
    durable.client.raise_event("open", "Go", 1)
    durable.client.resume(instance_id, recursive=True)
    assert finish(durable, instance_id).output == 2
    assert has_status(durable, "open", RuntimeStatus.COMPLETED)()


def test_a_family_that_goes_round_in_a_circle_can_be_controlled(durable):  # rules 37, 38, 43
    @durable.orchestrator
    def first(ctx):
        ctx.call_sub_orchestrator(second, instance_id="second")

    @durable.orchestrator
    def second(ctx):
        yield ctx.wait_for_external_event("Go")
        yield ctx.call_sub_orchestrator("wait_for_go", instance_id="first")

    durable.start_worker()
    durable.client.start(first, instance_id="first")
    finish(durable, "first")
    durable.client.raise_event("second", "Go")
    until(lambda: look(durable, "first").parent_instance_id == "second", "the second had called the first by its id")
    durable.client.suspend("second", recursive=True)
    durable.client.resume("first", recursive=True)
    durable.client.terminate("first")
    assert [finish(durable, each).runtime_status for each in ("first", "second")] == [RuntimeStatus.TERMINATED] * 2
    assert durable.client.purge("first", recursive=True) == 2
