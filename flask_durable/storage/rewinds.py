"""Rewinds: failed instances, and the failed children they wait for, go back to where they were sound and run on from there (REW-1 to REW-5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flask_durable.core.events import SubOrchestrationCreated, TaskScheduled
from flask_durable.core.ids import repeated_execution_id
from flask_durable.core.rewind import plan
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.errors import CorruptHistoryError, InstanceNotFailedError, InstanceNotFoundError
from flask_durable.storage.database import Sql
from flask_durable.storage.history import HistoryRows
from flask_durable.storage.inbox import InboxRows
from flask_durable.storage.interface import InstanceRecord, Outcome, Rewind
from flask_durable.storage.rows import INSTANCE_COLUMNS, shown_record
from flask_durable.storage.turns import TurnRows, is_run_of

_SELECT = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND instance_id = ?"
_RUN_ON = (
    "UPDATE durable_instance SET status = 'Running', output = NULL, failure = NULL, completed_at = NULL, updated_at = ?, sequence = sequence + 1,"
    " has_started = ?, ready_at = ?, worker_id = NULL, deliveries = 0, parked_reason = NULL, carried = NULL"
    " WHERE hub = ? AND instance_id = ? AND execution_id = ? AND sequence = ?"
)


class RewindRows:
    """Rewinds the instances of one task hub."""

    def __init__(self, sql: Sql, hub: str, history: HistoryRows, inbox: InboxRows, turns: TurnRows) -> None:
        self._sql = sql
        self._hub = hub
        self._history = history
        self._inbox = inbox
        self._turns = turns

    def rewind(self, command: Rewind, at: Micros) -> tuple[Outcome, list[str]]:
        """Rewind a failed instance; returns the outcome and the ids that run again."""
        record = self._locked(command.instance_id)
        if record is None:
            return InstanceNotFoundError(command.instance_id), []
        if record.status is not RuntimeStatus.FAILED:
            return InstanceNotFailedError(record.instance_id, record.status), []
        try:
            with self._sql.savepoint():
                return None, self._rewind_family(record, command.reason, at)
        except CorruptHistoryError as error:
            return error, []

    def _rewind_family(self, root: InstanceRecord, reason: str | None, at: Micros) -> list[str]:
        family = [root]
        for record in family:
            for child in self._rewind_one(record, reason, at):
                failed = self._redo_child(record, child, at)
                if failed is not None:
                    family.append(failed)
        return [record.instance_id for record in family]

    def _rewind_one(self, record: InstanceRecord, reason: str | None, at: Micros) -> Sequence[SubOrchestrationCreated]:
        """Bring one instance back; returns the children whose outcome it then lacks."""
        history = self._history.load(record.instance_id, record.generation)
        planned = plan(history, self._inbox.all(record.instance_id), record.carried, reason)
        self._inbox.replace(record.instance_id, record.execution_id, planned.messages)
        self._inbox.put_timers([(record.instance_id, record.execution_id, timer.task_id, timer.fire_at) for timer in planned.timers])
        self._redo_activities(record, planned.activities, at)
        self._history.insert(self._history.rows(record.instance_id, record.generation, record.sequence, at, [planned.event]))
        # Ready in any case: its first turn also writes what it has set before (custom status, cancelled timers).
        key = (self._hub, record.instance_id, record.execution_id, record.sequence)
        self._sql.run(_RUN_ON, (at, planned.has_started, at, *key))
        return planned.children

    def _redo_activities(self, record: InstanceRecord, calls: Sequence[TaskScheduled], at: Micros) -> None:
        """Queue the calls that nobody runs any more, and drop those that are no longer wanted."""
        rows = self._sql.rows("SELECT task_id FROM durable_activity WHERE hub = ? AND execution_id = ?", (self._hub, record.execution_id))
        present, wanted = {int(row[0]) for row in rows}, {call.task_id for call in calls}
        self._sql.run_many(
            "DELETE FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ?",
            [(self._hub, record.execution_id, task_id) for task_id in sorted(present - wanted)],
        )
        self._turns.deliver_anew(record.execution_id)
        self._turns.queue_activities(record, [call for call in calls if call.task_id not in present], at)

    def _redo_child(self, parent: InstanceRecord, call: SubOrchestrationCreated, at: Micros) -> InstanceRecord | None:
        """See that the parent gets an outcome of a child (REW-4); returns the child when it is to be rewound for that."""
        child = self._locked(call.instance_id)
        if child is not None and is_run_of(child, parent, call.task_id):
            if child.status is RuntimeStatus.FAILED:
                return child
            if child.status.is_final and child.status is not RuntimeStatus.COMPLETED:
                self._turns.delete([(child.instance_id, child.execution_id)])
        # One that has to be made has another execution id, so that it does not meet what its old self has left.
        again = replace(call, execution_id=repeated_execution_id(call.execution_id, parent.sequence))
        self._turns.create_child(parent, again, at)
        return None

    def _locked(self, instance_id: str) -> InstanceRecord | None:
        row = self._sql.row(_SELECT + self._sql.for_update, (self._hub, instance_id))
        return None if row is None else shown_record(row)
