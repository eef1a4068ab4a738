"""Signs that others have committed: the one connection of a worker that PostgreSQL tells, and the mark that SQLite has for each connection."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sqlite3
from typing import Any

import peewee

from flask_durable.errors import StoreUnavailableError
from flask_durable.storage.connections import ServerPostgresqlDatabase

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""A peer that is gone without a word is noticed within half a minute."""


def change_mark(database: peewee.Database) -> tuple[object, int] | None:
    """What differs once another connection has committed; None where that cannot be told. Looks at no table (8 µs).

    The thread must hold a connection: only marks of the same one can be equal.
    """
    if not isinstance(database, peewee.SqliteDatabase) or database.is_closed():
        return None
    connection = database.connection()
    try:
        return connection, int(connection.execute("PRAGMA data_version").fetchone()[0])
    except sqlite3.Error:
        return object(), 0  # a look at the tables will tell what is wrong


def can_listen(database: Any) -> bool:
    """Whether the database tells of commits, and its driver hands that on."""
    if isinstance(database, ServerPostgresqlDatabase):
        return True
    return isinstance(database, peewee.PostgresqlDatabase) and isinstance(getattr(database, "_adapter", None), peewee.Psycopg3Adapter)


class PostgresListening:
    """A connection of its own, made as the others are, and used by one thread but for :meth:`interrupt`.

    Raises:
        StoreUnavailableError: also from :meth:`wait`, when the connection is lost.
    """

    def __init__(self, database: Any, channel: str, timeout: float) -> None:
        self._error = _error()
        try:
            self._connection = _connect_directly(database, timeout)
        except self._error as error:
            raise StoreUnavailableError(f"The database refused a connection that listens: {error}") from error
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        try:
            _keep_alive(self._connection.pgconn.socket)
            self._connection.prepare_threshold = None
            self._connection.execute(f'LISTEN "{channel}"')
        except self._error as error:
            self.close()
            raise StoreUnavailableError(f"The database does not let a connection listen: {error}") from error

    def wait(self, seconds: float) -> list[str]:
        """What has been told, as texts; waits for so many seconds for the first, or until it is interrupted."""
        told: list[str] = []
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection.pgconn.socket, selectors.EVENT_READ)
                selector.register(self._reader, selectors.EVENT_READ)
                selector.select(seconds)
            self._connection.pgconn.consume_input()
            while (each := self._connection.pgconn.notifies()) is not None:
                told.append(each.extra.decode())
        except self._error as error:
            raise StoreUnavailableError(f"The connection that listens is lost: {error}") from error
        return told

    def interrupt(self) -> None:
        """End the present wait; for other threads, any number of times."""
        with contextlib.suppress(OSError):  # it is closed already, or was interrupted so often that its buffer is full
            self._writer.send(b"x")

    def close(self) -> None:
        """Give the connection up."""
        self._reader.close()
        self._writer.close()
        with contextlib.suppress(self._error):
            self._connection.close()


def _connect_directly(database: Any, timeout: float) -> Any:
    if isinstance(database, ServerPostgresqlDatabase):
        return database.pool.driver.open(timeout)
    connect: Any = peewee.PostgresqlDatabase
    return connect._connect(database)  # an app's pool would give one of the pool


def _keep_alive(descriptor: int) -> None:
    with contextlib.closing(socket.socket(fileno=os.dup(descriptor))) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        with contextlib.suppress(OSError):  # what the system does not have it need not have: the wait is checked from time to time anyway
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _error() -> type[Exception]:
    import psycopg  # an optional dependency: only those who use PostgreSQL have it

    error: type[Exception] = psycopg.Error
    return error
