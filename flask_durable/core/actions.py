"""Actions: what orchestrator code asked for and history does not confirm yet; imperative, not yet facts."""

from __future__ import annotations

from flask_durable.core.events import EventSent, HistoryEvent, SubOrchestrationCreated, TaskScheduled, TimerCreated


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
