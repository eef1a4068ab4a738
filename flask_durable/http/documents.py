"""Documents: the status, the history digest and the full history as they are answered; pure functions.

In documents a time of an instance has microseconds and ``Z``, a time in a history entry seven digits and ``Z``, as in Azure's API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from flask_durable.core import codec
from flask_durable.core.events import (
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
from flask_durable.core.times import Micros, from_micros
from flask_durable.statuses import OrchestrationStatus
from flask_durable.storage.interface import VersionUse

Entry = dict[str, Any]


def status_document(status: OrchestrationStatus, *, history: list[Entry] | None = None, history_error: str | None = None) -> Entry:
    """The status document; absent values are null, and a list of history entries goes under both names that clients read."""
    document: Entry = {
        "name": status.name,
        "instanceId": status.instance_id,
        "runtimeStatus": status.runtime_status.value,
        "input": status.input,
        "customStatus": status.custom_status,
        "output": status.output,
        "createdTime": _time(status.created_time),
        "lastUpdatedTime": _time(status.last_updated_time),
        "completedTime": _time(status.completed_time),
        "scheduledStartTime": _time(status.scheduled_start_time),
        "parentInstanceId": status.parent_instance_id,
        "version": status.version,
        "tags": dict(status.tags),
        "failureDetails": status.failure_details.to_json() if status.failure_details else None,
        "restartedFrom": status.restarted_from,
        "parkedReason": status.parked_reason,
        "waitingReason": status.waiting_reason,
    }
    if history is not None or history_error is not None:
        document["historyEvents"] = document["history"] = history
    if history_error is not None:
        document["historyError"] = history_error
    return document


def version_document(use: VersionUse) -> Entry:
    """A row of the report of versions; the counts by the names of the statuses."""
    counts = {status.value: count for status, count in use.counts.items()}
    return {"name": use.name, "version": use.version, "total": sum(counts.values()), "counts": counts}


def history_digest(history: Iterable[Recorded], *, show_input: bool, show_output: bool) -> list[Entry]:
    """The history as Azure's API shows it: a call that has ended is folded into its end, an open one stands by itself.

    Args:
        history: the events of one generation.
        show_input: include the inputs of the orchestration and of its calls.
        show_output: include results and the output.
    """
    digest = _Digest({}, {}, show_input, show_output)
    for recorded in history:
        digest.add(recorded)
    return [digest.entries[sequence] for sequence in sorted(digest.entries)]


def history_events(history: Iterable[Recorded]) -> list[Entry]:
    """The stored events one by one, nothing folded or left out; payloads are JSON values."""
    return [
        {"Sequence": recorded.sequence, "EventType": type(recorded.event).__name__, "Timestamp": _stamp(recorded.at), **_all_fields(recorded.event)}
        for recorded in history
    ]


@dataclass(slots=True)
class _Digest:
    """What was made of the events so far: entries by sequence, and the calls by number."""

    entries: dict[int, Entry]
    calls: dict[int, Recorded]
    show_input: bool
    show_output: bool

    def add(self, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, TaskScheduled | SubOrchestrationCreated | TimerCreated):
            self.calls[event.task_id] = recorded
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            name, values = handler(self, event)
            self.entries[recorded.sequence] = {"EventType": name, "Timestamp": _stamp(recorded.at), **values}

    def folded(self, task_id: int) -> Entry:
        """What the entry of a call's end takes from the entry of the call, which goes away."""
        recorded = self.calls.get(task_id)
        if recorded is None or not isinstance(recorded.event, TaskScheduled | SubOrchestrationCreated):
            return {"ScheduledTime": None, "FunctionName": None}
        self.entries.pop(recorded.sequence, None)
        values = {"ScheduledTime": _stamp(recorded.at), "FunctionName": recorded.event.name}
        if isinstance(recorded.event, SubOrchestrationCreated):
            values["InstanceId"] = recorded.event.instance_id
        return values | self.with_input(recorded.event.input)

    def with_input(self, text: str | None) -> Entry:
        return {"Input": text} if self.show_input else {}

    def with_result(self, text: str | None) -> Entry:
        return {"Result": _value(text)} if self.show_output else {}


def _started(digest: _Digest, event: ExecutionStarted) -> tuple[str, Entry]:
    later = {"ScheduledStartTime": _stamp(event.scheduled_start)} if event.scheduled_start is not None else {}
    return "ExecutionStarted", {"FunctionName": event.name, **digest.with_input(event.input), **later}


def _completed(digest: _Digest, event: ExecutionCompleted) -> tuple[str, Entry]:
    failure = {"FailureDetails": _failure(event.failure)} if event.failure else {}
    return "ExecutionCompleted", {"OrchestrationStatus": event.status.value, **digest.with_result(event.output), **failure}


def _task_scheduled(digest: _Digest, event: TaskScheduled) -> tuple[str, Entry]:
    return "TaskScheduled", {"Name": event.name, **digest.with_input(event.input)}


def _task_completed(digest: _Digest, event: TaskCompleted) -> tuple[str, Entry]:
    return "TaskCompleted", digest.folded(event.task_id) | digest.with_result(event.result)


def _task_failed(digest: _Digest, event: TaskFailed) -> tuple[str, Entry]:
    return "TaskFailed", digest.folded(event.task_id) | _failed(event.failure)


def _child_created(digest: _Digest, event: SubOrchestrationCreated) -> tuple[str, Entry]:
    return "SubOrchestrationInstanceCreated", {"InstanceId": event.instance_id, "Name": event.name, **digest.with_input(event.input)}


def _child_completed(digest: _Digest, event: SubOrchestrationCompleted) -> tuple[str, Entry]:
    return "SubOrchestrationInstanceCompleted", digest.folded(event.task_id) | digest.with_result(event.result)


def _child_failed(digest: _Digest, event: SubOrchestrationFailed) -> tuple[str, Entry]:
    return "SubOrchestrationInstanceFailed", digest.folded(event.task_id) | _failed(event.failure)


def _timer(digest: _Digest, event: TimerCreated | TimerFired) -> tuple[str, Entry]:
    return type(event).__name__, {"FireAt": _stamp(event.fire_at)}


def _event_raised(digest: _Digest, event: EventRaised) -> tuple[str, Entry]:
    return "EventRaised", {"Name": event.name, "Input": event.data}


def _event_sent(digest: _Digest, event: EventSent) -> tuple[str, Entry]:
    return "EventSent", {"InstanceId": event.instance_id, "Name": event.name, "Input": event.data}


def _controlled(digest: _Digest, event: ExecutionSuspended | ExecutionResumed | ExecutionRewound) -> tuple[str, Entry]:
    return type(event).__name__, {"Reason": _value(event.reason)}


def _terminated(digest: _Digest, event: ExecutionTerminated) -> tuple[str, Entry]:
    return "ExecutionTerminated", {"Input": _value(event.reason)}


_HANDLERS: dict[type[HistoryEvent], Callable[[_Digest, Any], tuple[str, Entry]]] = {
    ExecutionStarted: _started,
    ExecutionCompleted: _completed,
    TaskScheduled: _task_scheduled,
    TaskCompleted: _task_completed,
    TaskFailed: _task_failed,
    SubOrchestrationCreated: _child_created,
    SubOrchestrationCompleted: _child_completed,
    SubOrchestrationFailed: _child_failed,
    TimerCreated: _timer,
    TimerFired: _timer,
    EventRaised: _event_raised,
    EventSent: _event_sent,
    ExecutionSuspended: _controlled,
    ExecutionResumed: _controlled,
    ExecutionRewound: _controlled,
    ExecutionTerminated: _terminated,
}
DIGESTED_EVENTS = frozenset(_HANDLERS)
"""Kinds of events that have a place in the digest; a test compares them with all kinds there are."""


def _failed(failure: FailureDetails) -> Entry:
    return {"Reason": failure.message, "Details": failure.traceback, "FailureDetails": _failure(failure)}


def _failure(failure: FailureDetails) -> Entry:
    return {"ErrorType": failure.type_name, "ErrorMessage": failure.message, "StackTrace": failure.traceback}


def _all_fields(event: HistoryEvent) -> Entry:
    values: Entry = {}
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name in _PAYLOADS:
            value = _value(value)
        elif field.name in _MOMENTS:
            value = _stamp(value) if value is not None else None
        elif isinstance(value, FailureDetails):
            value = value.to_json()
        values["".join(word.capitalize() for word in field.name.split("_"))] = value
    return values


def _value(text: str | None) -> Any:
    try:
        return codec.decode(text)
    except ValueError:
        return text  # a damaged row is shown as it is, it must not hide the rest


_PAYLOADS = frozenset({"input", "output", "result", "data", "reason"})
_MOMENTS = frozenset({"fire_at", "scheduled_start"})


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime(f"{moment.year:04d}-%m-%dT%H:%M:%S.%fZ")


def _stamp(micros: Micros) -> str:
    moment = from_micros(micros)
    return moment.strftime(f"{moment.year:04d}-%m-%dT%H:%M:%S.%f0Z")
