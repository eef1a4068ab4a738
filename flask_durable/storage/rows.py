"""Events and records as table rows, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from flask_durable.core.children import LEAVE
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
from flask_durable.errors import CorruptHistoryError
from flask_durable.storage.interface import InstanceRecord

EventRow = tuple[str, int | None, str | None, str | None, str | None]
"""event_type, task_id, name, payload, extra."""

INSTANCE_COLUMNS = (
    "instance_id, execution_id, generation, name, version, status, input, output, custom_status, failure, created_at, updated_at, completed_at,"
    " start_at, parent_instance_id, parent_execution_id, parent_task_id, tags, trace, restarted_from, sequence, has_started, ready_at, worker_id,"
    " deliveries, parked_reason, carried"
)


def dump(value: Any) -> str:
    """Compact JSON text for columns of our own."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def dump_map(value: Mapping[str, str]) -> str | None:
    """JSON text of a string map; None for an empty one."""
    return dump(dict(sorted(value.items()))) if value else None


def dump_failure(failure: FailureDetails | None) -> str | None:
    """JSON text of failure details."""
    return None if failure is None else dump(failure.to_stored())


def load_failure(text: str | None) -> FailureDetails | None:
    """Failure details from their JSON text."""
    return None if text is None else FailureDetails.from_json(json.loads(text))


def event_row(event: HistoryEvent) -> EventRow:
    """The columns of an event."""
    return _TO_ROW[type(event)](event)


def row_event(instance_id: str, row: Sequence[Any]) -> HistoryEvent:
    """The event of a row of (event_type, task_id, name, payload, extra).

    Raises:
        CorruptHistoryError: the row cannot be read.
    """
    try:
        return _FROM_ROW[row[0]](row[1], row[2], row[3], json.loads(row[4]) if row[4] else {})
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CorruptHistoryError(instance_id, f"an event of type {row[0]!r} ({type(error).__name__}: {error})") from error


def instance_record(row: Sequence[Any]) -> InstanceRecord:
    """The record of a row of INSTANCE_COLUMNS."""
    (instance_id, execution_id, generation, name, version, status, input_, output, custom_status, failure, created_at, updated_at, completed_at,
     start_at, parent_instance_id, parent_execution_id, parent_task_id, tags, trace, restarted_from, sequence, has_started, ready_at, worker_id,
     deliveries, parked_reason, carried) = row  # fmt: skip
    try:
        return InstanceRecord(
            instance_id, execution_id, generation, name, version, RuntimeStatus(status), input_, output, custom_status,
            load_failure(failure), created_at, updated_at, completed_at, start_at, parent_instance_id, parent_execution_id, parent_task_id,
            json.loads(tags) if tags else {}, json.loads(trace) if trace else {}, restarted_from, sequence, bool(has_started), ready_at,
            worker_id, deliveries, parked_reason, tuple(EventRaised(*each) for each in json.loads(carried)) if carried else (),
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptHistoryError(instance_id, f"its instance row ({type(error).__name__}: {error})") from error


def shown_record(row: Sequence[Any]) -> InstanceRecord:
    """As :func:`instance_record`, but a damaged row is shown with what can be read: it can be listed, terminated and purged."""
    try:
        return instance_record(row)
    except CorruptHistoryError as error:
        legible = dict(zip(INSTANCE_COLUMNS.split(", "), row, strict=True))
        legible |= dict.fromkeys(("failure", "tags", "trace", "carried"))
        if legible["status"] not in set(RuntimeStatus):
            legible["status"] = RuntimeStatus.RUNNING.value  # as one that has not ended, so that it can be
        legible["parked_reason"] = legible["parked_reason"] or str(error)
        return instance_record(tuple(legible.values()))


def _started_row(event: ExecutionStarted) -> EventRow:
    extra = {
        "instanceId": event.instance_id,
        "executionId": event.execution_id,
        "generation": event.generation,
        "version": event.version,
        "parentInstanceId": event.parent_instance_id,
        "tags": dict(event.tags),
        "scheduledStart": event.scheduled_start,
    }
    return "ExecutionStarted", None, event.name, event.input, dump({key: value for key, value in extra.items() if value})


def _started_event(_task: int | None, name: str | None, payload: str | None, extra: dict[str, Any]) -> ExecutionStarted:
    return ExecutionStarted(
        name=cast(str, name),
        instance_id=extra["instanceId"],
        execution_id=extra["executionId"],
        generation=extra.get("generation", 0),
        input=payload,
        version=extra.get("version"),
        parent_instance_id=extra.get("parentInstanceId"),
        tags=extra.get("tags", {}),
        scheduled_start=extra.get("scheduledStart"),
    )


def _completed_row(event: ExecutionCompleted) -> EventRow:
    extra: dict[str, Any] = {"status": event.status.value}
    if event.failure is not None:
        extra["failure"] = event.failure.to_stored()
    if event.sound_until is not None:
        extra |= {"blamed": event.blamed, "unseen": event.unseen, "soundUntil": event.sound_until}
    return "ExecutionCompleted", None, None, event.output, dump(extra)


def _completed_event(_task: int | None, _name: str | None, payload: str | None, extra: dict[str, Any]) -> ExecutionCompleted:
    failure = extra.get("failure")
    return ExecutionCompleted(
        RuntimeStatus(extra["status"]),
        payload,
        FailureDetails.from_json(failure) if failure else None,
        tuple(extra.get("blamed", ())),
        tuple(extra.get("unseen", ())),
        extra.get("soundUntil"),
    )


def _scheduled_row(event: TaskScheduled) -> EventRow:
    extra: str | None = None
    if event.priority or event.timeout is not None:
        extra = dump([event.attempt, event.first_task_id or event.task_id, event.priority, event.timeout])
    elif event.attempt != 1:
        extra = dump([event.attempt, event.first_task_id])
    return "TaskScheduled", event.task_id, event.name, event.input, extra


def _scheduled_event(task: int | None, name: str | None, payload: str | None, extra: Any) -> TaskScheduled:
    number = cast(int, task)
    attempt, first, priority, timeout = (*extra, 0, None)[:4] if extra else (1, number, 0, None)
    return TaskScheduled(number, cast(str, name), payload, attempt, first, priority, timeout)


def _child_extra(event: SubOrchestrationCreated) -> list[Any]:
    extra: list[Any] = [event.instance_id, event.execution_id, event.version]
    if event.tags:
        return [*extra, event.on_parent_end, dict(event.tags)]
    return extra if event.on_parent_end == LEAVE else [*extra, event.on_parent_end]


def _child_event(task: int | None, name: str | None, payload: str | None, extra: Any) -> SubOrchestrationCreated:
    instance_id, execution_id, version, *rest = extra
    return SubOrchestrationCreated(cast(int, task), cast(str, name), instance_id, execution_id, payload, version, *rest)


def _reason_row(event: HistoryEvent) -> EventRow:
    return type(event).__name__, None, None, cast(Any, event).reason, None


def _rewound_row(event: ExecutionRewound) -> EventRow:
    return "ExecutionRewound", None, None, event.reason, dump([event.resumes_after, event.redone, event.last_task_id])


def _rewound_event(_task: int | None, _name: str | None, payload: str | None, extra: Any) -> ExecutionRewound:
    resumes_after, redone, last_task_id = extra
    return ExecutionRewound(payload, resumes_after, tuple(redone), last_task_id)


_TO_ROW: dict[type[HistoryEvent], Callable[[Any], EventRow]] = {
    ExecutionStarted: _started_row,
    ExecutionCompleted: _completed_row,
    TaskScheduled: _scheduled_row,
    TaskCompleted: lambda event: ("TaskCompleted", event.task_id, None, event.result, None),
    TaskFailed: lambda event: ("TaskFailed", event.task_id, None, dump_failure(event.failure), None),
    SubOrchestrationCreated: lambda event: (
        "SubOrchestrationCreated", event.task_id, event.name, event.input, dump(_child_extra(event)),
    ),
    SubOrchestrationCompleted: lambda event: ("SubOrchestrationCompleted", event.task_id, None, event.result, None),
    SubOrchestrationFailed: lambda event: ("SubOrchestrationFailed", event.task_id, None, dump_failure(event.failure), None),
    TimerCreated: lambda event: ("TimerCreated", event.task_id, None, None, str(event.fire_at)),
    TimerFired: lambda event: ("TimerFired", event.task_id, None, None, str(event.fire_at)),
    EventRaised: lambda event: ("EventRaised", None, event.name, event.data, None),
    EventSent: lambda event: ("EventSent", event.task_id, event.name, event.data, dump(event.instance_id)),
    ExecutionSuspended: _reason_row,
    ExecutionResumed: _reason_row,
    ExecutionTerminated: _reason_row,
    ExecutionRewound: _rewound_row,
}  # fmt: skip

_FROM_ROW: dict[str, Callable[[Any, Any, Any, Any], HistoryEvent]] = {
    "ExecutionStarted": _started_event,
    "ExecutionCompleted": _completed_event,
    "TaskScheduled": _scheduled_event,
    "TaskCompleted": lambda task, _name, payload, _extra: TaskCompleted(task, payload),
    "TaskFailed": lambda task, _name, payload, _extra: TaskFailed(task, FailureDetails.from_json(json.loads(payload))),
    "SubOrchestrationCreated": _child_event,
    "SubOrchestrationCompleted": lambda task, _name, payload, _extra: SubOrchestrationCompleted(task, payload),
    "SubOrchestrationFailed": lambda task, _name, payload, _extra: SubOrchestrationFailed(task, FailureDetails.from_json(json.loads(payload))),
    "TimerCreated": lambda task, _name, _payload, extra: TimerCreated(task, extra),
    "TimerFired": lambda task, _name, _payload, extra: TimerFired(task, extra),
    "EventRaised": lambda _task, name, payload, _extra: EventRaised(name, payload),
    "EventSent": lambda task, name, payload, extra: EventSent(task, extra, name, payload),
    "ExecutionSuspended": lambda _task, _name, payload, _extra: ExecutionSuspended(payload),
    "ExecutionResumed": lambda _task, _name, payload, _extra: ExecutionResumed(payload),
    "ExecutionTerminated": lambda _task, _name, payload, _extra: ExecutionTerminated(payload),
    "ExecutionRewound": _rewound_event,
}

assert set(_FROM_ROW) == set(EVENT_TYPES)  # noqa: S101 - a kind of event without a row form must not get past an import
