"""SqlStore: the Store over Peewee; each method is one transaction or one read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import peewee

from flask_durable.clock import Clock, SystemClock
from flask_durable.core.capabilities import Capabilities, Runnable
from flask_durable.core.events import EventRaised, HistoryEvent, Recorded
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.errors import InstanceFinishedError, InstanceNotFoundError
from flask_durable.storage import callers
from flask_durable.storage.calls import CallRows
from flask_durable.storage.claims import Claims
from flask_durable.storage.clock_steps import ClockSteps, catch_up
from flask_durable.storage.database import ServerOptions, Sql, forget_connections, open_database
from flask_durable.storage.event_keys import EventKeyRows
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
    IdPage,
    InstanceFilter,
    InstancePage,
    InstanceRecord,
    Listening,
    Neighbour,
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
)
from flask_durable.storage.listening import PostgresListening, can_listen, change_mark
from flask_durable.storage.lists import Lists
from flask_durable.storage.models import make_tables
from flask_durable.storage.outcomes import Mark, Outcomes
from flask_durable.storage.retention import RetentionRows
from flask_durable.storage.rewinds import RewindRows
from flask_durable.storage.schema import Schema
from flask_durable.storage.signs import sign_of
from flask_durable.storage.transactional import ActivityTransactions
from flask_durable.storage.turns import StaleTurnError, TurnRows, first_turns
from flask_durable.storage.wakes import Channel, Wakes
from flask_durable.storage.workers import Death, WorkerRows


class SqlStore:
    """The storage of one task hub in a SQL database.

    Args:
        target: what DURABLE_DATABASE says: a URL, or a Peewee Database of the app's own.
        hub: name of the task hub.
        sqlite_synchronous: FULL or NORMAL.
        timeout: seconds for which a busy database is tried again.
        server: for a database on a server.
        clock: database time on SQLite.
    """

    def __init__(
        self,
        target: Any,
        *,
        hub: str = "default",
        sqlite_synchronous: str = "FULL",
        timeout: float = 10.0,
        server: ServerOptions = ServerOptions(),  # noqa: B008 - frozen
        clock: Clock | None = None,
    ) -> None:
        database, self.name = open_database(target, sqlite_synchronous=sqlite_synchronous, timeout=timeout, server=server)
        clock = clock or SystemClock()
        self._sql = sql = Sql(database, clock, timeout)
        self._steps = ClockSteps(clock)
        self._is_own = isinstance(target, str)
        self._schema = Schema(sql, make_tables(database), hub)
        self._history = HistoryRows(sql, hub)
        self._wakes = Wakes()
        self._inbox = InboxRows(sql, hub, self._wakes)
        self._event_keys = EventKeyRows(sql, hub)
        self._turns = TurnRows(sql, hub, self._history, self._inbox, self._event_keys, self._wakes)
        self._instances = InstanceRows(sql, hub, self._history, self._inbox, self._turns)
        self._lists = Lists(sql, hub)
        self._calls = CallRows(sql, hub)
        self._rewinds = RewindRows(sql, hub, self._history, self._inbox, self._turns)
        self._sign = sign_of(target, sql, timeout)
        self._claims = Claims(sql, hub, self._inbox, self._calls, self._sign, self._steps)
        self._workers = WorkerRows(sql, hub, self._sign, self._steps)
        self._retention = RetentionRows(sql, hub, self._history, self._turns)
        self._transactions = ActivityTransactions(sql, hub, self._deliver_alone)
        self._outcomes = Outcomes(sql)
        self._hub = hub
        self._timeout = timeout
        self._channel = Channel(sql, hub)

    def now(self) -> Micros:
        """Database time, told from the last answer of a server when that is fresh."""
        recent = self._sql.recent_now()
        return self._sql.read(self._sql.now) if recent is None else recent

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
        self._sql.transaction(self._schema.upgrade, is_slow=True)

    def drop_tables(self) -> None:
        """Delete all durable tables with all they hold."""
        self._sql.transaction(self._schema.drop, is_slow=True)

    def schema_version(self) -> int | None:
        """The version found; None when there are no tables."""
        return self._sql.read(self._schema.version)

    def check_schema(self) -> None:
        """Raise SchemaVersionError unless the tables fit this code."""
        self._sql.read(self._schema.check)

    def close(self) -> None:
        """Give back all connections that are ours."""
        self._sign.close()
        if self._is_own and hasattr(self._sql.database, "close_all"):
            self._sql.database.close_all()

    def close_idle(self) -> None:
        """Close the connections that are ours and not in use."""
        if self._is_own and hasattr(self._sql.database, "close_idle"):
            self._sql.database.close_idle()

    def forget_connections(self) -> None:
        """Drop connections inherited from the parent of a fork, without closing them under it."""
        self._outcomes.forget()
        forget_connections(self._sql.database)
        self._sign.forget()

    # -- workers

    def register_worker(self, worker_id: str, lease_seconds: float, capabilities: Capabilities | None = None) -> None:
        """Insert the worker's row, with what it runs."""
        self._workers.take_sign(worker_id)
        self._sql.transaction(lambda: self._workers.register(worker_id, lease_seconds, capabilities), is_vital=True)

    def renew_worker(self, worker_id: str, lease_seconds: float, capabilities: Capabilities | None = None) -> bool:
        """Push the expiry out and, if given, say anew what the worker runs; False when the row is gone."""
        return self._workers.renew(worker_id, lease_seconds, capabilities)

    @property
    def sign_interval(self) -> float | None:
        """How often to ask :meth:`has_lost_sign`, in seconds; None where a living worker cannot lose its sign of life."""
        return self._sign.grace / 2 or None

    def has_lost_sign(self, worker_id: str) -> bool:
        """Whether a renewal is due now, because others may take that worker for dead; asks nobody."""
        return self._workers.has_lost_sign(worker_id)

    def release_worker(self, worker_id: str) -> None:
        """Give back all that the worker holds and delete its row."""

        def release() -> None:
            self._workers.release(worker_id)
            self._channel.tell(worker_id)

        self._sql.transaction(release, is_vital=True)
        self._workers.unlock(worker_id)

    def reap_workers(self, own_id: str | None, max_deliveries: int) -> list[str]:
        """Take the work of dead workers away from them; returns their ids."""
        self._catch_up(own_id)
        found = self._sql.read(lambda: self._workers.has_dead(own_id) or self._workers.has_poison(max_deliveries), is_vital=True)
        if not found:
            return []
        if found is Death.SEEN:
            time.sleep(self._sign.grace)  # whose connection was cut although it lives takes a new slot meanwhile

        def reap() -> list[str]:
            reaped = self._workers.reap(own_id)
            self._workers.park_poison(max_deliveries)
            if reaped:
                self._channel.tell(own_id or "")
            return reaped

        return self._sql.transaction(reap, is_vital=True)

    def workers(self) -> list[WorkerRecord]:
        """All registered workers of the hub."""
        return self._sql.read(self._workers.all)

    def live_workers(self) -> list[WorkerRecord]:
        """The workers of the hub whose lease is not over."""
        return self._sql.read(self._workers.live)

    def may_be_dead(self, neighbours: Sequence[Neighbour]) -> bool:
        """Whether one of these workers, as they were seen a moment ago, seems to be dead."""
        return self._steps.was_set_back or (bool(neighbours) and self._workers.may_be_dead(neighbours, self.now()))

    def _catch_up(self, own_id: str | None) -> None:
        if self._steps.was_set_back:
            self._steps.was_set_back = False
            self._sql.transaction(lambda: catch_up(self._sql, self._hub, lambda: self._channel.tell(own_id or "")), is_vital=True)

    # -- the engine

    def peek(self, worker_id: str, claim: ClaimRequest) -> Ready:
        """Look, without writing, whether there is anything to claim; one statement when all is quiet."""
        return self._sql.read(lambda: self._claims.peek(worker_id, claim))

    def change_mark(self) -> object | None:
        """What is not the same any more once another connection has committed; None on a server database."""
        return change_mark(self._sql.database)

    def can_listen(self) -> bool:
        """Whether the database tells of commits that leave work for others: PostgreSQL, with the driver psycopg 3."""
        return can_listen(self._sql.database)

    def listen(self) -> Listening:
        """Open a connection that hears of all of the hub, as the id of the worker that committed, or an empty text."""
        return PostgresListening(self._sql.database, self._channel.name, self._timeout)

    def tell(self, text: str) -> None:
        """Tell all who listen that."""
        self._sql.read(lambda: self._channel.tell(text))

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction.

        Raises:
            WorkerLostError: the worker's row is gone; nothing was written.
        """
        if batch.worker_id is None and not self._is_own:
            callers.begin_what_is_due(self._sql.database)
        try:
            return self._commit(batch, is_careful=False)
        except StaleTurnError:
            pass
        except peewee.IntegrityError:
            if not batch.turns:
                raise
            # Most likely the history has grown from outside, by a suspension or the like: find out which turns are stale.
        return self._commit(batch, is_careful=True)

    def _commit(self, batch: Batch, *, is_careful: bool) -> Committed:
        if batch.worker_id is None and not self._sql.is_joining():
            with self._outcomes.mark() as mark:
                return self._sql.transaction(lambda: self._write(batch, is_careful, mark), has_landed=lambda: self._outcomes.has_landed(mark))
        # What has no number can be done twice
        has_landed = None if batch.number is None else lambda: self._has_landed(batch)
        return self._sql.transaction(lambda: self._write(batch, is_careful, None), has_landed=has_landed)

    def has_landed(self, batch: Batch) -> bool:
        """Whether a worker's numbered batch was written, the last one that it has tried to write."""
        return self._sql.transaction(lambda: self._has_landed(batch))

    def _has_landed(self, batch: Batch) -> bool:
        return self._outcomes.has_worker_landed(batch.worker_id or "", batch.number or 0)

    def _write(self, batch: Batch, is_careful: bool, mark: Mark | None) -> Committed:
        self._wakes.clear()
        at_once = {} if is_careful else first_turns(batch)
        is_plain = not is_careful and all(isinstance(command, StartInstance) and command.is_id_generated for command in batch.commands)
        with self._sql.pipeline() if is_plain else contextlib.nullcontext():
            committed = Committed(self._sql.now() if batch.worker_id is None else self._workers.fence(batch.worker_id, batch.number))
            if mark is not None:
                self._outcomes.write(mark, committed.at)
            for command in batch.commands:
                committed.outcomes.append(self._execute(command, batch, committed, at_once))
            if is_careful:
                committed.conflicts = self._turns.stale(batch.worker_id or "", batch.turns)
            if batch.turns:
                self._write_turns(batch, committed, at_once.keys())
            for result in batch.results:
                committed.has_new_work |= self._deliver(batch.worker_id, result, committed.at)
            if batch.released_activities:
                self._calls.release(batch.worker_id or "", batch.released_activities)
                self._wakes.anything()
        if batch.claim is not None and batch.worker_id is not None:
            self._claims.take(batch.worker_id, batch.claim, committed.at, committed)
        if self._wakes.are_left(batch, committed):
            self._channel.tell(batch.worker_id or "")
        return committed

    def _write_turns(self, batch: Batch, committed: Committed, at_once: Collection[str]) -> None:
        turns: Sequence[TurnCommit] = batch.turns
        if committed.conflicts:
            left_out = set(committed.conflicts)
            turns = [commit for index, commit in enumerate(turns) if index not in left_out]
        if turns:
            committed.has_new_work |= self._turns.write(batch.worker_id or "", turns, committed.at, at_once)
            committed.ended.extend(commit.record.instance_id for commit in turns if commit.turn.status.is_final)
            for commit in turns:
                if commit.turn.bound_children:
                    committed.ended.extend(self._instances.end_children(commit.record, commit.turn.bound_children, committed.at))

    def _execute(self, command: Command, batch: Batch, committed: Committed, at_once: Mapping[str, TurnCommit]) -> Outcome:
        match command:
            case StartInstance():
                return self._start(command, batch, committed, at_once.get(command.instance_id))
            case Terminate() | FailInstance():
                return self._end(command, committed)
            case RaiseEvent():
                committed.has_new_work = True
                return self._raise_event(command, committed.at)
            case Suspend() | Resume():
                return self._hold_or_go_on(command, committed)
            case Park():
                return self._instances.park(command, committed.at)
            case Rewind():
                outcome, rewound = self._rewinds.rewind(command, committed.at)
                committed.taken.extend(rewound)
                committed.has_new_work = True
                self._wakes.anything()
                return outcome
            case Purge():
                return self._instances.purge(command)
            case PurgeBy():
                return self._instances.purge_by(command)

    def _start(self, command: StartInstance, batch: Batch, committed: Committed, first_turn: TurnCommit | None) -> Outcome:
        claimed_by = batch.worker_id if command.instance_id in batch.claimed_starts else None
        outcome, record = self._instances.start(command, committed.at, claimed_by, first_turn)
        if record is not None:
            committed.started.append(record)
        else:
            committed.has_new_work = True
            if outcome == command.instance_id:
                self._wakes.instance(command.instance_id)
        return outcome

    def _end(self, command: Terminate | FailInstance, committed: Committed) -> Outcome:
        if isinstance(command, Terminate):
            outcome, ended = self._instances.terminate(command, committed.at)
        else:
            outcome, ended = self._instances.fail(command, committed.at)
        committed.ended.extend(ended)
        committed.has_new_work = True
        return outcome

    def _hold_or_go_on(self, command: Suspend | Resume, committed: Committed) -> Outcome:
        if isinstance(command, Suspend):
            outcome, taken = self._instances.suspend(command, committed.at)
        else:
            outcome, taken = self._instances.resume(command, committed.at)
            committed.has_new_work = True
            self._wakes.anything()
        committed.taken.extend(taken)
        return outcome

    def _raise_event(self, command: RaiseEvent, at: Micros) -> Outcome:
        key = command.dedup_key
        if key is not None and self._instances.is_there(command.instance_id) and self._event_keys.is_used(command.instance_id, key):
            return None
        if self._inbox.put(command.instance_id, EventRaised(command.name, command.data), at):
            if key is not None:
                self._event_keys.use(command.instance_id, key, at)
            return None
        record = self._instances.get(command.instance_id)
        return InstanceNotFoundError(command.instance_id) if record is None else InstanceFinishedError(record.instance_id, record.status)

    def _deliver(self, worker_id: str | None, result: ActivityResult, at: Micros) -> bool:
        item = result.item
        if not self._sql.is_sqlite:
            self._instances.is_there(item.instance_id)  # locked first, as whoever ends the instance does before it deletes its calls
        is_wanted = self._sql.run(
            "DELETE FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ? AND worker_id = ?",
            (self._hub, item.execution_id, item.task_id, worker_id),
        )
        return bool(is_wanted) and self._inbox.put(item.instance_id, result.event, at, execution_id=item.execution_id)

    def _deliver_alone(self, worker_id: str | None, result: ActivityResult, at: Micros) -> bool:
        is_wanted = self._deliver(worker_id, result, at)
        if is_wanted:
            self._channel.tell_unless_held(result.item.instance_id, worker_id or "")
        return is_wanted

    def load_history(self, instance_id: str, generation: int) -> list[Recorded]:
        """The whole history of one generation, in order."""
        return self._sql.read(lambda: self._history.load(instance_id, generation))

    def begin_activity(self, worker_id: str, item: ActivityWorkItem, at: Micros) -> bool:
        """Mark a call that must not be begun twice; False when it no longer belongs to that worker."""
        return self._sql.transaction(lambda: self._calls.begin(worker_id, item, at))

    @property
    def is_shared(self) -> bool:
        """Whether the app writes into this database through the same object, so that both can be one transaction."""
        return not self._is_own

    def activity_turn(self) -> contextlib.AbstractContextManager[object]:
        """Wait for the transactional activities of this process, if the database runs one at a time."""
        return self._transactions.turn()

    def run_activity(self, item: ActivityWorkItem, work: Callable[[], HistoryEvent]) -> None:
        """Run an activity's code in a transaction that also ends its call and delivers its outcome."""
        self._transactions.run(item, work)

    def is_activity_held(self, item: ActivityWorkItem) -> bool:
        """Whether the call still belongs to the worker that claimed it."""
        return self._transactions.is_held(item)

    def is_activity_current(self, execution_id: str, task_id: int) -> bool:
        """Whether the result of that call is still wanted."""
        text = (
            "SELECT 1 FROM durable_activity a JOIN durable_instance i ON i.hub = a.hub AND i.instance_id = a.instance_id"
            " WHERE a.hub = ? AND a.execution_id = ? AND a.task_id = ? AND COALESCE(i.completed_at, 0) = 0"
        )
        return self._sql.read(lambda: self._sql.row(text, (self._hub, execution_id, task_id))) is not None

    def unclaimable(self, workers: Sequence[Runnable], bounds: tuple[str, str] | None, ready_before: Micros, limit: int) -> list[InstanceRecord]:
        """Instances that belong to nobody, have been ready since before that time, and that none of those takes."""
        return self._sql.read(lambda: self._claims.left_over(workers, bounds, ready_before, limit))

    def unclaimable_activities(self, known: Sequence[str], queued_before: Micros) -> list[str]:
        """Names, other than those, of activities with calls that have been in the queue since before that time."""
        return self._sql.read(lambda: self._claims.left_over_activities(known, queued_before))

    # -- retention

    def sweep(self, cutoffs: Mapping[RuntimeStatus, Micros], *, after: SweepPosition | None, limit: int) -> Swept:
        """Look at some ended instances and delete those that are old enough."""
        candidates, following = self._sql.read(lambda: self._retention.look(cutoffs, after, limit))
        deleted = self._sql.transaction(lambda: self._retention.delete(candidates)) if candidates else 0
        return Swept(deleted, following)

    # -- clients

    def in_callers_transaction(self) -> bool:
        """Whether the calling thread has a transaction of its own open on this database."""
        return not self._is_own and callers.in_transaction(self._sql.database)

    def after_commit(self, call: Any) -> None:
        """Call that once the caller's open transaction is committed; not at all for one that Peewee does not commit, such as in ``manual_commit()``."""
        callers.after_commit(self._sql.database, call)

    def get_instance(self, instance_id: str) -> InstanceRecord | None:
        """One instance, or None."""
        return self._sql.read(lambda: self._instances.get(instance_id))

    def list_instances(
        self, wanted: InstanceFilter, *, limit: int, after: PagePosition | None, order: Order, with_input: bool = True, with_output: bool = True
    ) -> InstancePage:
        """One page of the instances that a filter means; inputs and outputs that are not asked for are not read."""
        return self._sql.read(lambda: self._lists.page(wanted, limit, after, order, with_input=with_input, with_output=with_output))

    def list_ids(self, wanted: InstanceFilter, *, limit: int, after: PagePosition | None, order: Order) -> IdPage:
        """One page of the ids of the instances that a filter means."""
        return self._sql.read(lambda: self._lists.ids(wanted, limit, after, order))

    def version_use(self, name: str | None) -> list[VersionUse]:
        """How many live instances, of that orchestrator or of all, have which version; in order of names and versions."""
        return self._sql.read(lambda: self._lists.version_use(name))

    def count_instances(self, wanted: InstanceFilter) -> int:
        """How many instances a filter means."""
        return self._sql.read(lambda: self._lists.count(wanted))

    def history_page(self, instance_id: str, generation: int, *, after: int, limit: int) -> HistoryPage:
        """Events after that sequence number."""
        return self._sql.read(lambda: self._history.page(instance_id, generation, after, limit))
