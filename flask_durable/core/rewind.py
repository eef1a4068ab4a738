"""Rewind: what of a history still counts after rewinds, and what a rewind of a failed instance has to do (rule 45).

The history stays append-only: a rewind appends ExecutionRewound, and replay passes over what that event says no longer counts.

What is kept: all that the code did before it knew of the failure it failed for, or before the turn in which it failed by itself. Failures that
it knew of by then were handled, and stay. What is given to the code again: messages that it took after that point, for calls made before it. What
is made again: calls without an outcome then, among them those whose failures the code did not know of yet. All else is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from flask_durable.core.events import (
    EventRaised,
    ExecutionCompleted,
    ExecutionRewound,
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
from flask_durable.core.times import Micros

_Call = TaskScheduled | SubOrchestrationCreated | TimerCreated
_Failure = TaskFailed | SubOrchestrationFailed
_Outcome = TaskCompleted | TaskFailed | SubOrchestrationCompleted | SubOrchestrationFailed | TimerFired
_OUTCOMES: dict[type[HistoryEvent], tuple[type[HistoryEvent], ...]] = {
    TaskScheduled: (TaskCompleted, TaskFailed),
    SubOrchestrationCreated: (SubOrchestrationCompleted, SubOrchestrationFailed),
    TimerCreated: (TimerFired,),
}
"""The kinds of calls, and what may come of each."""


class Message(NamedTuple):
    """Something for the inbox, and when it arrived or is due."""

    at: Micros
    event: HistoryEvent


@dataclass(frozen=True, slots=True)
class RewindPlan:
    """What a rewind has to do.

    Args:
        event: what to append to the history.
        has_started: whether the code has begun in what still counts.
        messages: the whole inbox as it is to be, in order.
        activities: calls to be queued, unless they are running still.
        timers: timers to be set that are not among the messages.
        children: children whose outcome is missing.
    """

    event: ExecutionRewound
    has_started: bool
    messages: tuple[Message, ...]
    activities: tuple[TaskScheduled, ...]
    timers: tuple[TimerCreated, ...]
    children: tuple[SubOrchestrationCreated, ...]


def effective(history: Iterable[Recorded]) -> list[Recorded]:
    """The history as replay sees it: without what rewinds took back; they themselves stay, each at its place."""
    kept: list[Recorded] = []
    for recorded in history:
        if isinstance(recorded.event, ExecutionRewound):
            kept = _before(kept, recorded.event)
        kept.append(recorded)
    return kept


def leftovers(history: Iterable[Recorded]) -> dict[int, list[SubOrchestrationCreated]]:
    """Children that were begun in a turn that failed by itself and was taken back, by the number of each rewind.

    They run, or have ended, although the code that runs again has not asked for them yet; when it does, they are the ones it gets.
    """
    found: dict[int, list[SubOrchestrationCreated]] = {}
    kept: list[Recorded] = []
    for recorded in history:
        event = recorded.event
        if isinstance(event, ExecutionRewound):
            taken_back = [each.event for each in kept if each.sequence > event.resumes_after]
            is_own_fault = not any(isinstance(each, ExecutionCompleted) and each.blamed for each in taken_back)
            found[recorded.sequence] = [each for each in taken_back if isinstance(each, SubOrchestrationCreated)] if is_own_fault else []
            kept = _before(kept, event)
        kept.append(recorded)
    return found


def _before(kept: list[Recorded], rewound: ExecutionRewound) -> list[Recorded]:
    return [each for each in kept if each.sequence <= rewound.resumes_after and not _is_failure_of(each.event, rewound.redone)]


def plan(history: Sequence[Recorded], unread: Sequence[Message] = (), carried: Sequence[EventRaised] = (), reason: str | None = None) -> RewindPlan:
    """What has to be done to rewind a failed instance.

    Args:
        history: all of its present generation, which ends with its failure.
        unread: its inbox, in order of arrival.
        carried: events of the generation before that it has not had.
        reason: JSON text.
    """
    seen = effective(history)
    ended = seen[-1].event if seen and isinstance(seen[-1].event, ExecutionCompleted) else None
    sound_until = _sound_until(seen, ended)
    calls = {event.task_id: event for event in _calls(seen, sound_until)}
    doomed = {*ended.blamed, *ended.unseen} if ended is not None else set()
    doomed.update(_failed_since(seen, unread))
    event = ExecutionRewound(reason, sound_until, tuple(sorted(doomed & calls.keys())), _last_task_id(history))
    kept = _before(seen, event)
    for recorded in kept:
        if isinstance(recorded.event, _Outcome) and not _is_stage(recorded.event, calls.get(recorded.event.task_id)):
            calls.pop(recorded.event.task_id, None)
    taken_back = [Message(recorded.at, recorded.event) for recorded in seen if recorded.sequence > sound_until]
    since = seen[-1].at if seen else 0
    arrived = [*taken_back, *(Message(since, each) for each in carried), *unread]
    messages = tuple(_still_wanted(arrived, calls, event))
    open_calls = calls.values()
    return RewindPlan(
        event=event,
        has_started=any(isinstance(recorded.event, ExecutionStarted) for recorded in kept),
        messages=messages,
        activities=tuple(
            replace(each, attempt=1) if each.task_id in event.redone else each for each in open_calls if isinstance(each, TaskScheduled)
        ),
        timers=tuple(each for each in open_calls if isinstance(each, TimerCreated)),
        children=tuple(each for each in open_calls if isinstance(each, SubOrchestrationCreated)),
    )


def _sound_until(seen: Sequence[Recorded], ended: ExecutionCompleted | None) -> int:
    if ended is None:
        return seen[-1].sequence if seen else 0
    if ended.sound_until is not None:
        return ended.sound_until
    # A failure from before there were rewinds: the events of its turn have its time.
    return max((recorded.sequence for recorded in seen if recorded.at < seen[-1].at), default=0)


def _calls(seen: Iterable[Recorded], sound_until: int) -> Iterator[_Call]:
    for recorded in seen:
        if recorded.sequence <= sound_until and isinstance(recorded.event, _Call):
            yield recorded.event


def _failed_since(seen: Iterable[Recorded], unread: Iterable[Message]) -> set[int]:
    """The calls that failed while the instance was failed.

    Those that had an outcome before are left out: a child that is rewound alone tells its end once more, and nobody waits for it (DET-8).
    """
    answered = {recorded.event.task_id for recorded in seen if isinstance(recorded.event, _Outcome)}
    return {message.event.task_id for message in unread if isinstance(message.event, _Failure)} - answered


def _still_wanted(arrived: Iterable[Message], calls: dict[int, _Call], rewound: ExecutionRewound) -> Iterator[Message]:
    """The messages that the code is to get; the calls that they answer are taken out of the open ones."""
    for message in arrived:
        event = message.event
        if isinstance(event, EventRaised):
            yield message
        elif isinstance(event, _Outcome) and not _is_failure_of(event, rewound.redone):
            call = calls.get(event.task_id)
            if call is not None and isinstance(event, _OUTCOMES[type(call)]):
                del calls[event.task_id]
                yield message


def _is_failure_of(event: HistoryEvent, calls: Sequence[int]) -> bool:
    return isinstance(event, _Failure) and event.task_id in calls


def _is_stage(event: HistoryEvent, call: HistoryEvent | None) -> bool:
    """Whether a timer goes on after that event (TIM-5)."""
    return isinstance(event, TimerFired) and isinstance(call, TimerCreated) and event.fire_at < call.fire_at


def _last_task_id(history: Iterable[Recorded]) -> int:
    return max((getattr(recorded.event, "task_id", 0) for recorded in history), default=0)
