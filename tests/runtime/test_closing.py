"""Abandoned code whose cleanup takes for ever is closed where it stops nobody."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from support import finish, has_status, look, run, until

from flask_durable import RuntimeStatus

pytestmark = pytest.mark.one_worker("the cleanup is in the memory of the worker that gives the code up")


def closers():
    return [each for each in threading.enumerate() if each.name.startswith("durable-closer")]


def endless(state):
    state["in_cleanup"] = True
    while not state["is_over"].is_set():
        pass


def catching(state):
    while not state["is_over"].is_set():
        try:
            state["in_cleanup"] = True
        except BaseException:  # noqa: BLE001 - that is the point
            continue


def blocking(state):
    state["in_cleanup"] = True
    state["is_over"].wait(3600)


@pytest.fixture
def state():
    """What the cleanup of a test has come to, and what ends it."""
    state = {"is_over": threading.Event()}
    yield state
    state["is_over"].set()


@pytest.fixture(params=[endless, catching, blocking])
def cleanup(request):
    return request.param


@pytest.fixture
def durable(make_durable, cleanup, state):
    """An app with an orchestrator whose cleanup does not end, and a good one."""
    durable = make_durable(DURABLE_CACHE_SIZE=1, DURABLE_TURN_TIMEOUT=2.0)

    @durable.orchestrator
    def bad(ctx):
        try:
            yield ctx.wait_for_external_event("Go")
        finally:
            cleanup(state)

    @durable.orchestrator
    def goes_on(ctx, number):
        if number:
            return number
        try:
            ctx.continue_as_new(1)
            yield ctx.wait_for_external_event("Go")
        finally:
            cleanup(state)

    @durable.orchestrator
    def waiting(ctx):
        return (yield ctx.wait_for_external_event("Go"))

    @durable.activity
    def double(number):
        return 2 * number

    @durable.orchestrator
    def quick(ctx, number):
        return (yield ctx.call_activity(double, number))

    durable.start_worker()
    return durable


def others_go_on(durable):
    began = time.monotonic()
    assert [run(durable, "quick", number).output for number in range(10)] == [2 * number for number in range(10)]
    return time.monotonic() - began < 10


def test_an_evicted_orchestrator_whose_cleanup_does_not_end_stops_no_others(durable, state, caplog):  # DESIGN 3.1.8
    usual = sys.getswitchinterval()
    durable.client.start("bad", instance_id="bad")
    until(has_status(durable, "bad", RuntimeStatus.RUNNING))
    for _ in range(2):
        durable.client.start("waiting")
    until(lambda: "in_cleanup" in state)
    assert others_go_on(durable)
    assert look(durable, "bad").runtime_status is RuntimeStatus.RUNNING
    until(lambda: "Abandoned code of instance bad has not ended its cleanup" in caplog.text)
    state["is_over"].set()
    until(lambda: not closers(), seconds=10)
    until(lambda: sys.getswitchinterval() == usual)


def test_a_terminated_orchestrator_whose_cleanup_does_not_end_stops_no_others(durable, state):  # DESIGN 3.1.8, rule 38
    durable.client.start("bad", instance_id="bad")
    until(has_status(durable, "bad", RuntimeStatus.RUNNING))
    durable.client.terminate("bad")
    for _ in range(2):
        durable.client.start("waiting")
    until(lambda: "in_cleanup" in state)
    assert others_go_on(durable)
    assert finish(durable, "bad").runtime_status is RuntimeStatus.TERMINATED


def test_one_that_continues_as_new_and_whose_cleanup_does_not_end_stops_no_others(durable, state):  # DESIGN 3.1.8, rule 31
    assert run(durable, "goes_on", 0).output == 1
    until(lambda: "in_cleanup" in state)
    assert others_go_on(durable)


def test_a_stop_ends_a_cleanup_that_does_not_end(durable, state, cleanup):  # WRK-2
    durable.client.start("bad", instance_id="bad")
    until(has_status(durable, "bad", RuntimeStatus.RUNNING))
    began = time.monotonic()
    durable.stop_worker()
    assert time.monotonic() - began < 10
    assert "in_cleanup" in state
    if cleanup is not blocking:  # what waits in C cannot be ended
        assert closers() == []


def test_more_cleanups_that_block_than_there_are_threads_stop_no_others(make_durable, state):  # DESIGN 3.1.8
    durable = make_durable(DURABLE_CACHE_SIZE=0)

    @durable.orchestrator
    def bad(ctx):
        try:
            yield ctx.wait_for_external_event("Go")
        finally:
            blocking(state)

    @durable.orchestrator
    def quick(ctx, number):
        return 2 * number

    durable.start_worker()
    ids = [durable.client.start(bad) for _ in range(12)]
    for each in ids:
        until(has_status(durable, each, RuntimeStatus.RUNNING))
    until(lambda: len(closers()) == 9)  # with the one that watches
    assert others_go_on(durable)
    state["is_over"].set()
    until(lambda: not closers())


def test_the_client_cannot_be_used_in_a_cleanup(make_durable):  # rule 6
    durable, errors = make_durable(DURABLE_CACHE_SIZE=0), []

    @durable.orchestrator
    def bad(ctx):
        try:
            yield ctx.wait_for_external_event("Go")
        finally:
            try:
                durable.client.start("bad")
            except ValueError as error:
                errors.append(str(error))

    durable.start_worker()
    durable.client.start(bad)
    until(lambda: errors)
    assert errors[0].startswith("The client cannot be used inside an orchestrator")
