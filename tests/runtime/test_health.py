"""What a worker says of itself to those who watch over it."""

from __future__ import annotations

from support import until

from flask_durable.runtime.health import STILL_SECONDS, Health, Pulse
from flask_durable.runtime.lease import Lease

REST = 30.0


class StillClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> int:
        return round(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


def pulse_at(clock: StillClock) -> tuple[Pulse, Lease]:
    lease = Lease(15, clock)
    lease.begin("w", clock.monotonic())
    return Pulse(clock.monotonic, lease, REST), lease


def test_a_worker_whose_loop_goes_round_and_whose_lease_holds_is_live_and_ready():
    clock = StillClock()
    pulse, _ = pulse_at(clock)
    clock.seconds += 12
    pulse.went_round()
    assert pulse.health() == Health(True, True)


def test_one_whose_lease_is_over_is_live_but_not_ready_until_it_is_renewed():
    clock = StillClock()
    pulse, lease = pulse_at(clock)
    clock.seconds += 15
    pulse.went_round()
    found = pulse.health()
    assert (found.is_live, found.is_ready) == (True, False)
    assert "the database does not answer" in str(found.reason)
    lease.renew(clock.monotonic())
    assert pulse.health() == Health(True, True)


def test_one_whose_loop_stands_still_is_not_live():
    clock = StillClock()
    pulse, lease = pulse_at(clock)
    clock.seconds += STILL_SECONDS + REST
    lease.renew(clock.monotonic())
    assert pulse.health() == Health(True, True)
    clock.seconds += 1
    assert pulse.health() == Health(False, False, "the loop has stood still for 91 s")
    pulse.went_round()
    assert pulse.health() == Health(True, True)


def test_one_that_stops_is_live_but_not_ready():
    pulse, _ = pulse_at(StillClock())
    pulse.drains()
    assert pulse.health() == Health(True, False, "the worker stops")


def test_a_real_worker_counts_its_calls_and_is_well(durable, inside):
    @durable.activity
    def step(number):
        return number

    @durable.orchestrator
    def three(ctx):
        return (yield ctx.when_all([ctx.call_activity(step, number) for number in range(3)]))

    state = inside(durable)
    durable.start_worker()
    assert durable.client.start_and_wait(three, timeout=30).output == [0, 1, 2]
    assert state.worker.ended_calls == 3
    assert state.worker.health() == Health(True, True)
    until(lambda: state.worker.health().is_ready, "it stays ready")
