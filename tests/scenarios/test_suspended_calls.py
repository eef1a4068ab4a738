"""Activities of a suspended instance: those that were taken end normally, those in the queue are not begun."""

from __future__ import annotations

import pytest
from support import finish, has_status, look, until
from worker_modes import MODE

from flask_durable import RuntimeStatus


def queued(durable):
    """How many calls are in the queue or held, whoever has them."""
    sql = durable._only.store._sql
    return sql.read(lambda: sql.value("SELECT COUNT(*) FROM durable_activity WHERE hub = ?", (durable._only.settings.task_hub,)))


def left(durable, ledger):
    """How many calls have not been begun, once all that were begun have been recorded; 0 before."""
    count = queued(durable)
    return count if count == 6 - len(ledger) else 0


@pytest.fixture
def durable(make_durable, ledger, gate):
    """An app with one thread, and an orchestrator that fans out to more than that."""
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)

    @durable.activity
    def step(number):
        ledger.write(number)
        gate.wait()
        return number

    @durable.orchestrator
    def fans_out(ctx):
        return (yield ctx.when_all([ctx.call_activity(step, number) for number in range(6)]))

    return durable


def test_what_is_in_the_queue_waits_for_the_resumption(durable, ledger, gate):  # rule 36, MGT-1
    durable.start_worker()
    instance_id = durable.client.start("fans_out")
    until(ledger.read, "the first activity ran")
    durable.client.suspend(instance_id)
    gate.open()
    count = until(lambda: left(durable, ledger), "the results of what had begun were recorded")
    if MODE == "one":
        assert count == 5
    other = durable.client.start("fans_out")
    assert finish(durable, other).output == list(range(6)), "others use the thread meanwhile"
    assert len(ledger) == 6 - count + 6
    assert look(durable, instance_id).runtime_status is RuntimeStatus.SUSPENDED
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == list(range(6))
    assert len(ledger) == 12


def test_a_suspended_instance_takes_its_held_calls_along_when_it_is_terminated(durable, ledger, gate):  # rules 36, 38
    durable.start_worker()
    instance_id = durable.client.start("fans_out")
    until(ledger.read, "the first activity ran")
    durable.client.suspend(instance_id)
    durable.client.terminate(instance_id)
    gate.open()
    until(lambda: queued(durable) == 0, "nothing was left")
    assert len(ledger) == 1 if MODE == "one" else len(ledger) < 6


def test_calls_of_a_family_are_held_with_it(durable, ledger, gate):  # rules 36, 37
    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator("fans_out", instance_id="child"))

    durable.start_worker()
    instance_id = durable.client.start(parent)
    until(ledger.read, "an activity of the child ran")
    durable.client.suspend(instance_id, recursive=True)
    assert has_status(durable, "child", RuntimeStatus.SUSPENDED)()
    gate.open()
    durable.client.resume(instance_id, recursive=True)
    assert finish(durable, instance_id).output == list(range(6))
    assert sorted(set(ledger.read())) == list(range(6))
