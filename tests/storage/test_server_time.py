"""What a server's clock says, told without asking it each time."""

from __future__ import annotations

from flask_durable.storage.server_time import MAX_AGE, ServerTime

from .conftest import FakeClock


class Watch(FakeClock):
    def monotonic(self) -> float:
        return self.micros / 1e6


def test_a_reading_is_carried_on_and_then_asked_for_again():  # DESIGN 3.2: database time
    clock = Watch()
    server = ServerTime(clock)
    assert server.estimate() is None
    assert server.read(1_000_000) == 1_000_000
    clock.forward(2)
    assert abs(server.estimate() - 3_000_000) < 10
    clock.forward(MAX_AGE)
    assert server.estimate() is None
    server.read(7_000_000)  # the server's clock was set meanwhile
    assert abs(server.estimate() - 7_000_000) < 10


def test_a_reading_that_a_later_one_has_overtaken_does_not_turn_time_back():  # DESIGN 3.2: database time
    clock = Watch()
    server = ServerTime(clock)
    server.read(5_000_000)
    clock.forward(0.1)
    assert server.read(5_020_000) == 5_020_000  # its thread had to wait for 80 ms
    assert server.estimate() >= 5_100_000
    server.read(5_200_000)
    assert server.estimate() >= 5_200_000


def test_every_backend_tells_the_time_of_its_commits(desk):
    before = desk.store.now()
    committed = desk.claim()
    assert before <= committed.at + 1_000_000
    assert abs(desk.store.now() - committed.at) < 5_000_000
