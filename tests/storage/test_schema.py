"""The schema's version, and databases that cannot be opened."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading

import pytest
from flask import Flask

from flask_durable import ConfigurationError, FlaskDurable
from flask_durable.errors import SchemaVersionError, StoreUnavailableError
from flask_durable.storage.connections import LEAST
from flask_durable.storage.database import ServerOptions
from flask_durable.storage.interface import InstanceFilter
from flask_durable.storage.models import SCHEMA_VERSION
from flask_durable.storage.sql_store import SqlStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "durable.db"


@pytest.fixture
def open_store(path):
    made = []

    def make(url=None, **options):
        made.append(SqlStore(url or f"sqlite:///{path}", timeout=1.0, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


def set_version(path, version):
    connection = sqlite3.connect(path)
    connection.execute("UPDATE durable_schema SET version = ?", (version,))
    connection.commit()
    connection.close()


def test_tables_are_created_once(open_store):
    store = open_store()
    assert store.schema_version() is None
    store.create_tables()
    store.create_tables()
    assert store.schema_version() == SCHEMA_VERSION
    store.check_schema()
    store.drop_tables()
    assert store.schema_version() is None


def test_many_may_create_the_tables_at_once(open_store):
    stores = [open_store() for _ in range(4)]
    gate, errors = threading.Barrier(4, timeout=15), []

    def create(store):
        gate.wait()
        try:
            store.create_tables()
        except Exception as error:  # noqa: BLE001 - whatever a thread raises is what the test looks at
            errors.append(error)

    threads = [threading.Thread(target=create, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert stores[0].schema_version() == SCHEMA_VERSION


def test_missing_tables_are_named_with_their_cure(open_store):
    with pytest.raises(SchemaVersionError, match="the durable tables are missing. Run `flask durable db init`"):
        open_store().check_schema()


@pytest.mark.parametrize("table", ["durable_worker", "durable_client"])
def test_a_table_that_is_gone_is_named(open_store, path, table):  # F22
    open_store().create_tables()
    with sqlite3.connect(path) as connection:
        connection.execute(f"DROP TABLE {table}")
    connection.close()
    with pytest.raises(SchemaVersionError, match=f"{table} of version {SCHEMA_VERSION} cannot be seen. Restore what is gone from a backup"):
        open_store().check_schema()


def test_newer_tables_are_refused(open_store, path):
    store = open_store()
    store.create_tables()
    set_version(path, SCHEMA_VERSION + 1)
    message = f"have version {SCHEMA_VERSION + 1}, this code knows only {SCHEMA_VERSION}. Install the newer flask-durable"
    with pytest.raises(SchemaVersionError, match=message):
        store.check_schema()
    with pytest.raises(SchemaVersionError, match=message):
        store.create_tables()


def test_older_tables_are_refused_until_they_are_upgraded(open_store, path, monkeypatch):
    store = open_store()
    store.create_tables()
    set_version(path, SCHEMA_VERSION - 1)
    with pytest.raises(
        SchemaVersionError, match=f"have version {SCHEMA_VERSION - 1}, this code needs {SCHEMA_VERSION}. Run `flask durable db upgrade`"
    ):
        store.check_schema()
    steps = []
    monkeypatch.setattr("flask_durable.storage.schema.STEPS", {SCHEMA_VERSION - 1: lambda sql: steps.append(sql)})
    store.create_tables()
    assert len(steps) == 1
    assert store.schema_version() == SCHEMA_VERSION


@pytest.mark.parametrize("change", [-1, 1])
def test_an_app_refuses_tables_of_another_version(open_store, path, change):
    open_store().create_tables()
    set_version(path, SCHEMA_VERSION + change)
    app = Flask("shop", instance_path=str(path.parent))
    app.config.update(TESTING=True, DURABLE_DATABASE=f"sqlite:///{path}")
    with pytest.raises(SchemaVersionError, match="The database does not fit"):
        FlaskDurable(app)


def test_a_worker_refuses_tables_that_are_gone(path):
    app = Flask("shop", instance_path=str(path.parent))
    app.config.update(TESTING=True, DURABLE_DATABASE=f"sqlite:///{path}")
    durable = FlaskDurable(app)
    durable.drop_tables()
    with pytest.raises(SchemaVersionError, match="db init"):
        durable.start_worker()
    durable.create_tables()
    durable.start_worker()
    durable.close()


def test_the_file_is_for_its_owner_only(open_store, path):  # S12
    before = os.umask(0)
    try:
        open_store().create_tables()
    finally:
        os.umask(before)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_the_file_is_in_the_instance_folder_by_default(tmp_path):  # DESIGN 3.4
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    app.config["TESTING"] = True
    durable = FlaskDurable(app)
    assert (tmp_path / "instance" / "durable.db").exists()
    durable.close()


def test_the_database_is_as_durable_as_sqlite_can_be(open_store):  # DESIGN: FULL
    store = open_store()
    pragmas = {
        name: store._sql.read(lambda name=name: store._sql.value(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "busy_timeout")
    }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 1000}
    normal = open_store(sqlite_synchronous="NORMAL")
    assert normal._sql.read(lambda: normal._sql.value("PRAGMA synchronous")) == 1


def test_a_path_that_cannot_be_written_is_named(tmp_path):  # Bad input
    (tmp_path / "file").write_text("not a folder")
    for url in (f"sqlite:///{tmp_path}/file/durable.db", f"sqlite:///{tmp_path}"):
        app = Flask("shop", instance_path=str(tmp_path))
        app.config.update(TESTING=True, DURABLE_DATABASE=url)
        with pytest.raises(ConfigurationError, match=r"DURABLE_DATABASE = .*a file that this process may create and write"):
            FlaskDurable(app)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):  # Bad input
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        SqlStore(f"sqlite:///{tmp_path}/durable.db")


def test_a_file_that_is_no_database_is_named(tmp_path):  # Bad input
    file = tmp_path / "durable.db"
    file.write_text("this is a letter, not a database" * 100)
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, DURABLE_DATABASE=f"sqlite:///{file}")
    with pytest.raises(ConfigurationError, match="not a database"):
        FlaskDurable(app)
    assert file.read_text().startswith("this is a letter")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/file", "sqlite:///file?mode=ro"])
def test_a_url_without_a_file_is_refused(url, tmp_path, monkeypatch):  # Bad input
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"sqlite:///relative/path or sqlite:////absolute/path"):
        SqlStore(url)
    assert list(tmp_path.iterdir()) == []


def test_a_locked_database_is_waited_for_and_then_given_up(open_store, path):
    store = open_store()
    store.create_tables()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.register_worker("w", 5)
    assert store.count_instances(InstanceFilter()) == 0  # readers are not in the way
    other.execute("ROLLBACK")
    other.close()
    store.register_worker("w", 5)
    store.release_worker("w")


def test_more_threads_than_connections_are_told_so(make_store, database_url):
    if database_url.startswith("sqlite"):
        store = make_store()
        store._sql.database._max_connections, store._sql.database._wait_timeout = 1, 0.05
    else:
        store = make_store(timeout=0.3, server=ServerOptions(max_connections=LEAST))
    with store._sql.database.connection_context():
        errors = []

        def ask():
            try:
                store.get_instance("a")
            except StoreUnavailableError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert len(errors) == 1
