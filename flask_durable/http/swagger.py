"""Swagger: the OpenAPI document and its page, from files of this machine only."""

from __future__ import annotations

import copy
import importlib.util
import secrets
from pathlib import Path
from typing import Any

import flask_smorest
from flask import Blueprint, Response, make_response, render_template, request, send_from_directory

from flask_durable.access import Permission
from flask_durable.config import Settings
from flask_durable.http.answers import json_response
from flask_durable.http.errors import ApiError
from flask_durable.http.guard import Guard
from flask_durable.http.links import base_of
from flask_durable.registry import Registry

PERMISSIONS = {"openapi": Permission.READ, "swagger": Permission.READ, "swagger_asset": Permission.READ}
"""Endpoints of this module, with what they need."""

ASSETS = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"})
_NAME_PARAMETER = "orchestratorName"


def add_documentation(blueprint: Blueprint, guard: Guard, api: flask_smorest.Api, *, registry: Registry, settings: Settings) -> None:
    """Serve the document of an Api, and the page that shows it, below the prefix."""

    def openapi() -> Response:
        return json_response(current_document(api, registry, base_of(request, settings)))

    def swagger() -> Response:
        return _page(settings)

    def swagger_asset(filename: str) -> Response:
        folder = asset_folder()
        if folder is None or filename not in ASSETS:
            raise ApiError(404, "There is no such page in the management API")
        return send_from_directory(folder, filename, max_age=3600)

    for path, view in (("/openapi.json", openapi), ("/docs", swagger), ("/docs/<path:filename>", swagger_asset)):
        Blueprint.add_url_rule(blueprint, path, view.__name__, guard.around(view), methods=["GET"], strict_slashes=False, merge_slashes=False)


def current_document(api: flask_smorest.Api, registry: Registry, base: str) -> dict[str, Any]:
    """The document as of now: orchestrators may have been registered since the app was set up."""
    document: dict[str, Any] = copy.deepcopy(api.spec.to_dict())
    document["servers"] = [{"url": base}]
    names = registry.orchestrator_names()
    for path, operations in document["paths"].items():
        if path.endswith(f"/start/{{{_NAME_PARAMETER}}}"):
            for parameter in operations.get("parameters", []):
                if parameter.get("name") == _NAME_PARAMETER and names:
                    parameter["schema"] = {"type": "string", "enum": list(names)}
    return document


def asset_folder() -> Path | None:
    """Where flask-swagger-ui keeps its files; None without it."""
    found = importlib.util.find_spec("flask_swagger_ui")
    return Path(found.origin).parent / "dist" if found is not None and found.origin else None


def _page(settings: Settings) -> Response:
    nonce = secrets.token_urlsafe(16)
    # Relative addresses: they hold behind any path prefix, also one that a proxy takes off without telling
    here = "../" if request.path.endswith("/") else ""
    depth = settings.url_prefix.count("/")
    html = render_template("durable/swagger.html", nonce=nonce, here=here, root="../" * depth, has_assets=asset_folder() is not None)
    response = make_response(html)
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
