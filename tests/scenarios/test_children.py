"""Orchestrations that call orchestrations."""

from __future__ import annotations

import pytest
from support import finish, has_status, look, run, until

from flask_durable import (
    InstanceFilter,
    InstanceFinishedError,
    InvalidArgumentError,
    RetryPolicy,
    RuntimeStatus,
    SubOrchestrationFailedError,
    TaskFailedError,
)


@pytest.fixture
def durable(durable):
    @durable.orchestrator
    def child(ctx, what):
        if what == "fail":
            yield ctx.call_activity("fail", "child")
        if what == "wait":
            yield ctx.wait_for_external_event("Go")
        return [what, ctx.parent_instance_id]

    return durable


def test_a_child_gives_its_output_to_its_parent(durable):  # SUB-1, SUB-2
    @durable.orchestrator
    def parent(ctx):
        outputs = yield ctx.when_all([ctx.call_sub_orchestrator("child", number) for number in (1, 2)])
        return [*outputs, (yield ctx.call_sub_orchestrator("child", 3, instance_id="named", version="9"))]

    durable.start_worker()
    status = run(durable, parent)
    assert status.output == [[1, status.instance_id], [2, status.instance_id], [3, status.instance_id]]
    children = durable.client.list(InstanceFilter(parent_instance_id=status.instance_id)).items
    assert len(children) == 3
    assert {each.parent_instance_id for each in children} == {status.instance_id}
    assert look(durable, "named").version == "9"


def test_a_child_gets_the_workers_version(make_durable):  # rule 49, VER-1
    durable = make_durable(DURABLE_VERSION="2.0")

    @durable.orchestrator
    def child(ctx):
        return ctx.version

    @durable.orchestrator
    def parent(ctx):
        return [ctx.version, (yield ctx.call_sub_orchestrator(child)), (yield ctx.call_sub_orchestrator(child, version="1.5"))]

    durable.start_worker()
    assert run(durable, parent, version="1.0").output == ["1.0", "2.0", "1.5"]


def test_a_childs_failure_can_be_caught(durable):  # SUB-2
    @durable.orchestrator
    def parent(ctx):
        try:
            yield ctx.call_sub_orchestrator("child", "fail")
        except SubOrchestrationFailedError as error:
            return [str(error), error.details.is_caused_by(TaskFailedError)]

    durable.start_worker()
    assert run(durable, parent).output == ["Sub-orchestration task #1 failed: Activity task #1 failed: child", True]


def test_a_childs_uncaught_failure_fails_the_parent(durable):  # rule 42
    @durable.orchestrator
    def parent(ctx):
        ctx.call_sub_orchestrator("child", "wait", instance_id="stays")
        yield ctx.call_sub_orchestrator("child", "fail")

    durable.start_worker()
    status = run(durable, parent)
    assert (status.runtime_status, status.output) == (RuntimeStatus.FAILED, "Sub-orchestration task #2 failed: Activity task #1 failed: child")
    assert look(durable, "stays").runtime_status is RuntimeStatus.RUNNING


def test_a_child_that_is_terminated_by_hand_fails_the_call_at_once(durable):  # SUB-2, rule 39
    @durable.orchestrator
    def parent(ctx):
        try:
            yield ctx.call_sub_orchestrator("child", "wait", instance_id="the-child")
        except TaskFailedError as error:
            return str(error)

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(has_status(durable, "the-child", RuntimeStatus.RUNNING))
    durable.client.terminate("the-child", "enough")
    assert finish(durable, instance_id).output == "Sub-orchestration task #1 failed: Instance 'the-child' was terminated"


def test_a_child_id_in_use_fails_the_call_and_leaves_the_other_alone(durable):  # SUB-3, rule 41
    @durable.orchestrator
    def parent(ctx):
        try:
            yield ctx.call_sub_orchestrator("child", "fine", instance_id="in-use")
        except TaskFailedError as error:
            return str(error)

    durable.start_worker()
    durable.client.start("wait_for_go", instance_id="in-use")
    until(has_status(durable, "in-use", RuntimeStatus.RUNNING))
    assert run(durable, parent).output == "Sub-orchestration task #1 failed: An instance with the id 'in-use' already exists; it is Running"
    durable.client.raise_event("in-use", "Go", "unharmed")
    assert finish(durable, "in-use").output == "unharmed"


def test_a_retried_child_has_a_new_id_at_each_attempt(durable, ledger):  # RTY-5, rule 28
    @durable.orchestrator
    def flaky(ctx, value):
        ledger.write(ctx.instance_id)
        if len(set(ledger.read())) < 3:
            raise OSError("not yet")
        return value
        yield

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator(flaky, "value", retry_policy=RetryPolicy(0.01, 5)))

    durable.start_worker()
    assert run(durable, parent).output == "value"
    assert len(set(ledger.read())) == 3


def test_a_retried_child_with_an_id_of_its_own_is_run_anew_under_it(durable, ledger):  # RTY-5
    @durable.orchestrator
    def flaky(ctx):
        ledger.write(ctx.execution_id)
        if len(set(ledger.read())) < 3:
            raise OSError("not yet")
        return ctx.instance_id

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator(flaky, instance_id="mine", retry_policy=RetryPolicy(0.01, 5)))

    durable.start_worker()
    assert run(durable, parent).output == "mine"
    assert len(set(ledger.read())) == 3


def test_a_loop_can_call_its_child_by_the_same_id_in_each_generation(durable):  # rule 41
    @durable.orchestrator
    def loop(ctx, outputs):
        outputs.append((yield ctx.call_sub_orchestrator("child", len(outputs), instance_id="step"))[0])
        if len(outputs) < 3:
            ctx.continue_as_new(outputs)
        return outputs

    durable.start_worker()
    assert run(durable, loop, []).output == [0, 1, 2]


def test_terminating_reaches_the_children_at_every_depth(durable):  # MGT-3, rule 38
    @durable.orchestrator
    def parent(ctx, depth):
        if depth == 0:
            yield ctx.wait_for_external_event("Go")
        return (yield ctx.call_sub_orchestrator("parent", depth - 1, instance_id=f"depth-{depth - 1}"))

    durable.start_worker()
    durable.client.start(parent, 3, instance_id="depth-3")
    until(has_status(durable, "depth-0", RuntimeStatus.RUNNING))
    durable.client.terminate("depth-3", {"why": "test"})
    for depth in range(4):
        status = finish(durable, f"depth-{depth}")
        assert (status.runtime_status, status.output) == (RuntimeStatus.TERMINATED, {"why": "test"})
    with pytest.raises(InstanceFinishedError):
        durable.client.terminate("depth-3")


def test_terminating_alone_leaves_the_children(durable):  # MGT-3
    @durable.orchestrator
    def parent(ctx):
        yield ctx.call_sub_orchestrator("child", "wait", instance_id="goes-on")

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(has_status(durable, "goes-on", RuntimeStatus.RUNNING))
    durable.client.terminate(instance_id, recursive=False)
    assert finish(durable, instance_id).runtime_status is RuntimeStatus.TERMINATED
    assert look(durable, "goes-on").runtime_status is RuntimeStatus.RUNNING
    durable.client.raise_event("goes-on", "Go")
    assert finish(durable, "goes-on").runtime_status is RuntimeStatus.COMPLETED


def test_a_parent_that_continues_as_new_stays_its_childrens_parent_only_for_what_it_awaits(durable):  # rule 31, CAN-4
    # Given a parent whose first generation leaves a child behind
    @durable.orchestrator
    def parent(ctx, generation):
        if generation == 0:
            ctx.call_sub_orchestrator("child", "wait", instance_id="old")
            yield ctx.wait_for_external_event("Next")
            ctx.continue_as_new(1)
            return None
        return (yield ctx.call_sub_orchestrator("child", "wait", instance_id="new"))

    durable.start_worker()
    instance_id = durable.client.start(parent, 0)
    until(has_status(durable, "old", RuntimeStatus.RUNNING))
    durable.client.raise_event(instance_id, "Next")
    until(has_status(durable, "new", RuntimeStatus.RUNNING))

    # When the old child ends, then the new generation does not take that for its own child's result
    durable.client.raise_event("old", "Go")
    finish(durable, "old")
    assert look(durable, instance_id).runtime_status is RuntimeStatus.RUNNING
    durable.client.raise_event("new", "Go")
    assert finish(durable, instance_id).output == ["wait", instance_id]


def test_a_parent_gets_the_result_of_a_childs_last_generation_only(durable):  # rule 31
    @durable.orchestrator
    def counts(ctx, number):
        if number < 3:
            ctx.continue_as_new(number + 1)
        return f"generation {number} of {ctx.parent_instance_id}"

    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator(counts, 0))

    durable.start_worker()
    status = run(durable, parent)
    assert status.output == f"generation 3 of {status.instance_id}"


def test_a_child_that_was_purged_does_not_hang_its_parent(durable):  # rule 43
    # Given a suspended parent whose child has ended and was purged
    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator("child", "wait", instance_id="purged"))

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(has_status(durable, "purged", RuntimeStatus.RUNNING))
    durable.client.suspend(instance_id)
    durable.client.raise_event("purged", "Go")
    finish(durable, "purged")
    assert durable.client.purge("purged") == 1

    # When the parent goes on, then it has the result
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == ["wait", instance_id]


def test_purging_takes_the_children_along_when_told(durable):  # MGT-5, rule 43
    @durable.orchestrator
    def parent(ctx, depth):
        if depth:
            yield ctx.call_sub_orchestrator("parent", depth - 1)

    durable.start_worker()
    for recursive, purged, left in ((False, 1, 2), (True, 3, 0)):
        status = run(durable, parent, 2)
        before = durable.client.count()
        assert durable.client.purge(status.instance_id, recursive=recursive) == purged
        assert durable.client.count() == before - purged
        durable.client.purge_by(InstanceFilter())
        assert left == 3 - purged


def test_a_deep_family_has_ids_within_the_limit(durable):  # rule 40
    @durable.orchestrator
    def nested(ctx, depth):
        if depth == 0:
            return [ctx.instance_id]
        return [ctx.instance_id, *(yield ctx.call_sub_orchestrator("nested", depth - 1))]

    durable.start_worker()
    ids = run(durable, nested, 12, instance_id="x" * 100).output
    assert len(set(ids)) == 13
    assert max(map(len, ids)) <= 100


# -- tags


def test_a_child_has_tags_of_its_own(durable):  # Tags
    @durable.orchestrator
    def parent(ctx):
        children = [
            ctx.call_sub_orchestrator("child", 1, instance_id="none"),
            ctx.call_sub_orchestrator("child", 1, instance_id="own", tags={"b": "own", "c": "3"}),
            ctx.call_sub_orchestrator("child", 1, instance_id="all", tags={"b": "own", "c": "3"}, inherit_tags=True),
            ctx.call_sub_orchestrator("child", 1, instance_id="same", inherit_tags=True),
        ]
        yield ctx.when_all(children)

    durable.start_worker()
    run(durable, parent, tags={"a": "1", "b": "2"}, instance_id="parent")
    tags = {each: dict(look(durable, each).tags) for each in ("none", "own", "all", "same")}
    assert tags == {"none": {}, "own": {"b": "own", "c": "3"}, "all": {"a": "1", "b": "own", "c": "3"}, "same": {"a": "1", "b": "2"}}
    found = durable.client.list(InstanceFilter(tags={"a": "1"})).items
    assert {each.instance_id for each in found} == {"parent", "all", "same"}
    [event] = [each.event for each in durable.client.history("parent").events if getattr(each.event, "instance_id", "") == "own"]
    assert event.tags == {"b": "own", "c": "3"}
    [event] = [each.event for each in durable.client.history("own").events if hasattr(each.event, "tags")]
    assert event.tags == {"b": "own", "c": "3"}


def test_tags_of_a_child_are_checked_at_the_call(durable):  # Tags
    @durable.orchestrator
    def parent(ctx):
        try:
            ctx.call_sub_orchestrator("child", 1, tags={"a": 1})
        except InvalidArgumentError as error:
            return str(error)

    durable.start_worker()
    assert run(durable, parent).output == "Tags are strings of at most 256 characters; 'a' is not"


def test_tags_stay_through_restart_and_generations(durable):  # Tags
    @durable.orchestrator
    def loop(ctx, rounds):
        if rounds:
            ctx.continue_as_new(rounds - 1)
        return ctx.tags

    durable.start_worker()
    first = run(durable, loop, 2, tags={"a": "1"})
    assert (dict(first.tags), first.output) == ({"a": "1"}, {"a": "1"})
    for new_id in (True, False):
        again = finish(durable, durable.client.restart(first.instance_id, new_instance_id=new_id))
        assert (dict(again.tags), again.output) == ({"a": "1"}, {"a": "1"})
