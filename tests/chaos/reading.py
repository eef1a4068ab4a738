"""Reads a database of any backend directly, past the engine, for the invariants of tests/invariants.py; and its rows through the API (I13)."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from flask.testing import FlaskClient
from invariants import CallRow, HubState, InboxRow, Violation

from flask_durable.core.events import Recorded
from flask_durable.errors import CorruptHistoryError
from flask_durable.storage.rows import INSTANCE_COLUMNS, instance_record, row_event

PREFIX = "/runtime/orchestrations"
SAMPLE = 200
"""So many instances at most are looked at one by one through the API; all of them are in the lists."""


class Reader:
    """A database by its URL.

    Args:
        url: ``sqlite:///…``, ``postgresql://…`` or ``mysql://…``.
        hub: only the rows of this task hub; all of them by default.
    """

    def __init__(self, url: str, hub: str | None = None) -> None:
        self.url = url
        self.hub = hub
        self.is_sqlite = url.startswith("sqlite")
        self._connection: Any = None
        self._lock = threading.RLock()

    # -- connections

    def _connect(self) -> Any:
        if self.is_sqlite:
            return sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30, isolation_level=None, check_same_thread=False)
        if self.url.startswith("postgres"):
            import psycopg

            return psycopg.connect(self.url, autocommit=True)
        import pymysql

        parts = urllib.parse.urlsplit(self.url)
        return pymysql.connect(
            host=parts.hostname, port=parts.port or 3306, user=parts.username or "", password=parts.password or "", database=parts.path[1:],
            charset="utf8mb4", autocommit=True,
        )  # fmt: skip

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        """A cursor; SQLite's file is closed each time, so that nothing of ours is in the way of whoever ends there."""
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            cursor = self._connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()
                if self.is_sqlite:
                    self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """All rows of a query (``?`` for parameters), or none when there is no such table yet."""
        with self._cursor() as cursor:
            try:
                return self._run(cursor, text, parameters)
            except Exception as error:  # each driver has classes of its own
                if any(words in str(error) for words in ("no such table", "does not exist", "doesn't exist")):
                    return []
                raise

    def _run(self, cursor: Any, text: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        cursor.execute(text if self.is_sqlite else text.replace("%", "%%").replace("?", "%s"), parameters)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def change(self, text: str, *parameters: Any) -> None:
        """What the engine would never write."""
        with self._cursor() as cursor:
            self._run(cursor, text, parameters)

    # -- the state of a hub

    def state(self) -> HubState:
        """Everything, as of one moment."""
        state = HubState()
        with self._cursor() as cursor:
            cursor.execute("BEGIN" if self.is_sqlite or "mysql" in self.url else "BEGIN ISOLATION LEVEL REPEATABLE READ")
            try:
                self._fill(state, lambda text: self._run(cursor, text.replace("$", self._where()), () if self.hub is None else (self.hub,)))
            finally:
                cursor.execute("ROLLBACK")
        return state

    def _where(self) -> str:
        return "1 = 1" if self.hub is None else "hub = ?"

    def _fill(self, state: HubState, rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        for row in rows(f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE $"):
            try:
                state.instances[row[0]] = instance_record(row)
            except CorruptHistoryError as error:
                state.broken.append(Violation("I13", row[0], str(error)))
        for instance_id, generation, sequence, at, *event in rows(
            "SELECT instance_id, generation, sequence, at, event_type, task_id, name, payload, extra FROM durable_history WHERE $"
            " ORDER BY instance_id, generation, sequence"
        ):
            record = state.instances.get(instance_id)
            if record is None or record.generation != generation:
                state.broken.append(Violation("I6", instance_id, f"event {sequence} of generation {generation} is left, which is not there any more"))
                continue
            try:
                state.histories.setdefault(instance_id, []).append(Recorded(sequence, at, row_event(instance_id, event)))
            except CorruptHistoryError as error:
                state.broken.append(Violation("I13", instance_id, str(error)))
        for instance_id, execution_id, visible_at, *event in rows(
            "SELECT instance_id, execution_id, visible_at, event_type, task_id, name, payload, extra FROM durable_message WHERE $ ORDER BY message_id"
        ):
            try:
                state.messages.setdefault(instance_id, []).append(InboxRow(execution_id, visible_at, row_event(instance_id, event)))
            except CorruptHistoryError as error:
                state.broken.append(Violation("I13", instance_id, str(error)))
        state.calls = [CallRow(*row) for row in rows("SELECT instance_id, execution_id, task_id, worker_id FROM durable_activity WHERE $")]
        state.workers = {row[0] for row in rows("SELECT worker_id FROM durable_worker WHERE $")}


def check_rendering(client: FlaskClient, state: HubState, seed: int = 0) -> list[Violation]:
    """I13: lists, status and history of every instance answer 200 and show it."""
    found: list[Violation] = []
    listed: set[str] = set()
    token: str | None = ""
    while token is not None:
        answer = client.get(PREFIX, query_string={"top": 1000}, headers={"x-ms-continuation-token": token} if token else {})
        if answer.status_code != 200:
            return [Violation("I13", "the list", f"answered {answer.status_code}: {answer.text[:200]}")]
        listed |= {item["instanceId"] for item in answer.get_json()}
        token = answer.headers.get("x-ms-continuation-token") or None
    found += [Violation("I13", instance_id, "it is not in the list") for instance_id in sorted(state.instances.keys() - listed)]
    ids = sorted(state.instances)
    for instance_id in ids if len(ids) <= SAMPLE else random.Random(seed).sample(ids, SAMPLE):
        for path in (f"{PREFIX}/{instance_id}?showHistory=true", f"{PREFIX}/{instance_id}/history"):
            answer = client.get(path)
            if answer.status_code != 200:
                found.append(Violation("I13", instance_id, f"{path} answered {answer.status_code}: {answer.text[:200]}"))
    return found
