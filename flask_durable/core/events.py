"""History events: frozen facts in the past tense, one class per kind; the same values travel as inbox messages.

Payload fields hold JSON text (core/codec.py) or None for an absent value. An event carries no time of its own: all events of one turn share
that turn's time, which the history row holds (see Recorded).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """Base of all events."""


class Recorded(NamedTuple):
    """An event in its place: the number in the history (1 for the first) and the time of its turn."""

    sequence: int
    at: Micros
    event: HistoryEvent


@dataclass(frozen=True, slots=True)
class ExecutionStarted(HistoryEvent):
    """The first event of each generation."""

    name: str
    instance_id: str
    execution_id: str
    generation: int = 0
    input: str | None = None
    version: str | None = None
    parent_instance_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    scheduled_start: Micros | None = None


@dataclass(frozen=True, slots=True)
class ExecutionCompleted(HistoryEvent):
    """The generation ended: by its own return, failure or continue-as-new, or from outside."""

    status: RuntimeStatus
    output: str | None = None
    failure: FailureDetails | None = None


@dataclass(frozen=True, slots=True)
class TaskScheduled(HistoryEvent):
    """An activity call was made.

    Args:
        task_id: number of the call.
        name: the activity's name.
        input: JSON text.
        attempt: 1, or more for a further attempt under a retry policy.
        first_task_id: number of the first attempt's call; the same as task_id without retries.
    """

    task_id: int
    name: str
    input: str | None = None
    attempt: int = 1
    first_task_id: int = 0


@dataclass(frozen=True, slots=True)
class TaskCompleted(HistoryEvent):
    """An activity returned."""

    task_id: int
    result: str | None = None


@dataclass(frozen=True, slots=True)
class TaskFailed(HistoryEvent):
    """An activity raised, or could not be run."""

    task_id: int
    failure: FailureDetails


@dataclass(frozen=True, slots=True)
class SubOrchestrationCreated(HistoryEvent):
    """A child orchestration was asked for."""

    task_id: int
    name: str
    instance_id: str
    execution_id: str
    input: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class SubOrchestrationCompleted(HistoryEvent):
    """A child orchestration completed."""

    task_id: int
    result: str | None = None


@dataclass(frozen=True, slots=True)
class SubOrchestrationFailed(HistoryEvent):
    """A child orchestration failed, was terminated, or could not be created."""

    task_id: int
    failure: FailureDetails


@dataclass(frozen=True, slots=True)
class TimerCreated(HistoryEvent):
    """A timer was set."""

    task_id: int
    fire_at: Micros


@dataclass(frozen=True, slots=True)
class TimerFired(HistoryEvent):
    """A timer became due."""

    task_id: int
    fire_at: Micros


@dataclass(frozen=True, slots=True)
class EventRaised(HistoryEvent):
    """An external event arrived."""

    name: str
    data: str | None = None


@dataclass(frozen=True, slots=True)
class EventSent(HistoryEvent):
    """The orchestrator sent an event to another instance."""

    task_id: int
    instance_id: str
    name: str
    data: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionSuspended(HistoryEvent):
    """The instance was suspended; no code runs until it is resumed."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionResumed(HistoryEvent):
    """The instance was resumed."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionTerminated(HistoryEvent):
    """The instance was terminated from outside."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionRewound(HistoryEvent):
    """The instance was rewound: what follows runs anew."""

    reason: str | None = None


EVENT_TYPES: dict[str, type[HistoryEvent]] = {
    kind.__name__: kind
    for kind in (
        ExecutionStarted,
        ExecutionCompleted,
        TaskScheduled,
        TaskCompleted,
        TaskFailed,
        SubOrchestrationCreated,
        SubOrchestrationCompleted,
        SubOrchestrationFailed,
        TimerCreated,
        TimerFired,
        EventRaised,
        EventSent,
        ExecutionSuspended,
        ExecutionResumed,
        ExecutionTerminated,
        ExecutionRewound,
    )
}
"""Every kind of event by the name it has in tables and answers."""
