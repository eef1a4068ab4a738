"""The caller's own transaction: whether one is open on its connection, whoever began it, and how work of ours becomes part of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import peewee

from flask_durable.errors import StoreUnavailableError

_IDLE = 0
_UNKNOWN = 4
"""Two of the transaction states of libpq."""

_IN_TRANSACTION = 1
_AUTOCOMMIT = 2
"""Bits of the status that a MySQL server sends with its answers."""

_ENDED = "The database has ended the transaction that this call is part of; leave its block, and run it again from its beginning"


def in_transaction(database: peewee.Database) -> bool:
    """Whether the calling thread has a transaction open: by Peewee, by SQL of its own, or by a driver that begins one with the next statement."""
    if database.is_closed():
        return False
    return is_open(database) or _state_of(database)[1]


def is_open(database: peewee.Database) -> bool:
    """The same, without what a driver is only about to begin."""
    return not database.is_closed() and (_state_of(database)[0] or (database.in_transaction() and not _is_manual(database)))


def begin_what_is_due(database: peewee.Database) -> None:
    """Begin the transaction that the driver of the caller's connection would begin with the caller's next statement, so that work of ours is part of it."""
    if not is_open(database) and in_transaction(database):
        # Not every driver would begin it with a savepoint, which would then be committed, or forgotten, at its own end
        database.execute_sql("BEGIN IMMEDIATE" if isinstance(database, peewee.SqliteDatabase) else "SELECT 1")
        if not is_really_open(database):
            database.execute_sql("BEGIN")


def is_really_open(database: peewee.Database) -> bool:
    """Whether the database itself is in a transaction now: it may have ended one that Peewee still counts on."""
    return not database.is_closed() and _state_of(database)[0]


@contextlib.contextmanager
def joined(database: peewee.Database) -> Iterator[None]:
    """A part of the caller's transaction, which is undone alone when it raises: the rest can go on.

    Raises:
        StoreUnavailableError: the database has rolled the transaction back, so that every further statement would be one of its own.
    """
    if not is_really_open(database):
        raise StoreUnavailableError(_ENDED)
    part = database.savepoint()
    part.__enter__()
    if not is_really_open(database):
        raise StoreUnavailableError(_ENDED)
    try:
        yield
    except BaseException as error:
        try:
            part.rollback(begin=False)
        except peewee.PeeweeException:
            raise StoreUnavailableError(f"{_ENDED} ({type(error).__name__}: {error})") from error
        raise
    part.commit(begin=False)


@contextlib.contextmanager
def own(database: peewee.Database) -> Iterator[None]:
    """A transaction of ours; on SQLite it begins as a writer, so that it cannot fail when it comes to its first write."""
    how = ("IMMEDIATE",) if isinstance(database, peewee.SqliteDatabase) else ()
    if not _is_manual(database):
        with database.transaction(*how):
            yield
        return
    # Inside manual_commit() Peewee begins nothing by itself
    database.begin(*how)
    try:
        yield
        database.commit()
    except BaseException:
        database.rollback()
        raise


def after_commit(database: peewee.Database, call: Any) -> bool:
    """Have that called when the caller's transaction is committed; False when nobody will tell, because Peewee does not run it."""
    if _is_manual(database) or not database.in_transaction():
        return False
    database.after_commit(call)
    return True


def _is_manual(database: peewee.Database) -> bool:
    return isinstance(database.top_transaction(), type(database.manual_commit()))


def _state_of(database: peewee.Database) -> tuple[bool, bool]:
    """Whether the connection is in a transaction, and whether its driver begins one by itself (autocommit is off); asks no server."""
    connection: Any = database.connection()
    if isinstance(database, peewee.PostgresqlDatabase):
        return int(connection.info.transaction_status) not in (_IDLE, _UNKNOWN), not connection.autocommit
    if isinstance(database, peewee.MySQLDatabase):
        status = getattr(connection, "server_status", None)
        if status is not None:
            return bool(status & _IN_TRANSACTION), not status & _AUTOCOMMIT
    elif hasattr(connection, "in_transaction"):
        return bool(connection.in_transaction), getattr(connection, "isolation_level", None) is not None
    return bool(database.in_transaction()), False
