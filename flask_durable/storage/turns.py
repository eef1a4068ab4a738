"""Writing turns: history, work, messages and the instance's own row, for all turns of a batch together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from flask_durable.core.events import EventRaised, SubOrchestrationCompleted, SubOrchestrationCreated, SubOrchestrationFailed, TaskScheduled
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.core.turn import NextGeneration
from flask_durable.core.versions import version_key
from flask_durable.storage.calls import HELD, NOBODYS
from flask_durable.storage.database import Sql
from flask_durable.storage.event_keys import EventKeyRows
from flask_durable.storage.history import HistoryRows
from flask_durable.storage.inbox import InboxRows, TimerRow
from flask_durable.storage.interface import Batch, InstanceRecord, StartInstance, TurnCommit
from flask_durable.storage.rows import INSTANCE_COLUMNS, dump, dump_failure, dump_map, shown_record
from flask_durable.storage.wakes import Wakes

_NEXT_DUE = "(SELECT MIN(visible_at) FROM durable_message WHERE hub = ? AND instance_id = ?)"
_AS_KNOWN = " WHERE hub = ? AND instance_id = ? AND execution_id = ? AND sequence = ? AND worker_id = ?"
_GO_ON = (
    "UPDATE durable_instance SET status = 'Running', sequence = ?, has_started = ?, updated_at = ?, worker_id = ?, deliveries = 0, carried = NULL,"
    f" ready_at = {_NEXT_DUE}{_AS_KNOWN}"
)
_KNOWN_KINDS = "tttit"
_GO_ON_KINDS = "ibittt" + _KNOWN_KINDS
_END_KINDS = "tibiittt" + _KNOWN_KINDS
_END = (
    "UPDATE durable_instance SET status = ?, sequence = ?, has_started = ?, updated_at = ?, completed_at = ?, output = ?, failure = ?,"
    f" worker_id = NULL, deliveries = 0, carried = ?, ready_at = NULL{_AS_KNOWN}"
)
_CONTINUE_AS_NEW = (
    "UPDATE durable_instance SET status = 'Running', generation = generation + 1, execution_id = ?, input = ?, version = ?, version_key = ?, carried = ?,"
    f" sequence = 0, has_started = ?, updated_at = ?, worker_id = ?, deliveries = 0, ready_at = ?{_AS_KNOWN}"
)
_INSERT_ACTIVITY = (
    "INSERT INTO durable_activity (hub, execution_id, task_id, instance_id, name, input, attempt, first_task_id, precedence, timeout, queued_at, worker_id, deliveries)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ACTIVITY_KINDS = "ttitttiiiiiti"
_INSERT_CHILD = (
    " durable_instance (hub, instance_id, execution_id, generation, name, version, version_key, status, input, created_at, updated_at, parent_instance_id,"
    " parent_execution_id, parent_task_id, tags, trace, sequence, has_started, ready_at, deliveries)"
    " VALUES (?, ?, ?, 0, ?, ?, ?, 'Pending', ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0)"
)
_CHILD_ATTEMPTS = 100


class StaleTurnError(Exception):
    """Some turn of the batch is for an instance that is no longer as its worker knew it; the transaction must be undone."""


class TurnRows:
    """Writes the turns of one task hub."""

    def __init__(self, sql: Sql, hub: str, history: HistoryRows, inbox: InboxRows, event_keys: EventKeyRows, wakes: Wakes) -> None:
        self._sql = sql
        self._hub = hub
        self._history = history
        self._inbox = inbox
        self._event_keys = event_keys
        self._wakes = wakes

    def stale(self, worker_id: str, commits: Sequence[TurnCommit]) -> list[int]:
        """Indexes of the turns whose instance is no longer as the worker knew it."""
        found = []
        for index, commit in enumerate(commits):
            record = commit.record
            text = f"SELECT 1 FROM durable_instance{_AS_KNOWN}{self._sql.for_update}"
            if self._sql.row(text, (self._hub, record.instance_id, record.execution_id, commit.sequence, worker_id)) is None:
                found.append(index)
        return found

    def write(self, worker_id: str, commits: Sequence[TurnCommit], at: Micros, written: Collection[str] = ()) -> bool:
        """Write turns; returns whether there is new work that somebody should claim.

        Args:
            worker_id: who has run them.
            commits: the turns.
            at: database time.
            written: ids of instances whose rows were inserted in this transaction, as they are after their turn.

        Raises:
            StaleTurnError: one of them does not fit; nothing of this transaction may stay.
        """
        self._lock(sorted(commit.record.instance_id for commit in commits if commit.record.instance_id not in written))
        self._finish_activities(commits)
        self._inbox.consume([message_id for commit in commits for message_id in commit.messages])
        self._history.insert(self._history_rows(commits))
        self._schedule_activities(worker_id, commits, at)
        self._set_timers(commits)
        has_new_work = self._create_children(commits, at)
        has_new_work |= self._send_events(commits, at)
        going_on = [commit for commit in commits if not commit.turn.status.is_final and commit.turn.next_generation is None]
        ended = [commit for commit in commits if commit.turn.status.is_final]
        has_new_work |= self._notify_parents(ended, at)
        self._update_custom_status(commits)
        self._go_on(worker_id, [commit for commit in going_on if commit.record.instance_id not in written], at)
        self._end(worker_id, ended, at)
        for commit in commits:
            if commit.turn.next_generation is not None:
                self._continue_as_new(worker_id, commit, commit.turn.next_generation, at)
        return has_new_work

    @staticmethod
    def state_after(commit: TurnCommit, worker_id: str | None) -> tuple[str, int, bool, Micros | None, str | None, int]:
        """Status, sequence, whether it has started, when it is ready, worker and deliveries of a new instance after one of its :func:`first_turns`."""
        ready_at = min((timer.fire_at for timer in commit.turn.timers), default=None)
        return RuntimeStatus.RUNNING.value, len(commit.turn.events), True, ready_at, worker_id if commit.keep else None, 0

    def delete_activities(self, execution_ids: Sequence[str]) -> None:
        """Drop the open calls of executions: whoever runs one finds its row gone and drops the result."""
        self._sql.run_for("DELETE FROM durable_activity WHERE hub = ? AND execution_id IN", (self._hub,), execution_ids)

    def hold_activities(self, execution_id: str) -> None:
        """Keep the calls of a suspended instance that nobody has taken yet from being begun (rule 36)."""
        text = f"UPDATE durable_activity SET worker_id = ? WHERE hub = ? AND execution_id = ? AND {NOBODYS}"
        self._sql.run(text, (HELD, self._hub, execution_id))

    def let_activities_go(self, execution_id: str) -> None:
        """Put the calls that were held back into the queue."""
        text = "UPDATE durable_activity SET worker_id = NULL WHERE hub = ? AND execution_id = ? AND worker_id = ?"
        self._sql.run(text, (self._hub, execution_id, HELD))

    def delete_queued(self, execution_ids: Sequence[str]) -> None:
        """Drop the calls of failed executions that nobody has begun; those that run are kept until they report (REW-3)."""
        text = "DELETE FROM durable_activity WHERE hub = ? AND execution_id = ? AND begun_at IS NULL AND (worker_id IS NULL OR worker_id = ?)"
        self._sql.run_many(text, [(self._hub, each, HELD) for each in execution_ids])

    def queue_activities(self, record: InstanceRecord, events: Sequence[TaskScheduled], at: Micros) -> None:
        """Put calls of an instance into the queue, for any worker."""
        self._sql.run_many(_INSERT_ACTIVITY, [self._activity_row(record, event, at, None) for event in events])

    def deliver_anew(self, execution_id: str) -> None:
        """Forget how often workers died with the open calls of an execution."""
        text = f"UPDATE durable_activity SET deliveries = 0 WHERE hub = ? AND execution_id = ? AND {NOBODYS}"
        self._sql.run(text, (self._hub, execution_id))

    def delete(self, doomed: Sequence[tuple[str, str]]) -> None:
        """Delete instances with all they have, given as (instance_id, execution_id)."""
        instance_ids = [instance_id for instance_id, _ in doomed]
        self._history.delete(instance_ids)
        self._inbox.delete(instance_ids)
        self._event_keys.delete(instance_ids)
        self.delete_activities([execution_id for _, execution_id in doomed])
        self._sql.run_for("DELETE FROM durable_instance WHERE hub = ? AND instance_id IN", (self._hub,), instance_ids)

    def notify_parent(self, record: InstanceRecord, output: str | None, failure: FailureDetails | None, at: Micros) -> bool:
        """Put the outcome of a child into its parent's inbox; False when nobody waits for it."""
        if record.parent_instance_id is None or record.parent_task_id is None:
            return False
        event = (
            SubOrchestrationCompleted(record.parent_task_id, output) if failure is None else SubOrchestrationFailed(record.parent_task_id, failure)
        )
        return self._inbox.put(record.parent_instance_id, event, at, execution_id=record.parent_execution_id)

    def _lock(self, instance_ids: Sequence[str]) -> None:
        # Whoever changes an instance from outside locks its row before all else; in another order they and we could wait for each other.
        text = "SELECT 1 FROM durable_instance WHERE hub = ? AND instance_id "
        if self._sql.is_postgresql:
            self._sql.change_many(f"{text}= ?{self._sql.for_update}", "tt", [(self._hub, instance_id) for instance_id in instance_ids])
        elif not self._sql.is_sqlite:
            self._sql.rows_of(f"{text}IN", (self._hub,), instance_ids, self._sql.for_update)

    def _finish_activities(self, commits: Sequence[TurnCommit]) -> None:
        self._sql.change_many(
            "DELETE FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ?",
            "tti",
            [(self._hub, commit.record.execution_id, result.item.task_id) for commit in commits for result in commit.results],
        )

    def _history_rows(self, commits: Sequence[TurnCommit]) -> list[Any]:
        rows: list[Any] = []
        for commit in commits:
            record, turn = commit.record, commit.turn
            if turn.next_generation is None:
                rows.extend(self._history.rows(record.instance_id, record.generation, commit.sequence, turn.at, turn.events))
        return rows

    def _schedule_activities(self, worker_id: str, commits: Sequence[TurnCommit], at: Micros) -> None:
        rows = []
        for commit in commits:
            record, kept = commit.record, commit.claimed_activities
            for index, event in enumerate(commit.turn.activities):
                rows.append(self._activity_row(record, event, at, worker_id if index < kept else None))
        self._sql.insert_many(_INSERT_ACTIVITY, _ACTIVITY_KINDS, rows)

    def _activity_row(self, record: InstanceRecord, event: TaskScheduled, at: Micros, worker_id: str | None) -> Sequence[Any]:
        if worker_id is None:
            self._wakes.call(record.execution_id, event.task_id)
        return (
            self._hub, record.execution_id, event.task_id, record.instance_id, event.name, event.input, event.attempt,
            event.first_task_id or event.task_id, -event.priority, event.timeout, at, worker_id, 1 if worker_id else 0,
        )  # fmt: skip

    def _set_timers(self, commits: Sequence[TurnCommit]) -> None:
        timers: list[TimerRow] = []
        cancelled: list[tuple[str, str, int]] = []
        for commit in commits:
            record, turn = commit.record, commit.turn
            if turn.status.is_final or turn.next_generation is not None:
                continue
            timers.extend((record.instance_id, record.execution_id, timer.task_id, timer.fire_at) for timer in turn.timers)
            cancelled.extend((record.instance_id, record.execution_id, task_id) for task_id in turn.cancelled_timers)
        self._inbox.put_timers(timers)
        self._inbox.cancel_timers(cancelled)

    def _create_children(self, commits: Sequence[TurnCommit], at: Micros) -> bool:
        has_any = False
        for commit in commits:
            for event in commit.turn.children:
                self.create_child(commit.record, event, at)
                has_any = True
        return has_any

    def create_child(self, parent: InstanceRecord, event: SubOrchestrationCreated, at: Micros) -> None:
        """Create a child, or see that the parent gets the outcome of the same one that is there already."""
        trace = dump(dict(parent.trace)) if parent.trace else None
        row = (
            self._hub, event.instance_id, event.execution_id, event.name, event.version, version_key(event.version), event.input, at, at,
            parent.instance_id, parent.execution_id, event.task_id, dump_map(event.tags), trace, False, at,
        )  # fmt: skip
        text = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND instance_id = ?{self._sql.for_update}"
        status = "made and deleted by others again and again"
        for _ in range(_CHILD_ATTEMPTS):
            if self._insert_child(row):
                self._wakes.instance(event.instance_id)
                return
            columns = self._sql.row(text, (self._hub, event.instance_id))
            if columns is None:
                continue  # deleted by somebody else between the two statements
            found = shown_record(columns)
            if is_run_of(found, parent, event.task_id):
                if found.status.is_final:
                    failure = found.failure if found.status is not RuntimeStatus.TERMINATED else terminated(found.instance_id)
                    self.notify_parent(found, found.output, failure, at)
                return
            if not found.status.is_final:
                status = found.status
                break
            # The id of an ended instance is free for a child: a retry runs it anew, a loop calls it again (RTY-5, rule 41).
            self.delete([(event.instance_id, found.execution_id)])
        message = f"An instance with the id {event.instance_id!r} already exists; it is {status}"
        failure = FailureDetails("flask_durable.errors.InstanceExistsError", message)
        self._inbox.put(parent.instance_id, SubOrchestrationFailed(event.task_id, failure), at, execution_id=parent.execution_id)

    def _insert_child(self, row: Sequence[Any]) -> bool:
        return self._sql.run(f"{self._sql.insert_ignore}{_INSERT_CHILD}{self._sql.on_conflict}", row) == 1

    def _send_events(self, commits: Sequence[TurnCommit], at: Micros) -> bool:
        has_any = False
        for commit in commits:
            for sent in commit.turn.sent_events:
                has_any |= self._inbox.put(sent.instance_id, EventRaised(sent.name, sent.data), at)
        return has_any

    def _notify_parents(self, ended: Sequence[TurnCommit], at: Micros) -> bool:
        has_any = False
        for commit in ended:
            if commit.record.parent_instance_id is not None:
                has_any |= self.notify_parent(commit.record, commit.turn.output, commit.turn.failure, at)
        return has_any

    def _update_custom_status(self, commits: Sequence[TurnCommit]) -> None:
        self._sql.change_many(
            "UPDATE durable_instance SET custom_status = ? WHERE hub = ? AND instance_id = ?",
            "ttt",
            [(commit.turn.custom_status, self._hub, commit.record.instance_id) for commit in commits if commit.turn.custom_status_changed],
        )

    def _known(self, worker_id: str, commit: TurnCommit) -> tuple[Any, ...]:
        return (self._hub, commit.record.instance_id, commit.record.execution_id, commit.sequence, worker_id)

    def _go_on(self, worker_id: str, commits: Sequence[TurnCommit], at: Micros) -> None:
        # The rows are locked: whoever puts a message in from now on wakes the instance after this, and what was put in before is seen here.
        rows = [
            (commit.sequence + len(commit.turn.events), True, at, worker_id if commit.keep else None, self._hub, commit.record.instance_id)
            for commit in commits
        ]
        known = [self._known(worker_id, commit) for commit in commits]
        self._sql.expect(_GO_ON, _GO_ON_KINDS, [(*row, *each) for row, each in zip(rows, known, strict=True)], StaleTurnError)

    def _end(self, worker_id: str, commits: Sequence[TurnCommit], at: Micros) -> None:
        if not commits:
            return
        rows = []
        for commit in commits:
            turn = commit.turn
            rows.append(
                (turn.status.value, commit.sequence + len(turn.events), True, at, at, turn.output, dump_failure(turn.failure),
                 _dump_events(commit.carried), *self._known(worker_id, commit))
            )  # fmt: skip
        self._sql.expect(_END, _END_KINDS, rows, StaleTurnError)
        failed = [commit for commit in commits if commit.turn.status is RuntimeStatus.FAILED]
        over = [commit for commit in commits if commit.turn.status is not RuntimeStatus.FAILED]
        self._inbox.delete([commit.record.instance_id for commit in over])
        self.delete_activities([commit.record.execution_id for commit in over if commit.turn.open_activities])
        self.delete_queued([commit.record.execution_id for commit in failed if commit.turn.open_activities])

    def _continue_as_new(self, worker_id: str, commit: TurnCommit, following: NextGeneration, at: Micros) -> None:
        record = commit.record
        carried = _dump_events(following.carried)
        row = (
            following.execution_id, following.input, following.version, version_key(following.version), carried, False, at, worker_id if commit.keep else None, at,
            *self._known(worker_id, commit),
        )  # fmt: skip
        self._sql.expect(_CONTINUE_AS_NEW, "", [row], StaleTurnError)
        if not commit.keep:
            self._wakes.instance(record.instance_id)
        self._history.delete_generation(record.instance_id, record.generation)
        self._inbox.delete_execution(record.instance_id, record.execution_id)
        self.delete_activities([record.execution_id])


def first_turns(batch: Batch) -> dict[str, TurnCommit]:
    """Turns of instances that are started in the same batch, whose rows can be inserted at once as they are after them.

    They only call activities and wait: then nothing but their timers can make the instance ready again.
    """
    starts = {
        command.execution_id
        for command in batch.commands
        if isinstance(command, StartInstance) and command.is_id_generated and command.instance_id in batch.claimed_starts and command.start_at is None
    }
    return {commit.record.instance_id: commit for commit in batch.turns if commit.record.execution_id in starts and _only_waits(commit)}


def _only_waits(commit: TurnCommit) -> bool:
    turn = commit.turn
    is_going_on = not turn.status.is_final and turn.next_generation is None
    return is_going_on and not (commit.sequence or commit.messages or turn.children or turn.sent_events or turn.cancelled_timers)


def is_run_of(child: InstanceRecord, parent: InstanceRecord, task_id: int) -> bool:
    """Whether an instance is what a call of its parent has created, in whatever generation."""
    return (child.parent_instance_id, child.parent_execution_id, child.parent_task_id) == (parent.instance_id, parent.execution_id, task_id)


def terminated(instance_id: str) -> FailureDetails:
    """What the call of a child that was terminated fails with (rule 39)."""
    return FailureDetails("flask_durable.Terminated", f"Instance {instance_id!r} was terminated")


def _dump_events(events: Sequence[EventRaised]) -> str | None:
    return dump([[event.name, event.data] for event in events]) if events else None
