"""A worker that cannot renew knows that its lease is over before another may take its work, and begins nothing more."""

from __future__ import annotations

import threading

import pytest
from support import finish, until

from flask_durable.errors import StoreUnavailableError
from flask_durable.runtime.lease import Lease


class Clock:
    at = 100.0

    def monotonic(self):
        return self.at

    def now(self):
        return round(self.at * 1e6)


@pytest.mark.parametrize(("seconds", "margin"), [(15.0, 2.0), (1.0, 0.2)])
def test_it_is_over_for_its_owner_before_it_is_for_others(seconds, margin):
    clock = Clock()
    lease = Lease(seconds, clock)
    assert lease.is_over
    lease.begin("a", lease.now())
    clock.at += 1e-6 + seconds - margin - 0.01
    assert lease.covers("a")
    assert not lease.covers("b")
    clock.at += 0.01
    assert lease.is_over
    assert not lease.covers("a")
    lease.renew(lease.now())
    assert lease.covers("a")
    lease.renew(0.0)  # an answer that was overtaken changes nothing
    assert lease.covers("a")


def test_no_activity_begins_while_the_lease_cannot_be_renewed(make_durable, monkeypatch, caplog):
    durable = make_durable(DURABLE_LEASE_SECONDS=1, DURABLE_MAX_ACTIVITIES=1)
    begun, go = [], threading.Event()

    @durable.activity
    def step(number):
        begun.append(number)
        go.wait(30)
        return number

    @durable.orchestrator
    def two(ctx):
        return (yield ctx.when_all([ctx.call_activity(step, number) for number in range(2)]))

    durable.start_worker()
    worker = durable._state().worker
    instance_id = durable.client.start("two")
    until(lambda: begun, "the first call runs, the second is in the queue")

    # Given that heartbeats fail until the lease is over
    def fail(*arguments):
        raise StoreUnavailableError("the network is gone")

    monkeypatch.setattr(durable._state().store, "renew_worker", fail)
    until(lambda: worker.lease.is_over, "the worker knows")
    go.set()
    until(lambda: "begins no activity" in caplog.text, "the worker says so")
    assert len(begun) == 1

    # When they succeed again, under whichever id, then it goes on
    monkeypatch.undo()
    assert sorted(finish(durable, instance_id).output) == [0, 1]
    durable.stop_worker()
