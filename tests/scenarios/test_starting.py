"""Starting instances, and waiting for them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from support import before_its_time, event_names, finish, has_status, look, run, until

from flask_durable import (
    InstanceExistsError,
    InstanceFilter,
    InstanceNotFinishedError,
    InvalidArgumentError,
    PayloadTooLargeError,
    RuntimeStatus,
    WaitTimeoutError,
)


def test_an_instance_is_pending_until_a_worker_takes_it(durable):  # SCH-1, SCH-5
    instance_id = durable.client.start("wait_for_go", {"order": 1})
    status = look(durable, instance_id)
    assert (status.runtime_status, status.input, status.output, status.completed_time) == (RuntimeStatus.PENDING, {"order": 1}, None, None)


def test_functions_and_names_both_name_an_orchestrator(durable):  # REG-3
    @durable.orchestrator(name="Other Name")
    def function(ctx):
        return ctx.name

    durable.start_worker()
    assert [run(durable, function).output, run(durable, "Other Name").output] == ["Other Name"] * 2


def test_an_id_in_use_is_refused(durable):  # SCH-2, S10
    durable.start_worker()
    durable.client.start("wait_for_go", 1, instance_id="mine")
    with pytest.raises(InstanceExistsError) as caught:
        durable.client.start("wait_for_go", 2, instance_id="mine")
    assert caught.value.instance_id == "mine"
    durable.client.raise_event("mine", "Go")
    finish(durable, "mine")
    with pytest.raises(InstanceExistsError, match="it is Completed"):
        durable.client.start("wait_for_go", 2, instance_id="mine")
    assert look(durable, "mine").input == 1


def test_ids_are_compared_byte_for_byte(durable):  # B5
    ids = ["Order", "order", "ORDER", "ordér", "orde\u0301r", "a b", "100%", "a_b", "aXb"]
    for number, instance_id in enumerate(ids):
        durable.client.start("wait_for_go", number, instance_id=instance_id)
    assert [look(durable, instance_id).input for instance_id in ids] == list(range(len(ids)))


def test_an_id_in_use_can_be_returned(durable):  # SCH-2
    durable.client.start("wait_for_go", 1, instance_id="mine")
    assert durable.client.start("wait_for_go", 2, instance_id="mine", if_exists="return") == "mine"
    assert durable.client.start("wait_for_go", 3, instance_id="new", if_exists="return") == "new"
    assert [look(durable, instance_id).input for instance_id in ("mine", "new")] == [1, 3]


def test_an_ended_instance_can_be_replaced_and_a_live_one_not(durable):  # SCH-2
    durable.start_worker()
    durable.client.start("wait_for_go", 1, instance_id="mine")
    with pytest.raises(InstanceExistsError):
        durable.client.start("wait_for_go", 2, instance_id="mine", if_exists="replaceFinished")
    durable.client.raise_event("mine", "Go")
    finish(durable, "mine")
    durable.client.start("wait_for_go", 3, instance_id="mine", if_exists="replaceFinished")
    status = durable.client.wait_for_start("mine", timeout=10)
    assert (status.input, status.runtime_status, status.output) == (3, RuntimeStatus.RUNNING, None)


def test_one_of_many_racing_starts_wins(durable):  # SCH-2
    durable.start_worker()
    outcomes = []
    gate = threading.Barrier(8, timeout=15)

    def start(number):
        gate.wait()
        try:
            outcomes.append(durable.client.start("wait_for_go", number, instance_id="one"))
        except InstanceExistsError:
            outcomes.append(None)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["None"] * 7 + ["one"]


@pytest.mark.parametrize(
    "instance_id",
    [
        "",
        "x" * 101,
        "@entity@1",
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "..",
        ".",
        "start",
        "openapi.json",
        "docs",
        " blank",
        "nul\x00",
        "line\nfeed",
        "\ud800",
        5,
    ],
)
def test_bad_and_reserved_ids_are_refused(durable, instance_id):  # B5
    with pytest.raises(InvalidArgumentError):
        durable.client.start("wait_for_go", instance_id=instance_id)
    assert durable.client.count() == 0


@pytest.mark.parametrize(
    "options",
    [
        {"if_exists": "whatever"},
        {"version": ""},
        {"version": 5},
        {"tags": {"k": 1}},
        {"tags": ["k"]},
        {"tags": {"k": "v" * 257}},
        {"tags": {str(number): "" for number in range(51)}},
        {"tags": {"k": "\ud800"}},
        {"start_at": "tomorrow"},
    ],
    ids=str,
)
def test_bad_options_are_refused(durable, options):  # reliability B4
    with pytest.raises(InvalidArgumentError):
        durable.client.start("wait_for_go", **options)
    assert durable.client.count() == 0


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), pytest.param(object(), id="object"), {1: 2}, bytearray(b"x"), range(2), Decimal("nan"), "\ud800", [["x", 1j]]],
    ids=repr,
)
def test_inputs_that_are_no_json_are_refused(durable, value):  # rule 55, B4
    with pytest.raises(InvalidArgumentError, match="The input"):
        durable.client.start("wait_for_go", value)
    assert durable.client.count() == 0


def test_inputs_have_a_largest_size_and_depth(make_durable):  # S9
    durable = make_durable(DURABLE_MAX_PAYLOAD_BYTES=1024, DURABLE_MAX_PAYLOAD_DEPTH=3)
    durable.client.start("anything", "x" * 1022)
    durable.client.start("anything", [[["x"]]])
    with pytest.raises(PayloadTooLargeError):
        durable.client.start("anything", "x" * 1023)
    with pytest.raises(InvalidArgumentError, match="nested too deeply"):
        durable.client.start("anything", [[[["x"]]]])


def test_a_scheduled_start_waits_for_its_time(durable):  # SCH-3
    durable.start_worker()
    soon = datetime.now(UTC) + timedelta(milliseconds=150)
    near = durable.client.start("wait_for_go", start_at=soon)
    far = durable.client.start("wait_for_go", start_at=datetime.now(UTC) + timedelta(hours=1))
    durable.client.raise_event(near, "Go")
    durable.client.raise_event(far, "Go")
    assert finish(durable, near).last_updated_time >= soon
    assert look(durable, near).scheduled_start_time == soon
    assert look(durable, far).runtime_status is RuntimeStatus.PENDING
    durable.client.terminate(far)
    assert durable.client.purge(far) == 1


def test_a_start_time_of_the_past_is_now(durable):  # SCH-3
    durable.start_worker()
    instance_id = durable.client.start("wait_for_go", start_at=datetime(2001, 1, 1))
    durable.client.raise_event(instance_id, "Go", "late")
    status = finish(durable, instance_id)
    assert (status.output, status.scheduled_start_time) == ("late", datetime(2001, 1, 1, tzinfo=UTC))


def test_waiting_for_the_start_ends_when_it_runs(durable):  # SCH-6
    instance_id = durable.client.start("wait_for_go")
    with pytest.raises(WaitTimeoutError, match="did not start within 0.05 s"):
        durable.client.wait_for_start(instance_id, timeout=0.05)
    durable.start_worker()
    assert durable.client.wait_for_start(instance_id, timeout=10).runtime_status is RuntimeStatus.RUNNING


def test_waiting_for_the_end_gives_up_in_time_and_harms_nothing(durable):  # SCH-6
    durable.start_worker()
    instance_id = durable.client.start("wait_for_go")
    with pytest.raises(TimeoutError, match="did not end within 0.05 s"):
        durable.client.wait_for_completion(instance_id, timeout=0.05)
    durable.client.raise_event(instance_id, "Go", 1)
    assert durable.client.wait_for_completion(instance_id, timeout=10).output == 1


def test_waiting_for_an_unknown_instance_gives_nothing(durable):  # SCH-6
    assert durable.client.wait_for_start("unknown", timeout=5) is None
    assert durable.client.wait_for_completion("unknown", timeout=5) is None
    assert durable.client.get_status("unknown") is None


def test_everybody_who_waits_is_told(durable):  # SCH-6
    durable.start_worker()
    instance_id = durable.client.start("wait_for_go")
    outputs = []
    threads = [threading.Thread(target=lambda: outputs.append(finish(durable, instance_id).output)) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    durable.client.raise_event(instance_id, "Go", "told")
    for thread in threads:
        thread.join()
    assert outputs == ["told"] * 5


def test_new_work_on_an_idle_worker_starts_within_half_a_second(durable):  # WRK-6
    def starts_in_time():
        instance_id = durable.client.start("wait_for_go")
        try:
            return durable.client.wait_for_start(instance_id, timeout=0.5).runtime_status is RuntimeStatus.RUNNING
        except WaitTimeoutError:
            return False

    durable.start_worker()
    until(starts_in_time, "a busy machine let it")


# -- before a scheduled start


@pytest.fixture
def scheduled(durable):
    """An instance that is due in an hour."""
    durable.start_worker()
    return durable.client.start("wait_for_go", instance_id="scheduled", start_at=datetime.now(UTC) + timedelta(hours=1))


def test_a_scheduled_instance_is_listed(durable, scheduled):  # SCH-3, rule 49
    [found] = durable.client.list(InstanceFilter(statuses=(RuntimeStatus.PENDING,))).items
    assert (found.instance_id, found.waiting_reason) == (scheduled, None)
    assert found.scheduled_start_time - found.created_time > timedelta(minutes=59)
    assert durable.client.count(InstanceFilter(statuses=(RuntimeStatus.RUNNING,))) == 0


def test_a_scheduled_instance_can_be_terminated_and_then_purged(durable, scheduled):  # SCH-3, MGT-2, MGT-5
    with pytest.raises(InstanceNotFinishedError):
        durable.client.purge(scheduled)
    assert durable.client.purge_by(InstanceFilter()) == 0
    durable.client.terminate(scheduled, "not needed")
    status = look(durable, scheduled)
    assert (status.runtime_status, status.output) == (RuntimeStatus.TERMINATED, "not needed")
    assert "ExecutionStarted" not in event_names(durable, scheduled)
    assert durable.client.purge(scheduled) == 1
    assert durable.client.get_status(scheduled) is None


def test_a_scheduled_instance_that_is_suspended_stays_so_beyond_its_time(durable):  # SCH-3, rule 37
    def attempt(seconds):
        instance_id = durable.client.start("wait_for_go", start_at=datetime.now(UTC) + timedelta(seconds=seconds))
        durable.client.suspend(instance_id)
        return None if "ExecutionStarted" in event_names(durable, instance_id) else instance_id

    durable.start_worker()
    soon = before_its_time(attempt)
    moment = look(durable, soon).scheduled_start_time
    until(lambda: datetime.now(UTC) > moment + timedelta(milliseconds=100))
    assert look(durable, soon).runtime_status is RuntimeStatus.SUSPENDED
    assert "ExecutionStarted" not in event_names(durable, soon)
    durable.client.resume(soon)
    durable.client.raise_event(soon, "Go", 1)
    assert finish(durable, soon).output == 1
