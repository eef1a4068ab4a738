"""Opening a database, and the differences between SQLite, PostgreSQL and MySQL/MariaDB: the only place that asks which one it is."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import peewee
from playhouse.pool import PooledMySQLDatabase, PooledPostgresqlDatabase, PooledSqliteDatabase

from flask_durable.clock import Clock
from flask_durable.config import mask_url
from flask_durable.core.times import Micros
from flask_durable.errors import ConfigurationError, StoreUnavailableError

logger = logging.getLogger("flask_durable.storage")

Result = TypeVar("Result")

_MAX_CONNECTIONS = 64
_TRANSIENT_CODES = {"40001", "40P01", "55P03", 1205, 1213}
"""Serialization failure, deadlock and lock wait time-out: the transaction can be run again."""


def open_database(target: Any, *, sqlite_synchronous: str, timeout: float) -> tuple[peewee.Database, str]:
    """Open what DURABLE_DATABASE names; returns the database and a name for it that may be shown.

    Args:
        target: a URL or a Peewee Database.
        sqlite_synchronous: FULL or NORMAL.
        timeout: seconds to wait for a lock or a connection.

    Raises:
        ConfigurationError: it cannot be opened; the message says why.
    """
    if not isinstance(target, str):
        if not isinstance(target, peewee.Database):
            raise ConfigurationError("DURABLE_DATABASE", target, "a URL sqlite:///path, postgresql://… or mysql://…, or a Peewee Database")
        _adopt(target)
        return target, f"{type(target).__name__} of the app"
    scheme = target.partition(":")[0].lower()
    if scheme == "sqlite":
        return _open_sqlite(target, sqlite_synchronous, timeout), target
    if scheme in ("postgresql", "postgres"):
        return _open_postgresql(target, timeout), mask_url(target)
    return _open_mysql(target, timeout), mask_url(target)


def _adopt(database: peewee.Database) -> None:
    if isinstance(database, peewee.MySQLDatabase) and not hasattr(database, "durable_collation"):
        with _connected(database):
            _choose_collation(database)


def _open_sqlite(url: str, synchronous: str, timeout: float) -> peewee.Database:
    path = sqlite_path(url)
    _make_private_file(path)
    database: peewee.Database = PooledSqliteDatabase(
        str(path),
        max_connections=_MAX_CONNECTIONS,
        timeout=timeout,
        check_same_thread=False,
        autoconnect=False,
        lock_type="IMMEDIATE",
        pragmas={
            "busy_timeout": int(timeout * 1000),
            "journal_mode": "wal",
            "synchronous": synchronous.lower(),
            "cache_size": -16000,
            "temp_store": "memory",
        },
    )
    return database


def sqlite_path(url: str) -> Path:
    """The file of a URL sqlite:///relative or sqlite:////absolute.

    Raises:
        ConfigurationError: it names no file; state that lives in memory only would not be durable.
    """
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path.removeprefix("/"))
    if parts.netloc or parts.query or not path or path == ":memory:":
        raise ConfigurationError("DURABLE_DATABASE", url, "sqlite:///relative/path or sqlite:////absolute/path of a file")
    return Path(path).absolute()


def _make_private_file(path: Path) -> None:
    # A file that is there is not opened: closing it would end every lock that SQLite holds on it for another app of this process.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError("DURABLE_DATABASE", f"sqlite:///{path}", f"a file that this process may create and write ({reason})") from error


def _open_postgresql(url: str, timeout: float) -> peewee.Database:
    try:
        import psycopg  # noqa: F401 - an optional dependency: only those who use PostgreSQL have it
    except ImportError as error:
        raise ConfigurationError("DURABLE_DATABASE", mask_url(url), "with PostgreSQL, install flask-durable[postgres]") from error
    database: peewee.Database = PooledPostgresqlDatabase(
        url,
        prefer_psycopg3=True,
        max_connections=_MAX_CONNECTIONS,
        timeout=timeout,
        stale_timeout=300,
        autoconnect=False,
        connect_timeout=max(1, int(timeout)),
    )
    return database


def _open_mysql(url: str, timeout: float) -> peewee.Database:
    try:
        import pymysql
    except ImportError as error:
        raise ConfigurationError("DURABLE_DATABASE", mask_url(url), "with MySQL or MariaDB, install flask-durable[mysql]") from error
    parts = urllib.parse.urlsplit(url)
    database: peewee.Database = PooledMySQLDatabase(
        parts.path.removeprefix("/"),
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=urllib.parse.unquote(parts.username or ""),
        password=urllib.parse.unquote(parts.password or ""),
        max_connections=_MAX_CONNECTIONS,
        timeout=timeout,
        stale_timeout=300,
        autoconnect=False,
        charset="utf8mb4",
        connect_timeout=max(1, int(timeout)),
        init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        client_flag=pymysql.constants.CLIENT.FOUND_ROWS,
    )
    with _connected(database):
        _choose_collation(database)
    return database


def _choose_collation(database: peewee.Database) -> None:
    version = str(database.execute_sql("SELECT VERSION()").fetchone()[0])
    collation = "utf8mb4_nopad_bin" if "mariadb" in version.lower() else "utf8mb4_0900_bin"
    database.durable_collation = collation  # type: ignore[attr-defined]  # read by the key fields, which see only the database


@contextlib.contextmanager
def _connected(database: peewee.Database) -> Iterator[None]:
    """Use the calling thread's connection, or one of our own for the time: the caller's is never closed."""
    if not database.is_closed():
        yield
        return
    database.connect()
    try:
        yield
    finally:
        database.close()


class Sql:
    """Runs SQL text on one database; the text is written with ``?`` and translated once.

    Args:
        database: the Peewee database.
        clock: database time on SQLite, which has no server.
        timeout: seconds for which a transaction is tried again while the database is busy.
    """

    def __init__(self, database: peewee.Database, clock: Clock, timeout: float) -> None:
        self.database = database
        self._clock = clock
        self._timeout = timeout
        self.is_sqlite = isinstance(database, peewee.SqliteDatabase)
        self.is_postgresql = isinstance(database, peewee.PostgresqlDatabase)
        self._texts: dict[str, str] = {}
        self.insert_ignore = "INSERT IGNORE INTO" if not (self.is_sqlite or self.is_postgresql) else "INSERT INTO"
        self.on_conflict = " ON CONFLICT DO NOTHING" if self.is_sqlite or self.is_postgresql else ""
        self.for_update = "" if self.is_sqlite else " FOR UPDATE"
        self.skip_locked = "" if self.is_sqlite else " FOR UPDATE SKIP LOCKED"
        self.for_share = "" if self.is_sqlite else (" FOR SHARE" if self.is_postgresql else " LOCK IN SHARE MODE")

    def connection(self) -> contextlib.AbstractContextManager[None]:
        """A connection for the calling thread."""
        return _connected(self.database)

    def now(self) -> Micros:
        """Database time; needs a connection on a server database."""
        if self.is_sqlite:
            return self._clock.now()
        if self.is_postgresql:
            return int(self.value("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint"))
        return int(self.value("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"))

    def run(self, text: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it changed."""
        return int(self.database.execute_sql(self._translated(text), parameters).rowcount)

    def run_many(self, text: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run one statement for many rows; returns the number of rows changed in all."""
        if not rows:
            return 0
        if len(rows) == 1:
            return self.run(text, rows[0])
        cursor = self.database.cursor()
        try:
            cursor.executemany(self._translated(text), rows)
        except self._driver_error() as error:
            raise _as_peewee_error(error) from error
        return int(cursor.rowcount)

    def rows(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return list(self.database.execute_sql(self._translated(text), parameters).fetchall())

    def row(self, text: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of a query."""
        found = self.database.execute_sql(self._translated(text), parameters).fetchone()
        return None if found is None else tuple(found)

    def value(self, text: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None."""
        found = self.row(text, parameters)
        return None if found is None else found[0]

    def read(self, work: Callable[[], Result]) -> Result:
        """Run a read on a connection.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        return self._tried(work)

    def transaction(self, work: Callable[[], Result]) -> Result:
        """Run work in one transaction; busy, deadlocked and refused ones are run again until the deadline.

        Inside a transaction of the caller's own, the work joins it.

        Raises:
            StoreUnavailableError: the database does not answer, or is still busy at the deadline.
        """

        def in_transaction() -> Result:
            with self._atomic():
                return work()

        return self._tried(in_transaction)

    def _atomic(self) -> Any:
        return self.database.atomic("IMMEDIATE") if self.is_sqlite and not self.database.in_transaction() else self.database.atomic()

    def _tried(self, work: Callable[[], Result]) -> Result:
        deadline = time.monotonic() + self._timeout
        pause = 0.005
        while True:
            try:
                with self.connection():
                    return work()
            except (peewee.IntegrityError, peewee.DataError, peewee.ProgrammingError):
                raise
            except (peewee.PeeweeException, self._driver_error(), OSError) as error:
                is_joined = not self.database.is_closed() and self.database.in_transaction()
                if is_joined or not _is_transient(error) or time.monotonic() >= deadline:
                    raise StoreUnavailableError(f"The database refused: {type(error).__name__}: {error}") from error
            time.sleep(pause)
            pause = min(pause * 2, 0.2)

    def _driver_error(self) -> type[Exception]:
        # What Peewee raises by itself; cursors used directly raise the driver's own.
        driver = "sqlite3" if self.is_sqlite else "psycopg" if self.is_postgresql else "pymysql"
        error: type[Exception] = importlib.import_module(driver).Error
        return error

    def _translated(self, text: str) -> str:
        if self.is_sqlite:
            return text
        found = self._texts.get(text)
        if found is None:
            found = self._texts[text] = text.replace("?", "%s")
        return found


def _as_peewee_error(error: Exception) -> Exception:
    """What Peewee would have raised, had the statement gone through it."""
    for kind in type(error).__mro__:
        found = getattr(peewee, kind.__name__, None)
        if isinstance(found, type) and issubclass(found, peewee.PeeweeException):
            return found(*error.args)
    return peewee.DatabaseError(*error.args)


def _is_transient(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "sqlstate", None) or (seen.args[0] if seen.args else None)
        if isinstance(code, int | str) and code in _TRANSIENT_CODES:
            return True
        text = str(seen).lower()
        if "database is locked" in text or "database table is locked" in text or "busy" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
