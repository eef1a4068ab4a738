"""Turn: everything that follows from one turn of an orchestration, as a value; storage writes it and decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from flask_durable.core.events import (
    EventRaised,
    EventSent,
    HistoryEvent,
    SubOrchestrationCreated,
    TaskScheduled,
    TimerCreated,
)
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros


@dataclass(frozen=True, slots=True)
class NextGeneration:
    """What continue-as-new asked for (rules 31 to 33).

    Args:
        execution_id: id of the new generation.
        input: its input, JSON text.
        version: its version.
        carried: external events nobody has read yet, in order of arrival; the new generation gets them first.
    """

    execution_id: str
    input: str | None
    version: str | None
    carried: tuple[EventRaised, ...] = ()


class Mark(NamedTuple):
    """How much a turn had come to at some moment."""

    events: int
    activities: int
    timers: int
    cancelled_timers: int
    children: int
    sent_events: int


@dataclass(slots=True)
class Turn:
    """The outcome of one turn.

    Args:
        at: time of the turn; every event in it has this time.
        events: what to append to the history, in order: the consumed messages and the facts that followed.
        activities: the events among them that put work into the activity queue.
        timers: the events among them that set a timer.
        cancelled_timers: numbers of timers, of this turn or earlier ones, that must not fire.
        children: the events among them that create a child.
        sent_events: the events among them that go to other instances.
        status: Running, or a final one.
        output: JSON text, when completed.
        failure: when failed.
        custom_status: JSON text of the custom status after this turn.
        custom_status_changed: whether this turn set it.
        next_generation: set when the instance continues as new; the status is then Running.
        open_activities: how many activity calls are open after this turn.
        bound_children: numbers of the calls whose children are terminated, because the execution ends with this turn.
        undelivered: how many of the events handed over, the last ones, came after the end.
    """

    at: Micros
    events: list[HistoryEvent] = field(default_factory=list)
    activities: list[TaskScheduled] = field(default_factory=list)
    timers: list[TimerCreated] = field(default_factory=list)
    cancelled_timers: list[int] = field(default_factory=list)
    children: list[SubOrchestrationCreated] = field(default_factory=list)
    sent_events: list[EventSent] = field(default_factory=list)
    status: RuntimeStatus = RuntimeStatus.RUNNING
    output: str | None = None
    failure: FailureDetails | None = None
    custom_status: str | None = None
    custom_status_changed: bool = False
    next_generation: NextGeneration | None = None
    open_activities: int = 0
    bound_children: tuple[int, ...] = ()
    undelivered: int = 0

    def ask(self, event: HistoryEvent) -> None:
        """The code asked for something: it goes into the history and to whoever carries it out."""
        self.events.append(event)
        if isinstance(event, TaskScheduled):
            self.activities.append(event)
        elif isinstance(event, TimerCreated):
            self.timers.append(event)
        elif isinstance(event, SubOrchestrationCreated):
            self.children.append(event)
        elif isinstance(event, EventSent):
            self.sent_events.append(event)

    def mark(self) -> Mark:
        """Where the turn is now."""
        counted = (self.events, self.activities, self.timers, self.cancelled_timers, self.children, self.sent_events)
        return Mark(*(len(each) for each in counted))

    def back_to(self, mark: Mark) -> None:
        """Forget what came after that moment."""
        del self.events[mark.events :], self.activities[mark.activities :], self.timers[mark.timers :]
        del self.cancelled_timers[mark.cancelled_timers :], self.children[mark.children :], self.sent_events[mark.sent_events :]
