"""Store: the protocol of the storage, and the values that cross its border.

Law: nothing here knows tables, SQL or threads. The engine hands over one Batch and gets one Committed back; that is one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from flask_durable.core.events import EventRaised, HistoryEvent, Recorded
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.core.turn import Turn
from flask_durable.errors import DurableError

# ---------------------------------------------------------------- what is read


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One instance as it is stored; payloads are JSON text.

    Args:
        sequence: number of events in the history of the present generation.
        has_started: whether a turn of the present generation has been committed.
        ready_at: when there is work for it; None while it sleeps, is suspended, parked or has ended.
        worker_id: the worker that holds it.
        deliveries: how often it was handed out since its last completed turn.
        parked_reason: why nobody works on it any more; None for all but poisonous ones.
        carried: events that the previous generation left unread, JSON text.
    """

    instance_id: str
    execution_id: str
    generation: int
    name: str
    version: str | None
    status: RuntimeStatus
    input: str | None
    output: str | None
    custom_status: str | None
    failure: FailureDetails | None
    created_at: Micros
    updated_at: Micros
    completed_at: Micros | None
    start_at: Micros | None
    parent_instance_id: str | None
    parent_execution_id: str | None
    parent_task_id: int | None
    tags: Mapping[str, str]
    trace: Mapping[str, str]
    restarted_from: str | None
    sequence: int
    has_started: bool
    ready_at: Micros | None
    worker_id: str | None
    deliveries: int
    parked_reason: str | None
    carried: tuple[EventRaised, ...] = ()


class Order(StrEnum):
    """Order of a list, by creation time and then id."""

    NEWEST_FIRST = "newest"
    OLDEST_FIRST = "oldest"


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Which instances a list or a purge means; an empty one means all.

    A window contains its lower end and not its upper end, unless ``created_to_inclusive`` (the HTTP contract) is set.
    """

    statuses: tuple[RuntimeStatus, ...] = ()
    name: str | None = None
    id_prefix: str | None = None
    created_from: Micros | None = None
    created_to: Micros | None = None
    created_to_inclusive: bool = False
    parent_instance_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    is_parked: bool | None = None


@dataclass(frozen=True, slots=True)
class PagePosition:
    """Where the next page begins: after this creation time and id."""

    created_at: Micros
    instance_id: str


@dataclass(frozen=True, slots=True)
class InstancePage:
    """One page of a list; ``next_position`` is None on the last one."""

    records: tuple[InstanceRecord, ...]
    next_position: PagePosition | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of a history; ``next_sequence`` is the last sequence of this page, None on the last page."""

    events: tuple[Recorded, ...]
    next_sequence: int | None


# ---------------------------------------------------------------- commands: what clients ask for


class IfExists(StrEnum):
    """What starting does when the id is in use."""

    ERROR = "error"
    RETURN = "return"
    REPLACE_FINISHED = "replaceFinished"


@dataclass(frozen=True, slots=True)
class StartInstance:
    """Create an instance; outcome: its id (str)."""

    instance_id: str
    execution_id: str
    name: str
    input: str | None = None
    version: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)
    start_at: Micros | None = None
    if_exists: IfExists = IfExists.ERROR
    restarted_from: str | None = None
    is_id_generated: bool = False


@dataclass(frozen=True, slots=True)
class RaiseEvent:
    """Put an external event into an instance's inbox; outcome: None."""

    instance_id: str
    name: str
    data: str | None = None


@dataclass(frozen=True, slots=True)
class Terminate:
    """End an instance, and its open children when recursive; outcome: None."""

    instance_id: str
    reason: str | None = None
    recursive: bool = True


@dataclass(frozen=True, slots=True)
class Suspend:
    """Hold an instance; outcome: None."""

    instance_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a suspended instance go on; outcome: None."""

    instance_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Purge:
    """Delete an ended instance, and its ended children when recursive; outcome: number of instances deleted (int)."""

    instance_id: str
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class PurgeBy:
    """Delete up to ``limit`` ended instances that a filter means; outcome: number deleted (int)."""

    filter: InstanceFilter
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class FailInstance:
    """End an instance that cannot be run as Failed (unknown orchestrator, wrong version); outcome: None."""

    instance_id: str
    failure: FailureDetails


@dataclass(frozen=True, slots=True)
class Park:
    """Stop handing an instance out and keep the reason; outcome: None."""

    instance_id: str
    reason: str


Command = StartInstance | RaiseEvent | Terminate | Suspend | Resume | Purge | PurgeBy | FailInstance | Park
Outcome = str | int | None | DurableError
"""What came of a command; an error is a value here, so that one command's failure leaves the batch alone."""


def record_of_start(command: StartInstance, at: Micros, worker_id: str) -> InstanceRecord:
    """The instance that a start makes when it is claimed at once by that worker."""
    return InstanceRecord(
        instance_id=command.instance_id, execution_id=command.execution_id, generation=0, name=command.name, version=command.version,
        status=RuntimeStatus.PENDING, input=command.input, output=None, custom_status=None, failure=None, created_at=at, updated_at=at,
        completed_at=None, start_at=command.start_at, parent_instance_id=None, parent_execution_id=None, parent_task_id=None,
        tags=command.tags, trace=command.trace, restarted_from=command.restarted_from, sequence=0, has_started=False, ready_at=at,
        worker_id=worker_id, deliveries=1, parked_reason=None,
    )  # fmt: skip


# ---------------------------------------------------------------- work: what the engine takes and gives back


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A stored message for an instance; ids grow in order of arrival."""

    message_id: int
    event: HistoryEvent


@dataclass(frozen=True, slots=True)
class OrchestrationWorkItem:
    """An instance claimed for a turn, with the messages that are visible now."""

    record: InstanceRecord
    messages: tuple[InboxMessage, ...]


@dataclass(slots=True)
class ActivityWorkItem:
    """An activity call claimed by this worker.

    Args:
        attempt: attempt under a retry policy, 1 for the first.
        deliveries: how often this attempt was handed out; more than 1 after a worker died with it.
        first_task_id: number of the first attempt's call; the same for all attempts.
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

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and delivery of one call, different for all other calls (rule 54)."""
        return f"{self.instance_id}:{self.execution_id}:{self.first_task_id}"


@dataclass(slots=True)
class ActivityResult:
    """The outcome of an activity that ran here."""

    item: ActivityWorkItem
    event: HistoryEvent


@dataclass(slots=True)
class TurnCommit:
    """A turn to be written, for an instance this worker holds.

    Args:
        record: the instance as it was claimed.
        sequence: number of events in its history before the turn.
        messages: ids of the stored messages that the turn consumed.
        results: outcomes of activities that the turn consumed without a stored message.
        claimed_activities: how many of turn.activities this worker keeps for its own pool, from the front.
        keep: whether this worker goes on holding the instance.
    """

    record: InstanceRecord
    sequence: int
    turn: Turn
    messages: Sequence[int] = ()
    results: Sequence[ActivityResult] = ()
    claimed_activities: int = 0
    keep: bool = False


@dataclass(slots=True)
class ClaimRequest:
    """How much work the worker can take along with a commit.

    Args:
        instances: at most so many instances.
        activities: at most so many activities.
        orchestrators: names this worker can run; None for all.
        activity_names: names this worker can run; None for all.
        unknown_before: activities of any name are taken when they were queued before this time, so that a call nobody can serve fails.
        max_deliveries: what was handed out so often is left alone.
        with_suspects: whether to take one piece of work that workers have died with before.
    """

    instances: int = 0
    activities: int = 0
    orchestrators: tuple[str, ...] | None = None
    activity_names: tuple[str, ...] | None = None
    unknown_before: Micros = 0
    max_deliveries: int = 5
    with_suspects: bool = True


@dataclass(slots=True)
class Batch:
    """All that is ready, to be committed in one transaction.

    Args:
        worker_id: who commits; the transaction is refused when its worker row is gone. None for a process without a worker.
        released_activities: claimed calls that were not begun and go back to the queue.
        claim_starts: names of orchestrators whose instances, when started here, are claimed at once by this worker.
        default_version: version of children that are given none (rule 49).
    """

    worker_id: str | None = None
    commands: Sequence[Command] = ()
    turns: Sequence[TurnCommit] = ()
    results: Sequence[ActivityResult] = ()
    released_activities: Sequence[ActivityWorkItem] = ()
    claim: ClaimRequest | None = None
    claim_starts: frozenset[str] = frozenset()
    default_version: str | None = None


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
    has_more: bool = False
    has_new_work: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """What a look at the tables found.

    Args:
        is_ready: whether something can be claimed now.
        next_due: when the next sleeping instance becomes ready.
    """

    is_ready: bool
    next_due: Micros | None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker as others see it."""

    worker_id: str
    host: str
    pid: int
    started_at: Micros
    heartbeat_at: Micros
    expires_at: Micros


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
    def register_worker(self, worker_id: str, lease_seconds: float) -> None:
        """Insert the worker's row; from now on it may commit."""

    def renew_worker(self, worker_id: str, lease_seconds: float) -> bool:
        """Push the expiry out; False when the row is gone."""

    def release_worker(self, worker_id: str) -> None:
        """Give back all that the worker holds and delete its row."""

    def reap_workers(self, own_id: str | None, max_deliveries: int) -> list[str]:
        """Take the work of dead workers away from them, park what too many died with; returns their ids."""

    def workers(self) -> list[WorkerRecord]:
        """All registered workers."""

    # -- the engine
    def peek(self, worker_id: str, claim: ClaimRequest) -> Ready:
        """Look, without writing, whether there is anything to claim."""

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction.

        Raises:
            WorkerLostError: the worker's row is gone; nothing was written.
        """

    def connection(self) -> AbstractContextManager[None]:
        """Keep a connection for the calling thread, for as long as the context lasts."""

    def load_history(self, instance_id: str, generation: int) -> list[Recorded]:
        """The whole history of one generation, in order.

        Raises:
            CorruptHistoryError: a row cannot be read.
        """

    def is_activity_current(self, execution_id: str, task_id: int) -> bool:
        """Whether the result of that call is still wanted."""

    def unknown_orchestrations(self, known: tuple[str, ...], ready_before: Micros, limit: int) -> list[InstanceRecord]:
        """Instances that have been ready since before that time and whose orchestrator is not among the known."""

    # -- clients
    def in_callers_transaction(self) -> bool:
        """Whether the calling thread has a transaction of its own open on this database."""

    def get_instance(self, instance_id: str) -> InstanceRecord | None:
        """One instance, or None."""

    def list_instances(self, wanted: InstanceFilter, *, limit: int, after: PagePosition | None, order: Order) -> InstancePage:
        """One page of the instances that a filter means."""

    def count_instances(self, wanted: InstanceFilter) -> int:
        """How many instances a filter means."""

    def history_page(self, instance_id: str, generation: int, *, after: int, limit: int) -> HistoryPage:
        """Events after that sequence number."""
