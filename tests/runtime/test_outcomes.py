"""The loop and a commit of which not even the storage could find out whether it landed."""

from __future__ import annotations

import time

import pytest
from support import finish, until

from flask_durable.errors import OutcomeUnknownError, StoreUnavailableError, WorkerLostError
from flask_durable.storage.interface import RaiseEvent


class Unsure:
    """The next commit with an event is not answered, and for a while nobody can be asked."""

    def __init__(self, durable, *, lands, answer=None):
        self.store = durable._state().store
        self.commit, self.has_landed = self.store.commit, self.store.has_landed
        self.lands, self.answer = lands, answer
        self.is_armed, self.silences = True, 3
        self.store.commit, self.store.has_landed = self.unanswered, self.silent

    def unanswered(self, batch):
        if not self.is_armed or not any(isinstance(command, RaiseEvent) for command in batch.commands):
            return self.commit(batch)
        self.is_armed = False
        raise OutcomeUnknownError(self.commit(batch) if self.lands else None)

    def silent(self, batch):
        if self.silences:
            self.silences -= 1
            raise StoreUnavailableError("The database does not answer")
        if self.answer is not None:
            raise self.answer
        return self.has_landed(batch)


@pytest.fixture
def shop(durable):
    @durable.activity
    def double(value):
        return value * 2

    @durable.orchestrator
    def two_events(ctx):
        first = yield ctx.wait_for_external_event("Go")
        doubled = yield ctx.call_activity(double, first)
        return [first, doubled, (yield ctx.wait_for_external_event("Go"))]

    durable.start_worker()
    return durable


@pytest.mark.parametrize("lands", [True, False])
def test_callers_are_told_that_nobody_knows_and_the_loop_goes_on_when_it_does(shop, lands):
    instance_id = shop.client.start("two_events")
    shop.client.wait_for_start(instance_id, timeout=20)
    unsure = Unsure(shop, lands=lands)
    with pytest.raises(OutcomeUnknownError):
        shop.client.raise_event(instance_id, "Go", 1)
    until(lambda: unsure.silences == 0, "the loop has asked")
    for number in (2, 3) if not lands else (2,):
        shop.client.raise_event(instance_id, "Go", number)
    assert finish(shop, instance_id).output == ([1, 2, 2] if lands else [2, 4, 3])
    assert shop._state().worker.engine.lost_count == 0


def test_who_calls_meanwhile_is_told_at_once_that_the_database_is_away(shop):  # G9
    instance_id = shop.client.start("two_events")
    shop.client.wait_for_start(instance_id, timeout=20)
    unsure = Unsure(shop, lands=True)
    unsure.silences = 10**9
    with pytest.raises(OutcomeUnknownError):
        shop.client.raise_event(instance_id, "Go", 1)
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        shop.client.start("two_events", instance_id="other")
    assert time.monotonic() - began < shop._state().settings.turn_timeout
    unsure.silences = 0
    shop.client.raise_event(instance_id, "Go", 2)
    assert finish(shop, instance_id).output == [1, 2, 2]
    assert shop.client.get_status("other") is None


def test_a_worker_that_is_lost_meanwhile_goes_on_as_a_new_one_and_raises_nothing_twice(shop):
    instance_id = shop.client.start("two_events")
    shop.client.wait_for_start(instance_id, timeout=20)
    engine = shop._state().worker.engine
    Unsure(shop, lands=True, answer=WorkerLostError("it is gone"))
    with pytest.raises(OutcomeUnknownError):
        shop.client.raise_event(instance_id, "Go", 1)
    until(lambda: engine.lost_count == 1, "it has noticed")
    shop.client.raise_event(instance_id, "Go", 2)
    assert finish(shop, instance_id).output == [1, 2, 2]


def test_a_worker_can_stop_while_nobody_answers(shop):
    instance_id = shop.client.start("two_events")
    shop.client.wait_for_start(instance_id, timeout=20)
    unsure = Unsure(shop, lands=True)
    unsure.silences = 1_000_000
    with pytest.raises(OutcomeUnknownError):
        shop.client.raise_event(instance_id, "Go", 1)
    shop.stop_worker()
    shop.start_worker()
    shop.client.raise_event(instance_id, "Go", 2)
    assert finish(shop, instance_id).output == [1, 2, 2]
