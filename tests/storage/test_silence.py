"""A session that falls silent in the middle of a commit keeps nothing from others: neither the dead worker's row nor its work."""

from __future__ import annotations

import contextlib
import time

import pytest
from support import until

from flask_durable.errors import StoreUnavailableError
from flask_durable.storage.drivers import MysqlDriver, PostgresqlDriver

FENCE = "UPDATE durable_worker SET commit_number = 7 WHERE worker_id = %s"


@pytest.fixture
def other(database_url, make_store):
    """A second process of the desk's hub, with short time-outs."""
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has no sessions")
    return make_store(timeout=1.0)


@pytest.fixture
def session(database_url):
    """A session of a worker that is about to be cut off."""
    session = (PostgresqlDriver if database_url.startswith("postgres") else MysqlDriver)(database_url, 1.0, "auto").open(5.0)
    yield session
    session.close()


def reaped(other):
    try:
        return other.reap_workers(None, 5)
    except StoreUnavailableError:
        return []


def needs_pipelines(other):
    if not other._sql.is_postgresql:
        pytest.skip("its driver sends one statement at a time")


def test_between_two_statements(desk, other, session):  # F5
    desk.start("a")
    dead = desk.register(lease=-1.0)
    session.cursor().execute("BEGIN")
    session.cursor().execute(FENCE, (dead,))
    assert until(lambda: reaped(other)) == [dead]


def test_in_the_middle_of_a_pipeline(desk, other, session):  # F5
    needs_pipelines(other)
    from psycopg import OperationalError

    dead = desk.register(lease=-1.0)
    session.execute("BEGIN")
    with contextlib.suppress(OperationalError), session.pipeline() as pipeline:  # its end finds that the server has ended the session
        session.execute(FENCE, (dead,))
        pipeline.pgconn.send_flush_request()
        pipeline.pgconn.flush()
        assert until(lambda: reaped(other)) == [dead]
    with pytest.raises(OperationalError):
        session.execute("SELECT 1")


def test_after_a_pipeline_that_a_flush_followed(desk, other, session):  # F5
    needs_pipelines(other)
    dead = desk.register(lease=-1.0)
    session.execute("BEGIN")
    with session.pipeline():
        session.execute(FENCE, (dead,))
    session.pgconn.send_flush_request()
    session.pgconn.flush()
    assert until(lambda: reaped(other)) == [dead]


def test_nobody_ends_a_session_that_holds_another_row(desk, other, session):
    dead, alive = desk.register(lease=-1.0), desk.register()
    session.cursor().execute("SET SESSION idle_in_transaction_session_timeout = 0" if other._sql.is_postgresql else "SELECT 1")
    session.cursor().execute("BEGIN")
    session.cursor().execute(FENCE, (alive,))
    silent_since = time.monotonic()
    if other._sql.is_postgresql:
        assert until(lambda: time.monotonic() - silent_since > 1.1)
    assert other.reap_workers(None, 5) == [dead]
    session.cursor().execute("SELECT 1")  # raises when it was ended
