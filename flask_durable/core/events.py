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
    """The generation ended: by its own return, failure or continue-as-new, or from outside.

    The last three fields are for a rewind of a failed one (core/blame.py).

    Args:
        status: how it ended.
        output: JSON text.
        failure: when it failed.
        blamed: numbers of the failed calls that made it fail.
        unseen: numbers of the failed calls of which the code did not know when it was sound.
        sound_until: length of the history when the code was sound; None in histories from before there were rewinds.
    """

    status: RuntimeStatus
    output: str | None = None
    failure: FailureDetails | None = None
    blamed: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()
    sound_until: int | None = None


@dataclass(frozen=True, slots=True)
class TaskScheduled(HistoryEvent):
    """An activity call was made.

    Args:
        task_id: number of the call.
        name: the activity's name.
        input: JSON text.
        attempt: 1, or more for a further attempt under a retry policy.
        first_task_id: number of the first attempt's call; the same as task_id without retries.
        priority: calls with a higher one are taken first.
        timeout: what the call says of it, in microseconds; None leaves it to the activity.
    """

    task_id: int
    name: str
    input: str | None = None
    attempt: int = 1
    first_task_id: int = 0
    priority: int = 0
    timeout: Micros | None = None


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
    """A child orchestration was asked for.

    Args:
        task_id: number of the call.
        name: the orchestrator's name.
        instance_id: the child's id.
        execution_id: id of the child's first generation.
        input: JSON text.
        version: the child's version, when the call names one.
        on_parent_end: ``leave`` or ``terminate``: what becomes of the child when it is open at its parent's end (rule 42).
    """

    task_id: int
    name: str
    instance_id: str
    execution_id: str
    input: str | None = None
    version: str | None = None
    on_parent_end: str = "leave"
    tags: Mapping[str, str] = field(default_factory=dict)


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
    """A timer became due, or a stage of it: then ``fire_at`` is before the timer's own (TIM-5)."""

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
    """The instance was rewound: what came after a certain event no longer counts, and what follows runs anew (core/rewind.py).

    Args:
        reason: JSON text.
        resumes_after: the last event before this one that still counts.
        redone: numbers of the calls whose failures do not count either, because they are made again.
        last_task_id: the highest number given so far; further calls get higher ones, so that nothing late is taken for theirs.
    """

    reason: str | None = None
    resumes_after: int = 0
    redone: tuple[int, ...] = ()
    last_task_id: int = 0


@dataclass(frozen=True, slots=True)
class Unreadable(HistoryEvent):
    """Stands in a page of a history for an event whose stored row cannot be read; it is never stored or replayed.

    Args:
        stored_type: what the row says that it is.
        problem: why it cannot be read.
    """

    stored_type: str
    problem: str


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
