"""Connections to a server: never more than the budget, given back when idle, and nobody waits for a server that says nothing."""

from __future__ import annotations

import threading
import time
import urllib.parse
import uuid

import pytest
from support import until
from tcp_proxy import TcpProxy

from flask_durable.errors import ConfigurationError, ConnectionsExhaustedError, StoreUnavailableError
from flask_durable.storage import connections
from flask_durable.storage.connections import FOR_THE_ENGINE, KEPT_APART, LEAST
from flask_durable.storage.database import ServerOptions
from flask_durable.storage.sql_store import SqlStore


@pytest.fixture
def server_url(database_url):
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has no server")
    return database_url


@pytest.fixture
def proxy(server_url):
    proxy = TcpProxy(server_url)
    yield proxy
    proxy.thaw()
    proxy.close()


@pytest.fixture
def open_store():
    """Makes stores on any URL, and closes them."""
    made = []

    def make(url, **options):
        made.append(SqlStore(url, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


def ask(store):
    return store._sql.read(lambda: store._sql.value("SELECT 1"))


def variable(store, name):
    text = f"SHOW {name}" if store._sql.is_postgresql else f"SELECT @@{name}"
    return str(store._sql.read(lambda: store._sql.value(text)))


def seconds_of(call, error):
    began = time.monotonic()
    with pytest.raises(error):
        call()
    return time.monotonic() - began


# -- time-outs


def test_a_silent_server_holds_up_nobody_for_longer_than_the_time_out(proxy, open_store):
    # Given connections that have worked, one of them kept as the engine does
    store = open_store(proxy.url, timeout=1.0)
    ask(store)
    with store.connection():
        ask(store)
        # When the server says nothing more, then each call ends in time, on an old connection and on a new one
        proxy.freeze()
        assert seconds_of(lambda: ask(store), StoreUnavailableError) < 5
        assert seconds_of(lambda: ask(store), StoreUnavailableError) < 5
        # And they work at once when it is back
        proxy.thaw()
        assert until(lambda: answers(store), "the kept connection was replaced", 5)
    assert ask(store) == 1


def answers(store):
    try:
        return ask(store) == 1
    except StoreUnavailableError:
        return False


def test_many_threads_beside_a_silent_server_all_end_in_time(proxy, open_store):
    store = open_store(proxy.url, timeout=1.0)
    ask(store)
    proxy.freeze()
    took = []
    threads = [threading.Thread(target=lambda: took.append(seconds_of(lambda: ask(store), StoreUnavailableError))) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 24
    assert max(took) < 6


def test_a_lost_connection_is_replaced(proxy, open_store):
    store = open_store(proxy.url)
    with store.connection():
        ask(store)
        proxy.cut()
        assert ask(store) == 1
    proxy.cut()
    assert ask(store) == 1


def test_the_server_has_time_outs_of_its_own(server_url, open_store):
    store = open_store(server_url, timeout=10.0)
    if store._sql.is_postgresql:
        assert (variable(store, "lock_timeout"), variable(store, "statement_timeout")) == ("5s", "9s")
        assert variable(store, "idle_in_transaction_session_timeout") == "10s"
        assert variable(store, "application_name") == "flask-durable"
    else:
        assert (variable(store, "innodb_lock_wait_timeout"), float(variable(store, "max_statement_time"))) == ("5", 9.0)
        assert variable(store, "tx_isolation") == "READ-COMMITTED"


def test_what_the_url_says_is_left_as_it_is(server_url, open_store):
    if server_url.startswith("postgres"):
        options = urllib.parse.quote("-c statement_timeout=77s")
        store = open_store(f"{server_url}?options={options}&application_name=mine&tcp_user_timeout=4321&connect_timeout=7", timeout=10.0)
        assert (variable(store, "statement_timeout"), variable(store, "lock_timeout")) == ("77s", "5s")
        assert variable(store, "application_name") == "mine"
        assert store._sql.database.pool.driver._parameters["tcp_user_timeout"] == "4321"
        assert store._sql.database.pool.driver._parameters["connect_timeout"] == "7"
    else:
        store = open_store(f"{server_url}?read_timeout=77", timeout=10.0)
        with store._sql.database.connection_context():
            assert store._sql.database.connection()._read_timeout == 77
        with pytest.raises(ConfigurationError, match="'reed_timeout' is unknown"):
            open_store(f"{server_url}?reed_timeout=77")


def test_a_statement_that_takes_too_long_is_ended_by_the_server(server_url, open_store):
    store = open_store(server_url, timeout=1.0)
    sleep = "SELECT pg_sleep({})" if store._sql.is_postgresql else "SELECT SLEEP({})"
    assert seconds_of(lambda: store._sql.read(lambda: store._sql.value(sleep.format(30))), StoreUnavailableError) < 5
    # A change of the schema may take its time
    store._sql.transaction(lambda: store._sql.value(sleep.format(1.5)), is_slow=True)
    assert seconds_of(lambda: store._sql.read(lambda: store._sql.value(sleep.format(30))), StoreUnavailableError) < 5


def test_behind_a_pooler_nothing_is_kept_in_the_session(server_url, open_store):
    store = open_store(server_url, timeout=10.0, server=ServerOptions(sessions="off"))
    database = store._sql.database
    if store._sql.is_postgresql:
        assert variable(store, "statement_timeout") == "0"
    with database.connection_context():
        assert database.pool.driver.is_pooled(database.connection())
        assert not open_store(server_url)._sql.database.pool.driver.is_pooled(database.connection()) or store._sql.is_postgresql


# -- the budget


def test_a_process_never_has_more_connections_than_its_budget(proxy, open_store, monkeypatch):
    store = open_store(proxy.url, server=ServerOptions(max_connections=7))
    barrier = threading.Barrier(32)

    def work():
        barrier.wait()
        for _ in range(5):
            assert ask(store) == 1

    with store.connection():
        threads = [threading.Thread(target=work) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 < proxy.most <= 7 - KEPT_APART
        # What is idle is given back by whoever uses the pool next
        until(lambda: proxy.count == store._sql.database.pool.count, "the proxy had closed what is closed")
        monkeypatch.setattr(connections, "IDLE_SECONDS", 0.0)
        until(lambda: ask_aside(store) and proxy.count == 2, "only the kept connection and that of the last asker were left")
        monkeypatch.undo()


def ask_aside(store):
    """Ask in a thread of its own, which has to take a connection and give it back."""
    thread = threading.Thread(target=ask, args=(store,))
    thread.start()
    thread.join()
    return True


def test_requests_leave_the_last_connections_to_the_engine(server_url, open_store):
    # Given that all connections for requests are taken
    store = open_store(server_url, timeout=0.3, server=ServerOptions(max_connections=LEAST))
    database = store._sql.database
    with database.connection_context():
        found = []

        def take():
            try:
                ask(store)
            except ConnectionsExhaustedError as error:
                found.append(str(error))
            # When the engine and the heartbeat want one, then they get it
            store._sql.read(lambda: found.append(store._sql.value("SELECT 1")), is_vital=True)
            with store.connection():
                found.append(ask(store))

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert found == [found[0], 1, 1]
    assert "DURABLE_MAX_CONNECTIONS" in found[0]
    assert database.pool.count <= LEAST - KEPT_APART
    assert FOR_THE_ENGINE == 2


@pytest.fixture
def limited_url(server_url, open_store):
    """URL of a user who may have one connection only."""
    admin = open_store(server_url)._sql
    name = f"durable_{uuid.uuid4().hex[:12]}"
    if admin.is_postgresql:
        begin, end = [f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 1"], f"DROP ROLE {name}"
    else:
        user, database = f"{name}@'127.0.0.1'", urllib.parse.urlsplit(server_url).path.removeprefix("/")
        begin, end = (
            [f"CREATE USER {user} IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1", f"GRANT SELECT ON {database}.* TO {user}"],
            f"DROP USER {user}",
        )
    for text in begin:
        admin.read(lambda text=text: admin.run(text))
    parts = urllib.parse.urlsplit(server_url)
    yield parts._replace(netloc=f"{name}:x@{parts.netloc.rpartition('@')[2]}").geturl()
    admin.read(lambda: admin.run(end))


def test_too_many_connections_of_the_server_pass(limited_url, open_store):
    one, other = open_store(limited_url, timeout=0.5), open_store(limited_url, timeout=30.0)
    with one.connection():
        ask(one)
        assert seconds_of(lambda: ask(open_store(limited_url, timeout=0.5)), StoreUnavailableError) < 10
        answered = []
        thread = threading.Thread(target=lambda: answered.append(ask(other)))
        thread.start()
    one.close()
    thread.join()
    assert answered == [1]
    other.close()


def test_connections_of_a_parent_process_are_left_alone(server_url, open_store):
    store = open_store(server_url)
    ask(store)
    database = store._sql.database
    kept = database.pool._idle[0][1]
    store.forget_connections()
    assert database.pool.count == 0
    assert kept.cursor().execute("SELECT 1")
    kept.close()
    assert ask(store) == 1
