"""A Peewee Database of the app's own: what it must be like to hold durable state; what would lose some is refused with what to change."""

from __future__ import annotations

from typing import Any

import peewee
from playhouse.pool import PooledSqliteDatabase

from flask_durable.errors import ConfigurationError

_FOUND_ROWS = 2
"""The capability of a MySQL connection by which an UPDATE counts the rows it has found, not only those it has changed."""


def unwrapped(target: Any) -> Any:
    """The database behind a Peewee proxy, such as that of ``playhouse.flask_utils.FlaskDB``."""
    return target.obj if isinstance(target, peewee.Proxy) else target


def check(database: peewee.Database) -> None:
    """Refuse a database that cannot be shared by threads, or is not kept.

    Raises:
        ConfigurationError: with what to change.
    """
    if not database.thread_safe:
        raise _refusal(database, "made with thread_safe=True: requests, activities and the engine use it in threads of their own")
    if isinstance(database, peewee.SqliteDatabase):
        if str(database.database) in ("", ":memory:") or "mode=memory" in str(database.database):
            raise _refusal(database, "a database in a file: one in memory is another one in each thread, and ends with the process")
        if isinstance(database, PooledSqliteDatabase) and database.connect_params.get("check_same_thread", True):
            raise _refusal(database, "made with check_same_thread=False when it is a PooledSqliteDatabase: its connections go from thread to thread")


def check_connection(database: peewee.Database) -> None:
    """Refuse a driver, or a way of connecting, that does not say what the storage has to know; needs a connection.

    Raises:
        ConfigurationError: with what to change.
    """
    connection = database.connection()
    if type(connection).__module__.partition(".")[0] == "psycopg2":
        raise _refusal(database, "made for psycopg 3, with prefer_psycopg3=True: psycopg2 does not count the rows of several statements")
    flags = getattr(connection, "client_flag", None)
    if isinstance(database, peewee.MySQLDatabase) and isinstance(flags, int) and not flags & _FOUND_ROWS:
        raise _refusal(
            database,
            "made with client_flag=pymysql.constants.CLIENT.FOUND_ROWS: otherwise an update that finds a row as it is already counts as one that finds none",
        )


def _refusal(database: peewee.Database, allowed: str) -> ConfigurationError:
    return ConfigurationError("DURABLE_DATABASE", database, allowed)
