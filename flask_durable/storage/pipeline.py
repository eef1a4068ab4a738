"""Pipeline: the statements of one transaction sent one after the other without waiting for each answer, where the driver can (psycopg 3).

Law: what a statement came to is known when the pipeline is left, and not before; whoever cannot go on without it waits for the answer by itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import peewee

_MANY = 32
"""From so many rows on the driver's own loop is faster, although it waits for an answer before and after."""

_KINDS = {"t": "text", "i": "bigint", "b": "boolean"}

_LARGEST = 4_000_000
"""So many characters of rows go into one parameter; a server takes far more, but not the payloads of any number of turns."""

Check = Callable[[Sequence[Any]], None]
"""Looks at the cursors of statements that have been carried out, and raises when the transaction must be undone."""


class Pipelines:
    """The pipelines of one database: one thread has at most one at a time."""

    def __init__(self, database: peewee.Database) -> None:
        self._database = database
        self._local = threading.local()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Send the statements inside together, if the driver of the calling thread's connection can; their checks run at the end."""
        connection = self._database.connection()
        if not hasattr(connection, "pipeline") or self.current is not None:
            yield
            return
        with connection.pipeline() as raw:
            self._local.current = current = _Pipeline(connection, raw)
            try:
                yield
            finally:
                self._local.current = None
        current.check()

    @property
    def current(self) -> _Pipeline | None:
        """The pipeline of the calling thread."""
        found: _Pipeline | None = getattr(self._local, "current", None)
        return found


class _Pipeline:
    """One pipeline that is open."""

    def __init__(self, connection: Any, raw: Any) -> None:
        self._connection = connection
        self._raw = raw
        self._unchecked = connection.cursor()
        self._checks: list[tuple[Check, list[Any]]] = []

    def send(self, text: str, rows: Sequence[Sequence[Any]], check: Check | None = None) -> None:
        """Send a statement for each row; the check gets the cursors when all have been carried out."""
        if len(rows) >= _MANY:
            cursors = [self._connection.cursor()]
            cursors[0].executemany(text, rows)
        else:
            cursors = [self._cursor(check).execute(text, row) for row in rows]
        if check is not None:
            self._checks.append((check, cursors))

    def insert(self, text: str, kinds: str, rows: Sequence[Sequence[Any]]) -> None:
        """Send an ``INSERT … VALUES`` for many rows as few statements with one parameter each.

        Args:
            text: the statement for one row.
            kinds: the type of each column: t text, i integer, b boolean.
            rows: the rows.
        """
        for document in _documents(rows):
            self._unchecked.execute(_insert_of_rows(text, kinds), (document,))

    def change(self, text: str, kinds: str, rows: Sequence[Sequence[Any]], check: Check | None = None) -> None:
        """Send an ``UPDATE``, a ``DELETE`` or a ``SELECT … FOR UPDATE`` for many rows as few statements with one parameter each.

        Args:
            text: the statement for one row; its last WHERE says which row is meant.
            kinds: the type of each of its parameters: t text, i integer, b boolean.
            rows: the parameters for each row; a row is meant once.
            check: gets the cursors when all have been carried out.
        """
        if len(rows) == 1:
            self.send(text, rows, check)
            return
        statement = _change_of_rows(text, kinds)
        cursors = [self._cursor(check).execute(statement, (document,)) for document in _documents(rows)]
        if check is not None:
            self._checks.append((check, cursors))

    def _cursor(self, check: Check | None) -> Any:
        # A cursor knows what its last statement came to, which nobody asks of the unchecked ones
        return self._unchecked if check is None else self._connection.cursor()

    def wait(self) -> None:
        """Wait until all that was sent has been carried out."""
        self._raw.sync()

    def check(self) -> None:
        """Run the checks, in the order in which their statements were sent."""
        for check, cursors in self._checks:
            check(cursors)


def _documents(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    document = json.dumps(rows)
    if len(document) > _LARGEST and len(rows) > 1:
        half = len(rows) // 2
        yield from _documents(rows[:half])
        yield from _documents(rows[half:])
    else:
        yield document


@functools.cache
def _rows(kinds: str) -> str:
    # A planner that knows nothing takes an array for ten rows, and the rows of a JSON document for a hundred: for so many it would rather
    # read a table of some size from end to end than look for each by its key.
    columns = (f"(r ->> {number})::{_KINDS[kind]} AS c{number}" for number, kind in enumerate(kinds))
    return f"(SELECT {', '.join(columns)} FROM UNNEST(ARRAY(SELECT json_array_elements(%s::json))) AS r) AS given"


@functools.cache
def _insert_of_rows(text: str, kinds: str) -> str:
    return f"{text.partition(' VALUES ')[0]} SELECT * FROM {_rows(kinds)}"


@functools.cache
def _change_of_rows(text: str, kinds: str) -> str:
    pieces = text.split("%s")
    named = "".join(f"{piece}given.c{number}" for number, piece in enumerate(pieces[:-1])) + pieces[-1]
    if named.startswith("SELECT"):
        return f"SELECT 1 FROM {_rows(kinds)}, LATERAL ({named}) AS found"  # one after the other, in the order of the rows
    head, _, condition = named.rpartition(" WHERE ")
    return f"{head} {'USING' if named.startswith('DELETE') else 'FROM'} {_rows(kinds)} WHERE {condition}"
