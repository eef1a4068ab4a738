"""Errors as answers: one table from error code to HTTP status, and the one body that all errors have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, current_app
from flask.signals import got_request_exception
from werkzeug.exceptions import HTTPException

from flask_durable.access import Refusal
from flask_durable.core.status import FINAL_STATUSES
from flask_durable.errors import (
    ConnectionsExhaustedError,
    DurableError,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFailedError,
    InstanceNotFinishedError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from flask_durable.http.answers import json_response
from flask_durable.logs import get_logger

logger = get_logger("flask_durable.http")

STATUS_OF_CODE: dict[str, int] = {
    "durable_error": 500,
    "configuration": 500,
    "invalid_argument": 400,
    "payload_too_large": 413,
    "type_mismatch": 400,
    "not_registered": 400,
    "instance_not_found": 404,
    "instance_exists": 409,
    "instance_finished": 410,
    "instance_not_finished": 409,
    "instance_not_failed": 409,
    "nondeterminism": 500,
    "task_failed": 500,
    "sub_orchestration_failed": 500,
    "task_cancelled": 500,
    "task_not_complete": 500,
    "event_timeout": 500,
    "activity_timeout": 500,
    "activity_lost": 500,
    "non_retriable": 500,
    "wait_timeout": 504,
    "store_unavailable": 503,
    "connections_exhausted": 503,
    "outcome_unknown": 503,
    "version_mismatch": 500,
    "schema_version": 503,
    "worker_lost": 503,
    "corrupt_history": 409,
    "limit_exceeded": 500,
    "context_closed": 500,
    "turn_impossible": 500,
    "not_supported": 501,
}
"""HTTP status of each error class of the package, by its stable code."""

CODE_OF_STATUS: dict[int, str] = {
    400: "invalid_argument",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
}
"""Stable code of the errors that only HTTP knows, by their status."""

_STORE_UNAVAILABLE = "The database does not answer; try again later"
_OUTCOME_UNKNOWN = "The database did not answer in time, and the request may have been carried out: look before you send it again"
_INTERNAL = "Something went wrong on the server; its log says what"


class ApiError(Exception):
    """An error that only HTTP knows.

    Args:
        status: HTTP status.
        message: a sentence for the caller.
        errors: what is wrong with which field.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        errors: Mapping[str, list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or CODE_OF_STATUS[status]
        self.errors = errors
        self.headers = headers


def error_document(status: int, code: str, message: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The body of an error; the text stands under the names that the clients of all relatives read."""
    return {"message": message, "Message": message, "ExceptionMessage": message, "code": code, "status": status, **(extra or {})}


def refusal_response(refusal: Refusal) -> Response:
    """The answer to a request that is not served."""
    return json_response(error_document(refusal.status, refusal.code, refusal.message), refusal.status, refusal.headers)


def error_response(error: Exception, *, retry_after: int) -> Response:
    """The answer to an exception of any kind; what nobody foresaw is logged and becomes a 500 that tells nothing.

    Args:
        error: the exception.
        retry_after: seconds for the header of a 503.
    """
    if isinstance(error, ApiError):
        extra = {"errors": error.errors} if error.errors else None
        return json_response(error_document(error.status, error.code, str(error), extra), error.status, error.headers)
    if isinstance(error, DurableError):
        status = _status(error)
        if status != 500:
            headers = {"Retry-After": str(retry_after)} if status == 503 else {}
            return json_response(error_document(status, error.code, _text(error), _extra(error)), status, headers)
    if isinstance(error, HTTPException) and error.code is not None and 400 <= error.code < 500:
        return _http_error_response(error, error.code)
    return _unexpected(error)


def _status(error: DurableError) -> int:
    if isinstance(error, InstanceNotFailedError) and error.status in FINAL_STATUSES:
        return STATUS_OF_CODE[InstanceFinishedError.code]
    return STATUS_OF_CODE.get(error.code, 500)


def _http_error_response(error: HTTPException, status: int) -> Response:
    headers = {name: value for name, value in error.get_headers() if name.lower() in ("allow", "www-authenticate", "retry-after")}
    code = CODE_OF_STATUS.get(status, (error.name or "error").lower().replace(" ", "_"))
    return json_response(error_document(status, code, _MESSAGES.get(status) or error.description or error.name), status, headers)


def _unexpected(error: Exception) -> Response:
    logger.error("The management API failed", exc_info=error)
    # Flask tells its listeners (error trackers) only of exceptions that reach it
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    got_request_exception.send(app, _async_wrapper=app.ensure_sync, exception=error)
    return json_response(error_document(500, "internal_error", _INTERNAL), 500)


def _text(error: DurableError) -> str:
    # A driver's text may name hosts and users
    if isinstance(error, OutcomeUnknownError):
        return _OUTCOME_UNKNOWN
    is_driver_s = isinstance(error, StoreUnavailableError) and not isinstance(error, ConnectionsExhaustedError)
    return _STORE_UNAVAILABLE if is_driver_s else str(error)


def _extra(error: DurableError) -> dict[str, Any]:
    if isinstance(error, InstanceExistsError | InstanceFinishedError | InstanceNotFinishedError | InstanceNotFailedError):
        return {"instanceId": error.instance_id, "runtimeStatus": str(error.status)}
    return {}


_MESSAGES = {
    404: "There is no such page in the management API",
    405: "This method is not allowed here; the Allow header says which ones are",
    413: "The body is too large",
}
