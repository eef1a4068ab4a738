"""Writing turns: history, work, messages and the instance's own row, for all turns of a batch together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask_durable.core.events import EventRaised, SubOrchestrationCompleted, SubOrchestrationCreated, SubOrchestrationFailed
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.core.turn import NextGeneration
from flask_durable.storage.database import Sql
from flask_durable.storage.history import HistoryRows
from flask_durable.storage.inbox import InboxRows, TimerRow
from flask_durable.storage.interface import InstanceRecord, TurnCommit
from flask_durable.storage.rows import dump, dump_failure

_NEXT_DUE = "(SELECT MIN(visible_at) FROM durable_message WHERE hub = ? AND instance_id = ?)"
_AS_KNOWN = " WHERE hub = ? AND instance_id = ? AND execution_id = ? AND sequence = ? AND worker_id = ?"
_GO_ON = (
    "UPDATE durable_instance SET status = 'Running', sequence = ?, has_started = ?, updated_at = ?, worker_id = ?, deliveries = 0, carried = NULL,"
    f" ready_at = {_NEXT_DUE}{_AS_KNOWN}"
)
_END = (
    "UPDATE durable_instance SET status = ?, sequence = ?, has_started = ?, updated_at = ?, completed_at = ?, output = ?, failure = ?,"
    f" worker_id = NULL, deliveries = 0, carried = NULL, ready_at = NULL{_AS_KNOWN}"
)
_CONTINUE_AS_NEW = (
    "UPDATE durable_instance SET status = 'Running', generation = generation + 1, execution_id = ?, input = ?, version = ?, carried = ?,"
    f" sequence = 0, has_started = ?, updated_at = ?, worker_id = ?, deliveries = 0, ready_at = ?{_AS_KNOWN}"
)
_INSERT_ACTIVITY = (
    "INSERT INTO durable_activity (hub, execution_id, task_id, instance_id, name, input, attempt, first_task_id, queued_at, worker_id, deliveries)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_CHILD = (
    " durable_instance (hub, instance_id, execution_id, generation, name, version, status, input, created_at, updated_at, parent_instance_id,"
    " parent_execution_id, parent_task_id, trace, sequence, has_started, ready_at, deliveries) VALUES (?, ?, ?, 0, ?, ?, 'Pending', ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0)"
)


class StaleTurnError(Exception):
    """Some turn of the batch is for an instance that is no longer as its worker knew it; the transaction must be undone."""


class TurnRows:
    """Writes the turns of one task hub."""

    def __init__(self, sql: Sql, hub: str, history: HistoryRows, inbox: InboxRows) -> None:
        self._sql = sql
        self._hub = hub
        self._history = history
        self._inbox = inbox

    def stale(self, worker_id: str, commits: Sequence[TurnCommit]) -> list[int]:
        """Indexes of the turns whose instance is no longer as the worker knew it."""
        found = []
        for index, commit in enumerate(commits):
            record = commit.record
            text = f"SELECT 1 FROM durable_instance{_AS_KNOWN}{self._sql.for_update}"
            if self._sql.row(text, (self._hub, record.instance_id, record.execution_id, commit.sequence, worker_id)) is None:
                found.append(index)
        return found

    def write(self, worker_id: str, commits: Sequence[TurnCommit], at: Micros, default_version: str | None) -> bool:
        """Write turns; returns whether there is new work that somebody should claim.

        Raises:
            StaleTurnError: one of them does not fit; nothing of this transaction may stay.
        """
        self._finish_activities(commits)
        self._inbox.consume([message_id for commit in commits for message_id in commit.messages])
        self._history.insert(self._history_rows(commits))
        self._schedule_activities(worker_id, commits, at)
        self._set_timers(commits)
        has_new_work = self._create_children(commits, at, default_version)
        has_new_work |= self._send_events(commits, at)
        going_on = [commit for commit in commits if not commit.turn.status.is_final and commit.turn.next_generation is None]
        ended = [commit for commit in commits if commit.turn.status.is_final]
        has_new_work |= self._notify_parents(ended, at)
        self._update_custom_status(commits)
        self._go_on(worker_id, going_on, at)
        self._end(worker_id, ended, at)
        for commit in commits:
            if commit.turn.next_generation is not None:
                self._continue_as_new(worker_id, commit, commit.turn.next_generation, at)
        return has_new_work

    def delete_activities(self, execution_ids: Sequence[str]) -> None:
        """Drop the open calls of executions: whoever runs one finds its row gone and drops the result."""
        self._sql.run_many("DELETE FROM durable_activity WHERE hub = ? AND execution_id = ?", [(self._hub, each) for each in execution_ids])

    def deliver_anew(self, execution_id: str) -> None:
        """Forget how often workers died with the open calls of an execution."""
        text = "UPDATE durable_activity SET deliveries = 0 WHERE hub = ? AND execution_id = ? AND worker_id IS NULL"
        self._sql.run(text, (self._hub, execution_id))

    def delete(self, doomed: Sequence[tuple[str, str]]) -> None:
        """Delete instances with all they have, given as (instance_id, execution_id)."""
        for instance_id, _ in doomed:
            self._history.delete(instance_id)
        self._inbox.delete([instance_id for instance_id, _ in doomed])
        self.delete_activities([execution_id for _, execution_id in doomed])
        self._sql.run_many("DELETE FROM durable_instance WHERE hub = ? AND instance_id = ?", [(self._hub, instance_id) for instance_id, _ in doomed])

    def forget_deliveries(self, execution_id: str) -> None:
        """Let the open calls of an execution be tried as if they were new."""
        self._sql.run(
            "UPDATE durable_activity SET deliveries = 0 WHERE hub = ? AND execution_id = ? AND worker_id IS NULL", (self._hub, execution_id)
        )

    def notify_parent(self, record: InstanceRecord, output: str | None, failure: FailureDetails | None, at: Micros) -> bool:
        """Put the outcome of a child into its parent's inbox; False when nobody waits for it."""
        if record.parent_instance_id is None or record.parent_task_id is None:
            return False
        event = (
            SubOrchestrationCompleted(record.parent_task_id, output) if failure is None else SubOrchestrationFailed(record.parent_task_id, failure)
        )
        return self._inbox.put(record.parent_instance_id, event, at, execution_id=record.parent_execution_id)

    def _finish_activities(self, commits: Sequence[TurnCommit]) -> None:
        self._sql.run_many(
            "DELETE FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ?",
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
                is_kept = index < kept
                rows.append(
                    (self._hub, record.execution_id, event.task_id, record.instance_id, event.name, event.input, event.attempt,
                     event.first_task_id or event.task_id, at, worker_id if is_kept else None, 1 if is_kept else 0)
                )  # fmt: skip
        self._sql.run_many(_INSERT_ACTIVITY, rows)

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

    def _create_children(self, commits: Sequence[TurnCommit], at: Micros, default_version: str | None) -> bool:
        has_any = False
        for commit in commits:
            for event in commit.turn.children:
                self._create_child(commit.record, event, at, default_version)
                has_any = True
        return has_any

    def _create_child(self, parent: InstanceRecord, event: SubOrchestrationCreated, at: Micros, default_version: str | None) -> None:
        version = event.version if event.version is not None else default_version
        trace = dump(dict(parent.trace)) if parent.trace else None
        row = (
            self._hub, event.instance_id, event.execution_id, event.name, version, event.input, at, at, parent.instance_id, parent.execution_id,
            event.task_id, trace, False, at,
        )  # fmt: skip
        if self._insert_child(row):
            return
        found = self._sql.row(
            f"SELECT status, execution_id FROM durable_instance WHERE hub = ? AND instance_id = ?{self._sql.for_update}",
            (self._hub, event.instance_id),
        )
        if found is not None and found[1] == event.execution_id:
            return
        if found is not None and RuntimeStatus(found[0]).is_final:
            # The id of an ended instance is free for a child: a retry runs it anew, a loop calls it again (RTY-5, rule 41).
            self.delete([(event.instance_id, found[1])])
            if self._insert_child(row):
                return
        status = found[0] if found else "gone"
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
        self._sql.run_many(
            "UPDATE durable_instance SET custom_status = ? WHERE hub = ? AND instance_id = ?",
            [(commit.turn.custom_status, self._hub, commit.record.instance_id) for commit in commits if commit.turn.custom_status_changed],
        )

    def _known(self, worker_id: str, commit: TurnCommit) -> tuple[Any, ...]:
        return (self._hub, commit.record.instance_id, commit.record.execution_id, commit.sequence, worker_id)

    def _go_on(self, worker_id: str, commits: Sequence[TurnCommit], at: Micros) -> None:
        rows = []
        for commit in commits:
            record = commit.record
            rows.append(
                (commit.sequence + len(commit.turn.events), True, at, worker_id if commit.keep else None, self._hub, record.instance_id,
                 *self._known(worker_id, commit))
            )  # fmt: skip
        self._expect(self._sql.run_many(_GO_ON, rows), len(rows))

    def _end(self, worker_id: str, commits: Sequence[TurnCommit], at: Micros) -> None:
        if not commits:
            return
        rows = []
        for commit in commits:
            turn = commit.turn
            rows.append(
                (turn.status.value, commit.sequence + len(turn.events), True, at, at, turn.output, dump_failure(turn.failure),
                 *self._known(worker_id, commit))
            )  # fmt: skip
        self._expect(self._sql.run_many(_END, rows), len(rows))
        self._inbox.delete([commit.record.instance_id for commit in commits])
        self.delete_activities([commit.record.execution_id for commit in commits if commit.turn.open_activities])

    def _continue_as_new(self, worker_id: str, commit: TurnCommit, following: NextGeneration, at: Micros) -> None:
        record = commit.record
        carried = dump([[event.name, event.data] for event in following.carried]) if following.carried else None
        row = (
            following.execution_id, following.input, following.version, carried, False, at, worker_id if commit.keep else None, at,
            *self._known(worker_id, commit),
        )  # fmt: skip
        self._expect(self._sql.run(_CONTINUE_AS_NEW, row), 1)
        self._history.delete_generation(record.instance_id, record.generation)
        self._inbox.delete_execution(record.instance_id, record.execution_id)
        self.delete_activities([record.execution_id])

    def _expect(self, changed: int, wanted: int) -> None:
        if changed != wanted:
            raise StaleTurnError
