"""Holdings: whose results are taken."""

from __future__ import annotations

import dataclasses

import pytest

from flask_durable.core.events import TaskCompleted
from flask_durable.runtime.capacity import Capacity
from flask_durable.runtime.holdings import Holdings
from flask_durable.runtime.in_flight import InFlight
from flask_durable.runtime.steps import ActivityDone
from flask_durable.storage.interface import ActivityWorkItem

CALL = ActivityWorkItem("i", "i:0", 0, 1, "charge", None, 1, 1, 1, {}, worker_id="w1")


@pytest.fixture
def in_flight():
    return InFlight(dict)


@pytest.fixture
def holdings(in_flight):
    return Holdings(Capacity(4), in_flight, lambda _: None)


def test_the_result_of_a_call_that_runs_here_is_taken(holdings):
    holdings.launch(CALL)
    holdings.ended(ActivityDone(CALL, TaskCompleted(1), 0.1))
    assert [result.item for result in holdings.foreign] == [CALL]


def test_a_result_that_was_given_up_is_not_taken(holdings, in_flight):  # WRK-4, F6
    holdings.launch(CALL)
    in_flight.clear()  # the worker was taken for dead
    holdings.ended(ActivityDone(CALL, TaskCompleted(1), 0.1))
    assert holdings.foreign == []


def test_the_result_of_an_earlier_delivery_is_not_taken_for_that_of_the_present_one(holdings):  # WRK-4, F6
    again = dataclasses.replace(CALL, deliveries=2, worker_id="w2")
    holdings.launch(CALL)
    holdings.launch(again)
    holdings.ended(ActivityDone(CALL, TaskCompleted(1), 0.1))
    assert holdings.foreign == []
    holdings.ended(ActivityDone(again, TaskCompleted(1), 0.1))
    assert [result.item for result in holdings.foreign] == [again]
