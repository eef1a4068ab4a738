"""Shares: how many instances a worker claims at a time, alone and among others."""

from __future__ import annotations

import types

import pytest

from flask_durable.runtime.batches import BATCH, SHARE, BatchPlanner
from flask_durable.runtime.capacity import Capacity
from flask_durable.runtime.suspects import Suspects
from flask_durable.storage.interface import Batch, ClaimRequest, Committed

SETTINGS = types.SimpleNamespace(max_deliveries=5)
ABILITIES = types.SimpleNamespace(activity_names=lambda: (), runnable=lambda: None)
IN_FLIGHT = types.SimpleNamespace(rooms=dict, limits=lambda rooms: ())


class Neighbourhood:
    others = True

    def __call__(self):
        return self.others


@pytest.fixture
def neighbourhood():
    return Neighbourhood()


@pytest.fixture
def capacity():
    return Capacity(18)


@pytest.fixture
def planner(capacity, neighbourhood):
    return BatchPlanner(SETTINGS, ABILITIES, capacity, IN_FLIGHT, Suspects(lambda: 0.0), neighbourhood)


def after_a_claim(planner, has_more):
    planner.wants_claim = False
    committed = Committed(0)
    committed.has_more = has_more
    planner.committed(Batch(worker_id="w", claim=ClaimRequest(instances=1, activities=0)), committed)
    return planner.wants_claim


def test_one_that_is_alone_claims_all_that_there_is(planner, capacity, neighbourhood):
    neighbourhood.others = False
    capacity.take(18)
    assert planner.claim().instances == BATCH
    assert after_a_claim(planner, has_more=True)


def test_among_others_it_claims_what_it_has_room_for(planner, capacity):
    assert planner.claim().instances == 36
    capacity.take(8)
    assert planner.claim().instances == 20
    assert after_a_claim(planner, has_more=True)


def test_one_without_room_claims_some_all_the_same_but_not_at_once_again(planner, capacity):
    capacity.take(18)
    assert planner.claim().instances == SHARE
    assert not after_a_claim(planner, has_more=True)


def test_it_never_claims_more_than_goes_into_one_commit(capacity, neighbourhood):
    planner = BatchPlanner(SETTINGS, ABILITIES, Capacity(1000), IN_FLIGHT, Suspects(lambda: 0.0), neighbourhood)
    assert planner.claim().instances == BATCH
