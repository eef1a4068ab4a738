"""OpenAPI: the parts of flask-smorest, bent so that the host is left alone and malformed input is a 400."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import flask_smorest
from flask import Flask, Request
from marshmallow import RAISE, Schema, ValidationError
from webargs import missing
from webargs.flaskparser import FlaskParser

from flask_durable.config import Settings
from flask_durable.http.errors import CODE_OF_STATUS, ApiError, error_document
from flask_durable.http.fields import LIST_FIELDS, OPENAPI_TYPES
from flask_durable.http.parsing import ABSENT, read_body, single_values
from flask_durable.http.schemas import DurableError

API_VERSION = "1.0"
OPENAPI_VERSION = "3.1.0"
CONFIG_PREFIX = "DURABLE"
_DESCRIPTION = """\
Start, watch and control durable orchestrations.

Query names are read without regard to case; moments without a zone are UTC; every error has the same JSON body. Links in answers contain the
placeholders `{eventName}` and `{text}`, to be replaced as text.
"""


class DurableApi(flask_smorest.Api):  # type: ignore[misc]
    """An Api for the management routes alone: it serves no pages by itself and does not touch the host's error pages."""

    ERROR_SCHEMA = DurableError

    def __init__(self, **options: Any) -> None:
        self._lock = threading.RLock()
        self._chapters: list[Callable[[], object]] = []
        super().__init__(**options)

    @property
    def spec(self) -> Any:
        """The document; what was put off is written into it now."""
        with self._lock:
            chapters, self._chapters = self._chapters, []  # they ask for it themselves
            for chapter in chapters:
                chapter()
        return self._spec

    @spec.setter
    def spec(self, value: Any) -> None:
        self._spec = value

    def write_later(self, chapter: Callable[[], object]) -> None:
        """Put off a part of the document until somebody asks for it: most processes of an app never serve it."""
        self._chapters.append(chapter)

    def register_blueprint(self, blp: flask_smorest.Blueprint, **options: Any) -> None:
        """Serve the routes of a blueprint, and describe them later."""
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blp.name] = self
        self._app.register_blueprint(blp, **options)
        self.describe(blp)
        self.write_later(lambda: self.spec.tag({"name": blp.name, "description": blp.description}))

    def describe(self, blp: flask_smorest.Blueprint) -> None:
        """Describe, later, the routes of a blueprint that the app serves already."""
        self.write_later(lambda: blp.register_views_in_doc(self, self._app, self.spec, name=blp.name, parameters=None))

    def _register_responses(self) -> None:
        """The error answers are our own: see prepare_spec."""

    def _register_error_handlers(self) -> None:
        """The host's error pages stay the host's; the guard answers for the management routes."""

    def _register_pagination_header(self) -> None:
        """Pages are marked by tokens here."""


class RequestParser(FlaskParser):
    """Reads queries and bodies by the rules of parsing.py.

    Args:
        settings: limits of bodies.
    """

    DEFAULT_VALIDATION_STATUS = 400
    # None: the schema says what becomes of unknown names
    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": None, "json": None}  # noqa: RUF012 - webargs' own way

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """Query values under their proper names."""
        keys = {name: field.data_key or name for name, field in schema.load_fields.items()}
        lists = frozenset(key for name, key in keys.items() if isinstance(schema.load_fields[name], LIST_FIELDS))
        values, unknown = single_values(dict(req.args.lists()), {key.casefold(): key for key in keys.values()}, lists)
        return values | dict.fromkeys(unknown, "") if schema.unknown == RAISE else values

    def load_json(self, req: Request, schema: Schema) -> Any:
        """The body, which must be an object when there is one."""
        body = read_body(req, self._settings)
        if body is ABSENT:
            return missing
        if not isinstance(body, dict):
            raise ApiError(400, f"The body must be a JSON object with any of {', '.join(_keys(schema))}")
        return body

    def handle_error(self, error: ValidationError, req: Request, schema: Schema, **_: Any) -> NoReturn:
        """Raise one error that names every field; webargs' own would be a 422."""
        errors = dict(sorted(item for found in error.messages_dict.values() for item in _by_field(found)))
        shown = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in errors.items())
        if any("Unknown field." in texts for texts in errors.values()):
            shown += f" Known: {', '.join(_keys(schema))}"
        raise ApiError(400, shown, errors=errors) from error


def _keys(schema: Schema) -> list[str]:
    return [field.data_key or name for name, field in schema.load_fields.items()]


def _by_field(found: Any, path: str = "") -> Iterable[tuple[str, list[str]]]:
    if isinstance(found, Mapping):
        for key, inner in found.items():
            yield from _by_field(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path or "body", [str(text) for text in (found if isinstance(found, list) else [found])]


class DurableBlueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """A blueprint that parses by our rules and documents exactly the answers it names.

    Args:
        name: name of the blueprint.
        settings: limits of bodies.
    """

    def __init__(self, name: str, settings: Settings, **options: Any) -> None:
        super().__init__(name, __name__, **options)
        self.ARGUMENTS_PARSER = RequestParser(settings)

    @staticmethod
    def _prepare_response_doc(doc: Any, doc_info: Any, *, api: Any, spec: Any, **kwargs: Any) -> Any:
        doc = flask_smorest.Blueprint._prepare_response_doc(doc, doc_info, api=api, spec=spec, **kwargs)
        doc.get("responses", {}).pop("default", None)  # the host's error schema, which is not ours
        return doc


def own_api(app: Flask, settings: Settings) -> DurableApi:
    """The Api whose document holds the management routes and nothing else."""
    api = DurableApi(
        spec_kwargs={
            "title": "Durable orchestrations",
            "version": API_VERSION,
            "openapi_version": OPENAPI_VERSION,
            "info": {"description": _DESCRIPTION},
        },
        config_prefix=CONFIG_PREFIX,
    )
    api.init_app(app)
    return api


def host_api(app: Flask) -> flask_smorest.Api | None:
    """The app's own Api: the one without config prefix, or else the only one; None when there is none or it is not clear which.

    One of OpenAPI 2 is left alone: it has no words for bodies and links like ours.
    """
    found = {prefix: entry["ext_obj"] for prefix, entry in app.extensions.get("flask-smorest", {}).get("apis", {}).items()}
    others = {prefix: api for prefix, api in found.items() if not isinstance(api, DurableApi) and api.spec.openapi_version.major >= 3}
    if "" in others:
        return others[""]
    return next(iter(others.values())) if len(others) == 1 else None


def prepare_spec(api: flask_smorest.Api, settings: Settings) -> None:
    """Put the shared parts into an Api's document: our fields, error answers and security schemes."""
    for field, (kind, kind_format) in OPENAPI_TYPES.items():
        api.register_field(field, kind, kind_format)
    components = api.spec.components
    for status, description in ERROR_ANSWERS.items():
        components.response(answer_name(status), _error_answer(status, description))
    if settings.api_keys:
        components.security_scheme("DurableApiKey", {"type": "apiKey", "in": "header", "name": "X-Api-Key"})
        components.security_scheme("DurableBearer", {"type": "http", "scheme": "bearer"})


def security(settings: Settings) -> list[dict[str, list[str]]]:
    """What an operation demands; an authorizer's demands are the app's own and not known here."""
    return [{"DurableApiKey": []}, {"DurableBearer": []}] if settings.api_keys else []


def answer_name(status: int) -> str:
    """Name of a documented error answer."""
    return f"DurableError{status}"


def _error_answer(status: int, description: str) -> dict[str, Any]:
    code = _EXAMPLE_CODES.get(status) or CODE_OF_STATUS.get(status, "internal_error")
    answer: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": DurableError, "example": error_document(status, code, description)}},
    }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which to try again"}}
    if status == 401:
        answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "How to send a key"}}
    return answer


ERROR_ANSWERS = {
    400: "Something in the request is malformed; `errors` names the fields",
    401: "An API key is needed, or the one sent is not valid",
    403: "Access is not configured for this caller, or the caller may not do this",
    404: "There is no instance with this id",
    409: "The instance is in a state that does not allow this; `runtimeStatus` says which",
    410: "The instance has ended",
    411: "The body comes in chunks, which this server cannot read",
    413: "The body or a payload in it is too large",
    415: "There is a body, and it is not JSON",
    429: "Too many requests wait already; nothing was started",
    500: "Something went wrong on the server",
    503: "The database does not answer; try again later",
}
_EXAMPLE_CODES = {404: "instance_not_found", 409: "instance_exists", 410: "instance_finished", 411: "length_required", 503: "store_unavailable"}
