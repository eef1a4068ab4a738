"""Databases made by earlier versions become like new ones, with all they hold, and their instances go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from flask import Flask
from support import finish, look

from flask_durable import FlaskDurable
from flask_durable.errors import SchemaVersionError
from flask_durable.storage.models import SCHEMA_VERSION, make_tables
from flask_durable.storage.sql_store import SqlStore

SCHEMAS = Path(__file__).parent / "schemas"
NOW = 1_700_000_000_000_000


VERSIONS = range(1, SCHEMA_VERSION)


def make_version(version, url):
    """The tables as an earlier version made them, with an instance in the middle of its life and an ended one."""
    store = SqlStore(url)
    sql = store._sql
    name = "sqlite" if sql.is_sqlite else "postgres" if sql.is_postgresql else "mysql"

    def fill():
        for statement in (SCHEMAS / f"v{version}-{name}.sql").read_text().split(";\n"):
            if statement.strip():
                sql.database.execute_sql(statement)
        sql.run("INSERT INTO durable_schema (version, applied_at) VALUES (?, ?)", (version, NOW))
        for instance_id, status, own_version in (("waiting", "Running", "1.10"), ("ended", "Completed", None)):
            sql.run(
                "INSERT INTO durable_instance (hub, instance_id, execution_id, generation, name, version, status, created_at, updated_at, sequence,"
                " has_started, deliveries) VALUES ('old', ?, ?, 0, 'waits', ?, ?, ?, ?, ?, ?, 0)",
                (instance_id, f"e-{instance_id}", own_version, status, NOW, NOW, 2 if status == "Running" else 0, status == "Running"),
            )
        started = json.dumps({"instanceId": "waiting", "executionId": "e-waiting"})
        history = "INSERT INTO durable_history (hub, instance_id, generation, sequence, at, event_type, task_id, name, payload, extra)"
        sql.run(f"{history} VALUES ('old', 'waiting', 0, 1, ?, 'ExecutionStarted', NULL, 'waits', NULL, ?)", (NOW, started))
        sql.run(f"{history} VALUES ('old', 'waiting', 0, 2, ?, 'TaskScheduled', 1, 'double', '21', NULL)", (NOW,))
        sql.run(
            "INSERT INTO durable_activity (hub, execution_id, task_id, instance_id, name, input, attempt, first_task_id, queued_at, deliveries)"
            " VALUES ('old', 'e-waiting', 1, 'waiting', 'double', '21', 1, 1, ?, 0)",
            (NOW,),
        )

    sql.transaction(fill)
    return store


def shape(store):
    """Columns and indexes of every table."""
    database = store._sql.database
    found = {}
    with store.connection():
        for model in make_tables(database).all():
            table = model._meta.table_name
            columns = {column.name: (column.data_type.lower(), column.null) for column in database.get_columns(table)}
            indexes = {tuple(index.columns) for index in database.get_indexes(table)}
            found[table] = columns, indexes
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgraded_database_is_like_a_new_one(empty_url, tmp_path, version):
    # Given tables of an earlier version
    old = make_version(version, empty_url)
    with pytest.raises(SchemaVersionError, match=f"have version {version}"):
        old.check_schema()

    # When they are upgraded
    old.create_tables()
    assert old.schema_version() == SCHEMA_VERSION
    upgraded = shape(old)

    # Then nothing distinguishes them from new ones, and a second time changes nothing
    old.create_tables()
    old.drop_tables()
    old.create_tables()
    assert upgraded == shape(old)
    old.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_instances_from_before_the_upgrade_go_on(empty_url, tmp_path, version):
    make_version(version, empty_url).close()
    store = SqlStore(empty_url)
    store.create_tables()
    store.close()
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, DURABLE_DATABASE=empty_url, DURABLE_TASK_HUB="old")
    durable = FlaskDurable(app)

    @durable.activity
    def double(value):
        return value * 2

    @durable.orchestrator
    def waits(ctx):
        doubled = yield ctx.call_activity(double, 21)
        return [doubled, (yield ctx.wait_for_external_event("Go"))]

    durable.start_worker()
    durable.client.raise_event("waiting", "Go", "on")
    assert finish(durable, "waiting").output == [42, "on"]
    assert look(durable, "waiting").version == "1.10"
    assert durable.client.purge("ended") == 1
    durable.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_its_tables_kept_for_this_test(version):
    assert {path.name for path in SCHEMAS.glob(f"v{version}-*")} == {f"v{version}-{name}.sql" for name in ("sqlite", "postgres", "mysql")}
    assert os.path.getsize(SCHEMAS / f"v{version}-sqlite.sql") > 0
