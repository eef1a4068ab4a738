"""The store in memory: the same protocol, as simply as it can be written; for one thread, and an oracle for the real one.

Records are values in a dictionary; a transaction that is refused is refused before anything is written.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from flask_durable.core.capabilities import Capabilities, Runnable
from flask_durable.core.children import BoundChildren
from flask_durable.core.events import (
    EventRaised,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    Recorded,
    SubOrchestrationCompleted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TaskScheduled,
    TimerFired,
)
from flask_durable.core.failure import FailureDetails
from flask_durable.core.ids import repeated_execution_id
from flask_durable.core.rewind import Message, effective, plan
from flask_durable.core.status import FINAL_STATUSES, LIVE_STATUSES, RuntimeStatus
from flask_durable.core.turn import NextGeneration
from flask_durable.core.versions import version_key
from flask_durable.errors import (
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFailedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    WorkerLostError,
)
from flask_durable.storage.interface import (
    SUSPECT_DELIVERIES,
    ActivityResult,
    ActivityWorkItem,
    Batch,
    ClaimRequest,
    Command,
    Committed,
    FailInstance,
    HistoryPage,
    IdPage,
    IfExists,
    InboxMessage,
    InstanceFilter,
    InstancePage,
    InstanceRecord,
    OrchestrationWorkItem,
    Order,
    Outcome,
    PagePosition,
    Park,
    Purge,
    PurgeBy,
    RaiseEvent,
    Ready,
    Resume,
    Rewind,
    StartInstance,
    Suspend,
    SweepPosition,
    Swept,
    Terminate,
    TurnCommit,
    VersionUse,
    WorkerRecord,
    record_of_start,
)

HELD = "suspended"
PAGE = 1000


@dataclass
class Mail:
    """A message; of an execution when it is what came of a call."""

    number: int
    execution_id: str | None
    visible_at: int
    event: HistoryEvent


@dataclass
class Call:
    """A queued or claimed activity call."""

    item: ActivityWorkItem
    queued_at: int
    worker_id: str | None
    deliveries: int
    begun_at: int | None = None


class ModelStore:
    """One task hub."""

    name = "a model in memory"

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.instances: dict[str, InstanceRecord] = {}
        self.histories: dict[tuple[str, int], list[Recorded]] = {}
        self.inboxes: dict[str, list[Mail]] = {}
        self.calls: dict[tuple[str, int], Call] = {}
        self.registered: dict[str, WorkerRecord] = {}
        self.keys: set[tuple[str, str]] = set()
        self.landed: dict[str, int | None] = {}
        self.number = 0

    def now(self) -> int:
        return self.clock.now()  # type: ignore[no-any-return]

    def create_tables(self) -> None:
        return

    def close(self) -> None:
        return

    @contextlib.contextmanager
    def connection(self) -> Iterator[None]:
        yield

    # -- workers

    def register_worker(self, worker_id: str, lease_seconds: float, capabilities: Capabilities | None = None) -> None:
        assert worker_id not in self.registered
        now = self.now()
        self.registered[worker_id] = WorkerRecord(worker_id, "here", 1, now, now, now + round(lease_seconds * 1e6), capabilities or Capabilities())

    def renew_worker(self, worker_id: str, lease_seconds: float, capabilities: Capabilities | None = None) -> bool:
        row, now = self.registered.get(worker_id), self.now()
        if row is not None:
            new = replace(row, heartbeat_at=now, expires_at=now + round(lease_seconds * 1e6), capabilities=capabilities or row.capabilities)
            self.registered[worker_id] = new
        return row is not None

    sign_interval = None

    def has_lost_sign(self, worker_id: str) -> bool:
        return False

    def release_worker(self, worker_id: str) -> None:
        self.registered.pop(worker_id, None)
        for call in self.calls.values():
            if call.worker_id == worker_id and call.deliveries > 0:
                call.deliveries -= 1
        self.take_away(worker_id)

    def reap_workers(self, own_id: str | None, max_deliveries: int) -> list[str]:
        now = self.now()
        dead = [row.worker_id for row in self.registered.values() if row.worker_id != own_id and row.expires_at < now]
        for worker_id in dead:
            del self.registered[worker_id]
            self.take_away(worker_id)
        reason = f"anded out {max_deliveries} times, and each time the worker died with it"
        for record in list(self.instances.values()):
            is_poison = record.worker_id is None and record.ready_at is not None and record.deliveries >= max_deliveries
            if is_poison and record.parked_reason is None:
                self.set(record, parked_reason=f"H{reason}", ready_at=None)
        for call in self.calls.values():
            record = self.instances[call.item.instance_id]
            if call.worker_id is None and call.deliveries >= max_deliveries and record.parked_reason is None:
                self.set(record, parked_reason=f"Activity {call.item.name!r}: h{reason}", ready_at=None, worker_id=None)
        return dead

    def take_away(self, worker_id: str) -> None:
        for record in list(self.instances.values()):
            if record.worker_id == worker_id:
                self.set(record, worker_id=None)
        for call in list(self.calls.values()):
            if call.worker_id == worker_id and not self.drop_if_over(call):
                self.queue_again(call)
                call.deliveries = 0 if call.begun_at is not None else call.deliveries

    def queue_again(self, call: Call) -> None:
        call.worker_id = HELD if self.instances[call.item.instance_id].status is RuntimeStatus.SUSPENDED else None

    def drop_if_over(self, call: Call) -> bool:
        """Calls of ended instances are not begun; one that was begun and must not be begun twice is still to be reported."""
        is_over = call.begun_at is None and self.instances[call.item.instance_id].completed_at is not None
        if is_over:
            del self.calls[call.item.execution_id, call.item.task_id]
        return is_over

    def workers(self) -> list[WorkerRecord]:
        return sorted(self.registered.values(), key=lambda row: row.started_at)

    def live_workers(self) -> list[WorkerRecord]:
        return [row for row in self.workers() if row.expires_at >= self.now()]

    def may_be_dead(self, neighbours: Sequence[Any]) -> bool:
        """Whether one of these workers, as they were seen a moment ago, seems to be dead."""
        return any(each.expires_at < self.now() for each in neighbours)

    def change_mark(self) -> object | None:
        """Nothing here is told of."""
        return None

    def can_listen(self) -> bool:
        return False

    def has_landed(self, batch: Any) -> bool:
        """Whether a worker's numbered batch, the last one that it has tried to write, was written."""
        self.fence(batch.worker_id)
        return self.landed.get(batch.worker_id) == batch.number

    def fence(self, worker_id: str | None) -> None:
        if worker_id is not None and worker_id not in self.registered:
            raise WorkerLostError(f"Worker {worker_id} is no longer registered")

    # -- claiming

    def peek(self, worker_id: str, claim: ClaimRequest) -> Ready:
        others = tuple(row for row in self.registered.values() if row.worker_id != worker_id)
        if worker_id not in self.registered and "is_registered" in _READY:
            return ready(False, None, is_registered=False, neighbours=others)
        now, due = self.now(), [each for each in self.instances.values() if each.ready_at is not None]
        free = [each for each in due if each.worker_id is None]
        own = [each for each in free if each.deliveries < claim.max_deliveries and takes(claim.runnable, each)]
        moments = [each.ready_at or 0 for each in (*own, *(each for each in due if each.worker_id == worker_id))]
        is_ready = bool(moments) and min(moments) <= now
        is_left, waits_for_room = any((each.ready_at or 0) <= now for each in free), False
        if not is_ready and any(call.worker_id is None and call.deliveries < claim.max_deliveries for call in self.calls.values()):
            is_left, is_ready = True, claim.activities > 0 and bool(self.take_calls(worker_id, claim, only_look=True))
            waits_for_room = not is_ready and bool(claim.limited)
        rest = {"is_left": is_left and not is_ready, "waits_for_room": waits_for_room, "neighbours": others}
        return ready(is_ready, min(moments, default=None), **rest)

    def take(self, worker_id: str, claim: ClaimRequest, committed: Committed) -> None:
        now = committed.at
        if claim.instances > 0:
            due = sorted(
                (each for each in self.instances.values() if each.ready_at is not None and each.ready_at <= now), key=lambda each: each.ready_at or 0
            )
            taken = [each for each in due if each.worker_id == worker_id][: claim.instances]
            free = [each for each in due if each.worker_id is None and takes(claim.runnable, each)]
            below = min(SUSPECT_DELIVERIES, claim.max_deliveries)
            chosen = [each for each in free if each.deliveries < below][: claim.instances]
            if claim.with_suspects and len(chosen) < claim.instances:
                chosen += [each for each in free if below <= each.deliveries < claim.max_deliveries][:1]
            for record in chosen:
                self.set(record, worker_id=worker_id, deliveries=record.deliveries + 1)
            taken += chosen
            committed.orchestrations = [OrchestrationWorkItem(each, self.visible(each.instance_id, now)) for each in taken]
            committed.has_more = len(taken) >= claim.instances
            if any(work.is_suspect for work in committed.orchestrations):
                claim = replace(claim, with_suspects=False)
        if claim.activities > 0:
            committed.activities = self.take_calls(worker_id, claim)
            committed.has_more |= len(committed.activities) >= claim.activities

    def take_calls(self, worker_id: str, claim: ClaimRequest, *, only_look: bool = False) -> list[ActivityWorkItem]:
        rooms = {limit.name: limit.free for limit in claim.limited}
        for limit in claim.limited:
            if limit.hub is not None:
                held = sum(call.item.name == limit.name and call.worker_id not in (None, HELD) for call in self.calls.values())
                rooms[limit.name] = min(rooms[limit.name], limit.hub - held)
        below = min(SUSPECT_DELIVERIES, claim.max_deliveries)
        queue = sorted((call for call in self.calls.values() if call.worker_id is None), key=lambda call: (-call.item.priority, call.queued_at))
        suspects = [call for call in queue if below <= call.deliveries < claim.max_deliveries][:1] if claim.with_suspects or only_look else []
        taken: list[ActivityWorkItem] = []
        for call in [call for call in queue if call.deliveries < below] + suspects:
            name = call.item.name
            is_known = name in rooms or claim.activity_names is None or name in claim.activity_names
            if len(taken) >= claim.activities or not is_known or rooms.get(name, 1) <= 0:
                continue
            if only_look:
                return [call.item]
            if self.drop_if_over(call):
                continue
            if name in rooms:
                rooms[name] -= 1
            call.worker_id, call.deliveries = worker_id, call.deliveries + 1
            taken.append(replace(call.item, deliveries=call.deliveries, worker_id=worker_id, was_begun=call.begun_at is not None))
        return taken

    def begin_activity(self, worker_id: str, item: ActivityWorkItem, at: int) -> bool:
        call = self.calls.get((item.execution_id, item.task_id))
        if call is None or call.worker_id != worker_id or call.begun_at not in (None, at):
            return False
        call.begun_at = at
        return True

    def is_activity_current(self, execution_id: str, task_id: int) -> bool:
        call = self.calls.get((execution_id, task_id))
        return call is not None and self.instances[call.item.instance_id].completed_at is None

    def unclaimable(self, workers: Sequence[Runnable], bounds: tuple[str, str] | None, ready_before: int, limit: int) -> list[InstanceRecord]:
        among = Runnable(bounds=bounds)
        found = [
            each
            for each in self.instances.values()
            if each.worker_id is None and each.ready_at is not None and each.ready_at <= ready_before
            and takes(among, each) and not any(takes(worker, each) for worker in workers)
        ]  # fmt: skip
        return sorted(found, key=lambda each: each.ready_at or 0)[:limit]

    def unclaimable_activities(self, known: Sequence[str], queued_before: int) -> list[str]:
        calls = self.calls.values()
        return sorted({each.item.name for each in calls if each.worker_id is None and each.queued_at < queued_before and each.item.name not in known})

    # -- the transaction

    def commit(self, batch: Batch) -> Committed:
        self.fence(batch.worker_id)
        if batch.worker_id is not None:
            self.landed[batch.worker_id] = getattr(batch, "number", None)
        committed = Committed(self.now())
        for command in batch.commands:
            committed.outcomes.append(self.execute(command, batch, committed))
        committed.conflicts = [index for index, commit in enumerate(batch.turns) if not self.is_as_known(commit, batch.worker_id)]
        turns = [commit for index, commit in enumerate(batch.turns) if index not in committed.conflicts]
        self.write(turns, batch.worker_id or "", committed)
        for result in batch.results:
            committed.has_new_work |= self.deliver(batch.worker_id, result, committed.at)
        for item in batch.released_activities:
            call = self.calls.get((item.execution_id, item.task_id))
            if call is not None and call.worker_id == batch.worker_id and call.deliveries > 0:
                call.deliveries -= 1
                self.queue_again(call)
                if call.worker_id is None:
                    self.drop_if_over(call)
        if batch.claim is not None and batch.worker_id is not None:
            self.take(batch.worker_id, batch.claim, committed)
        return committed

    def is_as_known(self, commit: TurnCommit, worker_id: str | None) -> bool:
        found = self.instances.get(commit.record.instance_id)
        return found is not None and (found.execution_id, found.sequence, found.worker_id) == (commit.record.execution_id, commit.sequence, worker_id)

    def deliver(self, worker_id: str | None, result: ActivityResult, at: int) -> bool:
        key = (result.item.execution_id, result.item.task_id)
        if key not in self.calls or self.calls[key].worker_id != worker_id:
            return False
        del self.calls[key]
        return self.put(result.item.instance_id, result.event, at, result.item.execution_id)

    def write(self, turns: Sequence[TurnCommit], worker_id: str, committed: Committed) -> None:
        at, has_new_work = committed.at, False
        for commit in turns:
            self.write_work(commit, worker_id, at)
        for record, event in [(commit.record, event) for commit in turns for event in commit.turn.children]:
            self.create_child(record, event, at)
            has_new_work = True
        for sent in [sent for commit in turns for sent in commit.turn.sent_events]:
            has_new_work |= self.put(sent.instance_id, EventRaised(sent.name, sent.data), at)
        for commit in turns:
            if commit.turn.status.is_final:
                has_new_work |= self.notify_parent(commit.record, commit.turn.output, commit.turn.failure, at)
        for commit in turns:
            self.write_instance(commit, worker_id, at)
        committed.has_new_work |= has_new_work
        committed.ended.extend(commit.record.instance_id for commit in turns if commit.turn.status.is_final)
        for commit in turns:
            if commit.turn.bound_children:
                committed.ended.extend(self.end_children(commit.record, commit.turn.bound_children, at))

    def write_work(self, commit: TurnCommit, worker_id: str, at: int) -> None:
        record, turn = commit.record, commit.turn
        for result in commit.results:
            self.calls.pop((record.execution_id, result.item.task_id), None)
        inbox = self.inboxes.get(record.instance_id, [])
        inbox[:] = [mail for mail in inbox if mail.number not in commit.messages]
        if turn.next_generation is None:
            self.append(record.instance_id, record.generation, commit.sequence, turn.at, turn.events)
        for index, event in enumerate(turn.activities):
            self.queue(record, event, at, worker_id if index < commit.claimed_activities else None)
        if not turn.status.is_final and turn.next_generation is None:
            for timer in turn.timers:
                self.mail(record.instance_id, TimerFired(timer.task_id, timer.fire_at), timer.fire_at, record.execution_id)
            for task_id in turn.cancelled_timers:
                self.cancel_timer(record, task_id)

    def write_instance(self, commit: TurnCommit, worker_id: str, at: int) -> None:
        turn, record = commit.turn, self.instances[commit.record.instance_id]
        if turn.custom_status_changed:
            record = self.set(record, custom_status=turn.custom_status)
        common: dict[str, Any] = {"updated_at": at, "deliveries": 0, "worker_id": worker_id if commit.keep else None}
        if turn.next_generation is not None:
            self.continue_as_new(record, turn.next_generation, common, at)
        elif turn.status.is_final:
            common.update(worker_id=None, ready_at=None, completed_at=at, has_started=True, sequence=commit.sequence + len(turn.events))
            self.set(record, **common, status=turn.status, output=turn.output, failure=turn.failure, carried=tuple(commit.carried))
            if turn.status is not RuntimeStatus.FAILED:
                self.inboxes.pop(record.instance_id, None)
            if turn.open_activities:
                self.drop_calls(record.execution_id, only_queued=turn.status is RuntimeStatus.FAILED)
        else:
            common.update(status=RuntimeStatus.RUNNING, sequence=commit.sequence + len(turn.events), has_started=True, carried=())
            self.set(record, **common, ready_at=self.next_due(record.instance_id))

    def continue_as_new(self, record: InstanceRecord, following: NextGeneration, common: dict[str, Any], at: int) -> None:
        self.histories.pop((record.instance_id, record.generation), None)
        inbox = self.inboxes.get(record.instance_id, [])
        inbox[:] = [mail for mail in inbox if mail.execution_id != record.execution_id]
        self.drop_calls(record.execution_id)
        common.update(status=RuntimeStatus.RUNNING, generation=record.generation + 1, sequence=0, has_started=False, ready_at=at)
        self.set(record, **common, execution_id=following.execution_id, input=following.input, version=following.version, carried=following.carried)

    def create_child(self, parent: InstanceRecord, event: SubOrchestrationCreated, at: int) -> None:
        found = self.instances.get(event.instance_id)
        if found is not None and is_run_of(found, parent, event.task_id):
            if found.status.is_final:
                failure = found.failure if found.status is not RuntimeStatus.TERMINATED else terminated(found.instance_id)
                self.notify_parent(found, found.output, failure, at)
            return
        if found is not None and not found.status.is_final:
            message = f"An instance with the id {event.instance_id!r} already exists; it is {found.status}"
            failure = FailureDetails("flask_durable.errors.InstanceExistsError", message)
            self.put(parent.instance_id, SubOrchestrationFailed(event.task_id, failure), at, parent.execution_id)
            return
        self.delete([event.instance_id])
        command = StartInstance(event.instance_id, event.execution_id, event.name, event.input, event.version, event.tags, parent.trace)
        of_parent = {"parent_instance_id": parent.instance_id, "parent_execution_id": parent.execution_id, "parent_task_id": event.task_id}
        self.instances[event.instance_id] = replace(record_of_start(command, at, ""), worker_id=None, deliveries=0, **of_parent)

    def notify_parent(self, record: InstanceRecord, output: str | None, failure: FailureDetails | None, at: int) -> bool:
        if record.parent_instance_id is None or record.parent_task_id is None:
            return False
        task_id = record.parent_task_id
        event = SubOrchestrationCompleted(task_id, output) if failure is None else SubOrchestrationFailed(task_id, failure)
        return self.put(record.parent_instance_id, event, at, record.parent_execution_id)

    # -- rows

    def set(self, record: InstanceRecord, **values: Any) -> InstanceRecord:
        new = self.instances[record.instance_id] = replace(record, **values)
        return new

    def append(self, instance_id: str, generation: int, after: int, at: int, events: Sequence[HistoryEvent]) -> None:
        history = self.histories.setdefault((instance_id, generation), [])
        assert len(history) == after, "the history would have a gap"
        history.extend(Recorded(number, at, event) for number, event in enumerate(events, after + 1))

    def mail(self, instance_id: str, event: HistoryEvent, at: int, execution_id: str | None) -> None:
        self.number += 1
        self.inboxes.setdefault(instance_id, []).append(Mail(self.number, execution_id, at, event))

    def put(self, instance_id: str, event: HistoryEvent, at: int, execution_id: str | None = None) -> bool:
        """Deliver a message; False when there is nobody for it."""
        record = self.instances.get(instance_id)
        if record is None or (execution_id is not None and execution_id != record.execution_id):
            return False
        if record.status not in LIVE_STATUSES and not (record.status is RuntimeStatus.FAILED and execution_id is not None):
            return False
        if record.status is RuntimeStatus.RUNNING and record.parked_reason is None:
            self.set(record, ready_at=at if record.ready_at is None else min(record.ready_at, at))
        self.mail(instance_id, event, at, execution_id)
        return True

    def visible(self, instance_id: str, now: int) -> tuple[InboxMessage, ...]:
        """In order of arrival: a timer arrives when it is due, all else when it was put in, whatever the clock did."""
        keyed, latest = [], 0
        for mail in [mail for mail in self.inboxes.get(instance_id, []) if mail.visible_at <= now][:PAGE]:
            due = mail.visible_at
            if not isinstance(mail.event, TimerFired):
                due = latest = max(latest, due)
            keyed.append((due, mail.number, mail.event))
        return tuple(InboxMessage(number, event) for _, number, event in sorted(keyed, key=lambda each: each[:2]))

    def next_due(self, instance_id: str) -> int | None:
        return min((mail.visible_at for mail in self.inboxes.get(instance_id, [])), default=None)

    def cancel_timer(self, record: InstanceRecord, task_id: int) -> None:
        inbox = self.inboxes.get(record.instance_id, [])
        inbox[:] = [
            mail
            for mail in inbox
            if not (isinstance(mail.event, TimerFired) and mail.event.task_id == task_id and mail.execution_id == record.execution_id)
        ]

    def queue(self, record: InstanceRecord, event: TaskScheduled, at: int, worker_id: str | None) -> None:
        item = ActivityWorkItem(
            record.instance_id, record.execution_id, record.generation, event.task_id, event.name, event.input, event.attempt,
            event.first_task_id or event.task_id, 0, record.trace, event.priority, event.timeout,
        )  # fmt: skip
        self.calls[record.execution_id, event.task_id] = Call(item, at, worker_id, 1 if worker_id else 0)

    def calls_of(self, execution_id: str) -> list[Call]:
        return [call for call in self.calls.values() if call.item.execution_id == execution_id]

    def drop_calls(self, execution_id: str, *, only_queued: bool = False) -> None:
        for call in self.calls_of(execution_id):
            if not only_queued or (call.begun_at is None and call.worker_id in (None, HELD)):
                del self.calls[execution_id, call.item.task_id]

    def delete(self, instance_ids: Iterable[str]) -> int:
        doomed = [self.instances.pop(each) for each in instance_ids if each in self.instances]
        for record in doomed:
            for key in [key for key in self.histories if key[0] == record.instance_id]:
                del self.histories[key]
            self.inboxes.pop(record.instance_id, None)
            self.keys = {key for key in self.keys if key[0] != record.instance_id}
            self.drop_calls(record.execution_id)
        return len(doomed)

    # -- commands

    def execute(self, command: Command, batch: Batch, committed: Committed) -> Outcome:
        if isinstance(command, StartInstance):
            return self.start(command, batch, committed)
        if isinstance(command, PurgeBy):
            return self.purge_by(command)
        record = self.instances.get(command.instance_id)
        if isinstance(command, Park | FailInstance) and (
            record is None or record.status.is_final or command.execution_id not in (None, record.execution_id)
        ):
            return None
        return InstanceNotFoundError(command.instance_id) if record is None else self.execute_on(record, command, committed)

    def execute_on(self, record: InstanceRecord, command: Any, committed: Committed) -> Outcome:
        match command:
            case RaiseEvent():
                return self.raise_event(command, record, committed)
            case Rewind():
                return self.rewind(command, record, committed)
            case Purge():
                if not record.status.is_final:
                    return InstanceNotFinishedError(record.instance_id, record.status, "purge")
                return self.delete([each.instance_id for each in self.family(record, command.recursive, FINAL_STATUSES)])
            case Park():
                self.set(record, parked_reason=command.reason, ready_at=None, worker_id=None, updated_at=committed.at)
                return None
            case FailInstance():
                self.fail(record, command.failure, committed)
                return None
        return self.control(command, record, committed)

    def control(self, command: Terminate | Suspend | Resume, record: InstanceRecord, committed: Committed) -> Outcome:
        if record.status.is_final:
            committed.has_new_work |= not isinstance(command, Suspend)
            return InstanceFinishedError(record.instance_id, record.status)
        family = self.family(record, command.recursive, LIVE_STATUSES)
        committed.has_new_work |= not isinstance(command, Suspend)
        for each in family:
            if isinstance(command, Terminate):
                self.terminate(each, command.reason, committed.at)
            elif isinstance(command, Suspend):
                self.suspend(each, command, committed.at)
            else:
                self.resume(each, command, committed.at)
        if isinstance(command, Terminate):
            self.notify_parent(record, None, terminated(record.instance_id), committed.at)
        (committed.ended if isinstance(command, Terminate) else committed.taken).extend(each.instance_id for each in family)
        return None

    def start(self, command: StartInstance, batch: Batch, committed: Committed) -> Outcome:
        at, existing = committed.at, self.instances.get(command.instance_id)
        if existing is not None:
            committed.has_new_work = True
            if existing.execution_id == command.execution_id or command.if_exists is IfExists.RETURN:
                return command.instance_id
            if command.if_exists is not IfExists.REPLACE_FINISHED or not existing.status.is_final:
                return InstanceExistsError(command.instance_id, existing.status)
            self.delete([command.instance_id])
        is_due = command.start_at is None or command.start_at <= at
        worker_id = batch.worker_id if is_due and command.instance_id in batch.claimed_starts else None
        record = record_of_start(command, at, worker_id or "")
        if worker_id is None:
            record = replace(record, worker_id=None, deliveries=0, ready_at=max(at, command.start_at or 0))
            committed.has_new_work = True
        else:
            committed.started.append(record)
        self.instances[command.instance_id] = record
        return command.instance_id

    def raise_event(self, command: RaiseEvent, record: InstanceRecord, committed: Committed) -> Outcome:
        committed.has_new_work = True
        if command.dedup_key is not None and (command.instance_id, command.dedup_key) in self.keys:
            return None
        if not self.put(command.instance_id, EventRaised(command.name, command.data), committed.at):
            return InstanceFinishedError(record.instance_id, record.status)
        if command.dedup_key is not None:
            self.keys.add((command.instance_id, command.dedup_key))
        return None

    def suspend(self, record: InstanceRecord, command: Suspend, at: int) -> None:
        if record.status is RuntimeStatus.SUSPENDED:
            return
        self.append(record.instance_id, record.generation, record.sequence, at, [ExecutionSuspended(command.reason)])
        self.set(record, status=RuntimeStatus.SUSPENDED, ready_at=None, worker_id=None, deliveries=0, sequence=record.sequence + 1, updated_at=at)
        for call in self.calls_of(record.execution_id):
            call.worker_id = call.worker_id or HELD

    def resume(self, record: InstanceRecord, command: Resume, at: int) -> None:
        if record.status is not RuntimeStatus.SUSPENDED and record.parked_reason is None:
            return
        self.append(record.instance_id, record.generation, record.sequence, at, [ExecutionResumed(command.reason)])
        is_new = record.generation == 0 and not record.has_started
        ready_at = self.next_due(record.instance_id) if record.has_started else max(at, record.start_at or 0) if is_new else at
        self.set(
            record, status=RuntimeStatus.PENDING if is_new else RuntimeStatus.RUNNING, ready_at=ready_at, sequence=record.sequence + 1, updated_at=at,
            parked_reason=None, deliveries=0, worker_id=None,
        )  # fmt: skip
        for call in self.calls_of(record.execution_id):
            call.worker_id = None if call.worker_id == HELD else call.worker_id
        self.deliver_anew(record.execution_id)

    def deliver_anew(self, execution_id: str) -> None:
        for call in self.calls_of(execution_id):
            call.deliveries = 0 if call.worker_id is None else call.deliveries

    def terminate(self, record: InstanceRecord, reason: str | None, at: int) -> None:
        self.end(
            record, RuntimeStatus.TERMINATED, reason, None, [ExecutionTerminated(reason), ExecutionCompleted(RuntimeStatus.TERMINATED, reason)], at
        )

    def fail(self, record: InstanceRecord, failure: FailureDetails, committed: Committed) -> None:
        bound, history = BoundChildren(), self.load_history(record.instance_id, record.generation)
        bound.see(recorded.event for recorded in (*history, *effective(history)))
        completed = ExecutionCompleted(RuntimeStatus.FAILED, None, failure, sound_until=record.sequence)
        self.end(record, RuntimeStatus.FAILED, None, failure, [completed], committed.at)
        self.notify_parent(record, None, failure, committed.at)
        committed.ended.extend([record.instance_id, *self.end_children(record, bound.task_ids, committed.at)])
        committed.has_new_work = True

    def end(
        self, record: InstanceRecord, status: RuntimeStatus, output: str | None, failure: FailureDetails | None, events: list[HistoryEvent], at: int
    ) -> None:
        self.append(record.instance_id, record.generation, record.sequence, at, events)
        self.set(
            record, status=status, output=output, failure=failure, completed_at=at, updated_at=at, sequence=record.sequence + len(events),
            ready_at=None, worker_id=None, deliveries=0, parked_reason=None,
        )  # fmt: skip
        if status is not RuntimeStatus.FAILED:
            self.inboxes.pop(record.instance_id, None)
        self.drop_calls(record.execution_id, only_queued=status is RuntimeStatus.FAILED)

    def end_children(self, parent: InstanceRecord, task_ids: Sequence[int], at: int) -> list[str]:
        ended = []
        reason = json.dumps(f"The parent instance {parent.instance_id!r} ended")
        for child in self.children(parent, LIVE_STATUSES):
            if child.parent_execution_id == parent.execution_id and child.parent_task_id in task_ids:
                for each in self.family(child, True, LIVE_STATUSES):
                    self.terminate(each, reason, at)
                    ended.append(each.instance_id)
        return ended

    def children(self, parent: InstanceRecord, statuses: Iterable[RuntimeStatus]) -> list[InstanceRecord]:
        found = [each for each in self.instances.values() if each.parent_instance_id == parent.instance_id and each.status in statuses]
        return sorted(found, key=lambda each: (each.created_at, each.instance_id))

    def family(self, root: InstanceRecord, is_recursive: bool, statuses: Iterable[RuntimeStatus]) -> list[InstanceRecord]:
        family = [root]
        for parent in family if is_recursive else ():
            family.extend(each for each in self.children(parent, statuses) if each not in family)
        return family

    def purge_by(self, command: PurgeBy) -> int:
        wanted = [status for status in (command.filter.statuses or FINAL_STATUSES) if status.is_final]
        doomed = self.chosen(replace(command.filter, statuses=tuple(wanted)), Order.OLDEST_FIRST)[: command.limit] if wanted else []
        return self.delete({each.instance_id: 0 for record in doomed for each in self.family(record, command.recursive, FINAL_STATUSES)})

    # -- rewinding

    def rewind(self, command: Rewind, root: InstanceRecord, committed: Committed) -> Outcome:
        if root.status is not RuntimeStatus.FAILED:
            return InstanceNotFailedError(root.instance_id, root.status)
        committed.has_new_work = True
        family = [root]
        for record in family:
            for call in self.rewind_one(record, command.reason, committed.at):
                failed = self.redo_child(record, call, committed.at)
                if failed is not None:
                    family.append(failed)
        committed.taken.extend(record.instance_id for record in family)
        return None

    def rewind_one(self, record: InstanceRecord, reason: str | None, at: int) -> Sequence[SubOrchestrationCreated]:
        inbox = self.inboxes.pop(record.instance_id, [])
        history = self.load_history(record.instance_id, record.generation)
        planned = plan(history, [Message(mail.visible_at, mail.event) for mail in inbox], record.carried, reason)
        for due, event in planned.messages:
            self.mail(record.instance_id, event, due, None if isinstance(event, EventRaised) else record.execution_id)
        for timer in planned.timers:
            self.mail(record.instance_id, TimerFired(timer.task_id, timer.fire_at), timer.fire_at, record.execution_id)
        wanted = {call.task_id for call in planned.activities}
        present = {call.item.task_id for call in self.calls_of(record.execution_id)}
        for task_id in present - wanted:
            del self.calls[record.execution_id, task_id]
        self.deliver_anew(record.execution_id)
        for call in planned.activities:
            if call.task_id not in present:
                self.queue(record, call, at, None)
        self.append(record.instance_id, record.generation, record.sequence, at, [planned.event])
        self.set(
            record, status=RuntimeStatus.RUNNING, output=None, failure=None, completed_at=None, updated_at=at, sequence=record.sequence + 1,
            has_started=planned.has_started, ready_at=at, worker_id=None, deliveries=0, parked_reason=None, carried=(),
        )  # fmt: skip
        return planned.children

    def redo_child(self, parent: InstanceRecord, call: SubOrchestrationCreated, at: int) -> InstanceRecord | None:
        child = self.instances.get(call.instance_id)
        if child is not None and is_run_of(child, parent, call.task_id):
            if child.status is RuntimeStatus.FAILED:
                return child
            if child.status.is_final and child.status is not RuntimeStatus.COMPLETED:
                self.delete([child.instance_id])
        self.create_child(parent, replace(call, execution_id=repeated_execution_id(call.execution_id, parent.sequence)), at)
        return None

    # -- reading

    def in_callers_transaction(self) -> bool:
        return False

    def get_instance(self, instance_id: str) -> InstanceRecord | None:
        return self.instances.get(instance_id)

    def load_history(self, instance_id: str, generation: int) -> list[Recorded]:
        return list(self.histories.get((instance_id, generation), []))

    def history_page(self, instance_id: str, generation: int, *, after: int, limit: int) -> HistoryPage:
        events = self.load_history(instance_id, generation)[after : after + limit + 1]
        return HistoryPage(tuple(events[:limit]), events[limit - 1].sequence if len(events) > limit else None)

    def chosen(self, wanted: InstanceFilter, order: Order) -> list[InstanceRecord]:
        found = [each for each in self.instances.values() if matches(wanted, each) and not (order.is_by_completion and each.completed_at is None)]
        return sorted(found, key=lambda each: moment_of(each, order), reverse=order in (Order.NEWEST_FIRST, Order.LAST_COMPLETED))

    def list_instances(
        self, wanted: InstanceFilter, *, limit: int, after: PagePosition | None, order: Order, with_input: bool = True, with_output: bool = True
    ) -> InstancePage:
        found = self.chosen(wanted, order)
        if after is not None:
            position, is_down = (after.at, after.instance_id), order in (Order.NEWEST_FIRST, Order.LAST_COMPLETED)
            found = [each for each in found if (moment_of(each, order) < position if is_down else moment_of(each, order) > position)]
        left_out = {name: None for name, is_shown in (("input", with_input), ("output", with_output)) if not is_shown}
        records = tuple(replace(each, **left_out) for each in found[:limit]) if left_out else tuple(found[:limit])
        return InstancePage(records, PagePosition(*moment_of(records[-1], order)) if len(found) > limit else None)

    def list_ids(self, wanted: InstanceFilter, *, limit: int, after: PagePosition | None, order: Order) -> IdPage:
        page = self.list_instances(wanted, limit=limit, after=after, order=order)
        return IdPage(tuple(record.instance_id for record in page.records), page.next_position)

    def count_instances(self, wanted: InstanceFilter) -> int:
        return len(self.chosen(wanted, Order.OLDEST_FIRST))

    def version_use(self, name: str | None) -> list[VersionUse]:
        found: dict[tuple[str, str | None], dict[RuntimeStatus, int]] = {}
        live = self.chosen(InstanceFilter(statuses=tuple(LIVE_STATUSES), name=name), Order.OLDEST_FIRST)
        for record in sorted(live, key=lambda each: (each.name, version_key(each.version), each.status)):
            counts = found.setdefault((record.name, record.version), {})
            counts[record.status] = counts.get(record.status, 0) + 1
        return [VersionUse(*key, counts) for key, counts in found.items()]

    def sweep(self, cutoffs: Mapping[RuntimeStatus, int], *, after: SweepPosition | None, limit: int) -> Swept:
        doomed = [
            each.instance_id
            for each in self.instances.values()
            if each.completed_at is not None and each.completed_at < cutoffs.get(each.status, 0) and each.parent_instance_id not in self.instances
        ]
        return Swept(self.delete(doomed), None)


_READY = {each.name for each in fields(Ready)}


def ready(is_ready: bool, next_due: int | None, **more: Any) -> Ready:
    """What a look found, as far as somebody wants to know it."""
    return Ready(is_ready, next_due, **{name: value for name, value in more.items() if name in _READY})


def takes(runnable: Runnable, record: InstanceRecord) -> bool:
    key = version_key(record.version)
    if runnable.names is not None and (record.name not in runnable.names or key < runnable.least_keys.get(record.name, "")):
        return False
    return runnable.bounds is None or runnable.bounds[0] <= key <= runnable.bounds[1]


def is_run_of(child: InstanceRecord, parent: InstanceRecord, task_id: int) -> bool:
    return (child.parent_instance_id, child.parent_execution_id, child.parent_task_id) == (parent.instance_id, parent.execution_id, task_id)


def terminated(instance_id: str) -> FailureDetails:
    return FailureDetails("flask_durable.Terminated", f"Instance {instance_id!r} was terminated")


def moment_of(record: InstanceRecord, order: Order) -> tuple[int, str]:
    return (record.completed_at or 0) if order.is_by_completion else record.created_at, record.instance_id


def matches(wanted: InstanceFilter, record: InstanceRecord) -> bool:
    def within(moment: int | None, begin: int | None, end: int | None) -> bool:
        if begin is None and end is None:
            return True
        is_below = moment is not None and (end is None or moment < end or (moment == end and wanted.created_to_inclusive))
        return is_below and (begin is None or (moment or 0) >= begin)

    conditions: list[Callable[[], bool]] = [
        lambda: not wanted.statuses or record.status in wanted.statuses,
        lambda: wanted.name in (None, record.name),
        lambda: wanted.version in (None, record.version),
        lambda: wanted.parent_instance_id in (None, record.parent_instance_id),
        lambda: record.instance_id.startswith(wanted.id_prefix or ""),
        lambda: within(record.created_at, wanted.created_from, wanted.created_to),
        lambda: within(record.completed_at, wanted.completed_from, wanted.completed_to),
        lambda: wanted.tags.items() <= record.tags.items(),
        lambda: wanted.is_parked in (None, record.parked_reason is not None),
        lambda: wanted.has_version in (None, record.version is not None),
        lambda: wanted.is_root in (None, record.parent_instance_id is None),
    ]
    return all(condition() for condition in conditions)
