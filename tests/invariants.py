"""The invariants I1 to I12 as pure functions: values as they are stored go in, violations come out; no process, database or clock.

Whoever has a store of any kind makes a ``HubState`` of it and calls ``check``; the other functions are for what the tables do not hold.
I9 belongs to schedules, which do not exist yet; I13 needs the API (tests/chaos/reading.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, zip_longest
from typing import Any, NamedTuple

from flask_durable.core.events import (
    EventRaised,
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
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
from flask_durable.core.execution import ASKED, IGNORED, Execution
from flask_durable.core.mailbox import _waits_in
from flask_durable.core.rewind import effective
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.tasks import TimerTask
from flask_durable.storage.interface import InstanceRecord

HELD = "suspended"
"""Stands for a worker in the calls of suspended instances."""

CALLS: dict[type[HistoryEvent], tuple[type[HistoryEvent], ...]] = {
    TaskScheduled: (TaskCompleted, TaskFailed),
    SubOrchestrationCreated: (SubOrchestrationCompleted, SubOrchestrationFailed),
    TimerCreated: (TimerFired,),
}
OUTCOMES = tuple(kind for kinds in CALLS.values() for kind in kinds)
LIVE = (RuntimeStatus.PENDING, RuntimeStatus.RUNNING, RuntimeStatus.SUSPENDED)


class Violation(NamedTuple):
    """An invariant that does not hold, and where."""

    invariant: str
    instance_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.instance_id}: {self.text}"


class InboxRow(NamedTuple):
    """A message in an inbox; ``execution_id`` is None for external events."""

    execution_id: str | None
    visible_at: int
    event: HistoryEvent


class CallRow(NamedTuple):
    """An activity call in the queue or in the hands of a worker."""

    instance_id: str
    execution_id: str
    task_id: int
    worker_id: str | None


@dataclass
class HubState:
    """All that a hub holds at one moment; histories are those of the present generations."""

    instances: dict[str, InstanceRecord] = field(default_factory=dict)
    histories: dict[str, list[Recorded]] = field(default_factory=dict)
    messages: dict[str, list[InboxRow]] = field(default_factory=dict)
    calls: list[CallRow] = field(default_factory=list)
    workers: set[str] = field(default_factory=set)
    broken: list[Violation] = field(default_factory=list)
    """What the reader of the state found: rows that cannot be decoded, histories of generations that are over."""


ExecutionOf = Callable[[InstanceRecord], Execution | None]
"""Makes the execution of an instance with the code that wrote its history; None when that is not known."""


def check(state: HubState, execution_of: ExecutionOf = lambda _: None) -> list[Violation]:
    """I2 to I7 and I11 of a hub in which nothing is under way (or, for I2 to I5, at any moment)."""
    found = list(state.broken)
    for record in state.instances.values():
        history = state.histories.get(record.instance_id, [])
        found += check_end(record, history)
        found += check_sequence(record, history)
        found += check_outcomes(record, history)
        execution = execution_of(record)
        if execution is not None and history:
            found += check_replay(record, history, execution_of, execution)
        found += check_liveness(state, record, history, execution)
    found += check_rows(state)
    found += check_calls(state)
    found += check_families(state)
    return found


# ---------------------------------------------------------------- I1: what was acknowledged is there


def check_accepted(state: HubState, accepted: Iterable[str], deleted: Iterable[str] = ()) -> list[Violation]:
    """I1: every start that was acknowledged is an instance, unless it was purged."""
    gone = set(accepted) - state.instances.keys() - set(deleted)
    return [Violation("I1", instance_id, "its start was acknowledged, and there is no such instance") for instance_id in sorted(gone)]


# ---------------------------------------------------------------- I2, I3, I4: one history


def check_end(record: InstanceRecord, history: Sequence[Recorded]) -> list[Violation]:
    """I2: one terminal event, nothing after it but a rewind, and the row says the same."""

    def wrong(text: str) -> Violation:
        return Violation("I2", record.instance_id, text)

    found = []
    for recorded, following in zip_longest(history, history[1:]):
        if isinstance(recorded.event, ExecutionCompleted) and following is not None and not isinstance(following.event, ExecutionRewound):
            found.append(wrong(f"{type(following.event).__name__} follows the terminal event"))
    last = history[-1].event if history else None
    is_over = isinstance(last, ExecutionCompleted)
    if record.status.is_final != is_over:
        found.append(wrong(f"its row is {record.status}, its history ends with {type(last).__name__}"))
    if record.status.is_final != (record.completed_at is not None):
        found.append(wrong(f"its row is {record.status} and has completed_at {record.completed_at}"))
    if record.status.is_final and (record.ready_at is not None or record.worker_id is not None):
        found.append(wrong("it has ended, and yet is held or due"))
    if record.status.is_final and isinstance(last, ExecutionCompleted) and _shown_end(last) != _shown_end(record):
        found.append(wrong("the end in the history and the one in its row differ"))
    return found


def check_sequence(record: InstanceRecord, history: Sequence[Recorded]) -> list[Violation]:
    """I3: numbers from 1 on without a gap or a repetition, as many as the row says; the first event is the start."""
    found = []
    numbers = [recorded.sequence for recorded in history]
    if numbers != list(range(1, record.sequence + 1)):
        found.append(Violation("I3", record.instance_id, f"its row counts {record.sequence} events, its history has the numbers {_short(numbers)}"))
    starts = [recorded for recorded in history if isinstance(recorded.event, ExecutionStarted)]
    if record.has_started and not starts and record.status in LIVE:
        found.append(Violation("I3", record.instance_id, "it has started, and its history has no start"))
    if len([each for each in effective(history) if isinstance(each.event, ExecutionStarted)]) > 1:
        found.append(Violation("I3", record.instance_id, "its history starts twice"))
    return found


def check_outcomes(record: InstanceRecord, history: Sequence[Recorded]) -> list[Violation]:
    """I4: of each call at most one outcome, of the right kind, and never one of a call that was not made."""
    found, calls, seen = [], {}, set()
    for _, _, event in effective(history):
        if type(event) in CALLS:
            if event.task_id in calls:  # type: ignore[attr-defined]
                found.append(Violation("I4", record.instance_id, f"call {event.task_id} was made twice"))  # type: ignore[attr-defined]
            calls[event.task_id] = event  # type: ignore[attr-defined]
        elif isinstance(event, OUTCOMES):
            call = calls.get(event.task_id)
            is_stage = isinstance(event, TimerFired) and isinstance(call, TimerCreated) and event.fire_at < call.fire_at
            key = (event.task_id, event.fire_at if isinstance(event, TimerFired) and is_stage else None)
            if call is None or type(event) not in CALLS[type(call)]:
                found.append(Violation("I4", record.instance_id, f"{type(event).__name__} of call {event.task_id}, which was not made"))
            elif key in seen:
                found.append(Violation("I4", record.instance_id, f"call {event.task_id} has two outcomes"))
            seen.add(key)
    return found


def check_calls(state: HubState) -> list[Violation]:
    """I4: no call is in the queue (or its outcome in the inbox) whose outcome is recorded."""
    found = []
    queued: dict[str, set[int]] = {}
    for call in state.calls:
        record = state.instances.get(call.instance_id)
        if record is not None and record.execution_id == call.execution_id:
            queued.setdefault(call.instance_id, set()).add(call.task_id)
    for instance_id, record in state.instances.items():
        waiting = Counter(
            event.task_id
            for execution_id, _, event in state.messages.get(instance_id, ())
            if isinstance(event, TaskCompleted | TaskFailed | SubOrchestrationCompleted | SubOrchestrationFailed)
            and execution_id == record.execution_id
        )
        done = {
            recorded.event.task_id
            for recorded in effective(state.histories.get(instance_id, ()))
            if isinstance(recorded.event, OUTCOMES) and not isinstance(recorded.event, TimerFired)
        }
        twice = {task_id for task_id, count in waiting.items() if count > 1} | (waiting.keys() & queued.get(instance_id, set()))
        if record.status is not RuntimeStatus.FAILED:  # what a failed one did not come to is kept for a rewind
            twice |= (waiting.keys() | queued.get(instance_id, set())) & done
        found += [Violation("I4", instance_id, f"call {task_id} has an outcome, and another one is on its way") for task_id in sorted(twice)]
    return found


# ---------------------------------------------------------------- I5: replay


def check_replay(
    record: InstanceRecord, history: Sequence[Recorded], execution_of: ExecutionOf, execution: Execution | None = None
) -> list[Violation]:
    """I5: the same code, given the stored history, decides the same: what it asks for, and how it ends."""
    execution = execution or execution_of(record)
    if execution is None:
        return []

    def wrong(text: str) -> list[Violation]:
        return [Violation("I5", record.instance_id, text)]

    execution.replay(history)
    if execution.nondeterminism is not None:
        return wrong(str(execution.nondeterminism))
    events = [recorded.event for recorded in history]
    if (
        isinstance(events[-1], ExecutionCompleted)
        and execution.is_finished is False
        and not any(isinstance(each, ExecutionTerminated) for each in events)
    ):
        return wrong("its history ends, and the code waits")
    if record.status in LIVE and execution.is_finished:
        return wrong("the code has ended, and the instance goes on")
    if any(isinstance(each, IGNORED) and not isinstance(each, ExecutionCompleted) for each in events) or isinstance(events[0], ExecutionCompleted):
        return []
    # The last turn once more, as new: a replay does not look at the end that the code comes to.
    turns = [list(turn) for _, turn in groupby(history, key=lambda recorded: recorded.at)]
    *before, last = turns
    fresh = execution_of(record)
    assert fresh is not None
    fresh.replay([recorded for turn in before for recorded in turn])
    recorded = [each.event for each in last]
    turn = fresh.advance(last[0].at, [event for event in recorded if not isinstance(event, (*ASKED, ExecutionCompleted))])
    fresh.close()
    if turn.at != last[0].at or list(map(_without_traces, turn.events)) != list(map(_without_traces, recorded)):
        return wrong(f"its last turn, once more, gives {turn.events}, recorded is {recorded}")
    return []


# ---------------------------------------------------------------- I6, I7: nothing is orphaned, nobody dead holds anything


def check_liveness(state: HubState, record: InstanceRecord, history: Sequence[Recorded], execution: Execution | None) -> list[Violation]:
    """I6: a live instance has a message or a time at which it runs, or each of its open calls is carried by something.

    ``execution`` has the history replayed, if the code is known; then code that waits for nothing at all is found too.
    """
    if record.status not in LIVE or record.parked_reason is not None or record.status is RuntimeStatus.SUSPENDED:
        return []  # a suspended or parked one waits for somebody, and says so

    def wrong(text: str) -> Violation:
        return Violation("I6", record.instance_id, text)

    messages = state.messages.get(record.instance_id, [])
    if record.status is RuntimeStatus.PENDING or not record.has_started:
        return [] if record.ready_at is not None else [wrong("it waits for its first turn, which is not due at any time")]
    found = []
    first = min((row.visible_at for row in messages), default=None)
    if first is not None and (record.ready_at is None or record.ready_at > max(first, record.updated_at)):
        found.append(wrong(f"it has a message that is due at {first}, and is itself ready at {record.ready_at}"))
    for call in open_calls(history):
        if not _is_carried(state, record, call):
            found.append(wrong(f"nothing will ever bring the outcome of {type(call).__name__} {call.task_id}"))  # type: ignore[attr-defined]
    if execution is not None and not execution.is_finished and execution._context is not None:
        timers = {task.task_id for task in execution._context._tasks.values() if isinstance(task, TimerTask) and task.completion is None}
        due = {row.event.task_id for row in messages if isinstance(row.event, TimerFired)}
        found += [wrong(f"timer {task_id} is open and will never fire") for task_id in sorted(timers - due)]
        others = [call for call in open_calls(history) if not isinstance(call, TimerCreated)]
        if not (messages or timers or others or (execution._yielded is not None and _waits_in(execution._yielded))):
            found.append(wrong("it waits for nothing"))
    return found


def open_calls(history: Sequence[Recorded]) -> list[HistoryEvent]:
    """The calls without an outcome; cancelled timers are among them."""
    calls = {event.task_id: event for _, _, event in effective(history) if type(event) in CALLS}  # type: ignore[attr-defined]
    for _, _, event in effective(history):
        if isinstance(event, OUTCOMES):
            call = calls.get(event.task_id)
            if not (isinstance(event, TimerFired) and isinstance(call, TimerCreated) and event.fire_at < call.fire_at):
                calls.pop(event.task_id, None)
    return list(calls.values())


def _is_carried(state: HubState, record: InstanceRecord, call: HistoryEvent) -> bool:
    kinds = CALLS[type(call)]
    task_id = call.task_id  # type: ignore[attr-defined]
    if any(type(row.event) in kinds and row.event.task_id == task_id for row in state.messages.get(record.instance_id, ())):  # type: ignore[attr-defined]
        return True
    if isinstance(call, TimerCreated):
        return True  # a cancelled one looks the same in the history; the replayed code knows
    if isinstance(call, SubOrchestrationCreated):
        child = state.instances.get(call.instance_id)
        is_child = child is not None and (child.parent_instance_id, child.parent_execution_id, child.parent_task_id) == (
            record.instance_id, record.execution_id, task_id,
        )  # fmt: skip
        return child is not None and is_child and child.status in LIVE
    return any((row.execution_id, row.task_id) == (record.execution_id, task_id) for row in state.calls)


def check_rows(state: HubState) -> list[Violation]:
    """I6 and I7: messages and calls belong to instances that can take them, and nothing is held by a worker that is gone."""
    found = _check_messages(state)
    for call in state.calls:
        record = state.instances.get(call.instance_id)
        if record is None or record.execution_id != call.execution_id or (record.status.is_final and record.status is not RuntimeStatus.FAILED):
            found.append(Violation("I6", call.instance_id, f"call {call.task_id} is left of an execution that is over"))
        if call.worker_id is not None and call.worker_id != HELD and call.worker_id not in state.workers:
            found.append(Violation("I7", call.instance_id, f"call {call.task_id} is held by worker {call.worker_id}, which is gone"))
        if call.worker_id == HELD and record is not None and record.status is not RuntimeStatus.SUSPENDED:
            found.append(Violation("I6", call.instance_id, f"call {call.task_id} is held back, and the instance is {record.status}"))
    for record in state.instances.values():
        if record.worker_id is not None and record.worker_id not in state.workers:
            found.append(Violation("I7", record.instance_id, f"it is held by worker {record.worker_id}, which is gone"))
    return found


def _check_messages(state: HubState) -> list[Violation]:
    found = []
    for instance_id, rows in state.messages.items():
        record = state.instances.get(instance_id)
        if record is None:
            found.append(Violation("I6", instance_id, f"{len(rows)} messages for an instance that is not there"))
        elif record.status.is_final and record.status is not RuntimeStatus.FAILED:
            found.append(Violation("I6", instance_id, f"{len(rows)} messages for an instance that is {record.status}"))
        elif any(row.execution_id not in (None, record.execution_id) for row in rows):
            found.append(Violation("I6", instance_id, "messages for an execution that is over"))
    return found


class Commit(NamedTuple):
    """A transaction of a worker: when it was begun and when it was over, on one clock, and whether it landed, was refused, or nobody knows."""

    worker_id: str
    began: float
    ended: float
    outcome: str


def check_fencing(commits: Iterable[Commit], reaped: Mapping[str, float]) -> list[Violation]:
    """I7: no transaction landed that was begun after its worker's row was deleted.

    Args:
        commits: what was seen of them; ``outcome`` is "landed" or anything else.
        reaped: when it was known that the row of a worker was gone.
    """
    return [
        Violation("I7", commit.worker_id, "a commit landed that was begun after the worker's row was gone")
        for commit in commits
        if commit.outcome == "landed" and commit.began > reaped.get(commit.worker_id, float("inf"))
    ]


# ---------------------------------------------------------------- I8: events


def check_events(
    state: HubState,
    raised: Mapping[str, Sequence[tuple[str, Any]]],
    *,
    maybe: Mapping[str, Iterable[Any]] = {},
    seen: Mapping[str, Sequence[tuple[str, Any]]] = {},
) -> list[Violation]:
    """I1 and I8: each event that was acknowledged is there once, those of a name in the order of their raising, and no others.

    Args:
        raised: per instance, name and data (JSON text, different for each) of what was acknowledged, in order.
        maybe: data of events whose raising gave an error: they may be there, once.
        seen: per instance, what its code took, where the history does not tell it all (after a continue-as-new).
    """
    found = []
    for instance_id, sent in raised.items():
        record = state.instances.get(instance_id)
        if record is None:
            continue
        taken = [(event.name, event.data) for _, _, event in effective(state.histories.get(instance_id, ())) if isinstance(event, EventRaised)]
        waiting = [(row.event.name, row.event.data) for row in state.messages.get(instance_id, ()) if isinstance(row.event, EventRaised)]
        carried = [] if record.has_started and record.status in LIVE else [(event.name, event.data) for event in record.carried]
        there = [*seen.get(instance_id, taken), *carried, *waiting]
        counts = Counter(data for _, data in there)
        acknowledged, unsure = {data for _, data in sent}, set(maybe.get(instance_id, ()))

        def wrong(invariant: str, text: str, instance_id: str = instance_id) -> Violation:
            return Violation(invariant, instance_id, text)

        found += [wrong("I8", f"event {data} came {count} times") for data, count in counts.items() if count > 1]
        found += [wrong("I8", f"event {data} was never raised") for data in counts if data not in acknowledged | unsure]
        if record.status in LIVE or instance_id in seen:
            found += [wrong("I1", f"event {data} was acknowledged and is not there") for _, data in sent if data not in counts]
        for name in {name.casefold() for name, _ in sent}:
            wanted = [data for each, data in sent if each.casefold() == name and data in counts]
            came = [data for each, data in there if each.casefold() == name and data in acknowledged]
            if list(dict.fromkeys(came)) != wanted:
                found.append(wrong("I8", f"events {name!r} came in the order {_short(came)}, raised were {_short(wanted)}"))
    return found


# ---------------------------------------------------------------- I10: transactional effects


def completed_calls(state: HubState) -> set[tuple[str, int]]:
    """Execution and number of the calls of activities that are recorded as completed, or whose completion waits in an inbox."""
    found = set()
    for instance_id, record in state.instances.items():
        rows = [row.event for row in state.messages.get(instance_id, ()) if row.execution_id == record.execution_id]
        events = [*(recorded.event for recorded in state.histories.get(instance_id, ())), *rows]
        found |= {(record.execution_id, event.task_id) for event in events if isinstance(event, TaskCompleted)}
    return found


def check_effects(effects: Mapping[tuple[str, int], int], completed: Iterable[tuple[str, int]]) -> list[Violation]:
    """I10: the effects of transactional activities are the recorded completions, exactly.

    Args:
        effects: how often the effect of a call, named by execution and number, was found.
        completed: the calls of transactional activities that are recorded as completed.
    """
    done = set(completed)
    found = [Violation("I10", key[0], f"call {key[1]} has {count} effects") for key, count in effects.items() if count > 1]
    found += [Violation("I10", key[0], f"call {key[1]} is completed without its effect") for key in sorted(done - effects.keys())]
    found += [Violation("I10", key[0], f"call {key[1]} has an effect and no completion") for key in sorted(effects.keys() - done)]
    return found


# ---------------------------------------------------------------- I11: parents and children


def check_families(state: HubState) -> list[Violation]:
    """I11: what a parent was told of a child is what became of it; a child that its parent waits for was called by it."""
    found = []
    for record in state.instances.values():
        history = effective(state.histories.get(record.instance_id, ()))
        told = {event.task_id: event for _, _, event in history if isinstance(event, SubOrchestrationCompleted | SubOrchestrationFailed)}
        for row in state.messages.get(record.instance_id, ()):
            if isinstance(row.event, SubOrchestrationCompleted | SubOrchestrationFailed):
                told.setdefault(row.event.task_id, row.event)
        for _, _, event in history:
            if isinstance(event, SubOrchestrationCreated):
                found += _check_child(state, record, event, told.get(event.task_id))
        found += _check_parent(state, record)
    return found


def _check_child(state: HubState, parent: InstanceRecord, call: SubOrchestrationCreated, told: HistoryEvent | None) -> list[Violation]:
    child = state.instances.get(call.instance_id)
    if child is None or (child.parent_instance_id, child.parent_execution_id, child.parent_task_id) != (
        parent.instance_id, parent.execution_id, call.task_id,
    ):  # fmt: skip
        return []  # purged, or the id was somebody else's: I6 says whether the parent waits in vain
    if child.status in LIVE:
        text = "its parent was told its outcome, and it goes on"
        return [] if told is None or parent.status.is_final else [Violation("I11", child.instance_id, text)]
    if isinstance(told, SubOrchestrationCompleted) and (child.status is not RuntimeStatus.COMPLETED or child.output != told.result):
        return [
            Violation("I11", child.instance_id, f"its parent was told that it completed with {told.result}; it is {child.status} with {child.output}")
        ]
    if isinstance(told, SubOrchestrationFailed) and child.status is RuntimeStatus.COMPLETED:
        return [Violation("I11", child.instance_id, "its parent was told that it failed; it is Completed")]
    if told is None and parent.status in LIVE:
        return [Violation("I11", child.instance_id, f"it is {child.status}, and its parent was not told")]
    return []


def _check_parent(state: HubState, child: InstanceRecord) -> list[Violation]:
    parent = state.instances.get(child.parent_instance_id or "")
    if parent is None or parent.execution_id != child.parent_execution_id or parent.status not in LIVE:
        return []
    history = state.histories.get(parent.instance_id, ())  # all of it: a rewind may have taken the call back, and its child stays
    is_called = any(isinstance(each.event, SubOrchestrationCreated) and each.event.task_id == child.parent_task_id for each in history)
    return [] if is_called else [Violation("I11", child.instance_id, f"its parent {parent.instance_id} has not called it")]


# ---------------------------------------------------------------- I12: resources


def check_resources(before: Mapping[str, int], after: Mapping[str, int], allowed: Mapping[str, int] = {}) -> list[Violation]:
    """I12: no more threads, connections and descriptors than before; ``allowed`` says how many more are no leak."""
    return [
        Violation("I12", name, f"{count} before, {after.get(name, 0)} afterwards")
        for name, count in before.items()
        if after.get(name, 0) > count + allowed.get(name, 0)
    ]


# ---------------------------------------------------------------- helpers


def _shown_end(end: ExecutionCompleted | InstanceRecord) -> tuple[Any, ...]:
    failure = end.failure
    return (end.status, end.output, None if failure is None else (failure.type_name, failure.message))


def _without_traces(event: HistoryEvent) -> HistoryEvent:
    if isinstance(event, ExecutionCompleted) and event.failure is not None:
        return replace(event, failure=replace(event.failure, traceback="", cause=None))
    return event


def _short(values: Sequence[Any]) -> str:
    text = str(list(values))
    return text if len(text) < 300 else f"{text[:150]} … {text[-150:]}"
