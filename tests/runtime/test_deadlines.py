"""One thread for all deadlines: in order, cancelled ones not at all, and nothing left behind."""

from __future__ import annotations

import threading

import pytest
from support import until

from flask_durable.runtime import deadlines as module
from flask_durable.runtime.deadlines import Deadlines


@pytest.fixture
def deadlines():
    deadlines = Deadlines()
    yield deadlines
    deadlines.stop()


def watching():
    return [thread for thread in threading.enumerate() if thread.name == "durable-deadlines"]


def test_deadlines_come_in_their_order_whatever_the_order_they_were_set_in(deadlines):  # rule 56
    seen = []
    for number in (3, 1, 2):
        deadlines.watch(number * 0.02, lambda number=number: seen.append(number))
    assert len(watching()) == 1
    until(lambda: seen == [1, 2, 3])


def test_a_cancelled_deadline_does_not_come(deadlines):  # rule 56
    seen = []
    deadlines.cancel(deadlines.watch(0.01, lambda: seen.append("cancelled")))
    deadlines.watch(0.02, lambda: seen.append("kept"))
    until(lambda: seen)
    assert seen == ["kept"]


def test_cancelled_deadlines_that_are_far_off_do_not_pile_up(deadlines):  # rule 56
    for _ in range(5000):
        deadlines.cancel(deadlines.watch(3600, lambda: None))
    assert len(deadlines._heap) < 200


def test_a_call_that_fails_does_not_end_the_watching(deadlines, caplog):  # rule 56
    seen = []
    deadlines.watch(0.001, lambda: 1 / 0)
    deadlines.watch(0.01, lambda: seen.append("next"))
    until(lambda: seen)
    assert "What follows from a deadline failed" in caplog.text


def test_without_deadlines_there_is_no_thread(deadlines, monkeypatch):  # rule 56
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    assert not watching()
    deadlines.cancel(deadlines.watch(0.01, lambda: None))
    until(lambda: not watching())
    seen = []
    deadlines.watch(0.001, lambda: seen.append(1))
    until(lambda: seen)
