"""DurableOrchestrationClient: the client of an app under the names of Azure's SDK; its methods are not awaited."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from flask import Response, current_app
from flask import request as present_request

from flask_durable.azure.values import NotSupportedError, OrchestrationRuntimeStatus
from flask_durable.client import DurableClient
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros, to_micros
from flask_durable.errors import InstanceFinishedError, InstanceNotFoundError, InvalidArgumentError, WaitTimeoutError
from flask_durable.extension import AppState
from flask_durable.http.answers import json_response
from flask_durable.http.documents import history_digest, status_document
from flask_durable.http.links import base_of, management_links
from flask_durable.statuses import OrchestrationStatus
from flask_durable.storage.interface import IfExists, InstanceFilter


@dataclass(frozen=True, slots=True)
class PurgeHistoryResult:
    """How many instances were deleted."""

    instances_deleted: int


@dataclass(frozen=True, slots=True)
class DurableOrchestrationStatus:
    """What is known of an instance; false, with nothing in it, when there is none."""

    name: str | None = None
    instance_id: str | None = None
    created_time: datetime | None = None
    last_updated_time: datetime | None = None
    input_: Any = None
    output: Any = None
    runtime_status: OrchestrationRuntimeStatus | None = None
    custom_status: Any = None
    history: list[dict[str, Any]] | None = None
    document: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return self.instance_id is not None

    def to_json(self) -> dict[str, Any]:
        """The status document that the management API answers."""
        return dict(self.document or {})


class DurableOrchestrationClient:
    """Starts, watches and controls instances.

    Args:
        client: ``durable.client``; otherwise that of the current Flask app.
    """

    def __init__(self, client: DurableClient | None = None) -> None:
        if client is not None and not isinstance(client, DurableClient):
            raise InvalidArgumentError(f"DurableOrchestrationClient takes durable.client or nothing, not {type(client).__name__}")
        self._client = _state().client if client is None else client

    def start_new(
        self, orchestration_function_name: object, instance_id: str | None = None, client_input: Any = None, version: str | None = None
    ) -> str:
        """Start an instance and return its id; an ended instance with that id is replaced (SCH-2).

        Raises:
            InstanceExistsError: an instance with that id is alive.
        """
        return self._client.start(
            orchestration_function_name, client_input, instance_id=instance_id, version=version, if_exists=IfExists.REPLACE_FINISHED
        )

    def get_status(
        self, instance_id: str, show_history: bool = False, show_history_output: bool = False, show_input: bool = False
    ) -> DurableOrchestrationStatus:
        """The status of an instance; it is false when there is none."""
        found = self._client.get_status(instance_id, show_history=show_history, show_history_output=show_history_output, show_input=show_input)
        return DurableOrchestrationStatus() if found is None else _status(found, show_input=show_input, show_output=show_history_output)

    def get_status_all(self) -> list[DurableOrchestrationStatus]:
        """The statuses of all instances, newest first."""
        return self._list(InstanceFilter())

    def get_status_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: Iterable[OrchestrationRuntimeStatus] | None = None,
    ) -> list[DurableOrchestrationStatus]:
        """The statuses of the instances of a window of creation times, with one of some statuses (QRY-1)."""
        return self._list(_filter(created_time_from, created_time_to, runtime_status))

    def raise_event(
        self, instance_id: str, event_name: str, event_data: Any = None, task_hub_name: str | None = None, connection_name: str | None = None
    ) -> None:
        """Deliver an external event (rule 20).

        Raises:
            InstanceNotFoundError: no such instance.
            InstanceFinishedError: it has ended; Azure's SDK drops the event without a word.
        """
        _refuse_elsewhere(task_hub_name, connection_name)
        self._client.raise_event(instance_id, event_name, event_data)

    def terminate(self, instance_id: str, reason: str) -> None:
        """End an instance; its children go on, and an ended one stays as it is, as in Azure (rule 38)."""
        with contextlib.suppress(InstanceFinishedError):
            self._client.terminate(instance_id, reason, recursive=False)

    def suspend(self, instance_id: str, reason: str) -> None:
        """Hold an instance; an ended one stays as it is, as in Azure (rule 36)."""
        with contextlib.suppress(InstanceFinishedError):
            self._client.suspend(instance_id, reason)

    def resume(self, instance_id: str, reason: str) -> None:
        """Let a suspended instance go on; an ended one stays as it is, as in Azure (rule 36)."""
        with contextlib.suppress(InstanceFinishedError):
            self._client.resume(instance_id, reason)

    def rewind(self, instance_id: str, reason: str, task_hub_name: str | None = None, connection_name: str | None = None) -> None:
        """Let a failed instance run on from where it was sound (REW-1 to REW-5).

        Raises:
            InstanceNotFailedError: it is not Failed.
        """
        _refuse_elsewhere(task_hub_name, connection_name)
        self._client.rewind(instance_id, reason)

    def restart(self, instance_id: str, restart_with_new_instance_id: bool = True) -> str:
        """Start an ended instance again; returns the id (MGT-4)."""
        return self._client.restart(instance_id, new_instance_id=restart_with_new_instance_id)

    def purge_instance_history(self, instance_id: str) -> PurgeHistoryResult:
        """Delete an ended instance; 0 when there is none (MGT-5)."""
        try:
            return PurgeHistoryResult(self._client.purge(instance_id))
        except InstanceNotFoundError:
            return PurgeHistoryResult(0)

    def purge_instance_history_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: Iterable[OrchestrationRuntimeStatus] | None = None,
    ) -> PurgeHistoryResult:
        """Delete the ended instances of a window of creation times, with one of some statuses (MGT-6)."""
        return PurgeHistoryResult(self._client.purge_by(_filter(created_time_from, created_time_to, runtime_status)))

    # -- answers of views

    def create_http_management_payload(self, instance_id: str) -> dict[str, str]:
        """The id and the management links of an instance; inside a request."""
        settings = _state().settings
        return {"id": instance_id, **management_links(base_of(present_request, settings), settings, instance_id)}

    def get_client_response_links(self, request: object, instance_id: str) -> dict[str, str]:
        """The same; links begin where Flask's present request came in, whatever the first argument is."""
        return self.create_http_management_payload(instance_id)

    def create_check_status_response(self, request: object, instance_id: str) -> Response:
        """The answer 202 with the id and the management links, and the address of the status in ``Location``."""
        links = self.create_http_management_payload(instance_id)
        headers = {"Location": links["statusQueryGetUri"], "Retry-After": str(_state().settings.retry_after)}
        return json_response(links, 202, headers)

    def wait_for_completion_or_create_check_status_response(
        self, request: object, instance_id: str, timeout_in_milliseconds: int = 10_000, retry_interval_in_milliseconds: int = 1_000
    ) -> Response:
        """The output of a completed instance, the status of one that failed (500) or was terminated, or after the timeout the answer 202.

        Args:
            request: the present request.
            instance_id: the instance.
            timeout_in_milliseconds: how long to wait.
            retry_interval_in_milliseconds: taken and not used; the end of an instance wakes the waiting view.
        """
        if retry_interval_in_milliseconds > timeout_in_milliseconds:
            raise InvalidArgumentError("retry_interval_in_milliseconds must not be more than timeout_in_milliseconds")
        try:
            status = self._client.wait_for_completion(instance_id, timeout=timeout_in_milliseconds / 1000)
        except WaitTimeoutError:
            status = None
        if status is None:
            return self.create_check_status_response(request, instance_id)
        if status.runtime_status is RuntimeStatus.COMPLETED:
            return json_response(status.output)
        return json_response(status_document(status), 500 if status.runtime_status is RuntimeStatus.FAILED else 200)

    # -- not supported

    def read_entity_state(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Not supported."""
        raise NotSupportedError("entities")

    def signal_entity(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Not supported."""
        raise NotSupportedError("entities")

    # -- helpers

    def _list(self, wanted: InstanceFilter) -> list[DurableOrchestrationStatus]:
        found: list[DurableOrchestrationStatus] = []
        token = None
        while True:
            page = self._client.list(wanted, page_size=1000, token=token, show_input=True, show_output=True)
            found += [_status(status, show_input=True, show_output=False) for status in page.items]
            token = page.token
            if token is None:
                return found


def _state() -> AppState:
    state = current_app.extensions.get("durable")
    if not isinstance(state, AppState):
        raise InvalidArgumentError("The current Flask app has no FlaskDurable; make one and call init_app(app)")
    return state


def _status(found: OrchestrationStatus, *, show_input: bool, show_output: bool) -> DurableOrchestrationStatus:
    history = None if found.history is None else history_digest(found.history, show_input=show_input, show_output=show_output)
    return DurableOrchestrationStatus(
        name=found.name,
        instance_id=found.instance_id,
        created_time=found.created_time,
        last_updated_time=found.last_updated_time,
        input_=found.input,
        output=found.output,
        runtime_status=OrchestrationRuntimeStatus(found.runtime_status.value),
        custom_status=found.custom_status,
        history=history,
        document=status_document(found, history=history),
    )


def _filter(created_from: datetime | None, created_to: datetime | None, statuses: Iterable[OrchestrationRuntimeStatus] | None) -> InstanceFilter:
    return InstanceFilter(
        statuses=tuple(RuntimeStatus(status.value) for status in statuses or ()),
        created_from=_micros(created_from),
        created_to=_micros(created_to),
        created_to_inclusive=True,
    )


def _micros(moment: datetime | None) -> Micros | None:
    return None if moment is None else to_micros(moment)


def _refuse_elsewhere(task_hub_name: str | None, connection_name: str | None) -> None:
    if task_hub_name is not None or connection_name is not None:
        raise NotSupportedError("task_hub_name and connection_name")
