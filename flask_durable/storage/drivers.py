"""Drivers of database servers: how a connection is opened, and the times after which we stop waiting for a server.

A server that answers keeps them itself: ``lock_timeout``, ``statement_timeout`` and ``idle_in_transaction_session_timeout`` (PostgreSQL),
``innodb_lock_wait_timeout``, ``max_statement_time`` or ``max_execution_time``, and ``idle_transaction_timeout`` or ``wait_timeout`` (MariaDB,
MySQL). One that says nothing any more cannot: every statement has a limit here too, after which its connection is given up. What the URL, the
environment or the server's own configuration sets is left as it is.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
import urllib.parse
from collections.abc import Generator, Mapping
from typing import Any, Protocol

from flask_durable.config import mask_url
from flask_durable.errors import ConfigurationError

LONGEST_CONNECT = 5.0
"""Seconds after which an attempt to connect is given up: a server that has come back is found by the next attempt, not by a late retransmission."""

_LOCK_SHARE = 0.5
_STATEMENT_SHARE = 0.9
"""Parts of the time-out after which the server itself ends a wait for a lock, and a statement: it should say so before we stop listening."""

_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_COUNT = 10, 5, 3

_MYSQL_WAIT = 120
"""Seconds of silence after which MySQL, which has no limit for transactions alone, ends a session: longer than the pool keeps one that is idle."""


class Driver(Protocol):
    """One kind of server, behind one URL."""

    def open(self, seconds: float) -> Any:
        """A new connection in autocommit mode; ``seconds`` bound the attempt and each statement until the next :meth:`limit`."""

    def limit(self, connection: Any, seconds: float | None) -> None:
        """The server may be silent for so long from now on, in each statement; None for as long as it likes."""

    def is_broken(self, connection: Any) -> bool:
        """Whether it can be seen, without asking the server, that an idle connection is of no use any more."""

    def settle(self, connection: Any) -> bool:
        """End a transaction that was left open; False when the connection cannot be used again."""

    def is_pooled(self, connection: Any) -> bool:
        """Whether a pooler stands in between, so that nothing may be kept in the session."""


def _has_news(descriptor: int) -> bool:
    # An idle connection has nothing to read, unless its other end is gone or wants to say so
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class PostgresqlDriver:
    """PostgreSQL by psycopg 3.

    Args:
        url: what libpq reads.
        timeout: seconds of DURABLE_DATABASE_TIMEOUT.
        sessions: ``on`` or ``off`` when somebody knows whether a session is ours alone; ``auto`` finds out.

    Raises:
        ConfigurationError: the driver is missing, or libpq cannot read the URL.
    """

    def __init__(self, url: str, timeout: float, sessions: str) -> None:
        try:
            import psycopg.conninfo  # an optional dependency: only those who use PostgreSQL have it
        except ImportError as error:
            raise ConfigurationError("DURABLE_DATABASE", mask_url(url), "with PostgreSQL, install flask-durable[postgres]") from error
        try:
            given = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error:
            # Its text repeats the URL, with the password
            raise ConfigurationError("DURABLE_DATABASE", mask_url(url), "a URL that libpq can read: postgresql://user:…@host/name") from None
        ours: dict[str, Any] = {
            "fallback_application_name": "flask-durable",
            "keepalives_idle": _KEEPALIVE_IDLE,
            "keepalives_interval": _KEEPALIVE_INTERVAL,
            "keepalives_count": _KEEPALIVE_COUNT,
            "tcp_user_timeout": math.ceil(timeout * 1000),
        }
        self._parameters = {**ours, **{key: value for key, value in given.items() if value is not None}}
        self._has_connect_timeout = "connect_timeout" in given or "PGCONNECT_TIMEOUT" in os.environ
        self._timeout = timeout
        self._sessions = sessions
        self._kind = _limited_connection()

    def open(self, seconds: float) -> Any:
        """Connect, and set the session up."""
        parameters = dict(self._parameters)
        if not self._has_connect_timeout:
            parameters["connect_timeout"] = math.ceil(min(seconds, LONGEST_CONNECT))
        connection = self._kind.connect(**parameters)
        try:
            connection.limit = seconds
            connection.autocommit = True
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Any) -> None:
        """Find out whether the session is ours alone, and only then set something in it: others would inherit it from a pooler."""
        mine = {"auto": "pg_backend_pid() = %s", "on": "%s IS NOT NULL", "off": "%s IS NULL"}[self._sessions]
        limits = {
            "lock_timeout": _LOCK_SHARE * self._timeout,
            "statement_timeout": _STATEMENT_SHARE * self._timeout,
            # A worker that is cut off in the middle of a transaction must not keep the lock on its row, and with it its work, from others
            "idle_in_transaction_session_timeout": self._timeout,
        }
        given = {name: f"'{math.ceil(seconds * 1000)}'" for name, seconds in limits.items()}
        # Every statement finds its rows by an index. A plan is kept for as long as a session lasts, and for a table that was small when it was made
        # it would be to read all of it.
        given |= dict.fromkeys(("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"), "'off'")
        settings = ", ".join(
            f"CASE WHEN is_ours AND current_setting('{name}') IN ('0', 'on') THEN set_config('{name}', {value}, false) END"
            for name, value in given.items()
        )
        found = connection.execute(
            f"SELECT is_ours, {settings} FROM (SELECT {mine} AS is_ours) AS session", (connection.info.backend_pid,)
        ).fetchone()
        connection.is_pooled = not found[0]
        if connection.is_pooled:
            connection.prepare_threshold = None

    def limit(self, connection: Any, seconds: float | None) -> None:
        """The server may be silent for so long."""
        connection.limit = seconds

    def is_broken(self, connection: Any) -> bool:
        """Whether it is closed at either end."""
        return bool(connection.closed) or _has_news(connection.fileno())

    def settle(self, connection: Any) -> bool:
        """Roll back what was left open."""
        status = connection.info.transaction_status.name
        if status in ("INTRANS", "INERROR"):
            connection.rollback()
            status = connection.info.transaction_status.name
        return bool(status == "IDLE")

    def is_pooled(self, connection: Any) -> bool:
        """Whether the process behind it is another than the one that it was told of."""
        return bool(connection.is_pooled)


def _limited_connection() -> Any:
    import psycopg

    class LimitedConnection(psycopg.Connection[Any]):
        """A connection that is given up when the server is silent for too long: libpq itself would wait for ever."""

        limit: float | None = None
        is_pooled = False

        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            """Wait for the server, but not for ever."""
            if self.limit is None:
                return super().wait(gen, *args, **options)
            try:
                return super().wait(_until(gen, time.monotonic() + self.limit), *args, **options)
            except TimeoutError:
                self.pgconn.finish()
                raise psycopg.OperationalError(f"The server has said nothing for {self.limit:g} s; the connection is given up") from None

    return LimitedConnection


_READ_OR_WRITE, _WRITE = 3, 2
"""How the steps of psycopg say what they wait for, and are told that it has come."""

_HOPEFUL = 4
"""So many times a statement is sent without asking whether the socket takes it: nearly always it does, and asking lets go of the interpreter's lock."""


def _until(steps: Generator[Any, Any, Any], deadline: float) -> Generator[Any, Any, Any]:
    """The same steps; a driver takes one at least every tenth of a second, also when nothing has come."""
    try:
        wanted = next(steps)
        for _ in range(_HOPEFUL):
            if wanted != _READ_OR_WRITE:
                break
            wanted = steps.send(_WRITE)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= deadline:
                steps.close()
                raise TimeoutError
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value


_MYSQL_NUMBERS = ("connect_timeout", "read_timeout", "write_timeout")
_MYSQL_TEXTS = ("unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "charset")
_MYSQL_SWITCHES = ("ssl_verify_cert", "ssl_verify_identity")


class MysqlDriver:
    """MySQL and MariaDB by PyMySQL.

    Args:
        url: ``mysql://user:…@host:port/name``, with options of PyMySQL behind a question mark.
        timeout: seconds of DURABLE_DATABASE_TIMEOUT.
        sessions: ``on`` or ``off`` when somebody knows whether a session is ours alone; ``auto`` finds out.

    Raises:
        ConfigurationError: the driver is missing, or the URL has an option that is not known.
    """

    def __init__(self, url: str, timeout: float, sessions: str) -> None:
        try:
            import pymysql
        except ImportError as error:
            raise ConfigurationError("DURABLE_DATABASE", mask_url(url), "with MySQL or MariaDB, install flask-durable[mysql]") from error
        parts = urllib.parse.urlsplit(url)
        self.name = urllib.parse.unquote(parts.path.removeprefix("/"))
        self._given = _mysql_options(url, parts.query)
        self._parameters: dict[str, Any] = {
            "database": self.name,
            "host": parts.hostname or "127.0.0.1",
            "port": parts.port or 3306,
            "user": urllib.parse.unquote(parts.username or ""),
            "password": urllib.parse.unquote(parts.password or ""),
            "charset": "utf8mb4",
            "autocommit": True,
            "init_command": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "client_flag": pymysql.constants.CLIENT.FOUND_ROWS,
            "program_name": "flask-durable",
            **self._given,
        }
        self._timeout = timeout
        self._sessions = sessions

    def open(self, seconds: float) -> Any:
        """Connect, and set the session up."""
        import pymysql

        attempt = min(seconds, LONGEST_CONNECT)
        connection = pymysql.connect(**{"connect_timeout": attempt, "read_timeout": attempt, "write_timeout": attempt, **self._parameters})
        try:
            self.limit(connection, seconds)
            _keep_alive(connection._sock, self._timeout)
            lock = max(1, math.ceil(_LOCK_SHARE * self._timeout))
            statement = _STATEMENT_SHARE * self._timeout
            is_mariadb = "mariadb" in connection.get_server_info().lower()
            name, most = ("max_statement_time", f"{statement:.3f}") if is_mariadb else ("max_execution_time", str(math.ceil(statement * 1000)))
            idle, silence = ("idle_transaction_timeout", math.ceil(self._timeout)) if is_mariadb else ("wait_timeout", _MYSQL_WAIT)
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SET SESSION innodb_lock_wait_timeout = LEAST(@@innodb_lock_wait_timeout, {lock}), {name} = IF(@@{name} = 0, {most}, @@{name})"
                )
                cursor.execute(f"SET SESSION {idle} = IF(@@GLOBAL.{idle} = 0, {silence}, LEAST(@@GLOBAL.{idle}, {silence}))")
        except BaseException:
            connection.close()
            raise
        return connection

    def limit(self, connection: Any, seconds: float | None) -> None:
        """The server may be silent for so long, unless the URL says otherwise."""
        connection._read_timeout = self._given.get("read_timeout", seconds)
        connection._write_timeout = self._given.get("write_timeout", seconds)

    def is_broken(self, connection: Any) -> bool:
        """Whether it is closed at either end."""
        return not connection.open or _has_news(connection._sock.fileno())

    def settle(self, connection: Any) -> bool:
        """Roll back what was left open."""
        from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS

        if connection.open and connection.server_status & SERVER_STATUS_IN_TRANS:
            connection.rollback()
        return bool(connection.open)

    def is_pooled(self, connection: Any) -> bool:
        """Whether the server knows the connection by another number than the one that it was told of."""
        if self._sessions != "auto":
            return self._sessions == "off"
        with connection.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            return bool(cursor.fetchone()[0] != connection.thread_id())


def _mysql_options(url: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if name in _MYSQL_TEXTS:
            options[name] = value
        elif name in _MYSQL_SWITCHES and value.lower() in ("true", "false", "1", "0"):
            options[name] = value.lower() in ("true", "1")
        elif name in _MYSQL_NUMBERS and value.replace(".", "", 1).isdigit() and float(value) > 0:
            options[name] = float(value)
        else:
            known = ", ".join((*_MYSQL_NUMBERS, *_MYSQL_TEXTS, *_MYSQL_SWITCHES))
            raise ConfigurationError(
                "DURABLE_DATABASE", mask_url(url), f"a URL whose options are among {known}; {name!r} is unknown or has a wrong value"
            )
    return options


def _keep_alive(sock: Any, timeout: float) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options: Mapping[str, int] = {
        "TCP_KEEPIDLE": _KEEPALIVE_IDLE,
        "TCP_KEEPINTVL": _KEEPALIVE_INTERVAL,
        "TCP_KEEPCNT": _KEEPALIVE_COUNT,
        "TCP_USER_TIMEOUT": math.ceil(timeout * 1000),
    }
    for name, value in options.items():
        if hasattr(socket, name):
            with contextlib.suppress(OSError):  # a system that knows the name but not the option goes without
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
