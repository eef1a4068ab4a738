"""DurableClient: the management service that HTTP, the command line and user code call."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from flask_durable.config import Settings
from flask_durable.core import codec
from flask_durable.core.ids import check_dedup_key, check_instance_id, check_name, check_version
from flask_durable.core.signature import orchestrator_signature
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.tags import check_tags
from flask_durable.core.times import Micros, to_micros
from flask_durable.errors import (
    CorruptHistoryError,
    DurableError,
    InstanceNotFailedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    WaitTimeoutError,
)
from flask_durable.logs import get_logger
from flask_durable.queries import Queries, known_id
from flask_durable.registry import Registry
from flask_durable.statuses import OrchestrationStatus, status_of
from flask_durable.storage.interface import (
    Command,
    IfExists,
    InstanceFilter,
    Order,
    Outcome,
    Purge,
    PurgeBy,
    RaiseEvent,
    Resume,
    Rewind,
    StartInstance,
    Store,
    Suspend,
    Terminate,
)
from flask_durable.telemetry import Telemetry
from flask_durable.watchers import Watchers

logger = get_logger("flask_durable.client")

_PURGE_BATCH = 500
_RECHECK = 1.0
"""Seconds after which a wait looks at the database all the same: a process without a worker may have terminated the instance."""
_REWIND_PAGE = 100


class DurableClient(Queries):
    """Starts, watches and controls the instances of one app.

    Args:
        store: where they are kept.
        execute: hands a command to whoever commits it, and returns its outcome.
    """

    def __init__(
        self, store: Store, *, execute: Callable[[Command], Outcome], registry: Registry, settings: Settings, watchers: Watchers, telemetry: Telemetry
    ) -> None:
        super().__init__(store, registry, telemetry)
        self._execute = execute
        self._settings = settings
        self._watchers = watchers

    # -- starting

    def start(
        self,
        orchestrator: object,
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_exists: str = IfExists.ERROR,
    ) -> str:
        """Start an instance and return its id once that is durable (SCH-1).

        Args:
            orchestrator: the function or its registered name.
            input: a value of any kind in docs/values.md; it has to fit the type that an orchestrator registered here declares.
            instance_id: an id of your own; otherwise one is made.
            start_at: not before this moment (naive: UTC).
            version: its version; otherwise that of the function, else ``DURABLE_VERSION``, else the newest that the name is registered for (rule 49).
            tags: a small string map, shown and searchable.
            if_exists: when the id is in use: ``"error"``, ``"return"`` the existing id, or ``"replaceFinished"`` (SCH-2).

        Raises:
            InstanceExistsError: the id is in use.
            InvalidArgumentError: an argument is wrong; the message says which and what is allowed.
        """
        name = check_name("orchestrator", self._registry.name_of(orchestrator))
        version = check_version(version) if version is not None else self._default_version(orchestrator)
        with self._telemetry.management_span("StartOrchestration", {"orchestrator": name, "instance_id": instance_id}) as span:
            command = StartInstance(
                instance_id=check_instance_id(instance_id) if instance_id is not None else uuid.uuid4().hex,
                execution_id=uuid.uuid4().hex,
                name=name,
                input=self._encode_input(orchestrator, name, version, input),
                version=version,
                tags=check_tags(tags),
                trace=self._telemetry.capture(),
                start_at=_moment("start_at", start_at),
                if_exists=_if_exists(if_exists),
                is_id_generated=instance_id is None,
            )
            started = self._run(command)
            span.set("response.instance_id", started)
            return str(started)

    def restart(self, instance_id: str, *, new_instance_id: bool = True) -> str:
        """Start a finished instance again with its name, input, version and tags; returns the id (rule 47, MGT-4).

        What was a child runs on its own this time: its parent has had its outcome.

        Args:
            instance_id: the finished instance.
            new_instance_id: False runs it under the same id, in place of the old one.

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceNotFinishedError: it has not ended yet.
        """
        record = self._record(instance_id)
        if not record.status.is_final:
            raise InstanceNotFinishedError(instance_id, record.status, "restart")
        with self._telemetry.management_span("RestartOrchestration", {"instance_id": instance_id}, linked_to=record.trace) as span:
            command = StartInstance(
                instance_id=uuid.uuid4().hex if new_instance_id else instance_id,
                execution_id=uuid.uuid4().hex,
                name=record.name,
                input=record.input,
                version=record.version,
                tags=record.tags,
                trace=self._telemetry.capture() or record.trace,
                if_exists=IfExists.ERROR if new_instance_id else IfExists.REPLACE_FINISHED,
                restarted_from=instance_id,
                is_id_generated=new_instance_id,
            )
            started = str(self._run(command))
            span.set("response.instance_id", started)
            return started

    def start_and_wait(
        self,
        orchestrator: object,
        input: Any = None,
        *,
        timeout: float,
        instance_id: str | None = None,
        start_at: datetime | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_exists: str = IfExists.ERROR,
    ) -> OrchestrationStatus:
        """Start an instance and wait until it has ended, however (SCH-6); the arguments are those of :meth:`start`.

        Raises:
            WaitTimeoutError: the time is over; the instance goes on, and the error has its ``instance_id``.
            InstanceNotFoundError: it was purged before anybody could look.
            InvalidArgumentError: called inside a transaction; nothing was started.
        """
        self._refuse_in_transaction("end")
        started = self.start(orchestrator, input, instance_id=instance_id, start_at=start_at, version=version, tags=tags, if_exists=if_exists)
        status = self.wait_for_completion(started, timeout=timeout)
        if status is None:
            raise InstanceNotFoundError(started)
        return status

    # -- watching

    def wait_for_start(self, instance_id: str, *, timeout: float) -> OrchestrationStatus | None:
        """Wait until the instance is no longer Pending (SCH-6).

        Args:
            instance_id: the instance.
            timeout: in seconds.

        Raises:
            WaitTimeoutError: the time is over; the instance is unaffected.
            InvalidArgumentError: called inside a transaction of the caller's on the same database.
        """
        return self._wait(instance_id, timeout, "start", lambda status: status is not RuntimeStatus.PENDING)

    def wait_for_completion(self, instance_id: str, *, timeout: float) -> OrchestrationStatus | None:
        """Wait until the instance has ended, however; None when there is none (SCH-6).

        Args:
            instance_id: the instance.
            timeout: in seconds.

        Raises:
            WaitTimeoutError: the time is over; the instance is unaffected.
            InvalidArgumentError: called inside a transaction of the caller's on the same database.
        """
        return self._wait(instance_id, timeout, "end", lambda status: status.is_final)

    # -- controlling

    def raise_event(self, instance_id: str, name: str, data: Any = None, *, dedup_key: str | None = None) -> None:
        """Deliver an external event; it is kept until the orchestrator waits for it (rule 20).

        Args:
            instance_id: the instance.
            name: the event's name, whatever its case.
            data: any JSON value.
            dedup_key: the same key a second time means the same event again: it is accepted and dropped, as long as the instance is kept,
                also when it has ended meanwhile (rule 23). Without a key each call is an event of its own.

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended.
        """
        with self._telemetry.management_span("RaiseEvent", {"instance_id": instance_id, "event_name": name}):
            key = None if dedup_key is None else check_dedup_key(dedup_key)
            self._run(RaiseEvent(known_id(instance_id), check_name("event", name), self._encode(data, "event data"), key))

    def terminate(self, instance_id: str, reason: Any = None, *, recursive: bool = True) -> None:
        """End an instance, and its open children when recursive (rule 38).

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended already.
        """
        shown = reason if isinstance(reason, str) else None
        with self._telemetry.management_span("Terminate", {"instance_id": instance_id, "terminate.reason": shown}):
            self._run(Terminate(known_id(instance_id), self._encode(reason, "reason"), recursive))

    def suspend(self, instance_id: str, reason: Any = None, *, recursive: bool = False) -> None:
        """Hold an instance: no code of it runs until it is resumed; doing it again is fine (rule 36).

        Args:
            instance_id: the instance.
            reason: why; kept in the history.
            recursive: hold its open children at every depth too; otherwise they go on (rule 37).

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended.
        """
        self._run(Suspend(known_id(instance_id), self._encode(reason, "reason"), recursive))

    def resume(self, instance_id: str, reason: Any = None, *, recursive: bool = False) -> None:
        """Let a suspended or parked instance go on; doing it again is fine (rule 36).

        Args:
            instance_id: the instance.
            reason: why; kept in the history.
            recursive: let its children go on too, at every depth, whoever has suspended them (rule 37).

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended.
        """
        self._run(Resume(known_id(instance_id), self._encode(reason, "reason"), recursive))

    def rewind(self, instance_id: str, reason: Any = None) -> None:
        """Let a failed instance run on from where it was sound (REW-1 to REW-5; docs/rewind.md says what is done again and what is kept).

        Args:
            instance_id: the instance.
            reason: why; kept in the history.

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceNotFailedError: it is not Failed.
            CorruptHistoryError: its history, or that of a failed child it waits for, cannot be read; nothing was changed.
        """
        with self._telemetry.management_span("Rewind", {"instance_id": instance_id}):
            self._run(Rewind(known_id(instance_id), self._encode(reason, "reason")))

    def rewind_by(self, wanted: InstanceFilter, reason: Any = None) -> int:
        """Rewind all failed instances that a filter means, each in a transaction of its own; returns how many (rule 46).

        Each is rewound once: one that fails again meanwhile stays Failed. One whose history cannot be read is left out, with a warning.
        """
        if wanted.statuses and RuntimeStatus.FAILED not in wanted.statuses:
            return 0
        wanted = replace(wanted, statuses=(RuntimeStatus.FAILED,))
        text, total, position = self._encode(reason, "reason"), 0, None
        with self._telemetry.management_span("Rewind") as span:
            while True:
                page = self._store.list_instances(wanted, limit=_REWIND_PAGE, after=position, order=Order.OLDEST_FIRST)
                total += sum(self._rewind_listed(record.instance_id, text) for record in page.records)
                position = page.next_position
                if position is None:
                    span.set("response.rewound", total)
                    return total

    def _rewind_listed(self, instance_id: str, reason: str | None) -> bool:
        try:
            self._run(Rewind(instance_id, reason))
        except (InstanceNotFailedError, InstanceNotFoundError):
            return False  # rewound together with its parent, or by somebody else
        except CorruptHistoryError as error:
            logger.warning("Instance %s is not rewound: %s", instance_id, error)
            return False
        return True

    def purge(self, instance_id: str, *, recursive: bool = False) -> int:
        """Delete an ended instance with its history; returns the number deleted.

        Args:
            instance_id: the instance.
            recursive: delete its ended children too.

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceNotFinishedError: it has not ended yet.
        """
        with self._telemetry.management_span("Purge", {"instance_id": instance_id}) as span:
            deleted = int(self._run(Purge(known_id(instance_id), recursive)) or 0)
            span.set("response.deleted", deleted)
            return deleted

    def purge_by(self, wanted: InstanceFilter, *, recursive: bool = False, timeout: float | None = None) -> int:
        """Delete all ended instances that a filter means, in small transactions; returns the number deleted (MGT-6).

        An instance whose parent still runs is deleted too: its result is in the parent's inbox already (rule 43).

        Args:
            wanted: which instances; those that have not ended are left out.
            recursive: delete their ended children too, at every depth.
            timeout: seconds after which no further transaction is begun; what is left goes with the next call.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._telemetry.management_span("Purge") as span:
            total = 0
            while True:
                deleted = int(self._run(PurgeBy(wanted, _PURGE_BATCH, recursive)) or 0)
                total += deleted
                if deleted < _PURGE_BATCH or (deadline is not None and time.monotonic() >= deadline):
                    span.set("response.deleted", total)
                    return total

    # -- helpers

    def _run(self, command: Command) -> str | int | None:
        outcome = self._execute(command)
        if isinstance(outcome, DurableError):
            raise outcome
        return outcome

    def _default_version(self, orchestrator: object) -> str | None:
        return self._registry.default_version(orchestrator, self._settings.version)

    def _encode_input(self, orchestrator: object, name: str, version: str | None, value: Any) -> str | None:
        function = orchestrator if callable(orchestrator) else self._registry.function_of("orchestrator", name, version)
        if function is None:
            return self._encode(value, "input")
        signature, settings = orchestrator_signature(function), self._settings
        text = signature.input.encode(value, what="input", max_bytes=settings.max_payload_bytes, max_depth=settings.max_payload_depth)
        signature.arguments(text, what=f"input of orchestrator {name!r}")
        return text

    def _encode(self, value: Any, what: str) -> str | None:
        return codec.encode(value, what=what, max_bytes=self._settings.max_payload_bytes, max_depth=self._settings.max_payload_depth)

    def _refuse_in_transaction(self, awaited: str) -> None:
        # The workers see nothing of what it has written, and may be waiting for its locks: it would wait for itself.
        if self._store.in_callers_transaction():
            raise InvalidArgumentError(
                f"Waiting for the {awaited} of an instance inside a transaction would wait for ever: what the transaction started begins with its"
                " commit. Wait after the block; get_status() works inside"
            )

    def _wait(self, instance_id: str, timeout: float, awaited: str, is_there: Callable[[RuntimeStatus], bool]) -> OrchestrationStatus | None:
        self._refuse_in_transaction(awaited)
        deadline = time.monotonic() + timeout
        woken = self._watchers.add(instance_id)
        pause = 0.02
        try:
            while True:
                woken.clear()
                record = self._store.get_instance(instance_id)
                if record is None or is_there(record.status):
                    return None if record is None else status_of(record, show_input=True)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WaitTimeoutError(instance_id, awaited, timeout)
                woken.wait(min(left, max(pause, _RECHECK) if self._watchers.sees_all else pause))
                pause = min(pause * 2, self._settings.poll_interval)
        finally:
            self._watchers.remove(instance_id, woken)


def _moment(name: str, moment: datetime | None) -> Micros | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise InvalidArgumentError(f"{name} is a datetime, not {type(moment).__name__}")
    return to_micros(moment)


def _if_exists(text: str) -> IfExists:
    try:
        return IfExists(text)
    except ValueError:
        raise InvalidArgumentError(f"if_exists is one of {', '.join(IfExists)}; not {text!r}") from None
