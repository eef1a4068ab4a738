"""Commands for the tables: db init, db upgrade."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from flask_durable.cli.group import DurableState, app_state, note
from flask_durable.cli.output import echo, safe

db = AppGroup("db", help="Create and upgrade the tables.")


@db.command("init")
def init() -> None:
    """Create the tables; where there are some already, bring them up to date."""
    _bring_up_to_date(app_state(checks_tables=False))


@db.command("upgrade")
def upgrade() -> None:
    """Bring the tables up to date; they may be in use."""
    state = app_state(checks_tables=False)
    if state.store.schema_version() is None:
        raise click.ClickException("There are no durable tables here. Create them with `flask durable db init`")
    _bring_up_to_date(state)


def _bring_up_to_date(state: DurableState) -> None:
    note(f"Database: {state.database_url}")
    before = state.store.schema_version()
    state.store.create_tables()
    after = state.store.schema_version()
    if before is None:
        echo(safe(f"Tables created, version {after}"))
    elif before == after:
        echo(safe(f"Nothing to do: the tables have version {after}"))
    else:
        echo(safe(f"Tables upgraded from version {before} to {after}"))
