"""Opening a database, and the differences between SQLite, PostgreSQL and MySQL/MariaDB: the only place that asks which one it is."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import logging
import os
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import peewee
from playhouse.pool import MaxConnectionsExceeded, PooledSqliteDatabase

from flask_durable.clock import Clock
from flask_durable.config import mask_url
from flask_durable.core.times import Micros
from flask_durable.errors import ConfigurationError, DurableError, OutcomeUnknownError, StoreUnavailableError
from flask_durable.storage import adoption, callers, unanswered
from flask_durable.storage.connections import ConnectionPool, ServerDatabase, ServerMysqlDatabase, ServerPostgresqlDatabase, connected
from flask_durable.storage.database_errors import as_peewee_error, is_lost, is_transient
from flask_durable.storage.drivers import Driver, MysqlDriver, PostgresqlDriver
from flask_durable.storage.key_lists import in_lists
from flask_durable.storage.pipeline import Pipelines
from flask_durable.storage.server_time import ServerTime

Result = TypeVar("Result")

_MAX_CONNECTIONS = 64

_NOW_ON_POSTGRESQL = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint"
_NOW_ON_MYSQL = "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What only a database server needs: how many connections at most, and whether its sessions are ours alone (on, off, or auto)."""

    max_connections: int = 12
    sessions: str = "auto"


def open_database(target: Any, *, sqlite_synchronous: str, timeout: float, server: ServerOptions) -> tuple[peewee.Database, str]:
    """Open what DURABLE_DATABASE names; returns the database and a name for it that may be shown.

    Args:
        target: a URL or a Peewee Database.
        sqlite_synchronous: FULL or NORMAL.
        timeout: seconds to wait for a lock or a connection.
        server: for a database on a server.

    Raises:
        ConfigurationError: it cannot be opened; the message says why.
    """
    _hide_values()
    target = adoption.unwrapped(target)
    if not isinstance(target, str):
        if not isinstance(target, peewee.Database):
            raise ConfigurationError("DURABLE_DATABASE", target, "a URL sqlite:///path, postgresql://… or mysql://…, or a Peewee Database")
        _adopt(target)
        return target, f"{type(target).__name__} of the app"
    scheme = target.partition(":")[0].lower()
    if scheme == "sqlite":
        return _open_sqlite(target, sqlite_synchronous, timeout), target
    return _open_server(target, server, timeout), mask_url(target)


class _HideValues(logging.Filter):
    """Peewee tells DEBUG every statement with its values: those of our tables are payloads, which no log may have (S7)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the statement's text only; statements of the app's own stay as they are."""
        if isinstance(record.msg, tuple) and record.msg and "durable_" in str(record.msg[0]):
            record.msg = f"{record.msg[0]} (values are not logged)"
        return True


_HIDE_VALUES = _HideValues()


def forget_connections(database: Any) -> None:
    """Drop connections inherited from the parent of a fork, without closing them under it.

    Another thread of the parent may have held a lock of the database at that moment; in the child nobody would ever release it.
    """
    if database.thread_safe:
        database._lock = threading.Lock()
    if hasattr(database, "_pool_lock"):
        database._pool_lock = threading.RLock()
        database._pool_available = threading.Condition(database._pool_lock)
    database.dispose()


def _hide_values() -> None:
    logging.getLogger("peewee").addFilter(_HIDE_VALUES)


def _adopt(database: peewee.Database) -> None:
    adoption.check(database)
    if not isinstance(database, peewee.SqliteDatabase) and not database.deferred:
        try:
            with connected(database, 0):
                adoption.check_connection(database)
        except peewee.PeeweeException as error:
            allowed = f"a database that can be used, which this one cannot: {error}"
            raise ConfigurationError("DURABLE_DATABASE", f"{type(database).__name__} of the app", allowed) from error


def _open_sqlite(url: str, synchronous: str, timeout: float) -> peewee.Database:
    path = sqlite_path(url)
    _make_private_file(path)
    database: peewee.Database = PooledSqliteDatabase(
        str(path),
        factory=_LenientConnection,
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


class _LenientConnection(sqlite3.Connection):
    """Reads text whose bytes were damaged, with marks in their place: one such row would otherwise make every query fail that meets it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.text_factory = functools.partial(str, encoding="utf-8", errors="replace")


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


def _open_server(url: str, options: ServerOptions, timeout: float) -> peewee.Database:
    is_postgresql = url.partition(":")[0].lower() in ("postgresql", "postgres")
    if is_postgresql:
        driver: Driver = PostgresqlDriver(url, timeout, options.sessions)
        database: Any = ServerPostgresqlDatabase(url, prefer_psycopg3=True, autoconnect=False)
    else:
        driver = mysql = MysqlDriver(url, timeout, options.sessions)
        database = ServerMysqlDatabase(mysql.name, autoconnect=False)
    database.use(ConnectionPool(driver, options.max_connections), timeout)
    return cast(peewee.Database, database)


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
        self._thread = threading.local()
        self.is_sqlite = isinstance(database, peewee.SqliteDatabase)
        self.is_postgresql = isinstance(database, peewee.PostgresqlDatabase)
        self._server_time = ServerTime(clock)
        self.now_text = _NOW_ON_POSTGRESQL if self.is_postgresql else _NOW_ON_MYSQL
        self._texts: dict[str, str] = {}
        self._pipelines = Pipelines(database)
        self.insert_ignore = "INSERT IGNORE INTO" if not (self.is_sqlite or self.is_postgresql) else "INSERT INTO"
        self.on_conflict = " ON CONFLICT DO NOTHING" if self.is_sqlite or self.is_postgresql else ""
        self.for_update = "" if self.is_sqlite else " FOR UPDATE"
        self.skip_locked = "" if self.is_sqlite else " FOR UPDATE SKIP LOCKED"
        self.for_share = "" if self.is_sqlite else (" FOR SHARE" if self.is_postgresql else " LOCK IN SHARE MODE")

    @contextlib.contextmanager
    def connection(self) -> Iterator[None]:
        """Keep a connection for the calling thread, on which others depend: it is one that requests cannot take away, and renewed when it breaks."""
        self._thread.is_vital = True
        try:
            with connected(self.database, self._timeout, is_vital=True):
                yield
        finally:
            self._thread.is_vital = False

    def now(self) -> Micros:
        """Database time; needs a connection on a server database."""
        if self.is_sqlite:
            return self._clock.now()
        return self._server_time.read(int(self.value(f"SELECT {self.now_text}")))

    def now_if(self, source: str, parameters: Sequence[Any]) -> Micros | None:
        """Database time if a query ``SELECT … source`` finds a row, else None; one statement for both."""
        if self.is_sqlite:
            return None if self.row(f"SELECT 1 {source}", parameters) is None else self._clock.now()
        found = self.value(f"SELECT {self.now_text} {source}", parameters)
        return None if found is None else self._server_time.read(int(found))

    def now_expression(self) -> tuple[str, tuple[Micros, ...]]:
        """Text for database time inside a statement, with its parameters, so that the time costs no statement of its own."""
        return ("?", (self._clock.now(),)) if self.is_sqlite else (self.now_text, ())

    def learn_now(self, answer: Any) -> Micros:
        """Database time, from what a query with :meth:`now_expression` has just answered."""
        return int(answer) if self.is_sqlite else self._server_time.read(int(answer))

    def recent_now(self) -> Micros | None:
        """Database time without a query; None when the server has to be asked."""
        return self._clock.now() if self.is_sqlite else self._server_time.estimate()

    def now_unless(self, source: str, parameters: Sequence[Any], missing: Exception) -> Micros:
        """Database time if a query ``SELECT … source`` finds a row, else the error is raised, at the latest when the pipeline is left."""
        return self._now_with(f"SELECT {self.now_text} {source}", parameters, missing, lambda: self.now_if(source, parameters))

    def now_after(self, text: str, parameters: Sequence[Any], missing: Exception) -> Micros:
        """Database time if an update finds its row, else the error is raised, at the latest when the pipeline is left."""

        def wait() -> Micros | None:
            if self.is_postgresql:
                found = self.value(f"{text} RETURNING {self.now_text}", parameters)
                return None if found is None else self._server_time.read(int(found))
            return self.now() if self.run(text, parameters) else None

        return self._now_with(f"{text} RETURNING {self.now_text}", parameters, missing, wait)

    def _now_with(self, text: str, parameters: Sequence[Any], missing: Exception, wait: Callable[[], Micros | None]) -> Micros:
        pipeline, recent = self._pipelines.current, self.recent_now()
        if pipeline is None or recent is None:
            now = wait()
            if now is None:
                raise missing
            return now

        def check(cursors: Sequence[Any]) -> None:
            found = cursors[0].fetchone()
            if found is None:
                raise missing
            self._server_time.read(int(found[0]))

        pipeline.send(self._translated(text), [parameters], check)
        return recent

    def pipeline(self) -> contextlib.AbstractContextManager[None]:
        """Inside a transaction: statements whose outcome is not asked for are sent without waiting, where the driver can."""
        return contextlib.nullcontext() if not self.is_postgresql else self._pipeline()

    @contextlib.contextmanager
    def _pipeline(self) -> Iterator[None]:
        try:
            with self._pipelines.open():
                yield
        except self._driver_error() as error:
            raise as_peewee_error(error) from error

    def run(self, text: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it changed."""
        cursor = self.database.execute_sql(self._translated(text), parameters)
        if self._pipelines.current is not None:
            self._pipelines.current.wait()
        return int(cursor.rowcount)

    def run_many(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for many rows."""
        if self._pipelines.current is not None and rows:
            self._pipelines.current.send(self._translated(text), rows)
        else:
            self._run_many(text, rows)

    def insert_many(self, text: str, kinds: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run an ``INSERT … VALUES`` for many rows; ``kinds`` has a letter for the type of each column (t text, i integer, b boolean)."""
        if self._pipelines.current is not None and len(rows) > 1:
            self._pipelines.current.insert(text, kinds, rows)
        else:
            self.run_many(text, rows)

    def change_many(self, text: str, kinds: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run an UPDATE, a DELETE or a ``SELECT … FOR UPDATE`` for many rows; ``kinds`` has a letter for the type of each parameter."""
        if self._pipelines.current is not None and rows:
            self._pipelines.current.change(self._translated(text), kinds, rows)
        else:
            self.run_many(text, rows)

    def expect(self, text: str, kinds: str, rows: Sequence[Sequence[Any]], otherwise: type[Exception]) -> None:
        """As :meth:`change_many`, and each row must change one; if not, the error is raised, at the latest when the pipeline is left."""

        def check(changed: int) -> None:
            if changed != len(rows):
                raise otherwise

        if self._pipelines.current is not None and rows:
            self._pipelines.current.change(
                self._translated(text), kinds, rows, lambda cursors: check(sum(int(cursor.rowcount) for cursor in cursors))
            )
        else:
            check(self._run_many(text, rows))

    def _run_many(self, text: str, rows: Sequence[Sequence[Any]]) -> int:
        if not rows:
            return 0
        if len(rows) == 1:
            return self.run(text, rows[0])
        cursor = self.database.cursor()
        try:
            cursor.executemany(self._translated(text), rows)
        except self._driver_error() as error:
            raise as_peewee_error(error) from error
        return int(cursor.rowcount)

    def run_for(self, text: str, head: Sequence[Any], keys: Sequence[Any]) -> None:
        """Run a statement that ends in ``IN`` for all these keys, in as few statements as is reasonable."""
        if self.is_postgresql:
            # Its driver sends many statements at once; for a list, a planner without statistics may read all rows of the hub
            self.change_many(f"{text.removesuffix('IN')}= ?", "t" * (len(head) + 1), [(*head, key) for key in keys])
            return
        for marks, some in in_lists(keys):
            self.run(f"{text} ({marks})", (*head, *some))

    def rows_of(self, text: str, head: Sequence[Any], keys: Sequence[Any], tail: str = "") -> list[tuple[Any, ...]]:
        """All rows of a query that ends in ``IN``, for all these keys; ``tail`` follows the list."""
        return [tuple(row) for marks, some in in_lists(keys) for row in self.rows(f"{text} ({marks}){tail}", (*head, *some))]

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

    def read(self, work: Callable[[], Result], *, is_vital: bool = False) -> Result:
        """Run a read on a connection; once more when the connection turns out to be lost.

        Args:
            work: what reads; it may run twice.
            is_vital: others depend on it, so it may have a connection that requests cannot take away.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        return self._tried(work, is_vital=is_vital, is_repeatable=True)

    def transaction(
        self, work: Callable[[], Result], *, has_landed: Callable[[], bool] | None = None, is_vital: bool = False, is_slow: bool = False
    ) -> Result:
        """Run work in one transaction; busy, deadlocked and refused ones are run again until the deadline.

        Inside a transaction of the caller's own, the work joins it.

        Args:
            work: what reads and writes; it may run several times.
            has_landed: says, in a transaction of its own, whether the work was committed; asked when the answer to a COMMIT was lost, after which
                nothing may be done twice. None for work that does no harm when it is done again.
            is_vital: others depend on it, so it may have a connection that requests cannot take away.
            is_slow: its statements may take as long as they like.

        Raises:
            StoreUnavailableError: the database does not answer, or is still busy at the deadline.
            OutcomeUnknownError: and nobody knows whether the work was committed.
        """

        def in_transaction() -> Result:
            if self.is_joining():
                with callers.joined(self.database):
                    return lifted()
            return unanswered.run(callers.own(self.database), lifted, is_transient)

        def lifted() -> Result:
            if is_slow:
                self._lift_limits()
            return work()

        deadline = time.monotonic() + self._timeout
        try:
            while True:
                try:
                    return self._tried(in_transaction, is_vital=is_vital, is_slow=is_slow)
                except unanswered.CommitFailedError as failed:
                    if has_landed is not None and self._ask(has_landed, failed, is_vital):
                        return cast(Result, failed.result)
                    if time.monotonic() >= deadline:
                        raise OutcomeUnknownError(failed.result) from failed.__cause__
        finally:
            if is_slow and isinstance(self.database, ServerMysqlDatabase):
                self.database.close_idle()  # limits that were lifted for a session end with it

    def _ask(self, has_landed: Callable[[], bool], failed: unanswered.CommitFailedError, is_vital: bool) -> bool:
        try:
            return self._tried(lambda: unanswered.run(callers.own(self.database), has_landed, is_transient), is_vital=is_vital)
        except unanswered.CommitFailedError as end:
            return bool(end.result)  # what it has seen counts, whatever became of its own end
        except DurableError:
            raise OutcomeUnknownError(failed.result) from failed.__cause__

    def _lift_limits(self) -> None:
        if isinstance(self.database, ServerPostgresqlDatabase):
            self.run("SET LOCAL statement_timeout = 0")
            self.run("SET LOCAL lock_timeout = 0")
        elif isinstance(self.database, ServerMysqlDatabase):
            is_mariadb = "mariadb" in str(self.value("SELECT VERSION()")).lower()
            self.run(f"SET SESSION {'max_statement_time' if is_mariadb else 'max_execution_time'} = 0")

    def after_null(self, column: str) -> str:
        """How an ORDER BY has to begin where that column of the index IS NULL: PostgreSQL does not see that it sorts nothing then, and would sort all."""
        return f"{column}, " if self.is_postgresql else ""

    def savepoint(self) -> contextlib.AbstractContextManager[Any]:
        """A part of the present transaction that is undone by itself when it raises."""
        part: contextlib.AbstractContextManager[Any] = self.database.savepoint()
        return part

    def is_joining(self) -> bool:
        """Whether the calling thread has a transaction open, which a further one would be a part of."""
        if getattr(self._thread, "is_vital", False):  # a thread of ours: what a driver without autocommit has begun there is nobody's
            return bool(self.database.in_transaction())
        return callers.is_open(self.database)

    def _tried(self, work: Callable[[], Result], *, is_vital: bool, is_repeatable: bool = False, is_slow: bool = False) -> Result:
        deadline = time.monotonic() + self._timeout
        is_vital = is_vital or getattr(self._thread, "is_vital", False)
        pause = 0.005
        is_joined = self.is_joining()  # afterwards the database may have ended it
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                with connected(self.database, left, is_vital=is_vital, is_kept=getattr(self._thread, "is_vital", False)):
                    if isinstance(self.database, ServerDatabase):
                        self.database.limit(None if is_slow else max(min(1.0, self._timeout), left))
                    return work()
            except (peewee.IntegrityError, peewee.DataError, peewee.ProgrammingError):
                raise
            except (peewee.PeeweeException, MaxConnectionsExceeded, self._driver_error(), OSError) as error:
                may_pass = is_transient(error) or (is_repeatable and is_lost(error))
                if is_joined or not may_pass or time.monotonic() >= deadline:
                    raise StoreUnavailableError(f"The database refused: {type(error).__name__}: {error}") from error
                is_repeatable = is_repeatable and not is_lost(error)
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
