"""The schema of a database: finding its version, creating it, bringing it up to date, deleting it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flask_durable.errors import SchemaVersionError
from flask_durable.storage import new_tables
from flask_durable.storage.database import Sql
from flask_durable.storage.migrations import STEPS
from flask_durable.storage.models import SCHEMA_VERSION, Tables

_LOCK_NAME = "flask_durable_schema"
_LOCK_NUMBER = 7_203_518_331


class Schema:
    """The tables of one database.

    Args:
        sql: the database.
        tables: their models.
        hub: the task hub of the process.
    """

    def __init__(self, sql: Sql, tables: Tables, hub: str) -> None:
        self._sql = sql
        self._tables = tables
        self._hub = hub

    def version(self) -> int | None:
        """The version found; None when there are no tables."""
        if not self._tables.schema.table_exists():
            return None
        found = self._sql.value("SELECT MAX(version) FROM durable_schema")
        return None if found is None else int(found)

    def check(self) -> None:
        """Raise SchemaVersionError unless the tables fit this code."""
        found = self.version()
        if found != SCHEMA_VERSION:
            raise SchemaVersionError(found, SCHEMA_VERSION)
        there = set(self._sql.database.get_tables())
        missing = tuple(name for table in self._tables.all() if (name := table._meta.table_name) not in there)
        if missing:
            raise SchemaVersionError(found, SCHEMA_VERSION, missing)

    def upgrade(self) -> None:
        """Create what is missing and run what has not run; several processes may do so at once.

        Raises:
            SchemaVersionError: the tables were made by newer code.
        """
        if self.version() == SCHEMA_VERSION:
            return
        _choose_collation(self._sql)
        with self._alone():
            found = self.version()
            if found is not None and found > SCHEMA_VERSION:
                raise SchemaVersionError(found, SCHEMA_VERSION)
            if found is None:
                self._sql.database.create_tables(self._tables.all(), safe=True)
                new_tables.prepare(self._sql, self._tables.all(), self._hub)
                self._note(SCHEMA_VERSION)
                return
            for version in range(found, SCHEMA_VERSION):
                STEPS[version](self._sql)
                self._note(version + 1)

    def drop(self) -> None:
        """Delete all tables with all they hold."""
        self._sql.database.drop_tables(self._tables.all(), safe=True)

    def _note(self, version: int) -> None:
        self._sql.run("INSERT INTO durable_schema (version, applied_at) VALUES (?, ?)", (version, self._sql.now()))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from doing the same; on SQLite the transaction around this does."""
        if self._sql.is_sqlite:
            yield
        elif self._sql.is_postgresql:
            self._sql.row("SELECT pg_advisory_xact_lock(?)", (_LOCK_NUMBER,))
            yield
        else:
            self._sql.row("SELECT GET_LOCK(?, 60)", (_LOCK_NAME,))
            try:
                yield
            finally:
                self._sql.row("SELECT RELEASE_LOCK(?)", (_LOCK_NAME,))


def _choose_collation(sql: Sql) -> None:
    if sql.is_sqlite or sql.is_postgresql:
        return
    is_mariadb = "mariadb" in str(sql.value("SELECT VERSION()")).lower()
    # Read by the key fields, which see only the database
    sql.database.durable_collation = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"  # type: ignore[attr-defined]
