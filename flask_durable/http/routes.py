"""Routes: the table of the native routes (what each needs, takes and answers), and the blueprint that is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema

from flask_durable.access import Permission
from flask_durable.config import Settings
from flask_durable.core.ids import MAX_DEDUP_KEY_LENGTH, MAX_NAME_LENGTH
from flask_durable.http import converters, schemas
from flask_durable.http.guard import Guard
from flask_durable.http.native import DEDUP_HEADER, NativeViews
from flask_durable.http.openapi import DurableBlueprint, answer_name, security

BLUEPRINT = "durable"
_PATH_NAMES = {"orchestratorName": "name", "instanceId": "instance_id", "eventName": "event_name"}
_ALWAYS = (403, 500, 503)
_BODY = (411, 413, 415)
_ANY_JSON: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Route:
    """One operation.

    Args:
        endpoint: name of the view, in NativeViews and in Flask.
        operation_id: name in the OpenAPI document.
        answers: documented successes by status.
        errors: documented errors beside those that every operation has.
        body_example: an example of the body.
        raw_body: OpenAPI text of a body that the view reads itself.
        headers: OpenAPI text of request headers that the view reads itself.
    """

    method: str
    path: str
    endpoint: str
    operation_id: str
    permission: Permission
    answers: dict[int, dict[str, Any]]
    query: type[Schema] | None = None
    body: type[Schema] | None = None
    errors: tuple[int, ...] = ()
    body_example: Any = None
    raw_body: dict[str, Any] | None = field(default=None)
    headers: tuple[dict[str, Any], ...] = ()


def build_blueprint(views: NativeViews, guard: Guard, settings: Settings) -> DurableBlueprint:
    """A blueprint of its own for one app, with the native routes on it."""
    blueprint = DurableBlueprint(
        BLUEPRINT, settings, description="Durable orchestrations", url_prefix=settings.url_prefix, template_folder="templates"
    )
    blueprint.before_request(guard.before_request)
    blueprint.after_request(guard.after_request)
    for route in ROUTES:
        view = guard.around(_documented(blueprint, route, getattr(views, route.endpoint), settings))
        blueprint.add_url_rule(
            f"/<{converters.NAME}:instanceId>" if route.path == "/<instanceId>" else route.path,
            route.endpoint,
            view,
            methods=[route.method],
            parameters=[dict(PATH_PARAMETERS[name]) for name in PATH_PARAMETERS if f"<{name}>" in route.path],
            # A redirect loses the body of a POST in some clients
            strict_slashes=False,
            merge_slashes=False,
        )
    return blueprint


def _documented(blueprint: DurableBlueprint, route: Route, view: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    """The view with its parsers, and with all that the document says about it."""

    def call(*parsed: Any, **path: str) -> Any:
        return view(*parsed, **{_PATH_NAMES[name]: value for name, value in path.items()})

    call.__doc__ = view.__doc__
    wrapped: Callable[..., Any] = call
    if route.body is not None:
        wrapped = blueprint.arguments(route.body, location="json", required=False, example=route.body_example)(wrapped)
    if route.query is not None:
        wrapped = blueprint.arguments(route.query, location="query")(wrapped)
    errors = {*route.errors, *_ALWAYS, *(_BODY if route.body or route.raw_body else ()), *((401,) if settings.api_keys else ())}
    for status in sorted(errors - set(route.answers)):
        wrapped = blueprint.alt_response(status, answer_name(status))(wrapped)
    for status, answer in route.answers.items():
        wrapped = blueprint.alt_response(status, success=status < 400, **_only_what_fits(answer))(wrapped)
    extra: dict[str, Any] = {"operationId": route.operation_id, "responses": {s: _links(a) for s, a in route.answers.items() if "links" in a}}
    if route.headers:
        extra["parameters"] = list(route.headers)
    if route.raw_body:
        extra["requestBody"] = route.raw_body
    if settings.api_keys:
        extra["security"] = security(settings)
    return blueprint.doc(**extra)(wrapped)  # type: ignore[no-any-return]


def _only_what_fits(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "links"}


def _links(answer: dict[str, Any]) -> dict[str, Any]:
    return {"links": answer["links"]}


def _header(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


def _link(operation_id: str, description: str) -> dict[str, Any]:
    return {"operationId": operation_id, "parameters": {"instanceId": "$response.body#/instanceId"}, "description": description}


_LOCATION = _header("Where to ask for the status")
_RETRY_AFTER = _header("Seconds after which asking makes sense", "integer")
_PAGE_HEADERS = {
    "x-ms-continuation-token": _header("Token of the next page; empty on the last"),
    "Link": _header('Address of the next page, `rel="next"`; missing on the last'),
}
_STARTED: dict[str, Any] = {
    "schema": schemas.DurableStarted,
    "description": "Accepted; the start is durable",
    "headers": {"Location": _LOCATION, "Retry-After": _RETRY_AFTER},
    "links": {
        "GetInstance": _link("getInstance", "The status of what was started"),
        "GetHistory": _link("getInstanceHistory", "Its history"),
        "TerminateInstance": _link("terminateInstance", "End it"),
        "SuspendInstance": _link("suspendInstance", "Hold it"),
        "PurgeInstance": _link("purgeInstance", "Delete it"),
    },
}
_FAILED: dict[str, Any] = {
    "schema": {"type": "object"},
    "description": "Something went wrong on the server; with `returnInternalServerErrorOnFailure=true` also the status of a failed orchestration",
}
_ACCEPTED: dict[str, Any] = {"schema": schemas.DurableAccepted, "description": "Accepted; the command is durable"}
_DELETED: dict[str, Any] = {"schema": schemas.DurableDeleted, "description": "Deleted"}

_EVENT_NAME = {"type": "string", "pattern": schemas.NAME_PATTERN, "maxLength": MAX_NAME_LENGTH}

_DEDUP_KEY: dict[str, Any] = {
    "in": "header",
    "name": DEDUP_HEADER,
    "description": "A second event with the same key for the same instance is accepted and dropped",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_DEDUP_KEY_LENGTH},
}

PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "orchestratorName": {"in": "path", "name": "orchestratorName", "description": "Name of a registered orchestrator"},
    "instanceId": {"in": "path", "name": "instanceId", "description": "Id of the instance"},
    "eventName": {"in": "path", "name": "eventName", "description": "Name of the event", "example": "Approval", "schema": _EVENT_NAME},
}

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/start/<orchestratorName>",
        "start",
        "startOrchestration",
        Permission.START,
        query=schemas.DurableStartQuery,
        body=schemas.DurableStart,
        body_example={"input": {"orderId": "123"}},
        answers={
            202: _STARTED,
            200: {"schema": _ANY_JSON, "description": "Ended while waiting: the output of a completed orchestration, the status of any other"},
            500: _FAILED,
        },
        errors=(400, 409, 429),
    ),
    Route(
        "GET",
        "",
        "list_instances",
        "listInstances",
        Permission.READ,
        query=schemas.DurableListQuery,
        answers={
            200: {
                "schema": schemas.DurableStatus(many=True),
                "description": "A page of statuses",
                "headers": {**_PAGE_HEADERS, "x-total-count": _header("How many instances the filter means, with includeTotal", "integer")},
            }
        },
        errors=(400,),
    ),
    Route(
        "DELETE",
        "",
        "purge_instances",
        "purgeInstances",
        Permission.PURGE,
        query=schemas.DurablePurgeQuery,
        answers={200: _DELETED},
        errors=(400,),
    ),
    Route(
        "GET",
        "/versions",
        "list_versions",
        "listVersions",
        Permission.READ,
        query=schemas.DurableVersionsQuery,
        answers={200: {"schema": schemas.DurableVersionUse(many=True), "description": "One entry for each orchestrator and version"}},
        errors=(400,),
    ),
    Route(
        "GET",
        "/<instanceId>",
        "get_instance",
        "getInstance",
        Permission.READ,
        query=schemas.DurableStatusQuery,
        answers={
            200: {"schema": schemas.DurableStatus, "description": "The status"},
            202: {
                "schema": schemas.DurableStatus,
                "description": "Not ended yet; only with `async=true`",
                "headers": {"Location": _LOCATION, "Retry-After": _RETRY_AFTER},
            },
            500: _FAILED,
        },
        errors=(400, 404),
    ),
    Route(
        "GET",
        "/<instanceId>/history",
        "get_history",
        "getInstanceHistory",
        Permission.READ,
        query=schemas.DurableHistoryQuery,
        answers={200: {"schema": schemas.DurableHistoryEvent(many=True), "description": "A page of events", "headers": _PAGE_HEADERS}},
        errors=(400, 404, 409),
    ),
    Route(
        "POST",
        "/<instanceId>/raiseEvent/<eventName>",
        "raise_event",
        "raiseEvent",
        Permission.EVENT,
        raw_body={
            "required": False,
            "description": "`eventData` in an object, or any other JSON value as the payload itself",
            "content": {"application/json": {"schema": _ANY_JSON, "example": {"eventData": {"approved": True}}}},
        },
        headers=(_DEDUP_KEY,),
        answers={202: _ACCEPTED},
        errors=(400, 404, 410),
    ),
    Route(
        "POST",
        "/<instanceId>/terminate",
        "terminate",
        "terminateInstance",
        Permission.CONTROL,
        query=schemas.DurableTerminateQuery,
        body=schemas.DurableTerminate,
        body_example={"reason": "ordered by mistake"},
        answers={202: _ACCEPTED},
        errors=(400, 404, 410),
    ),
    Route(
        "POST",
        "/<instanceId>/suspend",
        "suspend",
        "suspendInstance",
        Permission.CONTROL,
        query=schemas.DurableHoldQuery,
        body=schemas.DurableHold,
        answers={202: _ACCEPTED},
        errors=(400, 404, 410),
    ),
    Route(
        "POST",
        "/<instanceId>/resume",
        "resume",
        "resumeInstance",
        Permission.CONTROL,
        query=schemas.DurableHoldQuery,
        body=schemas.DurableHold,
        answers={202: _ACCEPTED},
        errors=(400, 404, 410),
    ),
    Route(
        "POST",
        "/<instanceId>/rewind",
        "rewind",
        "rewindInstance",
        Permission.CONTROL,
        query=schemas.DurableReasonQuery,
        body=schemas.DurableReason,
        body_example={"reason": "the payment service is back"},
        answers={202: _ACCEPTED},
        errors=(400, 404, 409, 410),
    ),
    Route(
        "POST",
        "/<instanceId>/restart",
        "restart",
        "restartInstance",
        Permission.CONTROL,
        query=schemas.DurableRestartQuery,
        body=schemas.DurableRestart,
        answers={202: _STARTED},
        errors=(400, 404, 409),
    ),
    Route(
        "DELETE",
        "/<instanceId>",
        "purge_instance",
        "purgeInstance",
        Permission.PURGE,
        query=schemas.DurablePurgeOneQuery,
        answers={200: _DELETED},
        errors=(400, 404, 409),
    ),
)
"""All native routes. Each states its permission: an endpoint without one is closed."""
