"""Parked instances: seen in every list with their reason, released, or ended and purged (retention keeps its hands off them)."""

from __future__ import annotations

import pytest
from support import finish, has_status, look, until

from flask_durable import RuntimeStatus
from flask_durable.runtime.retention import Retention
from flask_durable.storage.interface import InstanceFilter, Park

PARKED = InstanceFilter(is_parked=True)
REASON = "5 workers died with it"


@pytest.fixture
def parked(durable):
    """An instance that waits for Go and is parked."""
    instance_id = durable.client.start("wait_for_go")
    durable.start_worker()
    until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    durable._only.client._run(Park(instance_id, REASON))
    return instance_id


def test_a_parked_instance_is_listed_with_its_reason(durable, parked):  # dead letter
    other = durable.client.start("wait_for_go")
    assert [(each.instance_id, each.parked_reason) for each in durable.client.list(PARKED).items] == [(parked, REASON)]
    assert [each.instance_id for each in durable.client.list(InstanceFilter(is_parked=False)).items] == [other]


def test_nobody_works_on_it_until_it_is_released_and_nothing_is_lost(durable, parked):  # dead letter
    durable.client.raise_event(parked, "Go", 7)
    other = durable.client.start("wait_for_go")
    until(has_status(durable, other, RuntimeStatus.RUNNING), "the worker had looked for work again")
    assert look(durable, parked).runtime_status is RuntimeStatus.RUNNING
    durable.client.resume(parked, "the machine has more memory now")
    assert finish(durable, parked).output == 7
    assert durable.client.list(PARKED).items == ()


def test_it_can_be_ended_and_purged(durable, parked):  # dead letter
    durable.client.terminate(parked, "given up")
    found = look(durable, parked)
    assert (found.runtime_status, found.output, found.parked_reason) == (RuntimeStatus.TERMINATED, "given up", None)
    assert durable.client.purge(parked) == 1
    assert durable.client.get_status(parked) is None


def test_retention_leaves_it_alone(durable, parked):  # retention
    store = durable._only.store
    assert Retention(store, dict.fromkeys(RuntimeStatus, 1)).sweep() == 0
    assert look(durable, parked).parked_reason == REASON


def test_the_worker_deletes_what_is_too_old_and_keeps_children_of_running_parents(make_durable, monkeypatch):  # retention
    monkeypatch.setattr("flask_durable.runtime.retention.INTERVAL", 0.05)
    durable = make_durable(DURABLE_RETENTION={"Completed": 1e-9})

    @durable.orchestrator
    def leaf(ctx, value):
        return value

    @durable.orchestrator
    def parent(ctx, value):
        found = yield ctx.call_sub_orchestrator(leaf, value, instance_id=f"{ctx.instance_id}-leaf")
        yield ctx.wait_for_external_event("Go")
        return found

    durable.start_worker()
    running = durable.client.start(parent, 1, instance_id="running")
    until(lambda: durable.client.get_status("running-leaf") and look(durable, "running-leaf").is_finished)
    durable.client.start(leaf, 2, instance_id="alone")
    until(lambda: durable.client.get_status("alone") is None, "the old instance was deleted")
    assert look(durable, "running-leaf").output == 1
    durable.client.raise_event(running, "Go")
    until(lambda: durable.client.list().items == (), "parent and child were deleted")


@pytest.mark.one_worker("it looks into the worker of this process")
def test_without_retention_nothing_goes(durable):
    durable.start_worker()
    durable.client.terminate(durable.client.start("wait_for_go", instance_id="kept"))
    assert durable._only.worker._retention.sweep() == 0
    assert look(durable, "kept").is_finished


def test_a_failed_parent_can_be_rewound_after_retention_has_passed(durable, gate):  # retention
    @durable.activity
    def pay(value):
        if not gate.is_open:
            raise ValueError("no money")
        return value

    @durable.orchestrator
    def leaf(ctx, value):
        return value + 1

    @durable.orchestrator
    def order(ctx, value):
        found = yield ctx.call_sub_orchestrator(leaf, value, instance_id="leaf")
        yield ctx.call_activity(pay, found)
        yield ctx.wait_for_external_event("Go")
        return found

    durable.start_worker()
    instance_id = durable.client.start(order, 1, instance_id="order")
    assert finish(durable, instance_id).runtime_status is RuntimeStatus.FAILED
    old_completed = Retention(durable._only.store, {RuntimeStatus.COMPLETED: 1})
    assert old_completed.sweep() == 0
    assert look(durable, "leaf").output == 2

    gate.open()
    durable.client.rewind(instance_id)
    until(lambda: look(durable, instance_id).runtime_status is RuntimeStatus.RUNNING)
    assert Retention(durable._only.store, dict.fromkeys(RuntimeStatus, 1)).sweep() == 0, "it has not ended any more"
    durable.client.raise_event(instance_id, "Go")
    assert finish(durable, instance_id).output == 2
    assert [Retention(durable._only.store, dict.fromkeys(RuntimeStatus, 1)).sweep() for _ in range(3)] == [1, 1, 0]
