"""SqlStore: the Store over Peewee; each method is one transaction or one read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import peewee

from flask_durable.clock import Clock, SystemClock
from flask_durable.core.events import EventRaised, Recorded
from flask_durable.core.times import Micros
from flask_durable.errors import InstanceFinishedError, InstanceNotFoundError
from flask_durable.storage.claims import Claims
from flask_durable.storage.database import Sql, open_database, sqlite_path
from flask_durable.storage.history import HistoryRows
from flask_durable.storage.inbox import InboxRows
from flask_durable.storage.instances import InstanceRows
from flask_durable.storage.interface import (
    ActivityResult,
    ActivityWorkItem,
    Batch,
    ClaimRequest,
    Command,
    Committed,
    FailInstance,
    HistoryPage,
    InstanceFilter,
    InstancePage,
    InstanceRecord,
    Order,
    Outcome,
    PagePosition,
    Park,
    Purge,
    PurgeBy,
    RaiseEvent,
    Ready,
    Resume,
    StartInstance,
    Suspend,
    Terminate,
    TurnCommit,
    WorkerRecord,
)
from flask_durable.storage.models import make_tables
from flask_durable.storage.process_lock import ProcessLock
from flask_durable.storage.schema import Schema
from flask_durable.storage.turns import StaleTurnError, TurnRows
from flask_durable.storage.workers import WorkerRows


class SqlStore:
    """The storage of one task hub in a SQL database.

    Args:
        target: what DURABLE_DATABASE says: a URL, or a Peewee Database of the app's own.
        hub: name of the task hub.
        sqlite_synchronous: FULL or NORMAL.
        timeout: seconds for which a busy database is tried again.
        clock: database time on SQLite.
    """

    def __init__(
        self, target: Any, *, hub: str = "default", sqlite_synchronous: str = "FULL", timeout: float = 10.0, clock: Clock | None = None
    ) -> None:
        database, self.name = open_database(target, sqlite_synchronous=sqlite_synchronous, timeout=timeout)
        self._sql = sql = Sql(database, clock or SystemClock(), timeout)
        self._is_own = isinstance(target, str)
        self._schema = Schema(sql, make_tables(database))
        self._history = HistoryRows(sql, hub)
        self._inbox = InboxRows(sql, hub)
        self._turns = TurnRows(sql, hub, self._history, self._inbox)
        self._instances = InstanceRows(sql, hub, self._history, self._inbox, self._turns)
        self._claims = Claims(sql, hub, self._inbox)
        self._workers = WorkerRows(sql, hub, _process_lock(target, database))
        self._hub = hub

    def now(self) -> Micros:
        """Database time."""
        return self._sql.read(self._sql.now)

    def connection(self) -> contextlib.AbstractContextManager[None]:
        """Keep a connection for the calling thread, for as long as the context lasts."""
        return self._sql.connection()

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Around user code in a thread of ours: a connection that it left open on the app's own database is given back."""
        was_closed = self._sql.database.is_closed()
        try:
            yield
        finally:
            if was_closed and not self._is_own and not self._sql.database.is_closed():
                self._sql.database.close()

    # -- schema

    def create_tables(self) -> None:
        """Create what is missing and bring the schema to this version."""
        self._sql.transaction(self._schema.upgrade)

    def drop_tables(self) -> None:
        """Delete all durable tables with all they hold."""
        self._sql.transaction(self._schema.drop)

    def schema_version(self) -> int | None:
        """The version found; None when there are no tables."""
        return self._sql.read(self._schema.version)

    def check_schema(self) -> None:
        """Raise SchemaVersionError unless the tables fit this code."""
        self._sql.read(self._schema.check)

    def close(self) -> None:
        """Give back all connections that are ours."""
        if self._is_own and hasattr(self._sql.database, "close_all"):
            self._sql.database.close_all()

    def close_idle(self) -> None:
        """Close the connections that are ours and not in use."""
        if self._is_own and hasattr(self._sql.database, "close_idle"):
            self._sql.database.close_idle()

    def forget_connections(self) -> None:
        """Drop connections inherited from the parent of a fork, without closing them under it."""
        self._sql.database.dispose()

    # -- workers

    def register_worker(self, worker_id: str, lease_seconds: float) -> None:
        """Insert the worker's row."""
        self._sql.transaction(lambda: self._workers.register(worker_id, lease_seconds))

    def renew_worker(self, worker_id: str, lease_seconds: float) -> bool:
        """Push the expiry out; False when the row is gone."""
        return self._sql.transaction(lambda: self._workers.renew(worker_id, lease_seconds))

    def release_worker(self, worker_id: str) -> None:
        """Give back all that the worker holds and delete its row."""
        self._sql.transaction(lambda: self._workers.release(worker_id))
        self._workers.unlock(worker_id)

    def reap_workers(self, own_id: str | None, max_deliveries: int) -> list[str]:
        """Take the work of dead workers away from them; returns their ids."""
        if not self._sql.read(lambda: self._workers.has_dead(own_id) or self._workers.has_poison(max_deliveries)):
            return []

        def reap() -> list[str]:
            reaped = self._workers.reap(own_id)
            self._workers.park_poison(max_deliveries)
            return reaped

        return self._sql.transaction(reap)

    def workers(self) -> list[WorkerRecord]:
        """All registered workers of the hub."""
        return self._sql.read(self._workers.all)

    # -- the engine

    def peek(self, worker_id: str, claim: ClaimRequest) -> Ready:
        """Look, without writing, whether there is anything to claim."""
        return self._sql.read(lambda: self._claims.peek(worker_id, claim, self._sql.now()))

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction.

        Raises:
            WorkerLostError: the worker's row is gone; nothing was written.
        """
        try:
            return self._sql.transaction(lambda: self._write(batch, is_careful=False))
        except StaleTurnError:
            return self._sql.transaction(lambda: self._write(batch, is_careful=True))

    def _write(self, batch: Batch, *, is_careful: bool) -> Committed:
        if batch.worker_id is not None:
            self._workers.fence(batch.worker_id)
        committed = Committed(self._sql.now())
        for command in batch.commands:
            committed.outcomes.append(self._execute(command, batch, committed))
        if is_careful:
            committed.conflicts = self._turns.stale(batch.worker_id or "", batch.turns)
        if batch.turns:
            self._write_turns(batch, committed, is_careful)
        for result in batch.results:
            committed.has_new_work |= self._deliver(batch.worker_id, result, committed.at)
        if batch.released_activities:
            self._release_activities(batch.released_activities)
        if batch.claim is not None and batch.worker_id is not None:
            self._claims.take(batch.worker_id, batch.claim, committed.at, committed)
        return committed

    def _write_turns(self, batch: Batch, committed: Committed, is_careful: bool) -> None:
        turns: Sequence[TurnCommit] = batch.turns
        if committed.conflicts:
            left_out = set(committed.conflicts)
            turns = [commit for index, commit in enumerate(turns) if index not in left_out]
        if turns:
            committed.has_new_work |= self._write_fitting(turns, batch, committed, is_careful)
            committed.ended.extend(commit.record.instance_id for commit in turns if commit.turn.status.is_final)

    def _write_fitting(self, turns: Sequence[TurnCommit], batch: Batch, committed: Committed, is_careful: bool) -> bool:
        try:
            return self._turns.write(batch.worker_id or "", turns, committed.at, batch.default_version)
        except peewee.IntegrityError as error:
            if is_careful:
                raise
            # Most likely the history has grown from outside, by a suspension or the like: find out which turns are stale.
            raise StaleTurnError from error

    def _execute(self, command: Command, batch: Batch, committed: Committed) -> Outcome:
        match command:
            case StartInstance():
                return self._start(command, batch, committed)
            case Terminate() | FailInstance():
                return self._end(command, committed)
            case RaiseEvent():
                committed.has_new_work = True
                return self._raise_event(command, committed.at)
            case Suspend():
                return self._instances.suspend(command, committed.at)
            case Resume():
                committed.has_new_work = True
                return self._instances.resume(command, committed.at)
            case Park():
                return self._instances.park(command, committed.at)
            case Purge():
                return self._instances.purge(command)
            case PurgeBy():
                return self._instances.purge_by(command)

    def _start(self, command: StartInstance, batch: Batch, committed: Committed) -> Outcome:
        claimed_by = batch.worker_id if command.name in batch.claim_starts else None
        outcome, record = self._instances.start(command, committed.at, claimed_by)
        if record is not None:
            committed.started.append(record)
        else:
            committed.has_new_work = True
        return outcome

    def _end(self, command: Terminate | FailInstance, committed: Committed) -> Outcome:
        if isinstance(command, Terminate):
            outcome, ended = self._instances.terminate(command, committed.at)
        else:
            outcome, ended = self._instances.fail(command, committed.at)
        committed.ended.extend(ended)
        committed.has_new_work = True
        return outcome

    def _raise_event(self, command: RaiseEvent, at: Micros) -> Outcome:
        if self._inbox.put(command.instance_id, EventRaised(command.name, command.data), at):
            return None
        record = self._instances.get(command.instance_id)
        return InstanceNotFoundError(command.instance_id) if record is None else InstanceFinishedError(record.instance_id, record.status)

    def _deliver(self, worker_id: str | None, result: ActivityResult, at: Micros) -> bool:
        item = result.item
        is_wanted = self._sql.run(
            "DELETE FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ? AND worker_id = ?",
            (self._hub, item.execution_id, item.task_id, worker_id),
        )
        return bool(is_wanted) and self._inbox.put(item.instance_id, result.event, at, execution_id=item.execution_id)

    def _release_activities(self, items: Sequence[ActivityWorkItem]) -> None:
        self._sql.run_many(
            "UPDATE durable_activity SET worker_id = NULL, deliveries = deliveries - 1 WHERE hub = ? AND execution_id = ? AND task_id = ? AND deliveries > 0",
            [(self._hub, item.execution_id, item.task_id) for item in items],
        )

    def load_history(self, instance_id: str, generation: int) -> list[Recorded]:
        """The whole history of one generation, in order."""
        return self._sql.read(lambda: self._history.load(instance_id, generation))

    def is_activity_current(self, execution_id: str, task_id: int) -> bool:
        """Whether the result of that call is still wanted."""
        text = "SELECT 1 FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ?"
        return self._sql.read(lambda: self._sql.row(text, (self._hub, execution_id, task_id))) is not None

    def unknown_orchestrations(self, known: tuple[str, ...], ready_before: Micros, limit: int) -> list[InstanceRecord]:
        """Instances that have been ready since before that time and whose orchestrator is not among the known."""
        return self._sql.read(lambda: self._instances.unknown(known, ready_before, limit))

    # -- clients

    def in_callers_transaction(self) -> bool:
        """Whether the calling thread has a transaction of its own open on this database."""
        return not self._is_own and not self._sql.database.is_closed() and bool(self._sql.database.in_transaction())

    def after_commit(self, call: Any) -> None:
        """Call that once the caller's open transaction is committed; at once when there is none."""
        self._sql.database.after_commit(call)

    def get_instance(self, instance_id: str) -> InstanceRecord | None:
        """One instance, or None."""
        return self._sql.read(lambda: self._instances.get(instance_id))

    def list_instances(self, wanted: InstanceFilter, *, limit: int, after: PagePosition | None, order: Order) -> InstancePage:
        """One page of the instances that a filter means."""
        return self._sql.read(lambda: self._instances.page(wanted, limit, after, order))

    def count_instances(self, wanted: InstanceFilter) -> int:
        """How many instances a filter means."""
        return self._sql.read(lambda: self._instances.count(wanted))

    def history_page(self, instance_id: str, generation: int, *, after: int, limit: int) -> HistoryPage:
        """Events after that sequence number."""
        return self._sql.read(lambda: self._history.page(instance_id, generation, after, limit))


def _process_lock(target: Any, database: peewee.Database) -> ProcessLock | None:
    if isinstance(target, str) and isinstance(database, peewee.SqliteDatabase):
        return ProcessLock(sqlite_path(target))
    return None
