"""Queries: reading instances, their histories and the versions in use."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flask_durable.core.capabilities import waiting_reason
from flask_durable.errors import InstanceNotFoundError, InvalidArgumentError
from flask_durable.registry import Registry
from flask_durable.statuses import OrchestrationStatus, StatusPage, make_token, read_token, status_of, without_output
from flask_durable.storage.interface import HistoryPage, InstanceFilter, InstanceRecord, Order, Store, VersionUse
from flask_durable.telemetry import Telemetry

MAX_PAGE_SIZE = 1000
_STUCK_MICROS = 1_000_000


class Queries:
    """The part of the client that only reads.

    Args:
        store: where the instances are kept.
    """

    def __init__(self, store: Store, registry: Registry, telemetry: Telemetry) -> None:
        self._store = store
        self._registry = registry
        self._telemetry = telemetry

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
            [reason] = self._waiting_reasons([record])
            return status_of(record, show_input=show_input, waiting_reason=reason, history=history)

    def list(
        self,
        wanted: InstanceFilter | None = None,
        *,
        page_size: int = 100,
        token: str | None = None,
        order: Order = Order.NEWEST_FIRST,
        show_input: bool = False,
        show_output: bool = False,
    ) -> StatusPage:
        """One page of the instances that a filter means (QRY-1, QRY-2).

        Args:
            wanted: which instances; all by default.
            page_size: 1 to 1000.
            token: the token of the page before.
            order: by creation or by completion time.
            show_input: include inputs.
            show_output: include outputs; failure details are always there.

        Raises:
            InvalidArgumentError: a bad page size or token.
        """
        order = _order(order)
        page = self._store.list_instances(
            wanted or InstanceFilter(),
            limit=_page_size(page_size),
            after=read_token(token, order) if token else None,
            order=order,
            with_input=show_input,
            with_output=show_output,
        )
        reasons = self._waiting_reasons(page.records)
        items = tuple(
            status_of(record, show_input=show_input, show_output=show_output, waiting_reason=reason)
            for record, reason in zip(page.records, reasons, strict=True)
        )
        return StatusPage(items, make_token(page.next_position, order) if page.next_position else None)

    def list_ids(
        self,
        wanted: InstanceFilter | None = None,
        *,
        page_size: int = 100,
        token: str | None = None,
        order: Order = Order.NEWEST_FIRST,
        by_completion: bool = False,
    ) -> tuple[tuple[str, ...], str | None]:
        """As :meth:`list`, but ids only, with the token of the next page (QRY-3).

        Args:
            wanted: which instances; all by default.
            page_size: 1 to 1000.
            token: the token of the page before.
            order: by creation or by completion time.
            by_completion: the same as ``order=Order.FIRST_COMPLETED``: only ended instances, in the order in which they ended.

        Raises:
            InvalidArgumentError: a bad page size or token.
        """
        order = Order.FIRST_COMPLETED if by_completion else _order(order)
        after = read_token(token, order) if token else None
        page = self._store.list_ids(wanted or InstanceFilter(), limit=_page_size(page_size), after=after, order=order)
        return page.ids, make_token(page.next_position, order) if page.next_position else None

    def versions(self, orchestrator: object = None) -> tuple[VersionUse, ...]:
        """Which versions the live instances have, by orchestrator, with how many there are in each status (rule 50).

        Args:
            orchestrator: only this one, by function or name.
        """
        return tuple(self._store.version_use(None if orchestrator is None else self._registry.name_of(orchestrator)))

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

    # -- helpers

    def _waiting_reasons(self, records: Sequence[InstanceRecord]) -> tuple[str | None, ...]:
        """Why nobody works on them, for those that have been due for a while and belong to nobody; the workers are asked for only then."""
        before = time.time_ns() // 1000 - _STUCK_MICROS
        are_stuck = [record.worker_id is None and record.ready_at is not None and record.ready_at <= before for record in records]
        if not any(are_stuck):
            return (None,) * len(records)
        workers = [worker.capabilities for worker in self._store.live_workers()]
        return tuple(
            waiting_reason(record.name, record.version, workers) if stuck else None for record, stuck in zip(records, are_stuck, strict=True)
        )

    def _record(self, instance_id: str) -> InstanceRecord:
        record = self._store.get_instance(known_id(instance_id))
        if record is None:
            raise InstanceNotFoundError(instance_id)
        return record


def known_id(instance_id: object) -> str:
    """The id, when one could have it.

    Raises:
        InvalidArgumentError: it is no text.
    """
    if not isinstance(instance_id, str):
        raise InvalidArgumentError(f"An instance id is a string, not {type(instance_id).__name__}")
    return instance_id


def _page_size(size: int) -> int:
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise InvalidArgumentError(f"A page has 1 to {MAX_PAGE_SIZE} items, not {size}")
    return size


def _order(order: str) -> Order:
    try:
        return Order(order)
    except ValueError:
        raise InvalidArgumentError(f"The order of a list is one of {', '.join(Order)}; not {order!r}") from None
