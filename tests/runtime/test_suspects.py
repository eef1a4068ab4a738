"""One suspect at a time: work that workers have died with is tried alone, and whoever is innocent is not parked for another's poison."""

from __future__ import annotations

import types

import pytest

from flask_durable.runtime.batches import BatchPlanner
from flask_durable.runtime.suspects import LONGEST, Suspects


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def instance(name, is_suspect=True):
    return types.SimpleNamespace(record=types.SimpleNamespace(instance_id=name), is_suspect=is_suspect)


def call(number, is_suspect=True):
    return types.SimpleNamespace(execution_id="e", task_id=number, is_suspect=is_suspect)


def claimed(*instances, calls=()):
    return types.SimpleNamespace(orchestrations=list(instances), activities=list(calls))


def turn(name):
    return types.SimpleNamespace(record=types.SimpleNamespace(instance_id=name))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def suspects(clock):
    return Suspects(clock)


def test_work_that_nobody_died_with_is_no_suspect(suspects):
    suspects.claimed(claimed(instance("a", False), calls=[call(1, False)]))
    assert suspects.may_come


def test_the_next_one_comes_when_an_instance_has_had_its_turn(suspects):
    suspects.claimed(claimed(instance("other", False), instance("a")))
    assert not suspects.may_come
    assert not suspects.had_turns([turn("other")])
    assert not suspects.may_come
    assert suspects.had_turns([turn("other"), turn("a")])
    assert suspects.may_come


def test_the_next_one_comes_when_a_call_has_ended(suspects):
    suspects.claimed(claimed(calls=[call(1, False), call(2)]))
    assert not suspects.call_ended(call(1))
    assert not suspects.may_come
    assert suspects.call_ended(call(2))
    assert suspects.may_come


def test_a_long_one_keeps_the_next_one_for_a_while_only(suspects, clock):
    suspects.claimed(claimed(calls=[call(2)]))
    clock.now += LONGEST - 0.1
    assert not suspects.may_come
    clock.now += 0.2
    assert suspects.may_come


def test_the_engine_claims_the_next_one_when_a_call_has_ended(suspects):
    in_flight = types.SimpleNamespace(is_limited=lambda name: False)
    planner = BatchPlanner(None, None, None, in_flight, suspects)
    suspects.claimed(claimed(calls=[call(2)]))
    planner.wants_claim = False
    planner.call_ended(types.SimpleNamespace(execution_id="e", task_id=1, name="work"))
    assert (planner.wants_claim, suspects.may_come) == (False, False)
    planner.call_ended(types.SimpleNamespace(execution_id="e", task_id=2, name="work"))
    assert (planner.wants_claim, suspects.may_come) == (True, True)
