"""Calls of the client inside a transaction of the app's own take effect with it, or not at all (DESIGN 3.1.6)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time

import peewee
import pytest
from flask import Flask
from own_database import open_own
from playhouse.flask_utils import FlaskDB
from support import finish, has_status, look, run, until

from flask_durable import FlaskDurable, RuntimeStatus
from flask_durable.errors import (
    ConfigurationError,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFailedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    StoreUnavailableError,
)


class StopError(Exception):
    pass


@contextlib.contextmanager
def failing_block(database):
    """A transaction, or a part of one, that an exception ends."""
    with contextlib.suppress(StopError), database.atomic():
        yield
        raise StopError


@pytest.mark.parametrize("is_running", [True, False])
def test_a_start_in_a_block_that_raises_never_was(any_shop, any_durable, is_running):
    shop, durable = any_shop, any_durable
    if is_running:
        durable.start_worker()
    with shop.database.connection_context(), failing_block(shop.database):
        shop.Order.create(number=1)
        instance_id = durable.client.start("echo", 1)
        assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING  # it reads what it wrote
    assert durable.client.get_status(instance_id) is None
    assert shop.orders() == []


@pytest.mark.parametrize("is_running", [True, False])
def test_a_start_in_a_block_that_ends_runs(any_shop, any_durable, is_running):
    shop, durable = any_shop, any_durable
    if is_running:
        durable.start_worker()
    with shop.database, shop.database.atomic():
        shop.Order.create(number=1)
        instance_id = durable.client.start("echo", 1)
    durable.start_worker()
    assert finish(durable, instance_id).output == 1
    assert shop.orders() == [1]


def test_a_savepoint_takes_back_its_own_part_only(shop, durable):
    durable.start_worker()
    with shop.database.connection_context(), shop.database.atomic():
        kept = durable.client.start("echo", "kept")
        with shop.database.atomic() as inner:
            lost = durable.client.start("echo", "lost")
            inner.rollback()
            again = durable.client.start("echo", "again")
        with failing_block(shop.database):
            lost_too = durable.client.start("echo", "lost")
        assert durable.client.get_status(lost) is None
    assert [finish(durable, each).output for each in (kept, again)] == ["kept", "again"]
    assert [durable.client.get_status(each) for each in (lost, lost_too)] == [None, None]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize("way", ["transaction", "manual", "sql", "session"])
def test_however_the_transaction_was_begun(shop, durable, way, ending):
    database = shop.database
    durable.start_worker()
    with database.connection_context():
        if way == "transaction":
            with database.transaction() as transaction:
                instance_id = durable.client.start("echo", 1)
                getattr(transaction, ending)()
        elif way == "manual":
            with database.manual_commit():
                database.begin()
                instance_id = durable.client.start("echo", 1)
                getattr(database, ending)()
        elif way == "session":
            database.session_start()
            instance_id = durable.client.start("echo", 1)
            getattr(database, f"session_{ending}")()
        else:
            database.execute_sql("BEGIN")
            shop.Order.create(number=1)
            instance_id = durable.client.start("echo", 1)
            database.execute_sql(ending.upper())
    if ending == "commit":
        assert finish(durable, instance_id).output == 1
    else:
        assert durable.client.get_status(instance_id) is None


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_with_autocommit_off(shop, durable, ending):
    database = shop.database
    durable.start_worker()
    with database.connection_context():
        connection = database.connection()
        if isinstance(database, peewee.SqliteDatabase):
            connection.isolation_level = ""
        elif isinstance(database, peewee.PostgresqlDatabase):
            connection.autocommit = False
        else:
            connection.autocommit(False)
        try:
            instance_id = durable.client.start("echo", 1)
            database.execute_sql(ending)
        finally:
            with contextlib.suppress(peewee.OperationalError):
                database.execute_sql("ROLLBACK")
            if isinstance(database, peewee.SqliteDatabase):
                connection.isolation_level = None
            elif isinstance(database, peewee.PostgresqlDatabase):
                connection.autocommit = True
            else:
                connection.autocommit(True)
    if ending == "COMMIT":
        assert finish(durable, instance_id).output == 1
    else:
        assert durable.client.get_status(instance_id) is None


@pytest.mark.parametrize("is_running", [True, False])
def test_manual_commit_without_a_transaction_is_a_call_like_any_other(shop, durable, is_running):
    if is_running:
        durable.start_worker()
    with shop.database.connection_context(), shop.database.manual_commit():
        instance_id = durable.client.start("echo", 1)
    durable.start_worker()
    assert finish(durable, instance_id).output == 1


def test_every_command_is_taken_back_with_its_transaction(shop, durable):
    client = durable.client

    @durable.orchestrator
    def fails(ctx):
        raise ValueError("no")

    durable.start_worker()
    failed, ended = run(durable, fails).instance_id, run(durable, "echo", 1).instance_id
    waiting, held = client.start("collect"), client.start("collect")
    client.suspend(held)
    until(has_status(durable, waiting, RuntimeStatus.RUNNING))
    with shop.database.connection_context(), shop.database.atomic() as transaction:
        client.raise_event(waiting, "Note", "lost")
        client.suspend(waiting)
        assert look(durable, waiting).runtime_status is RuntimeStatus.SUSPENDED
        client.terminate(waiting)
        client.resume(held)
        client.rewind(failed)
        restarted = client.restart(ended)
        assert look(durable, failed).runtime_status is RuntimeStatus.RUNNING
        client.purge(ended)
        assert client.get_status(ended) is None
        transaction.rollback()
    assert [look(durable, each).runtime_status.value for each in (failed, ended, waiting, held)] == ["Failed", "Completed", "Running", "Suspended"]
    assert client.get_status(restarted) is None
    for each in (waiting, held):
        client.raise_event(each, "Note", "end")
    client.resume(held)
    assert [finish(durable, each).output for each in (waiting, held)] == [[], []]


def test_every_command_takes_effect_with_its_transaction(shop, durable):
    client = durable.client
    durable.start_worker()
    ended = run(durable, "echo", 1).instance_id
    noted, stopped, held = (client.start("collect") for _ in range(3))
    with shop.database.connection_context(), shop.database.atomic():
        client.raise_event(noted, "Note", "kept")
        client.raise_event(noted, "Note", "end")
        client.terminate(stopped, "enough")
        client.suspend(held)
        restarted = client.restart(ended)
        client.purge(ended)
    assert finish(durable, noted).output == ["kept"]
    assert finish(durable, stopped).output == "enough"
    assert finish(durable, restarted).output == 1
    assert look(durable, held).runtime_status is RuntimeStatus.SUSPENDED
    assert client.get_status(ended) is None


def test_an_error_leaves_the_transaction_usable(shop, durable):
    client = durable.client
    ended = client.start("echo")
    client.terminate(ended)
    waiting = client.start("collect", instance_id="taken")
    with shop.database.connection_context(), shop.database.atomic():
        shop.Order.create(number=1)
        for kind, call in (
            (InstanceExistsError, lambda: client.start("echo", instance_id="taken")),
            (InstanceNotFoundError, lambda: client.raise_event("unknown", "Go")),
            (InstanceFinishedError, lambda: client.terminate(ended)),
            (InstanceNotFinishedError, lambda: client.purge(waiting)),
            (InstanceNotFailedError, lambda: client.rewind(waiting)),
            (InvalidArgumentError, lambda: client.start("echo", instance_id=" ")),
        ):
            with pytest.raises(kind):
                call()
        shop.Order.create(number=2)
        client.start("echo", instance_id="after")
    assert shop.orders() == [1, 2]
    assert look(durable, "after").runtime_status is RuntimeStatus.PENDING


def test_an_event_that_changes_nothing_in_the_row_is_no_unknown_instance(shop, durable):
    # Given an instance that is due already: the second event leaves its row as it is
    waiting = durable.client.start("collect")
    with shop.database.connection_context(), shop.database.atomic():
        for note in ("a", "b", "end"):
            durable.client.raise_event(waiting, "Note", note)
    durable.start_worker()
    assert finish(durable, waiting).output == ["a", "b"]


def test_waiting_inside_a_transaction_is_refused(shop, durable):
    client = durable.client
    durable.start_worker()
    with shop.database.connection_context(), shop.database.atomic():
        instance_id = client.start("echo", 1)
        for wait in (client.wait_for_start, client.wait_for_completion):
            with pytest.raises(InvalidArgumentError, match="Wait after the block"):
                wait(instance_id, timeout=30)
        with pytest.raises(InvalidArgumentError, match="inside a transaction"):
            client.start_and_wait("echo", 2, timeout=30, instance_id="not-begun")
        assert client.get_status("not-begun") is None
    assert finish(durable, instance_id).output == 1


def test_a_worker_does_not_start_inside_a_transaction(shop, durable):
    with shop.database.connection_context(), shop.database.atomic(), pytest.raises(InvalidArgumentError, match="inside a transaction"):
        durable.start_worker()
    durable.start_worker()


def test_the_commit_wakes_the_worker(shop, durable, monkeypatch):
    durable.start_worker()
    wakes = []
    worker = durable._state().worker
    wake = worker.wake
    monkeypatch.setattr(worker, "wake", lambda: (wakes.append(1), wake()))
    with shop.database.connection_context():
        with shop.database.atomic():
            with shop.database.atomic():
                instance_id = durable.client.start("echo", 1)
            assert wakes == []
        assert wakes == [1]
    assert finish(durable, instance_id).output == 1


def test_what_goes_wrong_after_the_commit_does_not_come_out_of_the_block(shop, durable, monkeypatch):
    durable.start_worker()
    monkeypatch.setattr(durable._state().worker, "wake", lambda: 1 / 0)
    with shop.database.connection_context(), shop.database.atomic():
        instance_id = durable.client.start("echo", 1)
    assert finish(durable, instance_id).output == 1


def test_a_transaction_in_one_thread_is_none_of_the_others(shop, durable):
    # Given a thread that has a transaction open, without writing
    is_open, is_over = threading.Event(), threading.Event()

    def hold():
        with shop.database.connection_context(), shop.database.manual_commit():
            shop.database.execute_sql("BEGIN")
            is_open.set()
            is_over.wait(30)
            shop.database.rollback()

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_open.wait(30)
    try:
        durable.start_worker()
        assert run(durable, "echo", 1).output == 1
    finally:
        is_over.set()
        thread.join()


def test_a_process_without_a_worker_gives_its_starts_to_one_that_has(shop):
    web, worker = shop.app(DURABLE_WORKER=False), shop.app()
    worker.orchestrator(name="echo")(lambda ctx, value: value)
    worker.start_worker()
    with shop.database.connection_context(), shop.database.atomic():
        instance_id = web.client.start("echo", 1)
    assert finish(web, instance_id).output == 1


def test_a_transaction_that_the_database_has_ended_is_not_written_into(shop, durable):
    # Given a block whose transaction the database has rolled back, as after a deadlock on MySQL
    with shop.database.connection_context():
        with contextlib.suppress(peewee.OperationalError), failing_block(shop.database):
            durable.client.start("echo", instance_id="before")
            shop.database.execute_sql("ROLLBACK")
            with pytest.raises(StoreUnavailableError, match="leave its block"):
                durable.client.start("echo", instance_id="after")
        assert durable.client.count() == 0


def test_a_commit_by_another_connection_meanwhile_is_reported_at_once(shop, durable, database_url):
    """SQLite cannot make a reader of an old state a writer: the caller hears of it, and nothing waits for its own lock."""
    if not database_url.startswith("sqlite"):
        pytest.skip("a server lets a reader become a writer")
    durable.start_worker()
    began = time.monotonic()
    with shop.database.connection_context(), shop.database.atomic():
        assert shop.Order.select().count() == 0
        other = threading.Thread(target=lambda: durable.client.start("echo", 1, instance_id="other"))
        other.start()
        other.join()
        with pytest.raises(StoreUnavailableError, match="locked"):
            durable.client.start("echo", 2)
    assert time.monotonic() - began < 9  # less than the time for which a busy database is tried again
    with shop.database.connection_context(), shop.database.atomic("IMMEDIATE"):
        assert shop.Order.select().count() == 0
        instance_id = durable.client.start("echo", 3)
    assert finish(durable, instance_id).output == 3


# -- whose database it may be


def test_the_database_of_playhouses_flask_utilities(database_url, hub, tmp_path):
    # Given an app whose models are made before its database is known
    wrapper = FlaskDB()

    class Note(wrapper.Model):
        text = peewee.CharField()

        class Meta:
            table_name = f"note_{hub.replace('-', '_')}"

    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, DATABASE=open_own(database_url, tmp_path), DURABLE_TASK_HUB=hub)
    wrapper.init_app(app)
    app.config["DURABLE_DATABASE"] = wrapper.database
    durable = FlaskDurable(app)
    durable.orchestrator(name="echo")(lambda ctx, value: value)

    @app.post("/notes/<ending>")
    def make(ending):
        with wrapper.database.atomic() as transaction:
            Note.create(text="a")
            instance_id = durable.client.start("echo", 1)
            if ending == "rollback":
                transaction.rollback()
        return instance_id

    with wrapper.database.connection_context():
        Note.create_table()
    try:
        durable.start_worker()
        visitor = app.test_client()
        kept, lost = visitor.post("/notes/commit").text, visitor.post("/notes/rollback").text
        assert finish(durable, kept).output == 1
        assert durable.client.get_status(lost) is None
        with wrapper.database.connection_context():
            assert Note.select().count() == 1
    finally:
        durable.close()
        with wrapper.database.connection_context():
            Note.drop_table()
        wrapper.database.close_all()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: peewee.SqliteDatabase(":memory:"), "in a file"),
        (lambda folder: peewee.SqliteDatabase("file:x?mode=memory&cache=shared", uri=True), "in a file"),
        (lambda folder: peewee.SqliteDatabase(str(folder / "x.db"), thread_safe=False), "thread_safe=True"),
        (lambda folder: peewee.SqliteDatabase(None), "DURABLE_DATABASE"),
        (lambda folder: peewee.DatabaseProxy(), "DURABLE_DATABASE"),
    ],
)
def test_a_database_that_would_not_keep_it_is_refused(tmp_path, make, why):
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, DURABLE_DATABASE=make(tmp_path))
    with pytest.raises(ConfigurationError, match=why):
        FlaskDurable(app)


def test_a_connection_that_counts_changes_only_is_refused(database_url, tmp_path):
    if not database_url.startswith("mysql"):
        pytest.skip("about the MySQL protocol")
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, DURABLE_DATABASE=open_own(database_url, tmp_path, client_flag=0))
    with pytest.raises(ConfigurationError, match="FOUND_ROWS"):
        FlaskDurable(app)


def test_with_a_url_the_calls_are_no_part_of_the_apps_transaction(shop, database_url, hub, tmp_path):
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, DURABLE_DATABASE=database_url, DURABLE_TASK_HUB=f"{hub}-url")
    durable = FlaskDurable(app)
    try:
        with shop.database.connection_context(), shop.database.atomic() as transaction:
            instance_id = durable.client.start("echo", 1)
            transaction.rollback()
        assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING
    finally:
        durable.close()


def test_a_worker_in_another_process_runs_what_was_committed(shop, database_url, hub, tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
from pathlib import Path
from flask import Flask
from own_database import open_own
from flask_durable import FlaskDurable

app = Flask("shop", instance_path={str(tmp_path)!r})
app.config.update(TESTING=True, DURABLE_DATABASE=open_own({database_url!r}, Path({str(tmp_path)!r})), DURABLE_TASK_HUB={hub!r})
durable = FlaskDurable(app)
durable.orchestrator(name="echo")(lambda ctx, value: value)
durable.start_worker()
print("ready", flush=True)
sys.stdin.read()
durable.close()
"""
    web = shop.app(DURABLE_WORKER=False)
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        with shop.database.connection_context():
            with shop.database.atomic():
                kept = web.client.start("echo", 1)
            with shop.database.atomic() as transaction:
                lost = web.client.start("echo", 2)
                transaction.rollback()
        assert finish(web, kept).output == 1
        assert web.client.get_status(lost) is None
    finally:
        process.stdin.close()
        assert process.wait(30) == 0
        process.stdout.close()
