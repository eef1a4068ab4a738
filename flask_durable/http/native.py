"""The native routes: what each operation does with the client. What they need, take and answer stands in routes.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response, request

from flask_durable.access import Permission, Policy, authorize
from flask_durable.client import DurableClient
from flask_durable.config import Settings
from flask_durable.core.ids import check_instance_id
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros, to_micros
from flask_durable.errors import (
    CorruptHistoryError,
    InstanceNotFoundError,
    InvalidArgumentError,
    NotRegisteredError,
    WaitTimeoutError,
)
from flask_durable.http.answers import json_response
from flask_durable.http.documents import history_digest, history_events, status_document, version_document
from flask_durable.http.errors import ApiError, refusal_response
from flask_durable.http.guard import name_instance, present_key
from flask_durable.http.links import base_of, management_links, next_page, this_page
from flask_durable.http.parsing import ABSENT, read_body
from flask_durable.http.waiting import WaitingRoom
from flask_durable.registry import Registry
from flask_durable.statuses import OrchestrationStatus
from flask_durable.storage.interface import IfExists, InstanceFilter

LONGEST_WAIT = 230.0
"""Seconds after which a start-and-wait gives up at the latest: below what proxies usually allow a request."""

CONTINUATION_HEADER = "x-ms-continuation-token"
DEDUP_HEADER = "Idempotency-Key"
Query = dict[str, Any]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NativeViews:
    """The views of one app. Docstrings are the summaries and descriptions in the OpenAPI document."""

    client: DurableClient
    registry: Registry
    settings: Settings
    policy: Policy
    waiting: WaitingRoom

    def start(self, query: Query, body: Body, name: str) -> Response:
        """Start an orchestration.

        Answers 202 with the instance id and its links as soon as the start is durable. With `timeout` and `pollingInterval` it waits for the end:
        a completed orchestration answers 200 with its output and nothing else, one that failed or was terminated with its status, and one that
        takes longer with the 202.
        """
        timeout = _timeout(query)
        instance_id, if_exists = body.get("instance_id"), body.get("if_exists") or IfExists.ERROR
        refused = self._refuse_start(instance_id, if_exists, reads=timeout is not None)
        if refused is not None:
            return refused
        if not self.registry.has_orchestrator(name):
            raise NotRegisteredError("orchestrator", name, self.registry.orchestrator_names())
        if timeout is None:
            return self._started(self._start(name, body, if_exists))
        with self.waiting.place():
            started = self._start(name, body, if_exists)
            try:
                status = self.client.wait_for_completion(started, timeout=timeout)
            except WaitTimeoutError:
                status = None
        return self._started(started) if status is None else _ended(status, query)

    def list_instances(self, query: Query) -> Response:
        """List instances.

        Newest first unless `sort` says otherwise. A page has at most `top` instances; the header `x-ms-continuation-token`, empty at the end, and
        `Link` lead to the next page.
        """
        wanted = _filter(query)
        token = request.headers.get(CONTINUATION_HEADER) or query.get("token") or None
        shows = {"show_input": query["show_input"], "show_output": query["show_output"]}
        page = self.client.list(wanted, page_size=query["top"], token=token, order=query["order"], **shows)
        headers = self._page_headers(page.token)
        if query["includes_total"]:
            headers["x-total-count"] = str(self.client.count(wanted))
        return json_response([status_document(status) for status in page.items], 200, headers)

    def purge_instances(self, query: Query) -> Response:
        """Purge many instances.

        Deletes all ended instances that the filter means, with their histories. `createdTimeFrom` is needed, unknown query names are refused.
        """
        deleted = self.client.purge_by(_filter(query), recursive=query["recursive"], timeout=query.get("timeout"))
        return json_response({"instancesDeleted": deleted})

    def list_versions(self, query: Query) -> Response:
        """Say which versions are in use.

        The versions that instances have which have not ended, by orchestrator, with how many there are in each status: a version that is not in
        the list is needed no more.
        """
        return json_response([version_document(each) for each in self.client.versions(query.get("name"))])

    def get_instance(self, query: Query, instance_id: str) -> Response:
        """Get the status of an instance.

        Answers 200 in every status, unless `async` or `returnInternalServerErrorOnFailure` asks for something else.
        """
        instance_id = _existing(instance_id)
        document, status = self._status(query, instance_id)
        if query["fails_as_500"] and status.runtime_status is RuntimeStatus.FAILED:
            return json_response(document, 500)
        if query["polls"] and not status.is_finished:
            headers = {"Location": this_page(base_of(request, self.settings), request), "Retry-After": str(self.settings.retry_after)}
            return json_response(document, 202, headers)
        return json_response(document)

    def get_history(self, query: Query, instance_id: str) -> Response:
        """Get the full history of an instance.

        The stored events in order, one by one and with all their payloads; the digest in the status folds them. Pages as in the list of instances;
        the token is the sequence number of the last event seen.
        """
        token = request.headers.get(CONTINUATION_HEADER) or query.get("token") or "0"
        if not re.fullmatch(r"[0-9]{1,15}", token):
            raise InvalidArgumentError("The continuation token is the sequence number of the last event seen")
        page = self.client.history(_existing(instance_id), page_size=query["top"], after=int(token))
        next_token = None if page.next_sequence is None else str(page.next_sequence)
        return json_response(history_events(page.events), 200, self._page_headers(next_token))

    def raise_event(self, instance_id: str, event_name: str) -> Response:
        """Raise an event for an instance.

        The payload is the value of `eventData` in a JSON object, or the whole body when it is anything else; no body is an event without payload.
        The event is kept until the orchestrator waits for one of that name. With the header `Idempotency-Key` a second event of the same key is
        accepted and dropped, as long as the instance is kept.
        """
        body = read_body(request, self.settings)
        if isinstance(body, dict) and "eventData" in body:
            unknown = sorted(set(body) - {"eventData"})
            if unknown:
                errors = {key: ["Unknown field."] for key in unknown}
                raise ApiError(400, f"Beside eventData nothing is allowed, but there is {', '.join(map(repr, unknown))}", errors=errors)
            body = body["eventData"]
        instance_id = _existing(instance_id)
        self.client.raise_event(instance_id, event_name, None if body is ABSENT else body, dedup_key=request.headers.get(DEDUP_HEADER))
        return _accepted(instance_id)

    def terminate(self, query: Query, body: Body, instance_id: str) -> Response:
        """Terminate an instance.

        Ends it, and its open sub-orchestrations unless `recursive` is false. Activities that run go on, their results are dropped.
        """
        reason, recursive = _either(query, body, "reason"), _either(query, body, "recursive")
        instance_id = _existing(instance_id)
        self.client.terminate(instance_id, reason, recursive=recursive is not False)
        return _accepted(instance_id)

    def suspend(self, query: Query, body: Body, instance_id: str) -> Response:
        """Suspend an instance.

        No code of the orchestrator runs until it is resumed; what arrives is kept. Its sub-orchestrations go on unless `recursive` is true.
        Doing it again is fine.
        """
        reason, recursive = _either(query, body, "reason"), _either(query, body, "recursive")
        instance_id = _existing(instance_id)
        self.client.suspend(instance_id, reason, recursive=recursive is True)
        return _accepted(instance_id)

    def resume(self, query: Query, body: Body, instance_id: str) -> Response:
        """Resume a suspended instance.

        With `recursive` its suspended sub-orchestrations too. Doing it again is fine.
        """
        reason, recursive = _either(query, body, "reason"), _either(query, body, "recursive")
        instance_id = _existing(instance_id)
        self.client.resume(instance_id, reason, recursive=recursive is True)
        return _accepted(instance_id)

    def rewind(self, query: Query, body: Body, instance_id: str) -> Response:
        """Rewind a failed instance.

        It runs on from where it was sound: failed activities and sub-orchestrations are run again, successful results are kept. One that is not
        Failed is refused: 409 while it is live, 410 when it has ended otherwise.
        """
        reason, instance_id = _either(query, body, "reason"), _existing(instance_id)
        self.client.rewind(instance_id, reason)
        return _accepted(instance_id)

    def restart(self, query: Query, body: Body, instance_id: str) -> Response:
        """Run an ended instance again.

        Same name, input, version and tags; under a new id, or in place of the old one with `restartWithNewInstanceId=false`.
        """
        under_new_id = _either(query, body, "new_instance_id")
        return self._started(self.client.restart(_existing(instance_id), new_instance_id=under_new_id is not False))

    def purge_instance(self, query: Query, instance_id: str) -> Response:
        """Purge an instance.

        Deletes an ended instance with its history; one that has not ended is refused.
        """
        return json_response({"instancesDeleted": self.client.purge(_existing(instance_id), recursive=query["recursive"])})

    # -- helpers

    def _refuse_start(self, instance_id: str | None, if_exists: str, *, reads: bool) -> Response | None:
        """Ask for all permissions that this start needs: it may show or replace what somebody else started (S10)."""
        needed = [Permission.START]
        if if_exists == IfExists.REPLACE_FINISHED:
            needed.append(Permission.PURGE)
        if if_exists == IfExists.RETURN and reads:
            needed.append(Permission.READ)
        for permission in needed:
            refusal = authorize(self.policy, permission, instance_id, present_key())
            if refusal is not None:
                return refusal_response(refusal)
        return None

    def _start(self, name: str, body: Body, if_exists: str) -> str:
        started = self.client.start(
            name,
            body.get("input"),
            instance_id=body.get("instance_id"),
            start_at=body.get("start_at"),
            version=body.get("version"),
            tags=body.get("tags"),
            if_exists=if_exists,
        )
        name_instance(started)
        return started

    def _started(self, instance_id: str) -> Response:
        links = management_links(base_of(request, self.settings), self.settings, instance_id)
        headers = {"Location": links["statusQueryGetUri"], "Retry-After": str(self.settings.retry_after)}
        return json_response({"id": instance_id, "instanceId": instance_id, **links, "managementUrls": links}, 202, headers)

    def _status(self, query: Query, instance_id: str) -> tuple[dict[str, Any], OrchestrationStatus]:
        shows = {"show_input": query["show_input"], "show_history_output": query["show_history_output"]}
        problem = None
        try:
            status = self.client.get_status(instance_id, show_history=query["show_history"], **shows)
        except CorruptHistoryError as error:  # I13: there is nothing that cannot be shown
            status, problem = self.client.get_status(instance_id, **shows), str(error)
        if status is None:
            raise InstanceNotFoundError(instance_id)
        digest = None
        if status.history is not None:
            digest = history_digest(status.history, show_input=query["show_input"], show_output=query["show_history_output"])
        return status_document(status, history=digest, history_error=problem), status

    def _page_headers(self, token: str | None) -> dict[str, str]:
        if token is None:
            return {CONTINUATION_HEADER: ""}
        return {CONTINUATION_HEADER: token, "Link": f'<{next_page(base_of(request, self.settings), request, token)}>; rel="next"'}


def _existing(instance_id: str) -> str:
    """The id, unless no instance can have it: then it is simply not found, and no database has to bear it."""
    try:
        return check_instance_id(instance_id)
    except InvalidArgumentError:
        raise InstanceNotFoundError(instance_id) from None


def _accepted(instance_id: str) -> Response:
    return json_response({"id": instance_id, "instanceId": instance_id}, 202)


def _ended(status: OrchestrationStatus, query: Query) -> Response:
    if status.runtime_status is RuntimeStatus.COMPLETED:
        return json_response(status.output)
    failed = status.runtime_status is RuntimeStatus.FAILED and query["fails_as_500"]
    return json_response(status_document(status), 500 if failed else 200)


def _timeout(query: Query) -> float | None:
    timeout, interval = query.get("timeout"), query.get("polling_interval")
    if timeout is None and interval is None:
        return None
    if timeout is None or interval is None:
        missing = "timeout" if timeout is None else "pollingInterval"
        raise ApiError(400, "timeout and pollingInterval go together", errors={missing: ["Missing data for required field."]})
    if not 0 < interval <= timeout:
        raise ApiError(400, "pollingInterval must be more than 0 and not more than timeout", errors={"pollingInterval": ["Out of range."]})
    return min(float(timeout), LONGEST_WAIT)


def _either(query: Query, body: Body, key: str) -> Any:
    """A value that may stand in the query or in the body; the body wins, since a link may be followed with its placeholder still in it."""
    return query.get(key) if body.get(key) is None else body[key]


def _filter(query: Query) -> InstanceFilter:
    return InstanceFilter(
        statuses=query["statuses"],
        name=query.get("name"),
        id_prefix=query.get("id_prefix") or None,
        created_from=_micros(query.get("created_from")),
        created_to=_micros(query.get("created_to")),
        created_to_inclusive=True,
        parent_instance_id=query.get("parent_instance_id"),
        tags=query["tags"],
        version=query.get("version"),
        is_parked=query.get("is_parked"),
        completed_from=_micros(query.get("completed_from")),
        completed_to=_micros(query.get("completed_to")),
        has_version=query.get("has_version"),
        is_root=True if query["roots_only"] else None,
    )


def _micros(moment: datetime | None) -> Micros | None:
    return None if moment is None else to_micros(moment)
