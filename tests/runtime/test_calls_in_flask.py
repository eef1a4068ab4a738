"""Activity calls inside a Flask app: what one leaves behind does not reach the next, and what identifies a call."""

from __future__ import annotations

import threading

import pytest
from flask import current_app, g, has_request_context, request
from support import finish, run, until

from flask_durable import RetryPolicy, RuntimeStatus, current_activity


def test_nothing_that_one_activity_leaves_reaches_the_next(make_durable):  # rule 57
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)
    app, torn_down = durable._only._app, []
    app.teardown_appcontext(lambda error: torn_down.append(type(error).__name__ if error else None))

    @durable.activity
    def leaves(number):
        found = getattr(g, "left", None), has_request_context(), current_app.name, threading.current_thread().name
        g.left = number
        if number == 1:
            raise ValueError("boom")
        return found

    @durable.orchestrator
    def three(ctx):
        found = yield ctx.when_all_settled([ctx.call_activity(leaves, number) for number in range(3)])
        return [task.result for task in found if not task.is_failed]

    durable.start_worker()
    output = run(durable, three).output
    assert [each[:3] for each in output] == [[None, False, "shop"]] * 2
    assert len({each[3] for each in output}) == 1, "they ran in one thread, one after the other"
    assert sorted(map(str, torn_down)) == ["None", "None", "ValueError"]


def test_the_request_that_starts_an_instance_does_not_reach_its_activities(make_durable):  # rule 57
    durable = make_durable()

    @durable.activity
    def asks():
        return has_request_context()

    @durable.orchestrator
    def orchestration(ctx):
        return (yield ctx.call_activity(asks)), has_request_context()

    app = durable._only._app

    @app.post("/go")
    def go():
        g.left = request.path
        return durable.client.start_and_wait(orchestration, timeout=20).output

    durable.start_worker()
    assert app.test_client().post("/go").get_json() == [False, False]


def test_the_key_of_a_call_is_its_own_and_the_same_in_all_attempts(make_durable):  # rule 54
    durable, keys = make_durable(), []

    @durable.activity
    def fails_twice(name):
        keys.append((name, current_activity.idempotency_key, current_activity.attempt))
        if current_activity.attempt < 3:
            raise ValueError(name)

    @durable.orchestrator
    def calls(ctx, generation):
        policy = RetryPolicy(0, 3)
        yield ctx.when_all([ctx.call_activity(fails_twice, f"{generation}{letter}", retry_policy=policy) for letter in "ab"])
        if generation == 0:
            ctx.continue_as_new(1)

    durable.start_worker()
    instance_id = run(durable, calls, 0).instance_id
    again = durable.client.restart(instance_id, new_instance_id=False)
    finish(durable, again)
    by_key: dict[str, list[tuple[str, int]]] = {}
    for name, key, attempt in keys:
        by_key.setdefault(key, []).append((name, attempt))
    # two calls in each of two generations, and two in the restart, which begins with the input of the last; each with three attempts
    assert len(by_key) == 6
    assert all([attempt for _, attempt in tries] == [1, 2, 3] and len({name for name, _ in tries}) == 1 for tries in by_key.values())


def test_a_long_activity_is_not_taken_over_while_its_worker_lives(make_durable):  # rule 54, WRK-4
    first = make_durable(DURABLE_LEASE_SECONDS=1)
    second = make_durable(DURABLE_LEASE_SECONDS=1)
    runs, may_end = [], threading.Event()

    def long():
        runs.append(current_activity.delivery)
        assert may_end.wait(20)

    def calls(ctx):
        yield ctx.call_activity("long")

    for durable in (first, second):
        durable.activity(long)
        durable.orchestrator(calls)
    first.start_worker()
    instance_id = first.client.start("calls")
    until(lambda: runs, "it ran")
    second.start_worker()
    try:
        store = first._only.store
        their_ends = max(worker.expires_at for worker in store.workers()) + 500_000
        until(lambda: store.now() > their_ends, "the leases would have been over without a heartbeat")
    finally:
        may_end.set()
    assert finish(first, instance_id).runtime_status is RuntimeStatus.COMPLETED
    assert runs == [1]


@pytest.mark.parametrize("cache_size", [1000, 0])
def test_all_calls_of_one_turn_see_one_time_and_it_never_goes_back(make_durable, cache_size):  # rule 3, DET-3
    durable = make_durable(DURABLE_CACHE_SIZE=cache_size)

    @durable.activity
    def nothing():
        return None

    @durable.orchestrator
    def clocks(ctx):
        times = []
        for _ in range(4):
            times.append([ctx.current_utc_datetime.isoformat(), ctx.current_utc_datetime.isoformat()])
            yield ctx.when_all([ctx.call_activity(nothing) for _ in range(5)])
        return times

    durable.start_worker()
    times = run(durable, clocks).output
    assert all(first == second and first.endswith("+00:00") for first, second in times)
    assert sorted(first for first, _ in times) == [first for first, _ in times]
    assert len({first for first, _ in times}) == 4
