"""The status document, the digest of a history and the full history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask_durable.core.events import (
    EVENT_TYPES,
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    Recorded,
    SubOrchestrationCompleted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import to_micros
from flask_durable.http.documents import DIGESTED_EVENTS, history_digest, history_events, status_document
from flask_durable.statuses import OrchestrationStatus

START = to_micros(datetime(2026, 1, 1, tzinfo=UTC))
BOOM = FailureDetails("builtins.ValueError", "boom", "Traceback: boom")
FAILURE = {"ErrorType": "builtins.ValueError", "ErrorMessage": "boom", "StackTrace": "Traceback: boom"}


def recorded(*events: HistoryEvent) -> list[Recorded]:
    """The events, one a second and a microsecond."""
    return [Recorded(number, START + number * 1_000_001, event) for number, event in enumerate(events, 1)]


def at(number: int) -> str:
    return f"2026-01-01T00:00:{number:02d}.{number:06d}0Z"


def digest(*events: HistoryEvent, show_input: bool = True, show_output: bool = False) -> list[dict[str, Any]]:
    return history_digest(recorded(*events), show_input=show_input, show_output=show_output)


def test_every_kind_of_event_has_a_place_in_the_digest() -> None:
    assert set(EVENT_TYPES.values()) == DIGESTED_EVENTS


def test_an_open_call_stands_by_itself_and_a_finished_one_is_folded_into_its_end() -> None:
    history = (TaskScheduled(1, "charge", '{"a":1}'), TaskScheduled(2, "pack", None), TaskCompleted(1, '"ok"'))

    assert digest(*history) == [
        {"EventType": "TaskScheduled", "Timestamp": at(2), "Name": "pack", "Input": None},
        {"EventType": "TaskCompleted", "Timestamp": at(3), "ScheduledTime": at(1), "FunctionName": "charge", "Input": '{"a":1}'},
    ]
    assert digest(*history, show_input=False, show_output=True)[1] == {
        "EventType": "TaskCompleted", "Timestamp": at(3), "ScheduledTime": at(1), "FunctionName": "charge", "Result": "ok",
    }  # fmt: skip


def test_a_failed_call_keeps_its_failure() -> None:
    assert digest(TaskScheduled(1, "charge", "1"), TaskFailed(1, BOOM)) == [
        {
            "EventType": "TaskFailed", "Timestamp": at(2), "ScheduledTime": at(1), "FunctionName": "charge", "Input": "1",
            "Reason": "boom", "Details": "Traceback: boom", "FailureDetails": FAILURE,
        }
    ]  # fmt: skip


def test_the_id_of_a_child_survives_the_folding() -> None:
    created = [SubOrchestrationCreated(n, "ship", f"child-{n}", f"execution-{n}", "[1]") for n in (1, 2, 3)]

    assert digest(*created, SubOrchestrationCompleted(1, '{"x":null}'), SubOrchestrationFailed(2, BOOM), show_output=True) == [
        {"EventType": "SubOrchestrationInstanceCreated", "Timestamp": at(3), "InstanceId": "child-3", "Name": "ship", "Input": "[1]"},
        {
            "EventType": "SubOrchestrationInstanceCompleted", "Timestamp": at(4), "ScheduledTime": at(1), "FunctionName": "ship", "InstanceId": "child-1",
            "Input": "[1]", "Result": {"x": None},
        },
        {
            "EventType": "SubOrchestrationInstanceFailed", "Timestamp": at(5), "ScheduledTime": at(2), "FunctionName": "ship", "InstanceId": "child-2",
            "Input": "[1]", "Reason": "boom", "Details": "Traceback: boom", "FailureDetails": FAILURE,
        },
    ]  # fmt: skip


def test_what_is_no_call_is_shown_as_it_happened() -> None:
    history = (
        ExecutionStarted("order", "o-1", "e", input='{"id":1}', parent_instance_id="p", tags={"a": "b"}, scheduled_start=START),
        TimerCreated(1, START + 10_000_000),
        TimerFired(1, START + 10_000_000),
        EventRaised("Approval", "true"),
        EventSent(2, "o-2", "Ping", None),
        ExecutionSuspended('"why"'),
        ExecutionResumed(),
        ExecutionRewound('"again"'),
        ExecutionTerminated('"no"'),
        ExecutionCompleted(RuntimeStatus.TERMINATED, '"no"'),
    )

    assert digest(*history, show_output=True) == [
        {"EventType": "ExecutionStarted", "Timestamp": at(1), "FunctionName": "order", "Input": '{"id":1}', "ScheduledStartTime": at(0)},
        {"EventType": "TimerCreated", "Timestamp": at(2), "FireAt": "2026-01-01T00:00:10.0000000Z"},
        {"EventType": "TimerFired", "Timestamp": at(3), "FireAt": "2026-01-01T00:00:10.0000000Z"},
        {"EventType": "EventRaised", "Timestamp": at(4), "Name": "Approval", "Input": "true"},
        {"EventType": "EventSent", "Timestamp": at(5), "InstanceId": "o-2", "Name": "Ping", "Input": None},
        {"EventType": "ExecutionSuspended", "Timestamp": at(6), "Reason": "why"},
        {"EventType": "ExecutionResumed", "Timestamp": at(7), "Reason": None},
        {"EventType": "ExecutionRewound", "Timestamp": at(8), "Reason": "again"},
        {"EventType": "ExecutionTerminated", "Timestamp": at(9), "Input": "no"},
        {"EventType": "ExecutionCompleted", "Timestamp": at(10), "OrchestrationStatus": "Terminated", "Result": "no"},
    ]


def test_inputs_and_outputs_are_left_out_unless_asked_for() -> None:
    shown = digest(ExecutionStarted("order", "o-1", "e", input="1"), ExecutionCompleted(RuntimeStatus.FAILED, None, BOOM), show_input=False)

    assert shown == [
        {"EventType": "ExecutionStarted", "Timestamp": at(1), "FunctionName": "order"},
        {"EventType": "ExecutionCompleted", "Timestamp": at(2), "OrchestrationStatus": "Failed", "FailureDetails": FAILURE},
    ]


def test_an_end_whose_call_is_missing_is_shown_all_the_same() -> None:
    assert digest(TaskCompleted(7, "1")) == [{"EventType": "TaskCompleted", "Timestamp": at(1), "ScheduledTime": None, "FunctionName": None}]


def test_the_full_history_has_every_event_with_its_payloads() -> None:
    assert history_events(recorded(TaskScheduled(1, "charge", '{"a":1}', first_task_id=1), TaskFailed(1, BOOM), TimerCreated(2, START))) == [
        {
            "Sequence": 1,
            "EventType": "TaskScheduled",
            "Timestamp": at(1),
            "TaskId": 1,
            "Name": "charge",
            "Input": {"a": 1},
            "Attempt": 1,
            "FirstTaskId": 1,
            "Priority": 0,
            "Timeout": None,
        },
        {"Sequence": 2, "EventType": "TaskFailed", "Timestamp": at(2), "TaskId": 1, "Failure": BOOM.to_json()},
        {"Sequence": 3, "EventType": "TimerCreated", "Timestamp": at(3), "TaskId": 2, "FireAt": at(0)},
    ]


def test_a_status_has_azures_names_and_null_for_what_is_absent() -> None:
    moment = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
    status = OrchestrationStatus(
        "o-1", "order", RuntimeStatus.RUNNING, {"id": 1}, None, "packing", moment, datetime(1, 1, 1, tzinfo=UTC), None, None, None, None
    )

    assert status_document(status) == {
        "name": "order",
        "instanceId": "o-1",
        "runtimeStatus": "Running",
        "input": {"id": 1},
        "customStatus": "packing",
        "output": None,
        "createdTime": "2026-01-01T12:00:00.123456Z",
        "lastUpdatedTime": "0001-01-01T00:00:00.000000Z",
        "completedTime": None,
        "scheduledStartTime": None,
        "parentInstanceId": None,
        "version": None,
        "tags": {},
        "failureDetails": None,
        "restartedFrom": None,
        "parkedReason": None,
        "waitingReason": None,
    }


def test_a_history_goes_under_both_names_and_a_damaged_one_is_marked() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    status = OrchestrationStatus("o-1", "order", RuntimeStatus.FAILED, None, "boom", None, moment, moment, moment, BOOM, "p", "2", {"a": "b"})

    shown = status_document(status, history=[])
    assert (shown["history"], shown["historyEvents"], shown["failureDetails"]) == ([], [], BOOM.to_json())
    damaged = status_document(status, history_error="row 3 cannot be read")
    assert (damaged["history"], damaged["historyEvents"], damaged["historyError"]) == (None, None, "row 3 cannot be read")
