"""Parents and children from outside: what lists show, and what a restart of a child means."""

from __future__ import annotations

from support import finish, look, run, until

from flask_durable import RuntimeStatus
from flask_durable.storage.interface import InstanceFilter


def test_lists_show_parents_and_can_be_narrowed_to_the_children_of_one(durable):  # rule 44, SUB-1
    @durable.orchestrator
    def child(ctx):
        return ctx.parent_instance_id

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.when_all([ctx.call_sub_orchestrator(child, instance_id=f"{ctx.instance_id}-{letter}") for letter in "ab"]))

    durable.start_worker()
    assert run(durable, parent, instance_id="p").output == ["p", "p"]
    assert {item.instance_id: item.parent_instance_id for item in durable.client.list().items} == {"p": None, "p-a": "p", "p-b": "p"}
    assert sorted(item.instance_id for item in durable.client.list(InstanceFilter(parent_instance_id="p")).items) == ["p-a", "p-b"]


def test_a_restarted_child_runs_on_its_own(durable):  # rule 47
    @durable.orchestrator
    def parent(ctx):
        first = yield ctx.call_sub_orchestrator("wait_for_go", instance_id="child")
        second = yield ctx.wait_for_external_event("End")
        return [first, second]

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(lambda: durable.client.get_status("child") is not None, "the child was there")
    durable.client.raise_event("child", "Go", 1)
    finish(durable, "child")
    for same_id in (True, False):
        again = durable.client.restart("child", new_instance_id=not same_id)
        assert (look(durable, again).parent_instance_id, look(durable, again).restarted_from) == (None, "child")
        durable.client.raise_event(again, "Go", 2)
        assert finish(durable, again).output == 2
    durable.client.raise_event(instance_id, "End", 3)
    assert finish(durable, instance_id).output == [1, 3]


def test_a_restarted_parent_makes_children_of_other_ids(durable):  # rules 40, 47
    @durable.orchestrator
    def child(ctx):
        return ctx.instance_id

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator(child))

    durable.start_worker()
    first = run(durable, parent)
    durable.client.restart(first.instance_id, new_instance_id=False)
    second = finish(durable, first.instance_id)
    assert second.output != first.output
    assert look(durable, first.output).runtime_status is RuntimeStatus.COMPLETED


def test_a_restart_after_generations_begins_with_the_last_input(durable):  # rules 31, 47
    @durable.orchestrator
    def counts(ctx, number):
        if number < 3:
            ctx.continue_as_new(number + 1, version="9")
        return [number, ctx.generation]

    durable.start_worker()
    first = run(durable, counts, 0, version="1", tags={"k": "v"})
    assert (first.output, first.version) == ([3, 3], "9")
    second = finish(durable, durable.client.restart(first.instance_id))
    assert (second.output, second.version, second.tags) == ([3, 0], "9", {"k": "v"})


def test_a_child_purged_before_its_parent_read_the_result_does_not_hang_it(durable):  # rule 43
    @durable.orchestrator
    def child(ctx):
        return 21 if (yield ctx.wait_for_external_event("Go")) else None

    @durable.orchestrator
    def parent(ctx):
        return 2 * (yield ctx.call_sub_orchestrator(child, instance_id="child"))

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(lambda: durable.client.get_status("child") is not None, "the child was there")
    durable.client.suspend(instance_id)
    durable.client.raise_event("child", "Go", True)
    finish(durable, "child")
    assert durable.client.purge("child") == 1
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == 42
