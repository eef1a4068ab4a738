"""Actions: what orchestrator code asked for and history does not confirm yet; imperative, not yet facts."""

from __future__ import annotations

from collections.abc import Iterable

from flask_durable.core.events import (
    EventSent,
    HistoryEvent,
    Recorded,
    SubOrchestrationCreated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
)
from flask_durable.errors import NonDeterminismError

ASKED = (TaskScheduled, TimerCreated, SubOrchestrationCreated, EventSent)
"""Facts that follow from a call of the code: replay checks them against the code."""


def describe(event: HistoryEvent) -> str:
    """The call that leads to this event, as the orchestrator's author would write it."""
    if isinstance(event, TaskScheduled):
        return f"call_activity({event.name!r})"
    if isinstance(event, SubOrchestrationCreated):
        return f"call_sub_orchestrator({event.name!r}, instance_id={event.instance_id!r})"
    if isinstance(event, TimerCreated):
        return "create_timer"
    if isinstance(event, EventSent):
        return f"send_event({event.name!r} to {event.instance_id!r})"
    return type(event).__name__


def is_same(asked: HistoryEvent, recorded: HistoryEvent) -> bool:
    """Whether the code asks for what the history has: the same kind, name and target (rule 2)."""
    if isinstance(asked, TaskScheduled) and isinstance(recorded, TaskScheduled):
        return asked.task_id == recorded.task_id and asked.name == recorded.name
    if isinstance(asked, TimerCreated) and isinstance(recorded, TimerCreated):
        return asked.task_id == recorded.task_id
    if isinstance(asked, SubOrchestrationCreated) and isinstance(recorded, SubOrchestrationCreated):
        return (asked.task_id, asked.name, asked.instance_id) == (recorded.task_id, recorded.name, recorded.instance_id)
    if isinstance(asked, EventSent) and isinstance(recorded, EventSent):
        is_same_name = asked.name.casefold() == recorded.name.casefold()
        return asked.task_id == recorded.task_id and is_same_name and asked.instance_id == recorded.instance_id
    return False


def mismatch(recorded: HistoryEvent | None, asked: HistoryEvent | None) -> NonDeterminismError:
    """The error for code that asks for something else than the history has; either may be nothing (DET-5 to DET-7)."""
    step: int = getattr(recorded or asked, "task_id", 0)
    return NonDeterminismError(step, describe(recorded) if recorded else None, describe(asked) if asked else None)


def open_activities(history: Iterable[Recorded]) -> set[int]:
    """Numbers of the activity calls that a history has without their outcome, whatever the code says to it."""
    events = [recorded.event for recorded in history]
    ended = {event.task_id for event in events if isinstance(event, TaskCompleted | TaskFailed)}
    return {event.task_id for event in events if isinstance(event, TaskScheduled)} - ended
