"""Statuses: instances as clients see them, with decoded payloads, and pages of them with their tokens."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from flask_durable.core import codec
from flask_durable.core.events import ExecutionCompleted, Recorded, SubOrchestrationCompleted, TaskCompleted
from flask_durable.core.failure import FailureDetails
from flask_durable.core.ids import check_instance_id
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import from_micros
from flask_durable.errors import InvalidArgumentError
from flask_durable.storage.interface import InstanceRecord, Order, PagePosition


@dataclass(frozen=True, slots=True)
class OrchestrationStatus:
    """What is known of an instance.

    ``output`` is the returned value of a completed one, the failure's text of a failed one, the reason of a terminated one. ``waiting_reason`` says
    why nobody works on one that is due, when no running worker would (rule 49).
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
    waiting_reason: str | None = None
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


def without_output(recorded: Recorded) -> Recorded:
    """The same event without its output or result."""
    event = recorded.event
    if isinstance(event, TaskCompleted | SubOrchestrationCompleted):
        event = replace(event, result=None)
    elif isinstance(event, ExecutionCompleted):
        event = replace(event, output=None)
    return recorded._replace(event=event)


def status_of(
    record: InstanceRecord,
    *,
    show_input: bool,
    show_output: bool = True,
    waiting_reason: str | None = None,
    history: tuple[Recorded, ...] | None = None,
) -> OrchestrationStatus:
    """The status of a record, with decoded payloads."""
    output = _payload(record.output) if show_output else None
    if record.failure is not None and output is None and show_output:
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
        waiting_reason=waiting_reason,
        history=history,
    )


def _payload(text: str | None) -> Any:
    try:
        return codec.decode(text)
    except ValueError:
        return text  # a damaged row is shown as it is, and does not hide the rest of its page


def make_token(position: PagePosition, order: Order) -> str:
    """The token that leads to the page after that position."""
    text = json.dumps([position.at, position.instance_id, order.value])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(token: str, order: Order) -> PagePosition:
    """The position that a token stands for.

    Raises:
        InvalidArgumentError: it was not made by :func:`make_token`, or for another order.
    """
    try:
        text = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        at, instance_id, made_for = json.loads(text)
        check_instance_id(instance_id)  # a made-up token must not bring a database what it cannot bear, such as NUL
    except (ValueError, TypeError, UnicodeError, binascii.Error, RecursionError):
        raise InvalidArgumentError("The continuation token is not one that this API made") from None
    if type(at) is not int or abs(at) >= 2**62 or not isinstance(instance_id, str) or made_for != order.value:
        raise InvalidArgumentError("The continuation token does not belong to this list and order")
    return PagePosition(at, instance_id)
