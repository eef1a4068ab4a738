"""The HTTP face: the management API under the configured prefix, its OpenAPI document and Swagger UI."""

from __future__ import annotations

import flask_smorest
from flask import Flask

from flask_durable.access import make_policy
from flask_durable.client import DurableClient
from flask_durable.config import Settings
from flask_durable.http.converters import add_converter
from flask_durable.http.guard import Guard
from flask_durable.http.native import NativeViews
from flask_durable.http.openapi import host_api, own_api, prepare_spec
from flask_durable.http.routes import ROUTES, build_blueprint
from flask_durable.http.swagger import PERMISSIONS, add_documentation
from flask_durable.http.waiting import WaitingRoom
from flask_durable.logs import get_logger
from flask_durable.registry import Registry
from flask_durable.telemetry import Telemetry

logger = get_logger("flask_durable.http")


def register(
    app: Flask, *, client: DurableClient, registry: Registry, settings: Settings, telemetry: Telemetry, api: flask_smorest.Api | None = None
) -> None:
    """Serve the management API on an app.

    Args:
        app: the app.
        client: the service behind all routes.
        registry: the orchestrators that may be started by name.
        settings: prefix, access, limits.
        telemetry: takes over the trace context of requests.
        api: an Api of the host whose document shall list the routes too. Default: the one that the app has, if there is one.
    """
    policy = make_policy(settings.api_keys, settings.authorizer, is_open=settings.allow_anonymous)
    if policy.is_open and policy.authorizer is None:
        logger.warning("DURABLE_ALLOW_ANONYMOUS is set: everybody who reaches %s may do everything", settings.url_prefix)
    permissions = {route.endpoint: route.permission for route in ROUTES} | PERMISSIONS
    guard = Guard(policy, settings, telemetry, permissions, pages=frozenset(PERMISSIONS))
    host = api if api is not None else host_api(app)
    own = own_api(app, settings)
    views = NativeViews(client, registry, settings, policy, WaitingRoom(settings.max_waiting_requests, settings.retry_after))
    add_converter(app)
    blueprint = build_blueprint(views, guard, settings)
    add_documentation(blueprint, guard, own, registry=registry, settings=settings)
    own.write_later(lambda: prepare_spec(own, settings))
    if host is None:
        own.register_blueprint(blueprint)
    else:
        prepare_spec(host, settings)
        host.register_blueprint(blueprint)
        own.describe(blueprint)
    guard.install_router_errors(app, settings.url_prefix)
