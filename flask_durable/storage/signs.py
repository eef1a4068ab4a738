"""Signs of life: by which others see at once that a worker's process has died. Only faster than its lease: the fence decides.

A worker holds a *slot*, which its row names, for as long as its process lives: a lock beside the SQLite file, or a lock of a session on a server,
which the server drops with the connection. Laws:

1. Looking costs no statement of its own: it is a column of the query that reads the workers, and waits for nothing.
2. A slot counts only on the server, and for the run of the server, on which it was taken: after a restart or a fail-over nobody seems dead.
3. Who finds that its connection is lost takes a new slot before others draw conclusions, or says that it has none.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import peewee

from flask_durable.core.times import Micros
from flask_durable.errors import StoreUnavailableError
from flask_durable.logs import get_logger
from flask_durable.storage.connections import ServerDatabase
from flask_durable.storage.database import Sql, sqlite_path
from flask_durable.storage.drivers import LONGEST_CONNECT, Driver
from flask_durable.storage.process_lock import SLOTS, ProcessLock

logger = get_logger("flask_durable.storage")


class Seen(NamedTuple):
    """What the query about the workers shows of one of them."""

    slot: int | None
    heartbeat_at: Micros
    is_free: bool


class Sign(Protocol):
    """One kind of sign."""

    column: str
    """SQL for whether the slot in ``lock_slot`` is free, as far as the database knows."""

    grace: float
    """Seconds after which one looks again before one believes it."""

    def hold(self) -> int | None:
        """Take a slot for as long as this process lives; None where there is no such sign."""

    def release(self, slot: int) -> None:
        """Give a slot back."""

    def is_held(self, slot: int) -> bool:
        """Whether a slot that was taken is still ours, as far as can be seen without asking."""

    def is_dead(self, seen: Seen) -> bool:
        """Whether the process that held the slot is gone."""

    def run(self, text: str, parameters: Sequence[Any], seconds: float) -> int | None:
        """Run a heartbeat on the connection of the sign, so that its loss is noticed; None when it has none. Returns the number of rows changed."""

    def forget(self) -> None:
        """This is the child of a fork."""

    def close(self) -> None:
        """Give everything back."""


class NoSign:
    """Where nothing shows that a process has died."""

    column = "0"
    grace = 0.0

    def hold(self) -> int | None:
        """There is none."""
        return None

    def release(self, slot: int) -> None:
        """Nothing is held."""

    def is_held(self, slot: int) -> bool:
        """Nothing is lost, either."""
        return True

    def is_dead(self, seen: Seen) -> bool:
        """Only the lease tells."""
        return False

    def run(self, text: str, parameters: Sequence[Any], seconds: float) -> int | None:
        """It has no connection."""
        return None

    def forget(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is held."""


class FileSign(NoSign):
    """A lock beside the SQLite file."""

    def __init__(self, lock: ProcessLock) -> None:
        self._lock = lock

    def hold(self) -> int | None:
        """Lock a byte."""
        slot = secrets.randbelow(SLOTS)
        return slot if self._lock.hold(slot) else None

    def release(self, slot: int) -> None:
        """Unlock it."""
        self._lock.release(slot)

    def is_dead(self, seen: Seen) -> bool:
        """Whether the lock is free."""
        return seen.slot is not None and self._lock.is_free(seen.slot)


_RUN = 1 << 32
"""A slot is the number of a run of the server, times this, plus a random number."""

_POSTGRESQL_KEYS = 1 << 62
"""The advisory locks of slots begin here, far from those of other people."""

_POSTGRESQL_RUN = "((EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000)::bigint & 1073741823)"
_MYSQL_RUN = "(CRC32(CONCAT(@@hostname, '/', @@port)) & 1073741823)"
_MYSQL_NAME = "CONCAT('flask_durable/', {})"
_RESTART_MICROS = 2_000_000


class ServerSign:
    """A lock of a session that a connection apart holds, on PostgreSQL and MySQL or MariaDB.

    Args:
        sql: the database.
        driver: opens the connection apart.
        timeout: seconds within which the server must answer.
    """

    grace = 0.5

    def __init__(self, sql: Sql, driver: Driver, timeout: float) -> None:
        self._sql = sql
        self._driver = driver
        self._timeout = min(timeout, LONGEST_CONNECT)
        self._is_possible = True
        if sql.is_postgresql:
            self._run_of_server = f"SELECT {_POSTGRESQL_RUN}"
            self._take, self._drop = (f"SELECT {call}({_POSTGRESQL_KEYS} + %s)" for call in ("pg_try_advisory_lock", "pg_advisory_unlock"))
            free = f"WHEN (lock_slot >> 32) = {_POSTGRESQL_RUN} THEN pg_try_advisory_xact_lock_shared({_POSTGRESQL_KEYS} + lock_slot) ELSE false"
        else:
            self._run_of_server = f"SELECT {_MYSQL_RUN}"
            self._take, self._drop = f"SELECT GET_LOCK({_MYSQL_NAME.format('%s')}, 0)", f"SELECT RELEASE_LOCK({_MYSQL_NAME.format('%s')})"
            free = f"WHEN (lock_slot >> 32) = {_MYSQL_RUN} THEN IS_FREE_LOCK({_MYSQL_NAME.format('lock_slot')}) = 1 ELSE 0"
        self.column = f"CASE {free} END"
        self.forget()

    def forget(self) -> None:
        """Begin without a connection; that of a parent of this process is the parent's."""
        self._guard = threading.RLock()
        self._connection: Any = None
        self._held: set[int] = set()

    def hold(self) -> int | None:
        """Take a slot on the connection apart, opening it first; None when sessions are not ours alone."""
        with self._guard:
            if not self._is_possible:
                return None
            try:
                slot = self._new_slot(self._timeout)
            except Exception as error:  # noqa: BLE001 - whatever the driver raises: the worker's lease is enough
                logger.warning("A worker has no sign of life but its lease: %s: %s", type(error).__name__, error)
                self._lose()
                return None
        if slot is not None and self._sql.read(lambda: self._seems_free(slot), is_vital=True):
            logger.warning("Locks of sessions do not hold on this database; the death of a worker is noticed when its lease is over")
            self._is_possible = False
            self.release(slot)
            return None
        return slot

    def _seems_free(self, slot: int) -> bool:
        return bool(
            self._sql.value(
                f"SELECT {self.column} FROM (SELECT CAST(? AS {'bigint' if self._sql.is_postgresql else 'SIGNED'}) AS lock_slot) s", (slot,)
            )
        )

    def _new_slot(self, seconds: float) -> int | None:
        driver = self._driver
        if self._connection is not None and driver.is_broken(self._connection):
            self._lose()
        if self._connection is None:
            self._connection = driver.open(seconds)
            if driver.is_pooled(self._connection):
                logger.info("The database is behind a pooler; the death of a worker is noticed when its lease is over")
                self._is_possible = False
                self._lose()
                return None
        driver.limit(self._connection, seconds)
        slot = int(self._ask(self._run_of_server)) * _RUN + secrets.randbelow(_RUN)
        if not self._ask(self._take, slot):
            return None
        self._held.add(slot)
        return slot

    def _ask(self, text: str, *parameters: Any) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(text, parameters)
        return cursor.fetchone()[0]

    def _lose(self) -> None:
        connection, self._connection, self._held = self._connection, None, set()
        if connection is not None:
            _quietly(connection.close)

    def release(self, slot: int) -> None:
        """Drop the lock, and the connection with the last one."""
        with self._guard:
            if slot in self._held:
                self._held.discard(slot)
                if self._held:
                    _quietly(lambda: self._ask(self._drop, slot))
                else:
                    self._lose()

    def is_held(self, slot: int) -> bool:
        """Whether the connection is there, as far as this end knows; a heartbeat that is under way finds out by itself."""
        if not self._guard.acquire(blocking=False):
            return True
        try:
            return slot in self._held and not self._driver.is_broken(self._connection)
        finally:
            self._guard.release()

    def is_dead(self, seen: Seen) -> bool:
        """Whether the lock is free; on MySQL a sign from before the server's start says nothing."""
        if not seen.is_free or self._sql.is_postgresql:
            return seen.is_free
        up = self._sql.row("SHOW GLOBAL STATUS LIKE 'Uptime'")
        return up is not None and seen.heartbeat_at > self._sql.now() - int(up[1]) * 1_000_000 + _RESTART_MICROS

    def run(self, text: str, parameters: Sequence[Any], seconds: float) -> int | None:
        """Run it on the connection apart.

        Raises:
            StoreUnavailableError: the connection is lost, and every slot with it.
        """
        with self._guard:
            if self._connection is None:
                return None
            try:
                self._driver.limit(self._connection, seconds)
                cursor = self._connection.cursor()
                cursor.execute(text.replace("?", "%s"), parameters)
                return int(cursor.rowcount)
            except Exception as error:
                self._lose()
                raise StoreUnavailableError(f"The connection of the heartbeat is lost: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Give the connection back."""
        with self._guard:
            self._lose()


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:
        logger.debug("A sign of life could not be given back in order", exc_info=True)


def sign_of(target: Any, sql: Sql, timeout: float) -> Sign:
    """The sign that this database allows; one of the app's own has connections that are the app's."""
    if isinstance(target, str) and isinstance(sql.database, peewee.SqliteDatabase):
        return FileSign(ProcessLock(sqlite_path(target)))
    if isinstance(sql.database, ServerDatabase):
        return ServerSign(sql, sql.database.pool.driver, timeout)
    return NoSign()
