"""What outlives a worker, a deploy, and a change of code."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from support import event_names, finish, has_status, look, run, until

from flask_durable import InstanceFilter, RuntimeStatus


def test_work_goes_on_with_the_next_worker(durable):  # WRK-2, WRK-3
    @durable.orchestrator
    def long(ctx):
        value = 1
        for step in range(8):
            value = yield ctx.call_activity("double", value)
            yield ctx.create_timer(timedelta(milliseconds=15))
            if step == 5:
                yield ctx.wait_for_external_event("Go")
        return value

    # Given instances that were begun
    instance_ids = [durable.client.start(long) for _ in range(5)]

    # When the worker is replaced again and again in the middle
    for steps in range(2, 12, 3):
        durable.start_worker()
        until(lambda steps=steps: len(event_names(durable, instance_ids[0])) >= steps)
        durable.stop_worker()
    for instance_id in instance_ids:
        durable.client.raise_event(instance_id, "Go")
    durable.start_worker()

    # Then no outcome and no count changes
    assert [finish(durable, instance_id).output for instance_id in instance_ids] == [256] * 5
    for instance_id in instance_ids:
        assert len(event_names(durable, instance_id)) == 2 + 8 * 4 + 1


def test_stopping_waits_for_running_activities_and_keeps_their_results(durable, ledger, gate):  # WRK-2
    @durable.activity
    def slow():
        ledger.write(1)
        gate.wait()
        return "slow"

    @durable.orchestrator
    def waits(ctx):
        return (yield ctx.call_activity(slow))

    durable.start_worker()
    instance_id = durable.client.start(waits)
    until(ledger.read)
    stopping = threading.Thread(target=durable.stop_worker)
    stopping.start()
    gate.open()
    stopping.join(15)
    assert not stopping.is_alive()
    durable.start_worker()
    assert finish(durable, instance_id).output == "slow"
    assert ledger.read() == [1]


def test_activities_that_were_not_begun_go_to_the_next_worker(make_durable, ledger, gate):  # WRK-2
    first, second = (make_durable(DURABLE_MAX_ACTIVITIES=1) for _ in range(2))

    for place, durable in enumerate((first, second)):

        def work(number, place=place):
            ledger.write([number, place])
            gate.wait()
            return number

        durable.activity(name="work")(work)

        @durable.orchestrator
        def fan(ctx):
            return (yield ctx.when_all([ctx.call_activity("work", number) for number in range(40)]))

    first.start_worker()
    instance_id = first.client.start("fan")
    until(ledger.read)
    stopping = threading.Thread(target=first.stop_worker)
    stopping.start()
    second.start_worker()
    gate.open()
    assert finish(second, instance_id).output == list(range(40))
    stopping.join(15)
    assert sorted(number for number, _ in ledger.read()) == list(range(40))
    assert {place for _, place in ledger.read()} == {0, 1}


def test_clients_without_a_worker_and_a_worker_elsewhere(make_durable):  # DESIGN 3.4
    # Given a web app that runs no worker and does not know the code
    web, worker = make_durable(DURABLE_WORKER=False), make_durable()

    @worker.orchestrator
    def elsewhere(ctx, value):
        return [value, (yield ctx.wait_for_external_event("Go"))]

    # When it starts an instance and another app works
    instance_id = web.client.start("elsewhere", 1)
    web.client.raise_event(instance_id, "Go", 2)
    worker.start_worker()

    # Then both see it end
    assert finish(web, instance_id).output == [1, 2]
    assert look(worker, instance_id).output == [1, 2]


def test_two_workers_share_the_work_and_do_nothing_twice(make_durable, ledger):  # WRK-1, WRK-3
    durables = [make_durable(DURABLE_MAX_ACTIVITIES=2) for _ in range(2)]
    for durable in durables:
        durable.activity(name="effect")(ledger.write)

        @durable.orchestrator
        def steps(ctx, number):
            for step in range(3):
                yield ctx.call_activity("effect", f"{number}:{step}")
                yield ctx.wait_for_external_event("Next", timeout=timedelta(milliseconds=5), default=None)
            return number

        durable.start_worker()
    instance_ids = [durables[number % 2].client.start("steps", number) for number in range(40)]
    assert [finish(durables[0], instance_id).output for instance_id in instance_ids] == list(range(40))
    assert sorted(ledger.read()) == sorted(f"{number}:{step}" for number in range(40) for step in range(3))


def deploy(make_durable, **config):
    """Makes versions of an app whose orchestrator calls that activity and then waits."""

    def make(*activities):
        durable = make_durable(**config)
        durable.activity(name="charge")(lambda: "charged")
        durable.activity(name="bill")(lambda: "billed")

        @durable.orchestrator
        def order(ctx):
            results = []
            for name in activities:
                results.append((yield ctx.call_activity(name)))
            return [*results, (yield ctx.wait_for_external_event("Go"))]

        return durable

    return make


def run_first(durable, events):
    durable.start_worker()
    instance_id = durable.client.start("order")
    until(lambda: len(event_names(durable, instance_id)) >= events)
    durable.stop_worker()
    return instance_id


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (["charge"], ["bill"], "step 1: the history says call_activity('charge'), the code asked for call_activity('bill')"),
        (["charge", "bill"], ["bill", "charge"], "step 1: the history says call_activity('charge'), the code asked for call_activity('bill')"),
        (["charge", "bill"], ["charge"], "step 2: the history says call_activity('bill'), the code asked for nothing"),
        (["charge"], [], "step 1: the history says call_activity('charge'), the code asked for nothing"),
        (["charge"], ["charge", "bill"], "step 2: the history says nothing, the code asked for call_activity('bill')"),
    ],
    ids=["renamed", "reordered", "removed", "removed-only", "added"],
)
def test_changed_code_fails_the_instance_with_what_differs(make_durable, before, after, message):  # DET-5 to DET-7, rule 2
    # Given an instance that was begun with other code
    make = deploy(make_durable)
    old, new = make(*before), make(*after)
    instance_id = run_first(old, 1 + 2 * len(before))

    # When the new code has to go on with it
    new.start_worker()
    new.client.raise_event(instance_id, "Go")

    # Then it fails, and says what the history has and what the code asked for
    status = finish(new, instance_id)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert message in status.output
    assert "Put back the code that this instance was started with" in status.output


def test_changed_code_can_park_the_instance_until_the_right_code_is_back(make_durable):  # rule 2
    # Given an instance that was begun with other code, and a deploy that parks what does not fit
    make = deploy(make_durable, DURABLE_NONDETERMINISM="park")
    old, new = make("charge"), make("bill")
    instance_id = run_first(old, 3)
    new.start_worker()
    new.client.raise_event(instance_id, "Go", "kept")

    # Then it is parked, with the reason, and others go on
    until(lambda: look(new, instance_id).parked_reason)
    assert "call_activity('charge')" in look(new, instance_id).parked_reason
    assert look(new, instance_id).runtime_status is RuntimeStatus.RUNNING
    assert new.client.count(InstanceFilter(is_parked=True)) == 1
    other = new.client.start("order")
    new.client.raise_event(other, "Go", 1)
    assert finish(new, other).output == ["billed", 1]
    new.stop_worker()

    # When the old code is back and somebody resumes it, then it ends as if nothing had been
    old.start_worker()
    old.client.resume(instance_id)
    assert finish(old, instance_id).output == ["charged", "kept"]
    assert look(old, instance_id).parked_reason is None


def test_a_parked_instance_can_be_terminated(make_durable):  # rule 2
    make = deploy(make_durable, DURABLE_NONDETERMINISM="park")
    old, new = make("charge"), make("bill")
    instance_id = run_first(old, 3)
    new.start_worker()
    new.client.raise_event(instance_id, "Go")
    until(lambda: look(new, instance_id).parked_reason)
    new.client.terminate(instance_id, "given up")
    status = finish(new, instance_id)
    assert (status.runtime_status, status.output, status.parked_reason) == (RuntimeStatus.TERMINATED, "given up", None)
    assert new.client.purge(instance_id) == 1


def test_an_orchestrator_that_only_another_version_knows_waits_for_it(make_durable):  # rule 8, REG-5
    new, old = make_durable(), make_durable()

    @new.orchestrator
    def brand_new(ctx):
        return "new"

    @old.orchestrator
    def known(ctx):
        return "known"

    old.start_worker()
    instance_id = old.client.start("brand_new")
    assert run(old, "known").output == "known"
    assert look(old, instance_id).runtime_status is RuntimeStatus.PENDING
    new.start_worker()
    assert finish(new, instance_id).output == "new"


def test_a_restarted_app_goes_on_with_what_waits(make_durable):  # WRK-3, rule 20
    def make():
        durable = make_durable()

        @durable.orchestrator
        def collects(ctx):
            collected = []
            for _ in range(3):
                collected.append((yield ctx.wait_for_external_event("Part")))
            return collected

        durable.start_worker()
        return durable

    durable = make()
    instance_id = durable.client.start("collects")
    until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    for number in range(3):
        durable.client.raise_event(instance_id, "Part", number)
        durable.close()
        durable = make()
    assert finish(durable, instance_id).output == [0, 1, 2]
