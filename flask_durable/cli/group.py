"""The `durable` group, how its commands reach the app, and how errors leave it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Protocol, cast

import click
from flask import current_app
from flask.cli import AppGroup

from flask_durable.cli.output import safe
from flask_durable.client import DurableClient
from flask_durable.config import Settings
from flask_durable.errors import DurableError
from flask_durable.registry import Registry
from flask_durable.runtime.health import Health
from flask_durable.storage.interface import Store

EXTENSION_KEY = "durable"


class DurableState(Protocol):
    """What the extension keeps for an app, as far as commands need it."""

    @property
    def client(self) -> DurableClient:
        """The management service."""

    @property
    def store(self) -> Store:
        """Where instances are kept."""

    @property
    def settings(self) -> Settings:
        """The checked configuration."""

    @property
    def registry(self) -> Registry:
        """The orchestrators and activities."""

    @property
    def database_url(self) -> str:
        """Where the database is, without password."""

    @property
    def is_worker_running(self) -> bool:
        """Whether a worker runs in this process."""

    def start_worker(self, orchestrations: Iterable[object] | None = None, activities: Iterable[object] | None = None) -> None:
        """Run a worker in this process, limited to these functions or names."""

    def worker_health(self) -> Health:
        """How this process's worker is."""

    @property
    def ended_calls(self) -> int:
        """How many activity calls have ended in this process's worker."""

    def stop_worker(self) -> bool:
        """End it, running activities get the grace; returns whether no code of the app runs any more."""

    def start_mode(self) -> str:
        """In words, whether a serving process starts a worker, and why."""


class DurableGroup(AppGroup):
    """A group that turns errors of this package into a line on standard error and exit status 1, and honours NO_COLOR."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """As click does it, but without colours where NO_COLOR forbids them."""
        if os.environ.get("NO_COLOR"):
            extra["color"] = False
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except DurableError as error:
            raise click.ClickException("\n".join(map(safe, str(error).splitlines()))) from error


def app_state(*, checks_tables: bool = True) -> DurableState:
    """What the extension keeps for the present app.

    Args:
        checks_tables: make sure that the tables are those that this code works with.

    Raises:
        click.ClickException: there is no FlaskDurable on it.
        SchemaVersionError: the tables do not fit.
    """
    found = current_app.extensions.get(EXTENSION_KEY)
    if found is None:
        raise click.ClickException(
            f"The app {current_app.name!r} has no FlaskDurable. Create one with FlaskDurable(app), or call init_app(app) in the app's factory"
        )
    state = cast(DurableState, found)
    if checks_tables:
        state.store.check_schema()
    return state


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    click.echo(safe(text), err=True)
