"""Compares what was recorded of a generation with what the model says must follow from what arrived."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flask_durable.core.events import (
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionStarted,
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

from .interpreter import orchestrator, work
from .model import Model

ASKED = (TaskScheduled, TimerCreated, SubOrchestrationCreated, EventSent)


class Checker:
    """One generation of an instance, event by event."""

    def __init__(self, started: ExecutionStarted) -> None:
        self.model = Model(orchestrator, instance_id=started.instance_id, execution_id=started.execution_id, new_uuid=lambda: "some uuid")
        self.works: dict[int, Any] = {}
        self.timers: dict[int, int] = {}
        self.is_ended = False

    def see(self, recorded: Recorded) -> None:
        """The next event of the history."""
        event, model = recorded.event, self.model
        assert not self.is_ended, f"the history goes on after its end, with {event}"
        if isinstance(event, ASKED):
            self.see_asked(event)
            return
        assert not model.asked, f"asked for in the model and not in the history: {model.asked[0]}"
        if isinstance(event, ExecutionCompleted):
            self.is_ended = True
            return
        assert recorded.at >= model.now, "time runs backwards"
        model.now = recorded.at
        arrival = ARRIVALS.get(type(event))
        if arrival is not None:
            arrival(self, event)

    def see_asked(self, event: HistoryEvent) -> None:
        assert self.model.asked, f"in the history and not asked for in the model: {event}"
        wanted = self.model.asked.popleft()
        if isinstance(event, SubOrchestrationCreated) and wanted[4] is None:  # made up; that ids differ is for others to check
            wanted = (*wanted[:4], event.instance_id)
        assert shown(event) == wanted
        if isinstance(event, TaskScheduled):
            self.works[event.task_id] = (json.loads(event.input or "null"), event.attempt)
        elif isinstance(event, TimerCreated):
            self.timers[event.task_id] = event.fire_at

    # -- arrivals

    def started(self, event: ExecutionStarted) -> None:
        self.model.start(json.loads(event.input or "null"))

    def task_completed(self, event: TaskCompleted) -> None:
        result = json.loads(event.result or "null")
        assert result == work(*self.works[event.task_id])
        self.model.arrive("activity", event.task_id, result)

    def task_failed(self, event: TaskFailed) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(event.failure.message)}$"):
            work(*self.works[event.task_id])
        self.model.arrive("activity", event.task_id, failure=event.failure.message)

    def child_completed(self, event: SubOrchestrationCompleted) -> None:
        self.model.arrive("child", event.task_id, json.loads(event.result or "null"))

    def child_failed(self, event: SubOrchestrationFailed) -> None:
        self.model.arrive("child", event.task_id, failure=event.failure.message)

    def fired(self, event: TimerFired) -> None:
        assert self.timers[event.task_id] == event.fire_at
        self.model.arrive("timer", event.task_id)

    def raised(self, event: EventRaised) -> None:
        self.model.event(event.name, json.loads(event.data or "null"))


ARRIVALS: dict[type, Callable[[Any, Any], None]] = {
    ExecutionStarted: Checker.started,
    TaskCompleted: Checker.task_completed,
    TaskFailed: Checker.task_failed,
    SubOrchestrationCompleted: Checker.child_completed,
    SubOrchestrationFailed: Checker.child_failed,
    TimerFired: Checker.fired,
    EventRaised: Checker.raised,
}


def shown(event: HistoryEvent) -> tuple[Any, ...]:
    """What was asked for, as the model says it."""
    match event:
        case TaskScheduled():
            return ("activity", event.task_id, event.name, json.loads(event.input or "null"), event.attempt, event.first_task_id or event.task_id)
        case TimerCreated():
            return ("timer", event.task_id, event.fire_at)
        case SubOrchestrationCreated():
            return ("child", event.task_id, event.name, json.loads(event.input or "null"), event.instance_id)
        case EventSent():
            return ("event", event.task_id, event.instance_id, event.name, json.loads(event.data or "null"))
    raise TypeError(event)


def check(history: Sequence[Recorded]) -> Checker:
    """Check a generation's whole history; what comes back knows how the generation must end."""
    first = history[0].event
    assert isinstance(first, ExecutionStarted)
    checker = Checker(first)
    for number, recorded in enumerate(history, 1):
        assert recorded.sequence == number, "the history has a gap"
        checker.see(recorded)
    assert not checker.model.asked, f"asked for in the model and not in the history: {checker.model.asked[0]}"
    return checker


def without_uuids(value: Any) -> Any:
    """What an instance has seen, with the number of its uuids instead of them: the model does not know how they are made."""
    return {**value, "uuids": len(value["uuids"])} if isinstance(value, dict) and "uuids" in value else value


def same_end(end: tuple[Any, ...], wanted: tuple[Any, ...] | None) -> None:
    """Compare ends: ("Completed", output), ("Failed", short type name, text) or ("continued", input, carried events)."""
    assert wanted is not None, f"the model goes on, the instance ended: {end}"
    assert (end[0], without_uuids(end[1]), *end[2:]) == (wanted[0], without_uuids(wanted[1]), *wanted[2:])
