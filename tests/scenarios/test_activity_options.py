"""Options of activities, through the public API: timeout, final errors, at most once, limits per name, priority, a policy of their own."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from playhouse.pool import PooledSqliteDatabase
from support import event_names, finish, has_status, look, run, until
from worker_modes import WORKERS

from flask_durable import (
    ActivityTimeoutError,
    DurableBlueprint,
    InvalidArgumentError,
    NonRetriableError,
    RetryPolicy,
    RuntimeStatus,
    TaskFailedError,
    current_activity,
)

looks_into_the_worker = pytest.mark.one_worker("it looks into the worker of this process")
one_after_the_other = pytest.mark.one_worker("it is about the order in which one worker begins its calls")
reads_the_log = pytest.mark.one_process("it reads the log of its workers")

FAST = RetryPolicy(0, 3)


class Crowd:
    """Notes who is inside and who has left, in whichever process."""

    def __init__(self, ledger):
        self._ledger = ledger

    @contextlib.contextmanager
    def join(self, number):
        self._ledger.write([os.getpid(), 1, number])
        yield
        self._ledger.write([os.getpid(), -1, number])

    def most(self, pid=None):
        """How many were inside at the same time, at most; of one process, if one is given."""
        present = most = 0
        for where, change, _ in self._ledger.read():
            present += change if pid in (None, where) else 0
            most = max(most, present)
        return most

    def most_of_each_process(self):
        return [self.most(pid) for pid in {where for where, *_ in self._ledger.read()}]

    def total(self):
        return Counter(number for _, change, number in self._ledger.read() if change == 1)


# -- registration


def test_options_are_checked_where_the_activity_is_registered(durable):  # rule 56
    with pytest.raises(InvalidArgumentError, match="priority is a whole number from -1000 to 1000, not 5000"):
        durable.activity(priority=5000)
    with pytest.raises(TypeError, match="tiemout"):
        durable.activity(tiemout=5)


def test_a_blueprint_brings_the_options_of_its_activities(durable, gate):  # rule 56, REG-1
    blueprint = DurableBlueprint()
    blueprint.activity(name="hang", timeout=0.05, non_retriable=(ActivityTimeoutError,), retry_policy=FAST)(lambda: gate.wait())
    durable.register(blueprint)

    @durable.orchestrator
    def main(ctx):
        yield ctx.call_activity("hang")

    durable.start_worker()
    status = run(durable, main)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert event_names(durable, status.instance_id).count("TaskScheduled") == 1


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"priority": 1001}, {"retry_policy": 3}])
def test_options_of_a_call_are_checked_at_the_call(durable, wrong):  # rule 56
    @durable.orchestrator
    def main(ctx):
        try:
            yield ctx.call_activity("double", 1, **wrong)
        except InvalidArgumentError as error:
            return str(error)

    durable.start_worker()
    assert next(iter(wrong)) in run(durable, main).output


# -- timeout


def test_a_call_that_runs_out_of_time_fails_and_its_result_is_dropped(durable, ledger, gate):  # rule 56
    @durable.activity(timeout=0.25)
    def hang():
        left = current_activity.deadline - datetime.now(UTC)
        ledger.write([current_activity.timeout, left.total_seconds(), current_activity.is_cancelled])
        gate.wait()
        ledger.write(current_activity.is_cancelled)
        return "too late"

    @durable.orchestrator
    def main(ctx):
        try:
            return (yield ctx.call_activity(hang))
        except TaskFailedError as error:
            return [str(error), error.details.type_name, error.is_type(ActivityTimeoutError), error.details.is_non_retriable]

    # When a call does not end in time, then it fails, with an error that the activity could not swallow
    durable.start_worker()
    status = run(durable, main)
    text, type_name, is_timeout, is_final = status.output
    assert text.startswith("Activity task #1 failed: Activity 'hang' did not end within its timeout of 0.25 s")
    assert (type_name, is_timeout, is_final) == ("flask_durable.errors.ActivityTimeoutError", True, False)

    # Then its code sees that nobody waits for it any more
    gate.open()
    (timeout, left, is_cancelled), is_cancelled_then = until(lambda: len(ledger) == 2 and ledger.read())
    assert (timeout, is_cancelled, is_cancelled_then) == (0.25, False, True)
    assert 0 < left <= 0.25
    assert look(durable, status.instance_id).output == status.output


def test_an_activity_that_swallows_everything_times_out_all_the_same(durable, gate):  # rule 56
    @durable.activity(timeout=0.05)
    def stubborn():
        while not gate.is_open:
            try:
                gate.wait(0.01)
            except BaseException:  # noqa: BLE001 - what the test is about
                continue

    @durable.orchestrator
    def main(ctx):
        yield ctx.call_activity(stubborn)

    durable.start_worker()
    assert "did not end within its timeout" in run(durable, main).output


def test_a_call_in_time_has_its_result_and_no_limit_is_none(durable):  # rule 56
    @durable.activity(timeout=30)
    def quick():
        return current_activity.timeout

    @durable.activity
    def unlimited():
        return [current_activity.timeout, current_activity.deadline]

    @durable.orchestrator
    def main(ctx):
        return [
            (yield ctx.call_activity(quick)),
            (yield ctx.call_activity(quick, timeout=timedelta(minutes=1))),
            (yield ctx.call_activity(unlimited)),
        ]

    durable.start_worker()
    assert run(durable, main).output == [30, 60, [None, None]]


def test_a_calls_own_timeout_survives_the_worker(make_durable, ledger, gate):  # rule 56, WRK-3
    # Given a call with a timeout of its own that one worker has written down and not begun
    first, second = make_durable(DURABLE_MAX_ACTIVITIES=1), make_durable()
    for durable in (first, second):
        durable.activity(name="report")(lambda: ledger.write(current_activity.timeout))
        durable.activity(name="block")(lambda: gate.wait())

        @durable.orchestrator
        def main(ctx):
            block, report = ctx.call_activity("block"), ctx.call_activity("report", timeout=77)
            yield ctx.when_all([block, report])

    first.start_worker()
    instance_id = first.client.start("main")
    until(lambda: "TaskScheduled" in event_names(first, instance_id))
    second.start_worker()
    until(ledger.read)
    gate.open()
    finish(second, instance_id)
    assert ledger.read() == [77]


def test_waiting_in_the_queue_does_not_count(make_durable):  # rule 56
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)

    @durable.activity(timeout=1.0)
    def short(number):
        time.sleep(0.3)  # the four of a worker take longer than the timeout of one
        return number

    @durable.orchestrator
    def main(ctx):
        return (yield ctx.when_all([ctx.call_activity(short, number) for number in range(4 * WORKERS)]))

    durable.start_worker()
    assert run(durable, main).output == list(range(4 * WORKERS))


def test_a_timeout_is_tried_again_by_a_policy(durable, ledger, gate):  # rule 56, RTY-1
    @durable.activity(timeout=0.05)
    def hangs_once():
        ledger.write(current_activity.attempt)
        if current_activity.attempt == 1:
            gate.wait()
        return "second"

    @durable.orchestrator
    def main(ctx):
        return (yield ctx.call_activity(hangs_once, retry_policy=FAST))

    durable.start_worker()
    assert run(durable, main).output == "second"
    assert ledger.read() == [1, 2]


@reads_the_log
def test_hung_activities_do_not_eat_the_workers_capacity(make_durable, gate, caplog):  # rule 56
    # Given a worker of two threads, both of which hang
    durable = make_durable(DURABLE_MAX_ACTIVITIES=2)
    durable.activity(name="hang", timeout=0.05)(lambda: gate.wait())
    durable.activity(name="square")(lambda value: value * value)

    @durable.orchestrator
    def main(ctx):
        hung = yield ctx.when_all_settled([ctx.call_activity("hang") for _ in range(2)])
        return [len(hung), (yield ctx.when_all([ctx.call_activity("square", number) for number in range(10)]))]

    # Then others take their places
    durable.start_worker()
    assert run(durable, main).output == [2, [number * number for number in range(10)]]
    assert caplog.text.count("another takes the thread's place") == 2


@reads_the_log
def test_when_too_many_hang_their_worker_leaves_the_rest_to_others(make_durable, gate, caplog):  # rule 56
    # Given a worker of one thread, with two calls that hang
    first, second = make_durable(DURABLE_MAX_ACTIVITIES=1), make_durable()
    for durable in (first, second):
        durable.activity(name="square")(lambda value: value * value)
        durable.activity(name="hang", timeout=0.05)(lambda: gate.wait())

        @durable.orchestrator
        def main(ctx):
            yield ctx.when_all_settled([ctx.call_activity("hang") for _ in range(2)])
            return (yield ctx.when_all([ctx.call_activity("square", number) for number in range(3)]))

    first.start_worker()
    instance_id = first.client.start("main")
    until(lambda: "which is not replaced" in caplog.text)

    # Then the orchestrator goes on, and another worker runs what this one cannot
    second.start_worker()
    assert finish(second, instance_id).output == [0, 1, 4]


def test_stopping_waits_for_code_that_ran_out_of_time(durable, ledger, gate):  # WRK-2, rule 56
    @durable.activity(timeout=0.05)
    def hang():
        gate.wait()
        ledger.write(1)

    @durable.orchestrator
    def main(ctx):
        yield ctx.call_activity(hang)

    durable.start_worker()
    run(durable, main)
    stopping = threading.Thread(target=durable.stop_worker)
    stopping.start()
    stopping.join(0.2)
    assert stopping.is_alive()
    gate.open()
    stopping.join(15)
    assert not stopping.is_alive()
    assert ledger.read() == [1]


@pytest.mark.one_worker("it is about the pool of connections of one worker")
def test_a_replaced_thread_gives_its_connection_and_its_context_back(make_durable, tmp_path, gate):  # rule 57, rule 56
    # Given activities on the app's own database, one of which runs out of time with a connection in its hands
    database = PooledSqliteDatabase(str(tmp_path / "own.db"), check_same_thread=False, max_connections=20)
    durable = make_durable(DURABLE_DATABASE=database, DURABLE_MAX_ACTIVITIES=1)
    seen = []

    @durable.activity(timeout=0.1)
    def leaky(name):
        seen.append((name, database.is_closed(), current_activity.name))
        database.connect(reuse_if_open=True)
        if name == "hang":
            gate.wait()
            seen.append((name, database.is_closed(), current_activity.name))

    @durable.orchestrator
    def main(ctx):
        yield ctx.when_all_settled([ctx.call_activity(leaky, "hang")])
        yield ctx.call_activity(leaky, "next")

    # Then the thread in its place begins with nothing of it
    durable.start_worker()
    assert run(durable, main).runtime_status is RuntimeStatus.COMPLETED
    gate.open()
    until(lambda: len(seen) == 3)
    durable.stop_worker()
    assert seen == [("hang", True, "leaky"), ("next", True, "leaky"), ("hang", False, "leaky")]
    until(lambda: not database._in_use)
    assert not current_activity


# -- final errors


class DeclinedError(Exception):
    pass


class CardStolenError(DeclinedError):
    pass


class ClosedError(NonRetriableError):
    pass


@pytest.mark.parametrize(
    ("error", "attempts"), [(CardStolenError, 1), (KeyError, 1), (ClosedError, 1), (ValueError, 3)], ids=["subclass", "by name", "by itself", "other"]
)
def test_a_final_error_is_not_tried_again(durable, ledger, error, attempts):  # rule 26
    @durable.activity(non_retriable=(DeclinedError, "LookupError"), retry_policy=FAST)
    def charge():
        ledger.write(1)
        raise error("no")

    @durable.orchestrator
    def main(ctx):
        try:
            yield ctx.call_activity(charge)
        except TaskFailedError as failed:
            return failed.details.is_non_retriable

    durable.start_worker()
    assert run(durable, main).output is (attempts == 1)
    assert len(ledger) == attempts


def test_a_child_can_fail_for_good_too(durable):  # rule 26, RTY-5
    @durable.orchestrator
    def child(ctx):
        raise ClosedError("closed for ever")

    @durable.orchestrator
    def main(ctx):
        yield ctx.call_sub_orchestrator(child, retry_policy=FAST)

    durable.start_worker()
    status = run(durable, main)
    assert "closed for ever" in status.output
    assert event_names(durable, status.instance_id).count("SubOrchestrationCreated") == 1


def test_no_result_is_a_result(durable, ledger):  # rule 26
    durable.activity(name="nothing", retry_policy=FAST)(lambda: ledger.write(1))

    @durable.orchestrator
    def main(ctx):
        return [(yield ctx.call_activity("nothing"))]

    durable.start_worker()
    assert run(durable, main).output == [None]
    assert ledger.read() == [1]


# -- a policy of the activity's own, and handlers


def test_an_activitys_own_policy_is_used_unless_the_call_gives_one(durable, ledger):  # RTY-1, rule 25
    @durable.activity(retry_policy=FAST)
    def flaky(name):
        ledger.write([name, current_activity.attempt])
        raise ValueError(name)

    @durable.orchestrator
    def main(ctx):
        yield ctx.when_all_settled([ctx.call_activity(flaky, "own")])
        yield ctx.when_all_settled([ctx.call_activity(flaky, "given", retry_policy=RetryPolicy(0, 1))])

    durable.start_worker()
    assert run(durable, main).runtime_status is RuntimeStatus.COMPLETED
    assert ledger.read() == [["own", 1], ["own", 2], ["own", 3], ["given", 1]]


def deploy(make_durable, policy):
    durable = make_durable()
    durable.activity(name="flaky", retry_policy=policy)(lambda: 1 / 0)

    @durable.orchestrator
    def main(ctx):
        try:
            yield ctx.call_activity("flaky")
        except TaskFailedError:
            return (yield ctx.wait_for_external_event("Go"))

    return durable


@pytest.mark.parametrize("after", [None, RetryPolicy(0, 1)], ids=["none", "fewer attempts"])
def test_a_policy_that_was_changed_under_a_running_instance_is_told_apart(make_durable, after):  # RTY-3, rule 2
    # Given an instance that has waited for its second attempt under the old policy
    old, new = deploy(make_durable, RetryPolicy(0, 2)), deploy(make_durable, after)
    old.start_worker()
    instance_id = old.client.start("main")
    until(lambda: event_names(old, instance_id).count("TaskFailed") == 2)
    old.stop_worker()

    # When the new code goes on with it, then the message says what may have been changed
    new.start_worker()
    new.client.raise_event(instance_id, "Go")
    status = finish(new, instance_id)
    assert "the history says create_timer, the code asked for nothing" in status.output
    assert "the retry policy of a call, or of the activity it calls, was changed" in status.output


def test_other_intervals_are_no_other_policy(make_durable):  # RTY-3
    old, new = deploy(make_durable, RetryPolicy(0, 2)), deploy(make_durable, RetryPolicy(60, 2, backoff_coefficient=3))
    old.start_worker()
    instance_id = old.client.start("main")
    until(lambda: event_names(old, instance_id).count("TaskFailed") == 2)
    old.stop_worker()
    new.start_worker()
    new.client.raise_event(instance_id, "Go", "went on")
    assert finish(new, instance_id).output == "went on"


@pytest.mark.parametrize("what", ["activity", "child"])
def test_a_handler_decides_by_attempt_time_and_failure(durable, ledger, what):  # rule 25
    def handler(context):
        ledger.write([context.attempt, context.elapsed >= timedelta(0), context.failure.message])
        return context.attempt < 2

    @durable.orchestrator
    def failing_child(ctx):
        raise ValueError("boom")

    @durable.orchestrator
    def main(ctx):
        policy = RetryPolicy(0, 9, handler=handler)
        if what == "activity":
            yield ctx.call_activity("fail", "boom", retry_policy=policy)
        yield ctx.call_sub_orchestrator(failing_child, retry_policy=policy)

    durable.start_worker()
    assert run(durable, main).runtime_status is RuntimeStatus.FAILED
    assert {tuple(entry) for entry in ledger.read()} == {(1, True, "boom"), (2, True, "boom")}


@pytest.mark.parametrize("what", ["activity", "child"])
def test_what_a_handler_raises_fails_the_call(durable, what):  # rule 25
    @durable.orchestrator
    def failing_child(ctx):
        raise ValueError("boom")

    @durable.orchestrator
    def main(ctx):
        policy = RetryPolicy(0, 9, handler=lambda context: context.nonsense)
        try:
            if what == "activity":
                yield ctx.call_activity("fail", "boom", retry_policy=policy)
            yield ctx.call_sub_orchestrator(failing_child, retry_policy=policy)
        except AttributeError as error:
            return str(error)

    durable.start_worker()
    assert "nonsense" in run(durable, main).output


# -- at most once


def lose(durable):
    """Take away the row of the worker that has a call, as those do who think it dead."""
    reaper = durable._state().store
    holders = "SELECT DISTINCT worker_id FROM durable_activity WHERE hub = ? AND worker_id IS NOT NULL"
    [(worker_id,)] = reaper._sql.read(lambda: reaper._sql.rows(holders, (durable._state().settings.task_hub,)))
    reaper._sql.transaction(lambda: reaper._sql.run("UPDATE durable_worker SET expires_at = 0, lock_slot = NULL WHERE worker_id = ?", (worker_id,)))
    assert reaper.reap_workers(None, 5) == [worker_id]


def at_most_once(durable, gate, ledger, *, policy=None):
    @durable.activity(name="pay", at_most_once=True)
    def pay(name):
        ledger.write([name, current_activity.attempt])
        if len(ledger) == 1:
            gate.wait()
        return "paid"

    @durable.orchestrator(name="main")
    def main(ctx, names):
        calls = yield ctx.when_all_settled([ctx.call_activity("pay", name, retry_policy=policy) for name in names])
        return [str(call.get_exception() or call.get_result()) for call in calls]


def test_a_call_that_a_lost_worker_had_begun_is_not_begun_again(durable, ledger, gate):  # rule 54
    # Given a worker inside an activity that must not run twice
    at_most_once(durable, gate, ledger)
    durable.start_worker()
    instance_id = durable.client.start("main", ["a"])
    until(ledger.read)

    # When it is taken for dead, then the call fails and is not run
    lose(durable)
    (text,) = finish(durable, instance_id).output
    assert "It may or may not have run" in text
    gate.open()
    assert ledger.read() == [["a", 1]]


@looks_into_the_worker
def test_a_call_that_a_lost_worker_had_not_begun_is_run(make_durable, ledger, gate):  # rule 54
    # Given a worker with one call in its hands and another in its queue
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)
    at_most_once(durable, gate, ledger)
    durable.start_worker()
    engine = durable._state().worker.engine
    engine._capacity._mean_seconds = 1e-4
    instance_id = durable.client.start("main", ["a", "b"])
    until(lambda: ledger.read() and engine.busy_count == 2)

    # When it is taken for dead and goes on as a new one, then the call from the queue is begun once, and not by the old one
    lose(durable)
    gate.open()
    first, second = finish(durable, instance_id).output
    assert "It may or may not have run" in first
    assert second == "paid"
    assert ledger.read() == [["a", 1], ["b", 1]]


def test_a_paused_worker_does_not_begin_what_it_has_lost(make_durable, ledger, make_gate):  # rule 54
    # Given a worker that stands still with a call that it is about to begin
    first, second = make_durable(), make_durable()
    is_open, at_begin, goes_on, is_lost = (make_gate() for _ in range(4))
    is_open.open()
    for durable in (first, second):
        at_most_once(durable, is_open, ledger)
    store = first._state().store
    begin = store.begin_activity

    def slow_begin(*args):
        if at_begin.is_open:
            return begin(*args)
        at_begin.open()
        goes_on.wait()
        has_it = begin(*args)
        if not has_it:
            is_lost.open()
        return has_it

    store.begin_activity = slow_begin
    first.start_worker()
    instance_id = first.client.start("main", ["a"])
    at_begin.wait()

    # When another one takes the call over and runs it
    lose(first)
    second.start_worker()
    until(ledger.read)

    # Then the first one sees that it has lost the call, before it begins
    goes_on.open()
    assert finish(second, instance_id).output == ["paid"]
    is_lost.wait()
    assert ledger.read() == [["a", 1]]


def test_a_beginning_that_the_database_refuses_is_tried_again(durable, ledger, make_gate):  # rule 54
    is_open, has_refused = make_gate(), make_gate()
    is_open.open()
    at_most_once(durable, is_open, ledger)
    store = durable._state().store
    begin = store.begin_activity

    def refuses_once(*args):
        if has_refused.is_open:
            return begin(*args)
        has_refused.open()
        raise ValueError("whatever a database says")

    store.begin_activity = refuses_once
    durable.start_worker()
    assert run(durable, "main", ["a"]).output == ["paid"]
    assert ledger.read() == [["a", 1]]


def test_a_policy_tries_a_lost_call_again(durable, ledger, gate):  # rule 54
    at_most_once(durable, gate, ledger, policy=FAST)
    durable.start_worker()
    instance_id = durable.client.start("main", ["a"])
    until(ledger.read)
    lose(durable)
    assert finish(durable, instance_id).output == ["paid"]
    gate.open()
    assert ledger.read() == [["a", 1], ["a", 2]]


@pytest.mark.one_worker("it stops the worker of this process")
def test_a_stop_whose_grace_is_over_loses_the_call(make_durable, ledger, gate):  # rule 54, WRK-2
    # Given a worker that stops while such a call runs, and does not wait for it
    first, second = make_durable(DURABLE_SHUTDOWN_GRACE=0.05), make_durable()
    for durable in (first, second):
        at_most_once(durable, gate, ledger)
    first.start_worker()
    instance_id = first.client.start("main", ["a"])
    until(ledger.read)
    assert not first._state().stop_worker()

    # Then the next worker does not run it
    second.start_worker()
    (text,) = finish(second, instance_id).output
    gate.open()
    assert "It may or may not have run" in text
    assert ledger.read() == [["a", 1]]


# -- limits per name


def crowded(durable, crowd, together, **options):
    """An activity that notes how many of it run at the same time, and an orchestrator that calls it many times.

    The first call waits for so many to be there at once, if that can be, for a while.
    """

    @durable.activity(name="limited", **options)
    def limited(number):
        with crowd.join(number):
            time.sleep(0.004)  # long enough for others to overlap, on most machines
            deadline = time.monotonic() + 5
            while number == 0 and crowd.most() < together and time.monotonic() < deadline:
                time.sleep(0.004)
        return number

    @durable.orchestrator(name="fan")
    def fan(ctx, count):
        return (yield ctx.when_all([ctx.call_activity("limited", number) for number in range(count)]))


def test_no_more_of_a_name_run_in_a_process_than_it_says(durable, ledger):  # rule 56
    crowd = Crowd(ledger)
    crowded(durable, crowd, 3, max_concurrency=3)
    durable.start_worker()
    assert run(durable, "fan", 60).output == list(range(60))
    assert max(crowd.most_of_each_process()) == 3
    assert set(crowd.total().values()) == {1}


def test_a_limited_name_does_not_block_the_others(make_durable, gate):  # rule 56
    # Given far more calls of a limited activity than the process has threads, none of which ends
    durable = make_durable(DURABLE_MAX_ACTIVITIES=2)
    durable.activity(name="slow", max_concurrency=1)(lambda _number: gate.wait())
    durable.activity(name="square")(lambda value: value * value)

    @durable.orchestrator
    def slow_ones(ctx):
        yield ctx.when_all([ctx.call_activity("slow", number) for number in range(50)])

    @durable.orchestrator
    def quick_ones(ctx):
        return (yield ctx.when_all([ctx.call_activity("square", number) for number in range(20)]))

    durable.start_worker()
    slow_id = durable.client.start(slow_ones)
    until(lambda: event_names(durable, slow_id).count("TaskScheduled") == 50)

    # Then others go on, and in the end the slow ones do
    assert run(durable, quick_ones).output == [number * number for number in range(20)]
    gate.open()
    finish(durable, slow_id)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_of_a_name_run_in_the_hub_than_it_says(make_durable, ledger, workers):  # rule 56
    # Given several workers on one database
    crowd = Crowd(ledger)
    durables = [make_durable(DURABLE_MAX_ACTIVITIES=4) for _ in range(workers)]
    for durable in durables:
        crowded(durable, crowd, 2, hub_concurrency=2)
        durable.start_worker()

    # When all of them have much to do
    instance_ids = [durable.client.start("fan", 25) for durable in durables]
    for durable, instance_id in zip(durables, instance_ids, strict=True):
        assert finish(durable, instance_id, 60).output == list(range(25))

    # Then the maximum was reached and never passed, and nothing was done twice
    assert crowd.most() == 2
    assert crowd.total() == dict.fromkeys(range(25), workers)


@looks_into_the_worker
def test_calls_of_a_lost_worker_count_until_they_are_taken_away(make_durable, gate):  # rule 56
    # Given a limit of one in the hub, and a worker that has it and gives no sign of life
    first, second = make_durable(), make_durable()
    ran = []
    for durable in (first, second):

        def limited(name):
            ran.append(name)
            if len(ran) == 1:
                gate.wait()

        durable.activity(name="limited", hub_concurrency=1)(limited)

        @durable.orchestrator
        def main(ctx, name):
            yield ctx.call_activity("limited", name)

    first.start_worker()
    first_id = first.client.start("main", "a")
    until(lambda: ran == ["a"])
    second.start_worker()
    second_id = second.client.start("main", "b")
    until(lambda: event_names(second, second_id).count("TaskScheduled") == 1)
    looks = second._state().worker.engine._polling
    until(lambda: looks._pause >= 0.2)  # it has looked again and again, and found nothing that it may take
    assert ran == ["a"]

    # When its work is taken away, then the other goes on
    lose_first = [each.worker_id for each in first._state().store.workers() if each.worker_id == first._state().worker.worker_id]
    assert lose_first
    first._state().store.release_worker(lose_first[0])
    finish(second, second_id)
    gate.open()
    finish(second, first_id)
    assert sorted(set(ran)) == ["a", "b"]


@looks_into_the_worker
def test_a_long_queue_of_a_limited_name_makes_no_storm_of_looks(make_durable, gate):  # rule 56
    durable = make_durable()
    durable.activity(name="slow", hub_concurrency=1)(lambda _number: gate.wait())

    @durable.orchestrator
    def main(ctx):
        yield ctx.when_all([ctx.call_activity("slow", number) for number in range(100)])

    durable.start_worker()
    instance_id = durable.client.start(main)
    until(lambda: event_names(durable, instance_id).count("TaskScheduled") == 100)
    engine = durable._state().worker.engine
    until(lambda: engine._polling._pause >= durable._state().settings.poll_interval)
    commits = engine.commit_count
    until(lambda: engine._polling._pause >= durable._state().settings.poll_interval)
    assert engine.commit_count - commits <= 1
    durable.client.terminate(instance_id)


# -- priority


@one_after_the_other
@pytest.mark.parametrize("seconds", [1.0, 1e-3, 1e-5], ids=["no queue here", "a short queue here", "all queued here"])
def test_of_many_calls_that_one_turn_makes_the_highest_priority_is_next(make_durable, gate, seconds):  # rule 56
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)
    ran, begun = [], threading.Event()

    @durable.activity
    def work(name):
        ran.append(name)
        if name == "first":
            begun.set()
            gate.wait()

    @durable.activity(priority=5)
    def urgent(name):
        ran.append(name)

    @durable.orchestrator
    def blocks(ctx):
        yield ctx.call_activity(work, "first")

    @durable.orchestrator
    def main(ctx):
        low = [ctx.call_activity(work, "low") for _ in range(400)]
        high = [ctx.call_activity(urgent, "urgent"), ctx.call_activity(work, "high", priority=7), ctx.call_activity(work, "last", priority=-1)]
        yield ctx.when_all(low + high)

    # Given a busy thread, when a turn makes hundreds of calls and some of another priority after them
    durable.start_worker()
    durable._state().worker.engine._capacity._mean_seconds = seconds
    blocking = durable.client.start(blocks)
    assert begun.wait(15)
    instance_id = durable.client.start(main)
    until(lambda: event_names(durable, instance_id).count("TaskScheduled") == 403)
    gate.open()

    # Then that one runs next
    finish(durable, blocking)
    finish(durable, instance_id, 60)
    assert ran[:4] == ["first", "high", "urgent", "low"]
    assert ran[-1] == "last"


@one_after_the_other
def test_a_higher_priority_overtakes_the_calls_that_are_queued_here(make_durable, gate):  # rule 56
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)
    ran = []

    @durable.activity
    def work(name):
        ran.append(name)
        if name == "first":
            gate.wait()

    @durable.orchestrator
    def many(ctx):
        yield ctx.when_all([ctx.call_activity(work, name) for name in ["first", *["low"] * 50]])

    @durable.orchestrator
    def one(ctx):
        yield ctx.call_activity(work, "high", priority=1)

    # Given calls in the queue of a busy thread
    durable.start_worker()
    engine = durable._state().worker.engine
    engine._capacity._mean_seconds = 1e-5
    many_id = durable.client.start(many)
    until(lambda: engine.busy_count >= 51)

    # When another instance makes one of a higher priority, then it is next
    one_id = durable.client.start(one)
    until(lambda: engine.busy_count >= 52)
    gate.open()
    for instance_id in (one_id, many_id):
        finish(durable, instance_id)
    assert ran[:3] == ["first", "high", "low"]


@one_after_the_other
def test_a_priority_is_kept_by_calls_that_wait_in_the_database(make_durable):  # rule 56
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)
    ran = []
    durable.activity(name="note")(ran.append)

    @durable.orchestrator
    def schedule(ctx, priority):
        yield ctx.wait_for_external_event("Go")
        yield ctx.call_activity("note", priority, priority=priority)

    # Given calls of rising priority that nobody has begun
    durable.start_worker()
    instance_ids = [durable.client.start(schedule, priority) for priority in (-3, 0, 3, 9)]
    for instance_id in instance_ids:
        until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    durable._state().worker.engine._capacity.force(1000)
    for instance_id in instance_ids:
        durable.client.raise_event(instance_id, "Go")
        until(lambda instance_id=instance_id: "TaskScheduled" in event_names(durable, instance_id))
    assert ran == []
    durable.stop_worker()

    # When a worker takes them, then the highest comes first
    durable.start_worker()
    for instance_id in instance_ids:
        finish(durable, instance_id)
    assert ran == [9, 3, 0, -3]
