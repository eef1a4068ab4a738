"""Guard: what happens around every view of a management blueprint: access, its record, trace context, and errors that become JSON.

The logger ``flask_durable.audit`` is told of each request that changes something and of each one that is refused: who, what, and with what
result. It gets the names of keys and the ids of instances; never a key, never a payload.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from flask_durable.access import Caller, Permission, Policy, Refusal, admit, authorize, key_of
from flask_durable.config import Settings
from flask_durable.http.errors import error_response, refusal_response
from flask_durable.keys import ApiKey
from flask_durable.logs import get_logger
from flask_durable.telemetry import Telemetry

View = Callable[..., Any]

audit_logger = get_logger("flask_durable.audit")


@dataclass(frozen=True, slots=True)
class Guard:
    """The guard of one app.

    Args:
        pages: endpoints that a person opens in a browser.
    """

    policy: Policy
    settings: Settings
    telemetry: Telemetry
    permissions: Mapping[str, Permission]
    pages: frozenset[str] = frozenset()

    def before_request(self) -> Response | None:
        """Refuse what is not allowed; an endpoint that states no permission is closed."""
        endpoint = (request.endpoint or "").rpartition(".")[2]
        try:
            refusal = self._admit(accepts_basic=endpoint in self.pages)
            if refusal is None and endpoint not in ASKS_ITSELF:
                refusal = authorize(self.policy, self.permissions[endpoint], (request.view_args or {}).get("instanceId"), present_key())
        except Exception as error:  # noqa: BLE001 - an authorizer is user code, and what it raises must not open the API or become a page
            return self.answer(error)
        return refusal_response(refusal) if refusal else None

    def after_request(self, response: Response) -> Response:
        """Tell the audit log of a change, or of a refusal."""
        if request.method not in _READING or response.status_code in (401, 403):
            path = {**(request.view_args or {}), **({"instanceId": g._durable_instance} if "_durable_instance" in g else {})}
            audit_logger.log(
                logging.WARNING if response.status_code in (401, 403) else logging.INFO,
                "%s %s by %s from %s: %d",
                (request.endpoint or "unknown").rpartition(".")[2],
                " ".join(f"{name}={value}" for name, value in path.items()) or "-",
                g.get("durable_api_key") or "nobody named",
                request.remote_addr or "-",
                response.status_code,
            )
        return response

    def _admit(self, *, accepts_basic: bool = False) -> Refusal | None:
        caller = caller_of(request)
        refusal = admit(self.policy, caller, accepts_basic=accepts_basic)
        key = key_of(self.policy, caller, accepts_basic=accepts_basic) if refusal is None else None
        g._durable_key = key
        g.durable_api_key = key.name if key is not None else None
        return refusal

    def around(self, view: View) -> View:
        """The view inside the caller's trace, with every exception turned into a JSON answer."""

        @functools.wraps(view)
        def guarded(*args: Any, **values: Any) -> Any:
            try:
                with self.telemetry.incoming(_headers(request)):
                    return view(*args, **values)
            except Exception as error:  # noqa: BLE001 - nothing may reach the host's error pages, whatever it registered for them
                return self.answer(error)

        return guarded

    def answer(self, error: Exception) -> Response:
        """The answer to an exception."""
        return error_response(error, retry_after=self.settings.retry_after)

    def install_router_errors(self, app: Flask, prefix: str) -> None:
        """Answer JSON where no route or method fits below the prefix; such requests never reach a blueprint."""

        def answer_unroutable() -> Response | None:
            error = request.routing_exception
            if not isinstance(error, NotFound | MethodNotAllowed) or not _is_below(request.path, prefix):
                return None
            return self._refuse_unroutable() or self.answer(_with_allow(error))

        app.before_request(answer_unroutable)

    def _refuse_unroutable(self) -> Response | None:
        try:
            refusal = self._admit() or authorize(self.policy, Permission.READ, None, present_key())
        except Exception as error:  # noqa: BLE001 - see before_request
            return self.answer(error)
        return refusal_response(refusal) if refusal else None


def present_key() -> ApiKey | None:
    """The key that the present request came with; its name is in ``flask.g.durable_api_key`` too, for authorizers."""
    found: ApiKey | None = g.get("_durable_key")
    return found


def name_instance(instance_id: str) -> None:
    """Tell the audit log which instance the present request has made."""
    g._durable_instance = instance_id


ASKS_ITSELF = frozenset({"start"})
"""Endpoints that call the authorizer themselves, because the instance id is in the body."""


_READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def caller_of(request: Request) -> Caller:
    """What access needs to know of a request.

    ProxyFix replaces address and host by what headers say; it keeps the originals, and only they cannot be made up by the caller.
    """
    environ = request.environ
    original = environ.get("werkzeug.proxy_fix.orig") or {}
    return Caller(
        peer=original.get("REMOTE_ADDR", environ.get("REMOTE_ADDR")),
        host=original.get("HTTP_HOST", environ.get("HTTP_HOST")),
        method=request.method,
        headers=_headers(request),
        protocol=environ.get("SERVER_PROTOCOL", ""),
    )


def _headers(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _with_allow(error: HTTPException) -> HTTPException:
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        error.valid_methods = sorted(error.valid_methods)
    return error
