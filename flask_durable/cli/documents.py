"""Documents: statuses and events as plain JSON values, with the names that the HTTP API uses; pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from typing import Any

from flask_durable.core import codec
from flask_durable.core.events import HistoryEvent, Recorded
from flask_durable.core.failure import FailureDetails
from flask_durable.core.times import Micros, from_micros
from flask_durable.statuses import OrchestrationStatus
from flask_durable.storage.interface import VersionUse

Document = dict[str, Any]

_PAYLOADS = frozenset({"input", "output", "result", "data", "reason"})
_MOMENTS = frozenset({"fire_at", "scheduled_start"})


def status_document(status: OrchestrationStatus) -> Document:
    """A status; what is absent is null. With a history the list of its events stands under both names that clients read."""
    document: Document = {
        "name": status.name,
        "instanceId": status.instance_id,
        "runtimeStatus": status.runtime_status.value,
        "input": status.input,
        "customStatus": status.custom_status,
        "output": status.output,
        "createdTime": time_text(status.created_time),
        "lastUpdatedTime": time_text(status.last_updated_time),
        "completedTime": time_text(status.completed_time),
        "scheduledStartTime": time_text(status.scheduled_start_time),
        "parentInstanceId": status.parent_instance_id,
        "version": status.version,
        "tags": dict(status.tags),
        "failureDetails": status.failure_details.to_json() if status.failure_details else None,
        "restartedFrom": status.restarted_from,
        "parkedReason": status.parked_reason,
        "waitingReason": status.waiting_reason,
    }
    if status.history is not None:
        document["historyEvents"] = document["history"] = history_documents(status.history)
    return document


def version_document(use: VersionUse) -> Document:
    """A row of the report of versions."""
    counts = {status.value: count for status, count in use.counts.items()}
    return {"name": use.name, "version": use.version, "total": sum(counts.values()), "counts": counts}


def history_documents(history: Iterable[Recorded]) -> list[Document]:
    """The stored events one by one; payloads are JSON values."""
    return [
        {
            "Sequence": recorded.sequence,
            "EventType": type(recorded.event).__name__,
            "Timestamp": _event_time(recorded.at),
            **event_fields(recorded.event),
        }
        for recorded in history
    ]


def event_fields(event: HistoryEvent) -> Document:
    """What an event says, by name."""
    values: Document = {}
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name in _PAYLOADS:
            value = _payload(value)
        elif field.name in _MOMENTS:
            value = None if value is None else _event_time(value)
        elif isinstance(value, FailureDetails):
            value = value.to_json()
        values["".join(word.capitalize() for word in field.name.split("_"))] = value
    return values


def time_text(moment: datetime | None) -> str | None:
    """A moment in UTC with microseconds."""
    return None if moment is None else moment.strftime(f"{moment.year:04d}-%m-%dT%H:%M:%S.%fZ")


def _event_time(micros: Micros) -> str:
    moment = from_micros(micros)
    return moment.strftime(f"{moment.year:04d}-%m-%dT%H:%M:%S.%f0Z")


def _payload(text: str | None) -> Any:
    try:
        return codec.decode(text)
    except ValueError:
        return text  # a damaged row is shown as it is, it must not hide the rest
