"""Whole orchestrations through the public API, on a real SQLite file with a real worker."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_durable import (
    EventTimeoutError,
    FlaskDurable,
    InstanceExistsError,
    InstanceFilter,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    RetryPolicy,
    RuntimeStatus,
    TaskFailedError,
    WaitTimeoutError,
    current_activity,
)

MakeApp = Callable[..., FlaskDurable]
CACHE_SIZES = [int(size) for size in os.environ.get("FLASK_DURABLE_TEST_CACHE_SIZE", "1000 0").split()]


@pytest.fixture(params=CACHE_SIZES, ids=lambda size: f"cache={size}")
def make_durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeApp]:
    """Makes apps on one database file; their workers are started by the test."""
    made: list[FlaskDurable] = []

    def make(**config: Any) -> FlaskDurable:
        app = Flask("scenario", instance_path=str(tmp_path))
        app.config.update(TESTING=True, DURABLE_DATABASE=f"sqlite:///{tmp_path}/durable.db", DURABLE_CACHE_SIZE=request.param, **config)
        made.append(FlaskDurable(app))
        return made[-1]

    yield make
    for durable in made:
        durable.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("durable-engine")]


@pytest.fixture
def durable(make_durable: MakeApp) -> FlaskDurable:
    """An app with some activities and orchestrators; its worker is not running yet."""
    durable = make_durable()

    @durable.activity
    def double(value: int) -> int:
        return value * 2

    @durable.activity
    def fail(text: str) -> None:
        raise ValueError(text)

    @durable.orchestrator
    def wait_for_go(ctx: Any) -> Any:
        return (yield ctx.wait_for_external_event("Go"))

    return durable


def finish(durable: FlaskDurable, instance_id: str, seconds: float = 20) -> Any:
    status = durable.client.wait_for_completion(instance_id, timeout=seconds)
    assert status is not None
    return status


def until(is_true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def status_of(durable: FlaskDurable, instance_id: str) -> RuntimeStatus:
    status = durable.client.get_status(instance_id)
    assert status is not None
    return status.runtime_status


def test_a_sequence_of_activities_gives_its_output(durable: FlaskDurable) -> None:  # SCH-5
    @durable.orchestrator
    def sequence(ctx: Any, value: int) -> Any:
        for _ in range(5):
            value = yield ctx.call_activity("double", value)
        return value

    durable.start_worker()
    status = finish(durable, durable.client.start(sequence, 1, tags={"team": "a"}))
    assert (status.name, status.runtime_status, status.input, status.output) == ("sequence", RuntimeStatus.COMPLETED, 1, 32)
    assert (status.tags, status.failure_details) == ({"team": "a"}, None)


def test_a_fan_out_gives_results_in_the_order_of_the_calls(durable: FlaskDurable) -> None:  # TSK-1, ACT-5
    @durable.orchestrator
    def fan_out(ctx: Any, count: int) -> Any:
        return (yield ctx.when_all([ctx.call_activity("double", index) for index in range(count)]))

    durable.start_worker()
    assert finish(durable, durable.client.start(fan_out, 700)).output == [2 * index for index in range(700)]


def test_a_failed_activity_can_be_caught_and_an_uncaught_one_fails_the_instance(durable: FlaskDurable) -> None:  # ACT-2, ACT-4
    @durable.orchestrator
    def careful(ctx: Any) -> Any:
        try:
            yield ctx.call_activity("fail", "boom")
        except TaskFailedError as error:
            return [str(error), error.is_type(ValueError), error.details.type_name]

    @durable.orchestrator
    def careless(ctx: Any) -> Any:
        yield ctx.call_activity("fail", "boom")

    durable.start_worker()
    assert finish(durable, durable.client.start(careful)).output == ["Activity task #1 failed: boom", True, "builtins.ValueError"]
    failed = finish(durable, durable.client.start(careless))
    assert (failed.runtime_status, failed.output) == (RuntimeStatus.FAILED, "Activity task #1 failed: boom")
    assert "yield ctx.call_activity" in failed.failure_details.traceback


def test_an_unknown_activity_fails_as_a_call(durable: FlaskDurable) -> None:  # REG-5
    @durable.orchestrator
    def asks(ctx: Any) -> Any:
        yield ctx.call_activity("nobody")

    durable.start_worker()
    assert "No activity named 'nobody'" in finish(durable, durable.client.start(asks)).output


def test_retries_run_until_one_succeeds_under_one_idempotency_key(durable: FlaskDurable) -> None:  # RTY-1, rule 54
    seen: list[tuple[int, str]] = []

    @durable.activity
    def flaky() -> str:
        seen.append((current_activity.attempt, current_activity.idempotency_key))
        if len(seen) < 3:
            raise OSError("not yet")
        return "at last"

    @durable.orchestrator
    def patient(ctx: Any) -> Any:
        return (yield ctx.call_activity(flaky, retry_policy=RetryPolicy(0.01, 5, backoff_coefficient=2)))

    durable.start_worker()
    assert finish(durable, durable.client.start(patient)).output == "at last"
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert len({key for _, key in seen}) == 1


def test_events_are_kept_from_the_first_moment_and_come_in_order(durable: FlaskDurable) -> None:  # rule 20, EVT-3
    @durable.orchestrator
    def collects(ctx: Any, count: int) -> Any:
        collected = []
        for _ in range(count):
            collected.append((yield ctx.wait_for_external_event("Part")))
        return collected

    instance_id = durable.client.start(collects, 5)
    for index in range(4):
        durable.client.raise_event(instance_id, "pArT", index)
    durable.start_worker()
    durable.client.raise_event(instance_id, "PART", None)
    assert finish(durable, instance_id).output == [0, 1, 2, 3, None]
    with pytest.raises(InstanceFinishedError):
        durable.client.raise_event(instance_id, "Part")
    with pytest.raises(InstanceNotFoundError):
        durable.client.raise_event("unknown", "Part")


def test_a_wait_ends_at_its_timeout(durable: FlaskDurable) -> None:  # rule 22
    @durable.orchestrator
    def waits(ctx: Any) -> Any:
        first = yield ctx.wait_for_external_event("Never", timeout=timedelta(milliseconds=30), default="default")
        try:
            yield ctx.wait_for_external_event("Never", timeout=timedelta(milliseconds=30))
        except EventTimeoutError:
            return [first, "timeout"]

    durable.start_worker()
    assert finish(durable, durable.client.start(waits)).output == ["default", "timeout"]


def test_a_race_is_won_by_what_came_first_and_the_loser_stays_open(durable: FlaskDurable) -> None:  # rule 14
    @durable.orchestrator
    def races(ctx: Any) -> Any:
        event = ctx.wait_for_external_event("Go")
        timer = ctx.create_timer(timedelta(hours=1))
        winner = yield ctx.when_any([timer, event])
        return [winner is event, timer.cancel(), winner.result]

    durable.start_worker()
    instance_id = durable.client.start(races)
    durable.client.raise_event(instance_id, "Go", "data")
    assert finish(durable, instance_id).output == [True, True, "data"]


def test_children_give_results_failures_and_terminations_to_their_parent(durable: FlaskDurable) -> None:  # SUB-1 to SUB-3, rule 39
    @durable.orchestrator
    def child(ctx: Any, what: str) -> Any:
        if what == "fail":
            yield ctx.call_activity("fail", "child")
        if what == "wait":
            yield ctx.wait_for_external_event("Go")
        return [what, ctx.parent_instance_id]

    @durable.orchestrator
    def parent(ctx: Any) -> Any:
        told = [(yield ctx.call_sub_orchestrator(child, "fine"))]
        for what, instance_id in (("fail", None), ("wait", "to-be-terminated"), ("fine", "in-use")):
            try:
                yield ctx.call_sub_orchestrator(child, what, instance_id=instance_id)
            except TaskFailedError as error:
                told.append(str(error))
        return told

    durable.start_worker()
    durable.client.start("wait_for_go", instance_id="in-use")
    instance_id = durable.client.start(parent)
    until(lambda: durable.client.get_status("to-be-terminated") is not None)
    durable.client.terminate("to-be-terminated", "enough")
    output = finish(durable, instance_id).output
    assert output[0] == ["fine", instance_id]
    assert output[1] == "Sub-orchestration task #2 failed: Activity task #1 failed: child"
    assert output[2] == "Sub-orchestration task #3 failed: Instance 'to-be-terminated' was terminated"
    assert output[3].startswith("Sub-orchestration task #4 failed: An instance with the id 'in-use' already exists")
    assert status_of(durable, "in-use") is RuntimeStatus.RUNNING


def test_terminating_reaches_the_children_unless_told_not_to(durable: FlaskDurable) -> None:  # MGT-2, MGT-3
    @durable.orchestrator
    def parent(ctx: Any, child_id: str) -> Any:
        yield ctx.call_sub_orchestrator("wait_for_go", instance_id=child_id)

    durable.start_worker()
    for child_id, recursive, expected in (("c1", True, RuntimeStatus.TERMINATED), ("c2", False, RuntimeStatus.RUNNING)):
        instance_id = durable.client.start(parent, child_id)
        durable_child = child_id
        until(lambda: durable.client.get_status(durable_child) is not None and status_of(durable, durable_child) is RuntimeStatus.RUNNING)
        durable.client.terminate(instance_id, {"why": "test"}, recursive=recursive)
        status = finish(durable, instance_id)
        assert (status.runtime_status, status.output) == (RuntimeStatus.TERMINATED, {"why": "test"})
        assert status_of(durable, child_id) is expected
        with pytest.raises(InstanceFinishedError):
            durable.client.terminate(instance_id)


def test_what_comes_while_suspended_is_kept_and_delivered_in_order(durable: FlaskDurable) -> None:  # rules 36, 37, MGT-1
    release = threading.Event()

    @durable.activity
    def slow() -> str:
        release.wait(10)
        return "slow"

    @durable.orchestrator
    def steps(ctx: Any) -> Any:
        first = yield ctx.call_activity(slow)
        timer = ctx.create_timer(timedelta(milliseconds=1))
        yield timer
        return [first, (yield ctx.wait_for_external_event("A")), (yield ctx.wait_for_external_event("A"))]

    durable.start_worker()
    instance_id = durable.client.start(steps)
    durable.client.wait_for_start(instance_id, timeout=10)
    durable.client.suspend(instance_id, "hold on")
    durable.client.suspend(instance_id)
    release.set()
    durable.client.raise_event(instance_id, "A", 1)
    durable.client.raise_event(instance_id, "A", 2)
    with pytest.raises(WaitTimeoutError):
        durable.client.wait_for_completion(instance_id, timeout=0.2)
    assert status_of(durable, instance_id) is RuntimeStatus.SUSPENDED
    durable.client.resume(instance_id)
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == ["slow", 1, 2]


def test_a_suspended_pending_instance_does_not_start(durable: FlaskDurable) -> None:  # rule 37
    instance_id = durable.client.start("wait_for_go")
    durable.client.suspend(instance_id)
    durable.start_worker()
    durable.client.raise_event(instance_id, "Go", "now")
    with pytest.raises(WaitTimeoutError):
        durable.client.wait_for_completion(instance_id, timeout=0.1)
    durable.client.resume(instance_id)
    assert finish(durable, instance_id).output == "now"


def test_continue_as_new_keeps_the_id_and_the_unread_events(durable: FlaskDurable) -> None:  # rules 31, 32, CAN-1, CAN-2
    @durable.orchestrator
    def generations(ctx: Any, collected: list[Any]) -> Any:
        ctx.set_custom_status(len(collected))
        collected.append((yield ctx.wait_for_external_event("E")))
        if len(collected) < 20:
            ctx.continue_as_new(collected)
            return None
        return collected

    durable.start_worker()
    instance_id = durable.client.start(generations, [])
    for index in range(20):
        durable.client.raise_event(instance_id, "E", index)
    status = finish(durable, instance_id)
    assert (status.output, status.custom_status, status.input) == (list(range(20)), 19, list(range(19)))


def test_an_id_in_use_is_refused_returned_or_replaced(durable: FlaskDurable) -> None:  # SCH-2
    durable.start_worker()
    durable.client.start("wait_for_go", 1, instance_id="mine")
    with pytest.raises(InstanceExistsError):
        durable.client.start("wait_for_go", 2, instance_id="mine")
    assert durable.client.start("wait_for_go", 2, instance_id="mine", if_exists="return") == "mine"
    with pytest.raises(InstanceExistsError):
        durable.client.start("wait_for_go", 2, instance_id="mine", if_exists="replaceFinished")
    durable.client.raise_event("mine", "Go")
    finish(durable, "mine")
    durable.client.start("wait_for_go", 3, instance_id="mine", if_exists="replaceFinished")
    status = durable.client.wait_for_start("mine", timeout=10)
    assert status is not None
    assert (status.input, status.runtime_status) == (3, RuntimeStatus.RUNNING)


def test_restarting_runs_the_same_again_under_a_new_or_the_same_id(durable: FlaskDurable) -> None:  # MGT-4, rule 47
    durable.start_worker()
    first = durable.client.start("wait_for_go", "input", tags={"k": "v"})
    with pytest.raises(InstanceNotFinishedError):
        durable.client.restart(first)
    durable.client.raise_event(first, "Go", 1)
    finish(durable, first)
    second = durable.client.restart(first)
    assert durable.client.restart(first, new_instance_id=False) == first
    for instance_id in (first, second):
        durable.client.raise_event(instance_id, "Go", 2)
        status = finish(durable, instance_id)
        assert (status.output, status.input, status.tags, status.restarted_from) == (2, "input", {"k": "v"}, first)


def test_a_scheduled_start_waits_for_its_time(durable: FlaskDurable) -> None:  # SCH-3
    durable.start_worker()
    far = durable.client.start("wait_for_go", start_at=datetime.now(UTC) + timedelta(hours=1))
    soon = datetime.now(UTC) + timedelta(milliseconds=150)
    near = durable.client.start("wait_for_go", start_at=soon)
    durable.client.raise_event(near, "Go")
    durable.client.raise_event(far, "Go")
    assert finish(durable, near).last_updated_time >= soon
    assert status_of(durable, far) is RuntimeStatus.PENDING
    durable.client.terminate(far)
    assert durable.client.purge(far) == 1


def test_purging_takes_finished_instances_only(durable: FlaskDurable) -> None:  # MGT-5, MGT-6
    durable.start_worker()
    running = durable.client.start("wait_for_go")
    done = [durable.client.start("wait_for_go") for _ in range(3)]
    for instance_id in done:
        durable.client.raise_event(instance_id, "Go")
        finish(durable, instance_id)
    with pytest.raises(InstanceNotFinishedError):
        durable.client.purge(running)
    with pytest.raises(InstanceNotFoundError):
        durable.client.purge("unknown")
    assert durable.client.purge(done[0]) == 1
    assert durable.client.get_status(done[0]) is None
    assert durable.client.purge_by(InstanceFilter()) == 2
    assert [status.instance_id for status in durable.client.list().items] == [running]


def test_pages_hold_each_match_once(durable: FlaskDurable) -> None:  # QRY-1, QRY-2
    for index in range(25):
        durable.client.start("wait_for_go", instance_id=f"a%_{index:02}" if index % 2 else f"b-{index:02}", tags={"parity": str(index % 2)})
    found: list[str] = []
    token = None
    while True:
        page = durable.client.list(InstanceFilter(id_prefix="a%_", tags={"parity": "1"}), page_size=5, token=token)
        found.extend(status.instance_id for status in page.items)
        token = page.token
        if token is None:
            break
    assert found == [f"a%_{index:02}" for index in range(23, 0, -2)]
    assert durable.client.count(InstanceFilter(tags={"parity": "0"})) == 13
    with pytest.raises(InvalidArgumentError):
        durable.client.list(token="nonsense")


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_plain_and_async_orchestrators_work_too(durable: FlaskDurable, kind: str) -> None:  # REG-4
    if kind == "plain":

        def orchestrator(ctx: Any, value: int) -> Any:
            return value * 2

    else:

        async def orchestrator(ctx: Any, value: int) -> Any:
            return await ctx.call_activity("double", value)

    durable.orchestrator(name="other")(orchestrator)
    durable.start_worker()
    assert finish(durable, durable.client.start("other", 21)).output == 42


def test_work_goes_on_with_the_next_worker(make_durable: MakeApp, durable: FlaskDurable) -> None:  # WRK-2, WRK-3
    @durable.orchestrator
    def long(ctx: Any) -> Any:
        value = 1
        for _ in range(8):
            value = yield ctx.call_activity("double", value)
            yield ctx.create_timer(timedelta(milliseconds=20))
        return value

    instance_ids = [durable.client.start(long) for _ in range(5)]
    for _ in range(5):
        durable.start_worker()
        until(lambda: status_of(durable, instance_ids[0]) is not RuntimeStatus.PENDING)
        durable.stop_worker()
    durable.start_worker()
    assert [finish(durable, instance_id).output for instance_id in instance_ids] == [256] * 5


def test_changed_code_fails_the_instance_with_what_differs(make_durable: MakeApp) -> None:  # DET-6, rule 2
    def make(activity: str) -> FlaskDurable:
        durable = make_durable()
        durable.activity(name="charge")(lambda: "charged")
        durable.activity(name="bill")(lambda: "billed")

        @durable.orchestrator
        def order(ctx: Any) -> Any:
            yield ctx.call_activity(activity)
            return (yield ctx.wait_for_external_event("Go"))

        return durable

    before, after = make("charge"), make("bill")
    before.start_worker()
    instance_id = before.client.start("order")
    until(lambda: len(before.client.history(instance_id).events) >= 3)
    before.stop_worker()
    after.start_worker()
    after.client.raise_event(instance_id, "Go")
    status = finish(after, instance_id)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert "step 1: the history says call_activity('charge'), the code asked for call_activity('bill')" in status.output


def test_a_runaway_orchestrator_costs_only_itself(make_durable: MakeApp) -> None:  # DESIGN 3.1.8
    durable = make_durable(DURABLE_TURN_TIMEOUT=2.0)

    @durable.orchestrator
    def endless(ctx: Any) -> Any:
        while True:
            pass

    @durable.orchestrator
    def quick(ctx: Any) -> Any:
        return "quick"

    durable.start_worker()
    bad = durable.client.start(endless, instance_id="bad")
    assert finish(durable, durable.client.start(quick), 10).output == "quick"
    status = finish(durable, bad, 15)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert "DURABLE_TURN_TIMEOUT" in status.output


def test_an_output_that_is_no_json_fails_the_instance(durable: FlaskDurable) -> None:  # SCH-8
    durable.activity(name="object")(lambda: object())

    @durable.orchestrator
    def returns_a_set(ctx: Any) -> Any:
        return {1, 2}

    @durable.orchestrator
    def gets_an_object(ctx: Any) -> Any:
        yield ctx.call_activity("object")

    durable.start_worker()
    assert "The output contains a builtins.set" in finish(durable, durable.client.start(returns_a_set)).output
    assert "contains a builtins.object" in finish(durable, durable.client.start(gets_an_object)).output
