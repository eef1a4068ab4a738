"""Records: instances as they are stored, and pages of what is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from flask_durable.core.events import EventRaised, Recorded
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.storage.commands import StartInstance


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
    """Order of a list, by creation time and then id, or by completion time and then id: that one holds ended instances only (QRY-3)."""

    NEWEST_FIRST = "newest"
    OLDEST_FIRST = "oldest"
    FIRST_COMPLETED = "firstCompleted"
    LAST_COMPLETED = "lastCompleted"

    @property
    def is_by_completion(self) -> bool:
        """Whether it goes by the time of completion."""
        return self in (Order.FIRST_COMPLETED, Order.LAST_COMPLETED)

    @property
    def is_descending(self) -> bool:
        """Whether the latest come first."""
        return self in (Order.NEWEST_FIRST, Order.LAST_COMPLETED)


@dataclass(frozen=True, slots=True)
class PagePosition:
    """Where the next page begins: after this time, of creation or completion as the order has it, and id."""

    at: Micros
    instance_id: str


@dataclass(frozen=True, slots=True)
class InstancePage:
    """One page of a list; ``next_position`` is None on the last one."""

    records: tuple[InstanceRecord, ...]
    next_position: PagePosition | None


@dataclass(frozen=True, slots=True)
class SweepPosition:
    """Where retention looks on: after this time of ending and id."""

    completed_at: Micros
    instance_id: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What one step of retention did; ``next_position`` is None when it has seen all that is old enough."""

    deleted: int
    next_position: SweepPosition | None


@dataclass(frozen=True, slots=True)
class IdPage:
    """One page of ids; ``next_position`` is None on the last one."""

    ids: tuple[str, ...]
    next_position: PagePosition | None


@dataclass(frozen=True, slots=True)
class VersionUse:
    """How many live instances of one orchestrator have one version, by status (rule 50)."""

    name: str
    version: str | None
    counts: Mapping[RuntimeStatus, int]


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of a history; ``next_sequence`` is the last sequence of this page, None on the last page."""

    events: tuple[Recorded, ...]
    next_sequence: int | None


def record_of_start(command: StartInstance, at: Micros, worker_id: str) -> InstanceRecord:
    """The instance that a start makes when it is claimed at once by that worker."""
    return InstanceRecord(
        instance_id=command.instance_id, execution_id=command.execution_id, generation=0, name=command.name, version=command.version,
        status=RuntimeStatus.PENDING, input=command.input, output=None, custom_status=None, failure=None, created_at=at, updated_at=at,
        completed_at=None, start_at=command.start_at, parent_instance_id=None, parent_execution_id=None, parent_task_id=None,
        tags=command.tags, trace=command.trace, restarted_from=command.restarted_from, sequence=0, has_started=False, ready_at=at,
        worker_id=worker_id, deliveries=1, parked_reason=None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another worker of the hub, with what shows whether it lives."""

    worker_id: str
    expires_at: Micros
    lock_slot: int | None
    heartbeat_at: Micros
    is_free: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """What a look at the tables found.

    Args:
        is_ready: whether something can be claimed now.
        next_due: when the next sleeping instance becomes ready.
        is_registered: whether the worker's own row is still there.
        is_left: whether something is due that belongs to nobody and that this worker does not take now.
        waits_for_room: whether calls wait for the limits of their names.
        neighbours: the other workers.
    """

    is_ready: bool
    next_due: Micros | None
    is_registered: bool = True
    is_left: bool = False
    waits_for_room: bool = False
    neighbours: tuple[Neighbour, ...] = ()
