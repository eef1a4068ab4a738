"""Instance rows: creating, reading, listing, and the commands that act on an instance from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from flask_durable.core.children import BoundChildren
from flask_durable.core.events import ExecutionCompleted, ExecutionResumed, ExecutionSuspended, ExecutionTerminated, HistoryEvent
from flask_durable.core.failure import FailureDetails
from flask_durable.core.rewind import effective
from flask_durable.core.status import FINAL_STATUSES, LIVE_STATUSES, RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.core.versions import version_key
from flask_durable.errors import (
    CorruptHistoryError,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    StoreUnavailableError,
)
from flask_durable.logs import get_logger
from flask_durable.storage.database import Sql
from flask_durable.storage.history import HistoryRows
from flask_durable.storage.inbox import InboxRows
from flask_durable.storage.interface import (
    FailInstance,
    IfExists,
    InstanceRecord,
    Order,
    Outcome,
    Park,
    Purge,
    PurgeBy,
    Resume,
    StartInstance,
    Suspend,
    Terminate,
    TurnCommit,
    record_of_start,
)
from flask_durable.storage.rows import INSTANCE_COLUMNS, dump, dump_failure, dump_map, shown_record
from flask_durable.storage.search import conditions, ordering
from flask_durable.storage.turns import TurnRows, terminated

logger = get_logger("flask_durable.storage")

_SELECT = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND instance_id = ?"
_INSERT = (
    " durable_instance (hub, instance_id, execution_id, generation, name, version, version_key, status, input, created_at, updated_at, start_at, tags, trace,"
    " restarted_from, sequence, has_started, ready_at, worker_id, deliveries) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_AS_READ = " WHERE hub = ? AND instance_id = ? AND execution_id = ? AND sequence = ?"
_START_ATTEMPTS = 100


class InstanceRows:
    """The instances of one task hub."""

    def __init__(self, sql: Sql, hub: str, history: HistoryRows, inbox: InboxRows, turns: TurnRows) -> None:
        self._sql = sql
        self._hub = hub
        self._history = history
        self._inbox = inbox
        self._turns = turns

    # -- reading

    def get(self, instance_id: str) -> InstanceRecord | None:
        """One instance."""
        row = self._sql.row(_SELECT, (self._hub, instance_id))
        return None if row is None else shown_record(row)

    def is_there(self, instance_id: str) -> bool:
        """Whether there is such an instance; its row is locked until the transaction ends."""
        return self._locked(instance_id) is not None

    # -- starting

    def start(
        self, command: StartInstance, at: Micros, worker_id: str | None, first_turn: TurnCommit | None = None
    ) -> tuple[Outcome, InstanceRecord | None]:
        """Create an instance; returns the outcome, and the record when it was claimed at once by ``worker_id``.

        Args:
            command: what to start.
            at: database time.
            worker_id: who claims it.
            first_turn: of an id that is not in use: the turn after which its row is to be written at once.
        """
        claimed_by = worker_id if command.start_at is None or command.start_at <= at else None
        for _ in range(_START_ATTEMPTS):
            if self._insert(command, at, claimed_by, first_turn):
                return command.instance_id, record_of_start(command, at, claimed_by) if claimed_by else None
            existing = self._locked(command.instance_id)
            if existing is None:
                continue  # deleted or replaced by somebody else between the two statements
            if existing.execution_id == command.execution_id or command.if_exists is IfExists.RETURN:
                return command.instance_id, None
            if command.if_exists is not IfExists.REPLACE_FINISHED or not existing.status.is_final:
                return InstanceExistsError(command.instance_id, existing.status), None
            self._delete([existing])
        raise StoreUnavailableError(f"The id {command.instance_id!r} is made and deleted by others again and again")

    def _insert(self, command: StartInstance, at: Micros, worker_id: str | None, first_turn: TurnCommit | None) -> bool:
        ready_at = at if command.start_at is None else max(command.start_at, at)
        pending = (RuntimeStatus.PENDING.value, 0, False, ready_at, worker_id, 1 if worker_id else 0)
        status, *rest = pending if first_turn is None else self._turns.state_after(first_turn, worker_id)
        row = (
            self._hub, command.instance_id, command.execution_id, command.name, command.version, version_key(command.version), status, command.input,
            at, at, command.start_at, dump_map(command.tags), dump_map(command.trace), command.restarted_from, *rest,
        )  # fmt: skip
        if command.is_id_generated:
            self._sql.run_many(f"INSERT INTO{_INSERT}", [row])
            return True
        return self._sql.run(f"{self._sql.insert_ignore}{_INSERT}{self._sql.on_conflict}", row) == 1

    # -- control

    def terminate(self, command: Terminate, at: Micros) -> tuple[Outcome, list[str]]:
        """End an instance and, when recursive, its open children; returns the outcome and the ids that ended."""
        record = self._locked(command.instance_id)
        if record is None:
            return InstanceNotFoundError(command.instance_id), []
        if record.status.is_final:
            return InstanceFinishedError(record.instance_id, record.status), []
        family = self._family(record, self._open_children) if command.recursive else [record]
        for each in family:
            self._terminate(each, command.reason, at)
        self._turns.notify_parent(record, None, terminated(record.instance_id), at)
        return None, [each.instance_id for each in family]

    def _terminate(self, record: InstanceRecord, reason: str | None, at: Micros) -> None:
        self._end(
            record, RuntimeStatus.TERMINATED, reason, None, [ExecutionTerminated(reason), ExecutionCompleted(RuntimeStatus.TERMINATED, reason)], at
        )

    def fail(self, command: FailInstance, at: Micros) -> tuple[Outcome, list[str]]:
        """End an instance that cannot be run as Failed."""
        record = self._meant(command)
        if record is None:
            return None, []
        bound = self._bound_children(record)
        completed = ExecutionCompleted(RuntimeStatus.FAILED, None, command.failure, sound_until=record.sequence)
        self._end(record, RuntimeStatus.FAILED, None, command.failure, [completed], at)
        self._turns.notify_parent(record, None, command.failure, at)
        return None, [record.instance_id, *self.end_children(record, bound, at)]

    def end_children(self, parent: InstanceRecord, task_ids: Sequence[int], at: Micros) -> list[str]:
        """Terminate what is still open of the children of these calls, and all below them (rule 42); returns the ids that ended."""
        ended: list[str] = []
        reason = dump(f"The parent instance {parent.instance_id!r} ended")
        for child in self._open_children(parent) if task_ids else []:
            if child.parent_execution_id == parent.execution_id and child.parent_task_id in task_ids:
                for each in self._family(child, self._open_children):
                    self._terminate(each, reason, at)
                    ended.append(each.instance_id)
        return ended

    def _bound_children(self, record: InstanceRecord) -> tuple[int, ...]:
        bound = BoundChildren()
        try:
            history = self._history.load(record.instance_id, record.generation)
            bound.see(recorded.event for recorded in (*history, *effective(history)))
        except CorruptHistoryError as error:
            logger.warning("Children of instance %s that should end with it cannot be found: %s", record.instance_id, error)
        return bound.task_ids

    def suspend(self, command: Suspend, at: Micros) -> tuple[Outcome, list[str]]:
        """Hold an instance: its messages are kept, and nobody looks at it until it is resumed (rules 36, 37); also returns the ids concerned."""
        return self._over_tree(command, lambda record: self._suspend(record, command.reason, at))

    def _suspend(self, record: InstanceRecord, reason: str | None, at: Micros) -> None:
        if record.status is not RuntimeStatus.SUSPENDED:
            self._append(record, [ExecutionSuspended(reason)], at)
            self._set(
                record, "status = 'Suspended', ready_at = NULL, worker_id = NULL, deliveries = 0, sequence = sequence + 1, updated_at = ?", (at,)
            )
            self._turns.hold_activities(record.execution_id)

    def resume(self, command: Resume, at: Micros) -> tuple[Outcome, list[str]]:
        """Let a suspended or parked instance go on with what has come meanwhile, in order of arrival; also returns the ids concerned."""
        return self._over_tree(command, lambda record: self._resume(record, command.reason, at))

    def _resume(self, record: InstanceRecord, reason: str | None, at: Micros) -> None:
        if record.status is RuntimeStatus.SUSPENDED or record.parked_reason is not None:
            self._append(record, [ExecutionResumed(reason)], at)
            is_new = record.generation == 0 and not record.has_started
            status = RuntimeStatus.PENDING if is_new else RuntimeStatus.RUNNING
            ready_at = self._next_due(record) if record.has_started else max(at, record.start_at or 0) if is_new else at
            columns = "status = ?, ready_at = ?, sequence = sequence + 1, updated_at = ?, parked_reason = NULL, deliveries = 0, worker_id = NULL"
            self._set(record, columns, (status.value, ready_at, at))
            self._turns.let_activities_go(record.execution_id)
            self._turns.deliver_anew(record.execution_id)

    def park(self, command: Park, at: Micros) -> Outcome:
        """Stop handing an instance out, with the reason."""
        record = self._meant(command)
        if record is not None:
            self._set(record, "parked_reason = ?, ready_at = NULL, worker_id = NULL, updated_at = ?", (command.reason, at))
        return None

    def _meant(self, command: Park | FailInstance) -> InstanceRecord | None:
        """The live instance, unless another has been given its id."""
        record = self._locked(command.instance_id)
        if record is None or record.status.is_final or command.execution_id not in (None, record.execution_id):
            return None
        return record

    def _over_tree(self, command: Suspend | Resume, act: Callable[[InstanceRecord], None]) -> tuple[Outcome, list[str]]:
        """Do something with an instance and, when recursive, with its open children at every depth."""
        record = self._locked(command.instance_id)
        if record is None:
            return InstanceNotFoundError(command.instance_id), []
        if record.status.is_final:
            return InstanceFinishedError(record.instance_id, record.status), []
        family = self._family(record, self._open_children) if command.recursive else [record]
        for each in family:
            act(each)
        return None, [each.instance_id for each in family]

    # -- purging

    def purge(self, command: Purge) -> Outcome:
        """Delete an ended instance and, when recursive, its ended descendants."""
        record = self._locked(command.instance_id)
        if record is None:
            return InstanceNotFoundError(command.instance_id)
        if not record.status.is_final:
            return InstanceNotFinishedError(record.instance_id, record.status, "purge")
        doomed = self._family(record, self._ended_children) if command.recursive else [record]
        self._delete(doomed)
        return len(doomed)

    def purge_by(self, command: PurgeBy) -> Outcome:
        """Delete up to ``limit`` ended instances that a filter means, oldest first, and their ended descendants when recursive."""
        wanted = [status for status in (command.filter.statuses or tuple(FINAL_STATUSES)) if status.is_final]
        if not wanted:
            return 0
        where, parameters = conditions(self._sql, self._hub, replace(command.filter, statuses=tuple(sorted(wanted))))
        text = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE {where}{ordering(Order.OLDEST_FIRST)} LIMIT ?{self._sql.skip_locked}"
        doomed = [shown_record(row) for row in self._sql.rows(text, (*parameters, command.limit))]
        if command.recursive:
            family = (member for record in doomed for member in self._family(record, self._ended_children))
            doomed = list({member.instance_id: member for member in family}.values())
        self._delete(doomed)
        return len(doomed)

    def _delete(self, doomed: Sequence[InstanceRecord]) -> None:
        self._turns.delete([(record.instance_id, record.execution_id) for record in doomed])

    # -- helpers

    def _locked(self, instance_id: str) -> InstanceRecord | None:
        row = self._sql.row(_SELECT + self._sql.for_update, (self._hub, instance_id))
        return None if row is None else shown_record(row)

    def _children(self, instance_id: str, statuses: Iterable[RuntimeStatus]) -> list[InstanceRecord]:
        wanted = sorted(statuses)
        text = (
            f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND parent_instance_id = ?"
            f" AND status IN ({', '.join('?' * len(wanted))}) ORDER BY created_at, instance_id{self._sql.for_update}"
        )
        return [shown_record(row) for row in self._sql.rows(text, (self._hub, instance_id, *wanted))]

    def _open_children(self, parent: InstanceRecord) -> list[InstanceRecord]:
        return self._children(parent.instance_id, LIVE_STATUSES)

    def _ended_children(self, parent: InstanceRecord) -> list[InstanceRecord]:
        return self._children(parent.instance_id, FINAL_STATUSES)

    def _family(self, root: InstanceRecord, children_of: Callable[[InstanceRecord], list[InstanceRecord]]) -> list[InstanceRecord]:
        # An instance can be its own descendant: when it has ended, a descendant that it left may call a child by its id.
        family, seen = [root], {root.instance_id}
        for parent in family:
            children = [child for child in children_of(parent) if child.instance_id not in seen]
            family.extend(children)
            seen.update(child.instance_id for child in children)
        return family

    def _append(self, record: InstanceRecord, events: Sequence[HistoryEvent], at: Micros) -> None:
        self._history.insert(self._history.rows(record.instance_id, record.generation, record.sequence, at, events))

    def _end(
        self,
        record: InstanceRecord,
        status: RuntimeStatus,
        output: str | None,
        failure: FailureDetails | None,
        events: Sequence[HistoryEvent],
        at: Micros,
    ) -> None:
        self._append(record, events, at)
        columns = (
            "status = ?, output = ?, failure = ?, completed_at = ?, updated_at = ?, sequence = sequence + ?,"
            " ready_at = NULL, worker_id = NULL, deliveries = 0, parked_reason = NULL"
        )
        self._set(record, columns, (status.value, output, dump_failure(failure), at, at, len(events)))
        if status is RuntimeStatus.FAILED:
            self._turns.delete_queued([record.execution_id])
        else:
            self._inbox.delete([record.instance_id])
            self._turns.delete_activities([record.execution_id])

    def _next_due(self, record: InstanceRecord) -> Micros | None:
        text = "SELECT MIN(visible_at) FROM durable_message WHERE hub = ? AND instance_id = ?"
        found = self._sql.value(text, (self._hub, record.instance_id))
        return None if found is None else int(found)

    def _set(self, record: InstanceRecord, columns: str, values: tuple[object, ...]) -> None:
        parameters = (*values, self._hub, record.instance_id, record.execution_id, record.sequence)
        self._sql.run(f"UPDATE durable_instance SET {columns}{_AS_READ}", parameters)
