"""Guard: what happens around every view of a management blueprint: access, trace context, and errors that become JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from flask_durable.access import Caller, Permission, Policy, admit, authorize
from flask_durable.config import Settings
from flask_durable.http.errors import error_response, refusal_response
from flask_durable.telemetry import Telemetry

View = Callable[..., Any]


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
            refusal = admit(self.policy, caller_of(request), accepts_basic=endpoint in self.pages)
            if refusal is None and endpoint not in ASKS_ITSELF:
                refusal = authorize(self.policy, self.permissions[endpoint], (request.view_args or {}).get("instanceId"))
        except Exception as error:  # noqa: BLE001 - an authorizer is user code, and what it raises must not open the API or become a page
            return self.answer(error)
        return refusal_response(refusal) if refusal else None

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
            refusal = admit(self.policy, caller_of(request)) or authorize(self.policy, Permission.READ, None)
        except Exception as error:  # noqa: BLE001 - see before_request
            return self.answer(error)
        return refusal_response(refusal) if refusal else None


ASKS_ITSELF = frozenset({"start"})
"""Endpoints that call the authorizer themselves, because the instance id is in the body."""


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
