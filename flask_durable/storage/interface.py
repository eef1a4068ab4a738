"""Store: the protocol of the storage, and the values that cross its border.

Law: nothing here knows tables, SQL or threads. The engine hands over one Batch and gets one Committed back; that is one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from flask_durable.core.capabilities import Capabilities, Runnable
from flask_durable.core.events import EventRaised, HistoryEvent, Recorded
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.core.turn import Turn
from flask_durable.storage.commands import (
    Command,
    FailInstance,
    IfExists,
    InstanceFilter,
    Outcome,
    Park,
    Purge,
    PurgeBy,
    RaiseEvent,
    Resume,
    Rewind,
    StartInstance,
    Suspend,
    Terminate,
)
from flask_durable.storage.records import (
    HistoryPage,
    IdPage,
    InstancePage,
    InstanceRecord,
    Neighbour,
    Order,
    PagePosition,
    Ready,
    SweepPosition,
    Swept,
    VersionUse,
    record_of_start,
)

__all__ = [
    "ActivityResult",
    "ActivityTransactionError",
    "ActivityWorkItem",
    "Batch",
    "ClaimRequest",
    "Command",
    "Committed",
    "FailInstance",
    "HistoryPage",
    "IdPage",
    "IfExists",
    "InboxMessage",
    "InstanceFilter",
    "InstancePage",
    "InstanceRecord",
    "Listening",
    "NameLimit",
    "Neighbour",
    "OrchestrationWorkItem",
    "Order",
    "Outcome",
    "PagePosition",
    "Park",
    "Purge",
    "PurgeBy",
    "RaiseEvent",
    "Ready",
    "Resume",
    "Rewind",
    "StartInstance",
    "Store",
    "Suspend",
    "SweepPosition",
    "Swept",
    "Terminate",
    "TransactionPhase",
    "TurnCommit",
    "VersionUse",
    "WorkerRecord",
    "record_of_start",
]

# ---------------------------------------------------------------- work: what the engine takes and gives back


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A stored message for an instance; ids grow in order of arrival."""

    message_id: int
    event: HistoryEvent


SUSPECT_DELIVERIES = 2
"""What was handed out so often and not done is claimed one by one: should the worker die with it, it takes no more innocent work along."""


@dataclass(frozen=True, slots=True)
class OrchestrationWorkItem:
    """An instance claimed for a turn, with the messages that are visible now."""

    record: InstanceRecord
    messages: tuple[InboxMessage, ...]

    @property
    def is_suspect(self) -> bool:
        """Whether workers have died with it; its record is from before this claim."""
        return self.record.deliveries >= SUSPECT_DELIVERIES


@dataclass(slots=True)
class ActivityWorkItem:
    """An activity call claimed by this worker.

    Args:
        attempt: attempt under a retry policy, 1 for the first.
        deliveries: how often this attempt was handed out; more than 1 after a worker died with it.
        first_task_id: number of the first attempt's call; the same for all attempts.
        priority: calls with a higher one are run first.
        timeout: what the call says of it, in microseconds; None leaves it to the activity.
        worker_id: who claimed it.
        was_begun: whether an earlier worker began it that must not be followed by another (rule 54).
    """

    instance_id: str
    execution_id: str
    generation: int
    task_id: int
    name: str
    input: str | None
    attempt: int
    first_task_id: int
    deliveries: int
    trace: Mapping[str, str]
    priority: int = 0
    timeout: Micros | None = None
    worker_id: str = ""
    was_begun: bool = False

    @property
    def is_suspect(self) -> bool:
        """Whether workers have died with it before this claim."""
        return self.deliveries > SUSPECT_DELIVERIES

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and delivery of one call, different for all other calls (rule 54)."""
        return f"{self.instance_id}:{self.execution_id}:{self.first_task_id}"


@dataclass(slots=True)
class ActivityResult:
    """The outcome of an activity that ran here."""

    item: ActivityWorkItem
    event: HistoryEvent


class TransactionPhase(StrEnum):
    """How far the transaction of an activity had come when something went wrong."""

    BEGIN = "begin"
    GONE = "gone"
    RECORD = "record"
    COMMIT = "commit"


class ActivityTransactionError(Exception):
    """The transaction of an activity was not begun or not recorded; the activity's code is not to blame.

    Args:
        phase: BEGIN: its code did not run. GONE: the call belongs to another worker or is not wanted; all is rolled back. RECORD: its result could
            not be written; all is rolled back. COMMIT: it is not known whether it was committed.
        error: what went wrong.
        is_passing: whether it may go well another time.
    """

    def __init__(self, phase: TransactionPhase, error: Exception, *, is_passing: bool = False) -> None:
        super().__init__(f"{phase.value}: {type(error).__name__}: {error}")
        self.phase = phase
        self.error = error
        self.is_passing = is_passing


@dataclass(slots=True)
class TurnCommit:
    """A turn to be written, for an instance this worker holds.

    Args:
        record: the instance as it was claimed.
        sequence: number of events in its history before the turn.
        messages: ids of the stored messages that the turn consumed.
        results: outcomes of activities that the turn consumed without a stored message.
        carried: events that the generation before left unread and this turn did not come to, because the instance failed.
        claimed_activities: how many of turn.activities this worker keeps for its own pool, from the front.
        keep: whether this worker goes on holding the instance.
    """

    record: InstanceRecord
    sequence: int
    turn: Turn
    messages: Sequence[int] = ()
    results: Sequence[ActivityResult] = ()
    carried: Sequence[EventRaised] = ()
    claimed_activities: int = 0
    keep: bool = False


@dataclass(frozen=True, slots=True)
class NameLimit:
    """How many calls of a limited activity a worker can take.

    Args:
        free: at most so many more in this process; may be 0.
        hub: at most so many claimed ones in the whole hub, or None.
    """

    name: str
    free: int
    hub: int | None = None


@dataclass(slots=True)
class ClaimRequest:
    """How much work the worker can take along with a commit.

    Args:
        instances: at most so many instances.
        activities: at most so many activities.
        runnable: which instances this worker takes; all by default.
        activity_names: names this worker takes without a limit of their own; None for all others.
        limited: names this worker takes only so many of.
        max_deliveries: what was handed out so often is left alone.
        with_suspects: whether to take one piece of work that workers have died with before.
    """

    instances: int = 0
    activities: int = 0
    runnable: Runnable = field(default_factory=Runnable)
    activity_names: tuple[str, ...] | None = None
    max_deliveries: int = 5
    with_suspects: bool = True
    limited: tuple[NameLimit, ...] = ()


@dataclass(slots=True)
class Batch:
    """All that is ready, to be committed in one transaction.

    Args:
        worker_id: who commits; the transaction is refused when its worker row is gone. None for a process without a worker.
        released_activities: calls of this worker that were not begun and go back to the queue.
        claimed_starts: ids of instances that, when started here, are claimed at once by this worker.
        number: different for each batch of a worker, so that it can find out whether one has landed whose commit was not answered.
    """

    worker_id: str | None = None
    commands: Sequence[Command] = ()
    turns: Sequence[TurnCommit] = ()
    results: Sequence[ActivityResult] = ()
    released_activities: Sequence[ActivityWorkItem] = ()
    claim: ClaimRequest | None = None
    claimed_starts: frozenset[str] = frozenset()
    number: int | None = None


@dataclass(slots=True)
class Committed:
    """What came of a batch.

    Args:
        at: database time of the transaction.
        outcomes: one for each command, in order.
        conflicts: indexes of turns that were not written, because the instance is no longer as the worker knew it.
        orchestrations: instances claimed now, or held before, that have something to do.
        activities: activity calls claimed now.
        started: records of instances started and claimed now.
        ended: ids of instances that reached a final status.
        taken: ids of instances that a command has taken from whoever held them.
        has_more: whether the claim left ready work behind for want of room.
        has_new_work: whether rows were written that somebody should claim.
    """

    at: Micros
    outcomes: list[Outcome] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)
    orchestrations: list[OrchestrationWorkItem] = field(default_factory=list)
    started: list[InstanceRecord] = field(default_factory=list)
    activities: list[ActivityWorkItem] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    has_more: bool = False
    has_new_work: bool = False


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker as others see it, with what it runs."""

    worker_id: str
    host: str
    pid: int
    started_at: Micros
    heartbeat_at: Micros
    expires_at: Micros
    capabilities: Capabilities


class Listening(Protocol):
    """A connection that is told of what others have committed; used by one thread, but for ``interrupt``."""

    def wait(self, seconds: float) -> list[str]:
        """What has been told; waits for so many seconds for the first, or until it is interrupted.

        Raises:
            StoreUnavailableError: the connection is lost.
        """

    def interrupt(self) -> None:
        """End the present wait."""

    def close(self) -> None:
        """Give the connection up."""


class Store(Protocol):
    """The storage of one task hub. Every method may be called from any thread; each is one transaction or one read.

    All raise StoreUnavailableError when the database does not answer within its deadline.
    """

    def now(self) -> Micros:
        """Database time."""

    # -- schema
    def create_tables(self) -> None:
        """Create what is missing and bring the schema to this version; safe to call from several processes at once."""

    def drop_tables(self) -> None:
        """Delete all durable tables with all they hold."""

    def schema_version(self) -> int | None:
        """The version found; None when there are no tables."""

    def check_schema(self) -> None:
        """Raise SchemaVersionError unless the tables fit this code."""

    def close(self) -> None:
        """Give back all connections."""

    # -- workers
    def register_worker(self, worker_id: str, lease_seconds: float, capabilities: Capabilities | None = None) -> None:
        """Insert the worker's row, with what it runs; from now on it may commit."""

    def renew_worker(self, worker_id: str, lease_seconds: float, capabilities: Capabilities | None = None) -> bool:
        """Push the expiry out and, if given, say anew what the worker runs; False when the row is gone."""

    @property
    def sign_interval(self) -> float | None:
        """How often to ask :meth:`has_lost_sign`, in seconds; None where a living worker cannot lose its sign of life."""

    def has_lost_sign(self, worker_id: str) -> bool:
        """Whether a renewal is due now, because others may take that worker for dead; asks nobody."""

    def release_worker(self, worker_id: str) -> None:
        """Give back all that the worker holds and delete its row."""

    def reap_workers(self, own_id: str | None, max_deliveries: int) -> list[str]:
        """Take the work of dead workers away from them, park what too many died with; returns their ids."""

    def workers(self) -> list[WorkerRecord]:
        """All registered workers."""

    def live_workers(self) -> list[WorkerRecord]:
        """The workers whose lease is not over."""

    def may_be_dead(self, neighbours: Sequence[Neighbour]) -> bool:
        """Whether it is worth while to reap: one of these, as they were seen a moment ago, seems to be dead, or database time was set back."""

    # -- the engine
    def peek(self, worker_id: str, claim: ClaimRequest) -> Ready:
        """Look, without writing, whether there is anything to claim; one statement when all is quiet."""

    def change_mark(self) -> object | None:
        """What is not the same any more once another connection has committed; None where that cannot be told. Costs next to nothing.

        The thread must hold a connection.
        """

    def can_listen(self) -> bool:
        """Whether the database tells of commits that leave work for others."""

    def listen(self) -> Listening:
        """Open a connection that hears of all of the hub, as the id of the worker that committed, or an empty text."""

    def tell(self, text: str) -> None:
        """Tell all who listen that."""

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction.

        Raises:
            WorkerLostError: the worker's row is gone; nothing was written.
            OutcomeUnknownError: it may have been written or not; the error has what it came to.
        """

    def has_landed(self, batch: Batch) -> bool:
        """Whether a worker's numbered batch was written, the last one that it has tried to write.

        Raises:
            WorkerLostError: the worker's row is gone, and nobody knows any more.
        """

    def connection(self) -> AbstractContextManager[None]:
        """Keep a connection for the calling thread, for as long as the context lasts."""

    def load_history(self, instance_id: str, generation: int) -> list[Recorded]:
        """The whole history of one generation, in order.

        Raises:
            CorruptHistoryError: a row cannot be read.
        """

    def begin_activity(self, worker_id: str, item: ActivityWorkItem, at: Micros) -> bool:
        """Mark a call that must not be begun twice; False when it no longer belongs to that worker."""

    def activity_turn(self) -> AbstractContextManager[object]:
        """Wait for the transactional activities of this process, if the database runs one at a time."""

    def run_activity(self, item: ActivityWorkItem, work: Callable[[], HistoryEvent]) -> None:
        """Run an activity's code in a transaction of the calling thread that also ends its call and delivers its outcome.

        Raises:
            ActivityTransactionError: the transaction came to nothing, or it is not known whether it did.
            Exception: whatever ``work`` raises; nothing is written.
        """

    def is_activity_held(self, item: ActivityWorkItem) -> bool:
        """Whether the call still belongs to the worker that claimed it; waits for a transaction that is just ending it."""

    def is_activity_current(self, execution_id: str, task_id: int) -> bool:
        """Whether the result of that call is still wanted."""

    def unclaimable(self, workers: Sequence[Runnable], bounds: tuple[str, str] | None, ready_before: Micros, limit: int) -> list[InstanceRecord]:
        """Instances that belong to nobody, have been ready since before that time, and that none of those takes.

        Args:
            workers: what somebody takes.
            bounds: only instances between these version keys.
            ready_before: ready since before this time.
            limit: at most so many, those that have waited longest first.
        """

    def unclaimable_activities(self, known: Sequence[str], queued_before: Micros) -> list[str]:
        """Names, other than those, of activities with calls that have been in the queue since before that time."""

    # -- clients
    def in_callers_transaction(self) -> bool:
        """Whether the calling thread has a transaction of its own open on this database."""

    def get_instance(self, instance_id: str) -> InstanceRecord | None:
        """One instance, or None."""

    def list_instances(
        self, wanted: InstanceFilter, *, limit: int, after: PagePosition | None, order: Order, with_input: bool = True, with_output: bool = True
    ) -> InstancePage:
        """One page of the instances that a filter means; inputs and outputs that are not asked for are not read."""

    def list_ids(self, wanted: InstanceFilter, *, limit: int, after: PagePosition | None, order: Order) -> IdPage:
        """One page of the ids of the instances that a filter means."""

    def version_use(self, name: str | None) -> list[VersionUse]:
        """How many live instances, of that orchestrator or of all, have which version; in order of names and versions."""

    def count_instances(self, wanted: InstanceFilter) -> int:
        """How many instances a filter means."""

    def history_page(self, instance_id: str, generation: int, *, after: int, limit: int) -> HistoryPage:
        """Events after that sequence number."""

    def sweep(self, cutoffs: Mapping[RuntimeStatus, Micros], *, after: SweepPosition | None, limit: int) -> Swept:
        """Look at up to ``limit`` ended instances and delete those that ended before the time that their status has in ``cutoffs``.

        One that has a parent stays while the parent's row is there.
        """
