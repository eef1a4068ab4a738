"""DurableClient: the management service that HTTP, the command line and user code call."""

from __future__ import annotations

import base64
import binascii
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from flask_durable.config import Settings
from flask_durable.core import codec
from flask_durable.core.events import ExecutionCompleted, Recorded, SubOrchestrationCompleted, TaskCompleted
from flask_durable.core.failure import FailureDetails
from flask_durable.core.ids import check_instance_id, check_name
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros, from_micros, to_micros
from flask_durable.errors import DurableError, InstanceNotFinishedError, InstanceNotFoundError, InvalidArgumentError, WaitTimeoutError
from flask_durable.registry import Registry
from flask_durable.storage.interface import (
    Command,
    HistoryPage,
    IfExists,
    InstanceFilter,
    InstanceRecord,
    Order,
    Outcome,
    PagePosition,
    Purge,
    PurgeBy,
    RaiseEvent,
    Resume,
    StartInstance,
    Store,
    Suspend,
    Terminate,
)
from flask_durable.telemetry import Telemetry
from flask_durable.watchers import Watchers

MAX_PAGE_SIZE = 1000
MAX_TAGS = 50
MAX_TAG_LENGTH = 256
_PURGE_BATCH = 500


@dataclass(frozen=True, slots=True)
class OrchestrationStatus:
    """What is known of an instance.

    ``output`` is the returned value of a completed one, the failure's text of a failed one, the reason of a terminated one.
    """

    instance_id: str
    name: str
    runtime_status: RuntimeStatus
    input: Any
    output: Any
    custom_status: Any
    created_time: datetime
    last_updated_time: datetime
    completed_time: datetime | None
    failure_details: FailureDetails | None
    parent_instance_id: str | None
    version: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    scheduled_start_time: datetime | None = None
    restarted_from: str | None = None
    parked_reason: str | None = None
    history: tuple[Recorded, ...] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the instance has ended."""
        return self.runtime_status.is_final


@dataclass(frozen=True, slots=True)
class StatusPage:
    """One page of a list; ``token`` leads to the next page and is None on the last."""

    items: tuple[OrchestrationStatus, ...]
    token: str | None


class DurableClient:
    """Starts, watches and controls the instances of one app.

    Args:
        store: where they are kept.
        execute: hands a command to whoever commits it, and returns its outcome.
    """

    def __init__(
        self, store: Store, *, execute: Callable[[Command], Outcome], registry: Registry, settings: Settings, watchers: Watchers, telemetry: Telemetry
    ) -> None:
        self._store = store
        self._execute = execute
        self._registry = registry
        self._settings = settings
        self._watchers = watchers
        self._telemetry = telemetry

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
            input: any JSON value.
            instance_id: an id of your own; otherwise one is made.
            start_at: not before this moment (naive: UTC).
            version: its version; otherwise ``DURABLE_VERSION``.
            tags: a small string map, shown and searchable.
            if_exists: when the id is in use: ``"error"``, ``"return"`` the existing id, or ``"replaceFinished"`` (SCH-2).

        Raises:
            InstanceExistsError: the id is in use.
            InvalidArgumentError: an argument is wrong; the message says which and what is allowed.
        """
        name = check_name("orchestrator", self._registry.name_of(orchestrator))
        with self._telemetry.management_span("StartOrchestration", {"orchestrator": name, "instance_id": instance_id}) as span:
            command = StartInstance(
                instance_id=check_instance_id(instance_id) if instance_id is not None else uuid.uuid4().hex,
                execution_id=uuid.uuid4().hex,
                name=name,
                input=self._encode(input, "input"),
                version=_check_version(version) if version is not None else self._settings.version,
                tags=_check_tags(tags),
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
        command = StartInstance(
            instance_id=uuid.uuid4().hex if new_instance_id else instance_id,
            execution_id=uuid.uuid4().hex,
            name=record.name,
            input=record.input,
            version=record.version,
            tags=record.tags,
            trace=self._telemetry.capture(),
            if_exists=IfExists.ERROR if new_instance_id else IfExists.REPLACE_FINISHED,
            restarted_from=instance_id,
            is_id_generated=new_instance_id,
        )
        return str(self._run(command))

    # -- watching

    def get_status(
        self, instance_id: str, *, show_input: bool = True, show_history: bool = False, show_history_output: bool = False
    ) -> OrchestrationStatus | None:
        """The status of an instance, or None when there is none.

        Args:
            instance_id: the instance.
            show_input: include the input.
            show_history: include the history.
            show_history_output: include outputs and results in the history.
        """
        with self._telemetry.management_span("GetStatus", {"instance_id": instance_id}) as span:
            record = self._store.get_instance(instance_id)
            if record is None:
                return None
            span.set("response.runtime_status", record.status)
            history = None
            if show_history:
                events = self._store.load_history(record.instance_id, record.generation)
                history = tuple(events if show_history_output else map(without_output, events))
            return _status(record, show_input=show_input, history=history)

    def wait_for_start(self, instance_id: str, *, timeout: float) -> OrchestrationStatus | None:
        """Wait until the instance is no longer Pending (SCH-6).

        Args:
            instance_id: the instance.
            timeout: in seconds.

        Raises:
            WaitTimeoutError: the time is over; the instance is unaffected.
        """
        return self._wait(instance_id, timeout, "start", lambda status: status is not RuntimeStatus.PENDING)

    def wait_for_completion(self, instance_id: str, *, timeout: float) -> OrchestrationStatus | None:
        """Wait until the instance has ended, however; None when there is none (SCH-6).

        Args:
            instance_id: the instance.
            timeout: in seconds.

        Raises:
            WaitTimeoutError: the time is over; the instance is unaffected.
        """
        return self._wait(instance_id, timeout, "end", lambda status: status.is_final)

    def list(
        self,
        wanted: InstanceFilter | None = None,
        *,
        page_size: int = 100,
        token: str | None = None,
        order: Order = Order.NEWEST_FIRST,
        show_input: bool = True,
    ) -> StatusPage:
        """One page of the instances that a filter means (QRY-1, QRY-2).

        Args:
            wanted: which instances; all by default.
            page_size: 1 to 1000.
            token: the token of the page before.
            order: by creation time.
            show_input: include inputs.

        Raises:
            InvalidArgumentError: a bad page size or token.
        """
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            raise InvalidArgumentError(f"A page has 1 to {MAX_PAGE_SIZE} items, not {page_size}")
        page = self._store.list_instances(
            wanted or InstanceFilter(), limit=page_size, after=_read_token(token, order) if token else None, order=order
        )
        items = tuple(_status(record, show_input=show_input) for record in page.records)
        return StatusPage(items, _make_token(page.next_position, order) if page.next_position else None)

    def list_ids(
        self, wanted: InstanceFilter | None = None, *, page_size: int = 100, token: str | None = None, order: Order = Order.NEWEST_FIRST
    ) -> tuple[tuple[str, ...], str | None]:
        """As :meth:`list`, but ids only, with the token of the next page."""
        page = self.list(wanted, page_size=page_size, token=token, order=order, show_input=False)
        return tuple(item.instance_id for item in page.items), page.token

    def count(self, wanted: InstanceFilter | None = None) -> int:
        """How many instances a filter means."""
        return self._store.count_instances(wanted or InstanceFilter())

    def history(self, instance_id: str, *, page_size: int = 1000, after: int = 0) -> HistoryPage:
        """Events of the present generation, in order, after that sequence number (QRY-4).

        Raises:
            InstanceNotFoundError: no such instance.
        """
        record = self._record(instance_id)
        return self._store.history_page(instance_id, record.generation, after=after, limit=page_size)

    # -- controlling

    def raise_event(self, instance_id: str, name: str, data: Any = None) -> None:
        """Deliver an external event; it is kept until the orchestrator waits for it (rule 20).

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended.
        """
        with self._telemetry.management_span("RaiseEvent", {"instance_id": instance_id, "event_name": name}):
            self._run(RaiseEvent(_known_id(instance_id), check_name("event", name), self._encode(data, "event data")))

    def terminate(self, instance_id: str, reason: Any = None, *, recursive: bool = True) -> None:
        """End an instance, and its open children when recursive (rule 38).

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended already.
        """
        shown = reason if isinstance(reason, str) else None
        with self._telemetry.management_span("Terminate", {"instance_id": instance_id, "terminate.reason": shown}):
            self._run(Terminate(_known_id(instance_id), self._encode(reason, "reason"), recursive))

    def suspend(self, instance_id: str, reason: Any = None) -> None:
        """Hold an instance: no code of it runs until it is resumed; doing it again is fine (rule 36).

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended.
        """
        self._run(Suspend(_known_id(instance_id), self._encode(reason, "reason")))

    def resume(self, instance_id: str, reason: Any = None) -> None:
        """Let a suspended or parked instance go on; doing it again is fine (rule 36).

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended.
        """
        self._run(Resume(_known_id(instance_id), self._encode(reason, "reason")))

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
            deleted = int(self._run(Purge(_known_id(instance_id), recursive)) or 0)
            span.set("response.deleted", deleted)
            return deleted

    def purge_by(self, wanted: InstanceFilter) -> int:
        """Delete all ended instances that a filter means, in small transactions; returns the number deleted (MGT-6)."""
        with self._telemetry.management_span("Purge") as span:
            total = 0
            while True:
                deleted = int(self._run(PurgeBy(wanted, _PURGE_BATCH)) or 0)
                total += deleted
                if deleted < _PURGE_BATCH:
                    span.set("response.deleted", total)
                    return total

    # -- helpers

    def _run(self, command: Command) -> str | int | None:
        outcome = self._execute(command)
        if isinstance(outcome, DurableError):
            raise outcome
        return outcome

    def _encode(self, value: Any, what: str) -> str | None:
        return codec.encode(value, what=what, max_bytes=self._settings.max_payload_bytes, max_depth=self._settings.max_payload_depth)

    def _record(self, instance_id: str) -> InstanceRecord:
        record = self._store.get_instance(_known_id(instance_id))
        if record is None:
            raise InstanceNotFoundError(instance_id)
        return record

    def _wait(self, instance_id: str, timeout: float, awaited: str, is_there: Callable[[RuntimeStatus], bool]) -> OrchestrationStatus | None:
        deadline = time.monotonic() + timeout
        woken = self._watchers.add(instance_id)
        pause = 0.02
        try:
            while True:
                woken.clear()
                record = self._store.get_instance(instance_id)
                if record is None or is_there(record.status):
                    return None if record is None else _status(record, show_input=True)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WaitTimeoutError(instance_id, awaited, timeout)
                woken.wait(min(left, pause))
                pause = min(pause * 2, self._settings.poll_interval)
        finally:
            self._watchers.remove(instance_id, woken)


def without_output(recorded: Recorded) -> Recorded:
    """The same event without its output or result."""
    event = recorded.event
    if isinstance(event, TaskCompleted | SubOrchestrationCompleted):
        event = replace(event, result=None)
    elif isinstance(event, ExecutionCompleted):
        event = replace(event, output=None)
    return recorded._replace(event=event)


def _status(record: InstanceRecord, *, show_input: bool, history: tuple[Recorded, ...] | None = None) -> OrchestrationStatus:
    output = _payload(record.output)
    if record.failure is not None and output is None:
        output = record.failure.message
    return OrchestrationStatus(
        instance_id=record.instance_id,
        name=record.name,
        runtime_status=record.status,
        input=_payload(record.input) if show_input else None,
        output=output,
        custom_status=_payload(record.custom_status),
        created_time=from_micros(record.created_at),
        last_updated_time=from_micros(record.updated_at),
        completed_time=from_micros(record.completed_at) if record.completed_at is not None else None,
        failure_details=record.failure,
        parent_instance_id=record.parent_instance_id,
        version=record.version,
        tags=dict(record.tags),
        scheduled_start_time=from_micros(record.start_at) if record.start_at is not None else None,
        restarted_from=record.restarted_from,
        parked_reason=record.parked_reason,
        history=history,
    )


def _payload(text: str | None) -> Any:
    try:
        return codec.decode(text)
    except ValueError:
        return text  # a damaged row is shown as it is, and does not hide the rest of its page


def _known_id(instance_id: object) -> str:
    if not isinstance(instance_id, str):
        raise InvalidArgumentError(f"An instance id is a string, not {type(instance_id).__name__}")
    return instance_id


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


def _check_version(version: object) -> str:
    if not isinstance(version, str) or not 1 <= len(version) <= 100:
        raise InvalidArgumentError(f"A version is a text of 1 to 100 characters, not {version!r}")
    return version


def _check_tags(tags: object) -> Mapping[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or len(tags) > MAX_TAGS:
        raise InvalidArgumentError(f"Tags are a map of at most {MAX_TAGS} strings")
    for key, value in tags.items():
        for text in (key, value):
            if not isinstance(text, str) or len(text) > MAX_TAG_LENGTH:
                raise InvalidArgumentError(f"Tags are strings of at most {MAX_TAG_LENGTH} characters; {key!r} is not")
        codec.encode(key + value, what="tags")
    return dict(sorted(tags.items()))


def _make_token(position: PagePosition, order: Order) -> str:
    text = json.dumps([position.created_at, position.instance_id, order.value])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str, order: Order) -> PagePosition:
    try:
        text = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        created_at, instance_id, made_for = json.loads(text)
        check_instance_id(instance_id)  # a made-up token must not bring a database what it cannot bear, such as NUL
    except (ValueError, TypeError, UnicodeError, binascii.Error, RecursionError):
        raise InvalidArgumentError("The continuation token is not one that this API made") from None
    if type(created_at) is not int or abs(created_at) >= 2**62 or not isinstance(instance_id, str) or made_for != order.value:
        raise InvalidArgumentError("The continuation token does not belong to this list and order")
    return PagePosition(created_at, instance_id)
