"""The connections of one process to a database server: so many at most, handed from thread to thread, given back to the server when idle.

Laws:

1. There are never more than the limit, whatever asks for them; who gets none within its time is told so.
2. Requests and activities cannot take the last ones: those are for the engine and the heartbeat, which others depend on.
3. No lock is held while a server is waited for: one that says nothing holds up only the thread that talks to it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import peewee

from flask_durable.errors import ConnectionsExhaustedError
from flask_durable.logs import get_logger
from flask_durable.storage.drivers import Driver

logger = get_logger("flask_durable.storage")

KEPT_APART = 2
"""Connections of a worker that live as long as it does and are no part of the pool: the sign of life, and the one that listens for news."""

FOR_THE_ENGINE = 2
"""Connections of the pool that requests and activities never get."""

LEAST = KEPT_APART + FOR_THE_ENGINE + 1
"""The smallest budget: with less, requests would get no connection at all."""

IDLE_SECONDS = 60.0
"""So long a connection that nobody needs is kept."""


class ConnectionPool:
    """Connections by one driver.

    Args:
        budget: so many in all, with the two that are kept apart.
    """

    def __init__(self, driver: Driver, budget: int) -> None:
        self.driver = driver
        self._most = budget - KEPT_APART
        self._most_ordinary = self._most - FOR_THE_ENGINE
        self.forget()

    def forget(self) -> None:
        """Begin without connections; those of a parent of this process stay open for the parent."""
        self._changed = threading.Condition()
        self._idle: list[tuple[float, Any]] = []
        self._taken: dict[int, tuple[Any, bool]] = {}
        self._opening = [0, 0]

    @property
    def count(self) -> int:
        """Connections that are open or being opened."""
        with self._changed:
            return len(self._idle) + len(self._taken) + sum(self._opening)

    def take(self, seconds: float, *, is_vital: bool = False) -> Any:
        """A connection for the calling thread, within so many seconds.

        Raises:
            ConnectionsExhaustedError: all that it may have are in use.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while not self._may_take(is_vital):
                left = deadline - time.monotonic()
                if left <= 0:
                    most = self._most if is_vital else self._most_ordinary
                    raise ConnectionsExhaustedError(most, seconds)
                self._changed.wait(left)
            self._opening[is_vital] += 1
            usable, useless = self._pick()
        try:
            for connection in useless:
                self._close(connection)
            found = usable if usable is not None else self.driver.open(max(0.1, deadline - time.monotonic()))
        except BaseException:
            with self._changed:
                self._opening[is_vital] -= 1
                self._changed.notify_all()
            raise
        with self._changed:
            self._opening[is_vital] -= 1
            self._taken[id(found)] = (found, is_vital)
        return found

    def _may_take(self, is_vital: bool) -> bool:
        ordinary = self._opening[False] + sum(not each for _, each in self._taken.values())
        if is_vital:
            return len(self._taken) + sum(self._opening) < self._most
        return ordinary < self._most_ordinary and len(self._taken) + sum(self._opening) < self._most

    def _pick(self) -> tuple[Any, list[Any]]:
        """The connection that was used last, if it is still good, and those that are to be closed."""
        useless = self._too_old()
        while self._idle:
            _, connection = self._idle.pop()
            if not self.driver.is_broken(connection):
                return connection, useless
            useless.append(connection)
        return None, useless

    def _too_old(self) -> list[Any]:
        before = time.monotonic() - IDLE_SECONDS
        old = [connection for at, connection in self._idle if at < before]
        del self._idle[: len(old)]
        return old

    def give_back(self, connection: Any) -> None:
        """The calling thread needs it no more."""
        is_good = self._settled(connection)
        with self._changed:
            was_ours = self._taken.pop(id(connection), None) is not None
            useless = self._too_old()
            if is_good and was_ours:
                self._idle.append((time.monotonic(), connection))
            else:
                useless.append(connection)
            self._changed.notify_all()
        for each in useless:
            self._close(each)

    def _settled(self, connection: Any) -> bool:
        try:
            return self.driver.settle(connection) and not self.driver.is_broken(connection)
        except Exception:
            logger.debug("A connection could not be given back and is closed", exc_info=True)
            return False

    def close_idle(self) -> None:
        """Close those that nobody uses."""
        with self._changed:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            self._close(connection)

    def close_all(self) -> None:
        """Close all, also those that threads hold."""
        self.close_idle()
        with self._changed:
            taken, self._taken = self._taken, {}
            self._changed.notify_all()
        for connection, _ in taken.values():
            self._close(connection)

    def _close(self, connection: Any) -> None:
        try:
            connection.close()
        except Exception:
            logger.debug("A connection could not be closed in order", exc_info=True)


class ServerDatabase(peewee.Database):
    """What our databases on a server have in common; Peewee's own pools hold their locks while they wait for the server."""

    _state: Any
    _set_server_version: Any

    def use(self, pool: ConnectionPool, timeout: float) -> None:
        """Take the connections from there."""
        self.pool = pool
        self._seconds = timeout

    def connect(self, reuse_if_open: bool = False, *, seconds: float | None = None, is_vital: bool = False) -> bool:
        """Take a connection for the calling thread."""
        if not self._state.closed:
            if reuse_if_open:
                return False
            raise peewee.OperationalError("Connection already opened.")
        self._state.reset()
        connection = self.pool.take(self._seconds if seconds is None else seconds, is_vital=is_vital)
        self._state.set_connection(connection)
        if self.server_version is None:
            self._set_server_version(connection)
        return True

    def close(self) -> bool:
        """Give the calling thread's connection back."""
        if self._state.closed:
            return False
        if self.in_transaction():
            raise peewee.OperationalError("Attempting to close database while transaction is open.")
        connection = self._state.conn
        self._state.reset()
        self.pool.give_back(connection)
        return True

    def limit(self, seconds: float | None) -> None:
        """The server may be silent for so long in each statement of the calling thread's connection."""
        self.pool.driver.limit(self._state.conn, seconds)

    def is_broken(self) -> bool:
        """Whether the calling thread's connection is of no use any more."""
        return bool(self.pool.driver.is_broken(self._state.conn))

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        self.pool.close_idle()

    def close_all(self) -> None:
        """Close all connections."""
        self.close()
        self.pool.close_all()

    def dispose(self) -> None:
        """Forget all connections: they belong to the parent of this process."""
        super().dispose()
        self.pool.forget()


class ServerPostgresqlDatabase(ServerDatabase, peewee.PostgresqlDatabase):
    """PostgreSQL over a pool of ours."""


class ServerMysqlDatabase(ServerDatabase, peewee.MySQLDatabase):
    """MySQL or MariaDB over a pool of ours."""


@contextlib.contextmanager
def connected(database: peewee.Database, seconds: float, *, is_vital: bool = False, is_kept: bool = False) -> Iterator[None]:
    """Use the calling thread's connection, or one of our own for the time: the caller's is never closed.

    Args:
        database: a database of ours, or of the app.
        seconds: so long a connection is waited for.
        is_vital: it may be one that requests cannot take away.
        is_kept: the thread's connection is kept for it by us, and replaced when it is broken.
    """
    was_open = not database.is_closed()
    if was_open and (is_kept or isinstance(database, ServerDatabase)) and not database.in_transaction() and _is_broken(database):
        database.close()
    if database.is_closed():
        if isinstance(database, ServerDatabase):
            database.connect(seconds=seconds, is_vital=is_vital)
        else:
            database.connect()
    try:
        yield
    finally:
        if not was_open and not database.is_closed():
            database.close()


def _is_broken(database: peewee.Database) -> bool:
    if isinstance(database, ServerDatabase):
        return database.is_broken()
    if isinstance(database, peewee.SqliteDatabase):
        return False
    connection = database.connection()
    return not getattr(connection, "open", True) or bool(getattr(connection, "closed", False))
