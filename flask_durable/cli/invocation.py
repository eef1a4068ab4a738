"""Which ``flask`` command this process runs, if any: a command must not become a worker."""

from __future__ import annotations

import os
import sys

import click


def command() -> str | None:
    """Name of the ``flask`` command that runs, or None when this process was not started as one."""
    context = click.get_current_context(silent=True)
    if context is None:
        return None
    return context.find_root().invoked_subcommand or ""


def is_schema_command() -> bool:
    """Whether the command is there to look at the tables, so that making the app must not touch them."""
    return command() == "durable" and any(word in sys.argv for word in ("db", "doctor"))


def has_reloader() -> bool:
    """Whether ``flask run`` runs the app in a child that is replaced when code changes."""
    context = click.get_current_context(silent=True)
    while context is not None:
        reload = context.params.get("reload")
        if reload is not None:
            return bool(reload)
        context = context.parent
    if "--no-reload" in sys.argv:
        return False
    if "--reload" in sys.argv:
        return True
    return "--debug" in sys.argv or os.environ.get("FLASK_DEBUG", "").lower() not in ("", "0", "false", "no")
