"""Commands: what clients ask of the storage, as values; each is carried out inside the transaction of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.errors import DurableError


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Which instances a list or a purge means; an empty one means all.

    A window contains its lower end and not its upper end, unless ``created_to_inclusive`` (the HTTP contract) is set; that holds for both windows.
    What has not ended is in no window of completion. ``has_version`` and ``is_root`` ask for those with and without a version or a parent.
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
    completed_from: Micros | None = None
    completed_to: Micros | None = None
    has_version: bool | None = None
    is_root: bool | None = None


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
    """Put an external event into an instance's inbox, unless one with the same key was accepted before; outcome: None."""

    instance_id: str
    name: str
    data: str | None = None
    dedup_key: str | None = None


@dataclass(frozen=True, slots=True)
class Terminate:
    """End an instance, and its open children when recursive; outcome: None."""

    instance_id: str
    reason: str | None = None
    recursive: bool = True


@dataclass(frozen=True, slots=True)
class Suspend:
    """Hold an instance, and its open children when recursive; outcome: None."""

    instance_id: str
    reason: str | None = None
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a suspended instance go on, and its suspended children when recursive; outcome: None."""

    instance_id: str
    reason: str | None = None
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class Purge:
    """Delete an ended instance, and its ended children when recursive; outcome: number of instances deleted (int)."""

    instance_id: str
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class PurgeBy:
    """Delete up to ``limit`` ended instances that a filter means, and their ended descendants when recursive; outcome: number deleted (int)."""

    filter: InstanceFilter
    limit: int = 1000
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class Rewind:
    """Let a failed instance run on from where it was sound (rule 45); outcome: None."""

    instance_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class FailInstance:
    """End an instance that cannot be run as Failed (unknown orchestrator, wrong version); outcome: None.

    With ``execution_id`` only that execution is meant: the id may have been given to another instance meanwhile.
    """

    instance_id: str
    failure: FailureDetails
    execution_id: str | None = None


@dataclass(frozen=True, slots=True)
class Park:
    """Stop handing an instance out and keep the reason; outcome: None. ``execution_id`` as for FailInstance."""

    instance_id: str
    reason: str
    execution_id: str | None = None


Command = StartInstance | RaiseEvent | Terminate | Suspend | Resume | Purge | PurgeBy | Rewind | FailInstance | Park
Outcome = str | int | None | DurableError
"""What came of a command; an error is a value here, so that one command's failure leaves the batch alone."""
