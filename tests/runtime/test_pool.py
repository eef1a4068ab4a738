"""The threads of a worker: order by rank, threads that are written off, and ticks."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

import apscheduler.schedulers.base
import pytest
from support import until

import flask_durable.runtime.pool as pool_module
from flask_durable.runtime.pool import ActivityPool, Ticker


class Work:
    """What a pool runs: notes it, and waits at its gates."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.begun: list[str] = []
        self.threads: dict[str, threading.Thread] = {}
        self.gates: dict[str, threading.Event] = {}

    def __call__(self, item: str) -> None:
        self.threads[item] = threading.current_thread()
        self.begun.append(item)
        if item.startswith("hang"):
            self.gates.setdefault(item, threading.Event()).wait(15)
        self.ran.append(item)

    def hang(self, pool: ActivityPool[str], item: str) -> threading.Thread:
        """An item that does not end; returns the thread that it keeps."""
        self.gates[item] = threading.Event()
        pool.submit(item)
        until(lambda: item in self.begun)
        return self.threads[item]


@pytest.fixture
def work():
    work = Work()
    yield work
    for gate in work.gates.values():
        gate.set()


@pytest.fixture
def make_pool(work):
    pools = []

    def make(size):
        pools.append(ActivityPool(size, work, rank=lambda item: 1 if item.startswith("low") else 0))
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop()


def test_items_of_a_lower_rank_go_first_and_the_rest_in_order(make_pool, work):  # rule 56
    pool = make_pool(1)
    work.hang(pool, "hang")
    for item in ("low 1", "low 2", "high 1", "low 3", "high 2"):
        pool.submit(item)
    work.gates["hang"].set()
    until(lambda: len(work.ran) == 6)
    assert work.ran == ["hang", "high 1", "high 2", "low 1", "low 2", "low 3"]


def test_what_is_drained_is_not_run_and_comes_in_its_order(make_pool, work):  # WRK-2
    pool = make_pool(1)
    work.hang(pool, "hang")
    for item in ("low", "high"):
        pool.submit(item)
    assert pool.drain() == ["high", "low"]
    work.gates["hang"].set()
    pool.submit("next")
    until(lambda: "next" in work.ran)
    assert work.ran == ["hang", "next"]


def test_a_thread_that_is_written_off_is_replaced_and_ends_with_its_item(make_pool, work):  # rule 56
    pool = make_pool(1)
    thread = work.hang(pool, "hang")
    pool.submit("next")
    assert pool.write_off(thread)
    until(lambda: work.ran == ["next"])
    assert pool.busy_count == 1
    work.gates["hang"].set()
    until(lambda: not thread.is_alive())
    assert pool.busy_count == 0


def test_there_are_never_more_than_twice_as_many_threads(make_pool, work):  # rule 56
    # Given a pool of two whose threads are written off again and again
    pool = make_pool(2)
    outcomes = [pool.write_off(work.hang(pool, f"hang {number}")) for number in range(4)]

    # Then two are replaced, and the next two keep their places
    assert outcomes == [True, True, False, False]
    assert (pool.stuck_count, pool.busy_count) == (2, 4)
    pool.submit("next")
    assert pool.drain() == ["next"]

    # When one of those ends, then its thread is of use again
    work.gates["hang 3"].set()
    pool.submit("later")
    until(lambda: "later" in work.ran)
    assert pool.stuck_count == 1
    assert work.threads["later"] is work.threads["hang 3"]


def test_stopping_does_not_make_threads_for_those_written_off(make_pool, work):  # WRK-2
    pool = make_pool(1)
    thread = work.hang(pool, "hang")
    pool.stop()
    assert pool.write_off(thread)
    work.gates["hang"].set()
    until(lambda: pool.busy_count == 0)
    assert work.ran == ["hang"]


def test_without_further_threads_those_that_are_there_do_the_work(make_pool, work, monkeypatch, caplog):  # F21
    pool = make_pool(3)
    work.hang(pool, "hang first")

    def refuse(_self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for item in ("second", "third"):
            pool.submit(item)
        pool.grow()
        assert work.begun == ["hang first"]
        assert pool.busy_count == 1
        assert caplog.text.count("No thread can be made") == 1
    pool.grow()
    until(lambda: work.ran == ["second", "third"])


class SteppingClock(datetime):
    """What says what the time is, in the modules that ask it."""

    step = timedelta()

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + cls.step


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_ticks_keep_their_intervals_when_the_clock_of_the_host_steps(monkeypatch, hours):  # F7
    """A heartbeat that waits until the clock is there again would lose its lease."""
    monkeypatch.setattr(SteppingClock, "step", timedelta())
    for module in (pool_module, apscheduler.schedulers.base):
        monkeypatch.setattr(module, "datetime", SteppingClock)
    ticks: list[float] = []
    ticker = Ticker()
    ticker.every(0.05, lambda: ticks.append(time.monotonic()))
    ticker.start()
    try:
        until(lambda: len(ticks) > 2)
        SteppingClock.step = timedelta(hours=hours)
        seen, at = len(ticks), time.monotonic()
        until(lambda: len(ticks) > seen + 10)
        assert time.monotonic() - at < 3
        assert len(ticks) < seen + 40, "what was passed over is not made up for"
    finally:
        ticker.stop()
