"""Outcomes: each writer numbers its transactions, so that it can find out whether one whose COMMIT was not answered has landed.

A worker's number is in its own row, where the fence writes it. Processes without a worker have rows of their own, one for each thread that writes
at the same time.

Law: whoever asks for a number waits until a transaction that wrote another one is over, also one that the server carries on without its client.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator

from flask_durable.core.times import Micros
from flask_durable.errors import WorkerLostError
from flask_durable.storage.database import Sql

_KEPT = 24 * 3600 * 1_000_000
"""Microseconds after which the row of a client that does not write any more is deleted."""


_INSERT = "INSERT INTO durable_client (client_id, commit_number, at) VALUES (?, ?, ?)"
_UPSERT = f"{_INSERT} ON CONFLICT (client_id) DO UPDATE SET commit_number = excluded.commit_number, at = excluded.at"
_UPSERT_ON_MYSQL = f"{_INSERT} ON DUPLICATE KEY UPDATE commit_number = VALUES(commit_number), at = VALUES(at)"


class Mark:
    """The writer of a process without a worker; used by one thread at a time."""

    __slots__ = ("client_id", "number", "pid")

    def __init__(self) -> None:
        self.client_id = uuid.uuid4().hex
        self.number = 0
        self.pid = os.getpid()


class Outcomes:
    """The numbers in one database."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._lock = threading.Lock()
        self._free: list[Mark] = []
        self._upsert = _UPSERT if sql.is_sqlite or sql.is_postgresql else _UPSERT_ON_MYSQL

    def forget(self) -> None:
        """Begin anew in the child of a fork: the rows are the parent's."""
        self._lock = threading.Lock()
        self._free = []

    @contextlib.contextmanager
    def mark(self) -> Iterator[Mark]:
        """The calling thread's writer, with a number that it has not used."""
        with self._lock:
            mark = self._free.pop() if self._free else Mark()
        if mark.pid != os.getpid():  # a fork that no hook announced
            mark = Mark()
        mark.number += 1
        try:
            yield mark
        finally:
            with self._lock:
                self._free.append(mark)

    def write(self, mark: Mark, at: Micros) -> None:
        """Write the number of the present transaction."""
        if mark.number == 1:
            self._sql.run("DELETE FROM durable_client WHERE at < ?", (at - _KEPT,))
        self._sql.run_many(self._upsert, [(mark.client_id, mark.number, at)])

    def has_landed(self, mark: Mark) -> bool:
        """Whether the transaction with the mark's number was committed; in a transaction of its own."""
        # To wait for a row that the other transaction inserts, one has to insert it too.
        text = f"{self._sql.insert_ignore} durable_client (client_id, commit_number, at) VALUES (?, 0, ?){self._sql.on_conflict}"
        self._sql.run(text, (mark.client_id, self._sql.now()))
        found = self._sql.value(f"SELECT commit_number FROM durable_client WHERE client_id = ?{self._sql.for_update}", (mark.client_id,))
        return found is not None and int(found) == mark.number

    def has_worker_landed(self, worker_id: str, number: int) -> bool:
        """Whether the worker's transaction with that number was committed; in a transaction of its own.

        Raises:
            WorkerLostError: its row is gone, and nobody knows any more.
        """
        found = self._sql.value(f"SELECT commit_number FROM durable_worker WHERE worker_id = ?{self._sql.for_update}", (worker_id,))
        if found is None:
            raise WorkerLostError(f"Worker {worker_id} is no longer registered")
        return int(found) == number
