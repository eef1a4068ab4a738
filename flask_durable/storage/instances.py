"""Instance rows: creating, reading, listing, and the commands that act on an instance from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flask_durable.core.events import ExecutionCompleted, ExecutionResumed, ExecutionSuspended, ExecutionTerminated, HistoryEvent
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import FINAL_STATUSES, LIVE_STATUSES, RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.errors import InstanceExistsError, InstanceFinishedError, InstanceNotFinishedError, InstanceNotFoundError
from flask_durable.storage.database import Sql
from flask_durable.storage.history import HistoryRows
from flask_durable.storage.inbox import InboxRows
from flask_durable.storage.interface import (
    FailInstance,
    IfExists,
    InstanceFilter,
    InstancePage,
    InstanceRecord,
    Order,
    Outcome,
    PagePosition,
    Park,
    Purge,
    PurgeBy,
    Resume,
    StartInstance,
    Suspend,
    Terminate,
    record_of_start,
)
from flask_durable.storage.rows import INSTANCE_COLUMNS, dump_failure, dump_map, shown_record
from flask_durable.storage.search import after_position, conditions, ordering
from flask_durable.storage.turns import TurnRows

_SELECT = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND instance_id = ?"
_INSERT = (
    " durable_instance (hub, instance_id, execution_id, generation, name, version, status, input, created_at, updated_at, start_at, tags, trace,"
    " restarted_from, sequence, has_started, ready_at, worker_id, deliveries) VALUES (?, ?, ?, 0, ?, ?, 'Pending', ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)"
)
_AS_READ = " WHERE hub = ? AND instance_id = ? AND execution_id = ? AND sequence = ?"
_TERMINATED = "flask_durable.Terminated"


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

    def page(self, wanted: InstanceFilter, limit: int, after: PagePosition | None, order: Order) -> InstancePage:
        """One page of a list."""
        where, parameters = conditions(self._hub, wanted)
        begin, position = after_position(after, order)
        text = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE {where}{begin}{ordering(order)} LIMIT ?"
        rows = self._sql.rows(text, (*parameters, *position, limit + 1))
        records = tuple(shown_record(row) for row in rows[:limit])
        last = records[-1] if len(rows) > limit else None
        return InstancePage(records, PagePosition(last.created_at, last.instance_id) if last else None)

    def count(self, wanted: InstanceFilter) -> int:
        """How many instances a filter means."""
        where, parameters = conditions(self._hub, wanted)
        return int(self._sql.value(f"SELECT COUNT(*) FROM durable_instance WHERE {where}", parameters))

    def unknown(self, known: Sequence[str], ready_before: Micros, limit: int) -> list[InstanceRecord]:
        """Instances ready since before that time whose orchestrator is not among the known."""
        names = f" AND name NOT IN ({', '.join('?' * len(known))})" if known else ""
        text = (
            f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND worker_id IS NULL AND ready_at <= ?{names} ORDER BY ready_at LIMIT ?"
        )
        return [shown_record(row) for row in self._sql.rows(text, (self._hub, ready_before, *known, limit))]

    # -- starting

    def start(self, command: StartInstance, at: Micros, worker_id: str | None) -> tuple[Outcome, InstanceRecord | None]:
        """Create an instance; returns the outcome, and the record when it was claimed at once by ``worker_id``."""
        for _ in range(2):
            claimed_by = worker_id if command.start_at is None or command.start_at <= at else None
            if self._insert(command, at, claimed_by):
                return command.instance_id, record_of_start(command, at, claimed_by) if claimed_by else None
            existing = self._locked(command.instance_id)
            if existing is None:
                continue
            if existing.execution_id == command.execution_id:
                return command.instance_id, None
            if command.if_exists is IfExists.RETURN:
                return command.instance_id, None
            if command.if_exists is IfExists.REPLACE_FINISHED and existing.status.is_final:
                self._delete([existing])
                continue
            return InstanceExistsError(command.instance_id, existing.status), None
        return InstanceExistsError(command.instance_id, RuntimeStatus.PENDING), None

    def _insert(self, command: StartInstance, at: Micros, worker_id: str | None) -> bool:
        ready_at = at if command.start_at is None else max(command.start_at, at)
        row = (
            self._hub, command.instance_id, command.execution_id, command.name, command.version, command.input, at, at, command.start_at,
            dump_map(command.tags), dump_map(command.trace), command.restarted_from, False, ready_at, worker_id, 1 if worker_id else 0,
        )  # fmt: skip
        if command.is_id_generated:
            return self._sql.run(f"INSERT INTO{_INSERT}", row) == 1
        return self._sql.run(f"{self._sql.insert_ignore}{_INSERT}{self._sql.on_conflict}", row) == 1

    # -- control

    def terminate(self, command: Terminate, at: Micros) -> tuple[Outcome, list[str]]:
        """End an instance and, when recursive, its open children; returns the outcome and the ids that ended."""
        record = self._locked(command.instance_id)
        if record is None:
            return InstanceNotFoundError(command.instance_id), []
        if record.status.is_final:
            return InstanceFinishedError(record.instance_id, record.status), []
        ended = [record.instance_id]
        self._terminate(record, command.reason, at)
        self._turns.notify_parent(record, None, FailureDetails(_TERMINATED, f"Instance {record.instance_id!r} was terminated"), at)
        pending = [record] if command.recursive else []
        while pending:
            for child in self._open_children(pending.pop()):
                self._terminate(child, command.reason, at)
                ended.append(child.instance_id)
                pending.append(child)
        return None, ended

    def _terminate(self, record: InstanceRecord, reason: str | None, at: Micros) -> None:
        self._end(
            record, RuntimeStatus.TERMINATED, reason, None, [ExecutionTerminated(reason), ExecutionCompleted(RuntimeStatus.TERMINATED, reason)], at
        )

    def fail(self, command: FailInstance, at: Micros) -> tuple[Outcome, list[str]]:
        """End an instance that cannot be run as Failed."""
        record = self._locked(command.instance_id)
        if record is None or record.status.is_final:
            return None, []
        self._end(record, RuntimeStatus.FAILED, None, command.failure, [ExecutionCompleted(RuntimeStatus.FAILED, None, command.failure)], at)
        self._turns.notify_parent(record, None, command.failure, at)
        return None, [record.instance_id]

    def suspend(self, command: Suspend, at: Micros) -> Outcome:
        """Hold an instance: its messages are kept, and nobody looks at it until it is resumed (rule 36)."""
        record = self._locked(command.instance_id)
        if record is None:
            return InstanceNotFoundError(command.instance_id)
        if record.status.is_final:
            return InstanceFinishedError(record.instance_id, record.status)
        if record.status is not RuntimeStatus.SUSPENDED:
            self._append(record, [ExecutionSuspended(command.reason)], at)
            self._set(
                record, "status = 'Suspended', ready_at = NULL, worker_id = NULL, deliveries = 0, sequence = sequence + 1, updated_at = ?", (at,)
            )
        return None

    def resume(self, command: Resume, at: Micros) -> Outcome:
        """Let a suspended or parked instance go on with what has come meanwhile, in order of arrival."""
        record = self._locked(command.instance_id)
        if record is None:
            return InstanceNotFoundError(command.instance_id)
        if record.status.is_final:
            return InstanceFinishedError(record.instance_id, record.status)
        if record.status is RuntimeStatus.SUSPENDED or record.parked_reason is not None:
            self._append(record, [ExecutionResumed(command.reason)], at)
            is_new = record.generation == 0 and not record.has_started
            status = RuntimeStatus.PENDING if is_new else RuntimeStatus.RUNNING
            ready_at = self._next_due(record) if record.has_started else max(at, record.start_at or 0) if is_new else at
            columns = "status = ?, ready_at = ?, sequence = sequence + 1, updated_at = ?, parked_reason = NULL, deliveries = 0, worker_id = NULL"
            self._set(record, columns, (status.value, ready_at, at))
            self._turns.deliver_anew(record.execution_id)
        return None

    def park(self, command: Park, at: Micros) -> Outcome:
        """Stop handing an instance out, with the reason."""
        record = self._locked(command.instance_id)
        if record is not None and not record.status.is_final:
            self._set(record, "parked_reason = ?, ready_at = NULL, worker_id = NULL, updated_at = ?", (command.reason, at))
        return None

    # -- purging

    def purge(self, command: Purge) -> Outcome:
        """Delete an ended instance and, when recursive, its ended descendants."""
        record = self._locked(command.instance_id)
        if record is None:
            return InstanceNotFoundError(command.instance_id)
        if not record.status.is_final:
            return InstanceNotFinishedError(record.instance_id, record.status, "purge")
        doomed, pending = [record], [record] if command.recursive else []
        while pending:
            children = [child for child in self._children(pending.pop().instance_id) if child.status.is_final]
            doomed.extend(children)
            pending.extend(children)
        self._delete(doomed)
        return len(doomed)

    def purge_by(self, command: PurgeBy) -> Outcome:
        """Delete up to ``limit`` ended instances that a filter means, oldest first."""
        wanted = [status for status in (command.filter.statuses or tuple(FINAL_STATUSES)) if status.is_final]
        if not wanted:
            return 0
        where, parameters = conditions(self._hub, replace(command.filter, statuses=tuple(sorted(wanted))))
        text = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE {where}{ordering(Order.OLDEST_FIRST)} LIMIT ?{self._sql.skip_locked}"
        doomed = [shown_record(row) for row in self._sql.rows(text, (*parameters, command.limit))]
        self._delete(doomed)
        return len(doomed)

    def _delete(self, doomed: Sequence[InstanceRecord]) -> None:
        self._turns.delete([(record.instance_id, record.execution_id) for record in doomed])

    # -- helpers

    def _locked(self, instance_id: str) -> InstanceRecord | None:
        row = self._sql.row(_SELECT + self._sql.for_update, (self._hub, instance_id))
        return None if row is None else shown_record(row)

    def _children(self, instance_id: str) -> list[InstanceRecord]:
        text = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND parent_instance_id = ?{self._sql.for_update}"
        return [shown_record(row) for row in self._sql.rows(text, (self._hub, instance_id))]

    def _open_children(self, parent: InstanceRecord) -> list[InstanceRecord]:
        return [child for child in self._children(parent.instance_id) if child.status in LIVE_STATUSES]

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
            " ready_at = NULL, worker_id = NULL, deliveries = 0, parked_reason = NULL, carried = NULL"
        )
        self._set(record, columns, (status.value, output, dump_failure(failure), at, at, len(events)))
        self._inbox.delete([record.instance_id])
        self._turns.delete_activities([record.execution_id])

    def _next_due(self, record: InstanceRecord) -> Micros | None:
        text = "SELECT MIN(visible_at) FROM durable_message WHERE hub = ? AND instance_id = ?"
        found = self._sql.value(text, (self._hub, record.instance_id))
        return None if found is None else int(found)

    def _set(self, record: InstanceRecord, columns: str, values: tuple[object, ...]) -> None:
        parameters = (*values, self._hub, record.instance_id, record.execution_id, record.sequence)
        self._sql.run(f"UPDATE durable_instance SET {columns}{_AS_READ}", parameters)
