"""History rows: appending, loading and paging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask_durable.core.events import HistoryEvent, Recorded, Unreadable
from flask_durable.core.times import Micros
from flask_durable.errors import CorruptHistoryError
from flask_durable.storage.database import Sql
from flask_durable.storage.interface import HistoryPage
from flask_durable.storage.rows import event_row, row_event

HistoryRow = tuple[Any, ...]

_INSERT = "INSERT INTO durable_history (hub, instance_id, generation, sequence, at, event_type, task_id, name, payload, extra) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KINDS = "ttiiitittt"
_SELECT = "SELECT sequence, at, event_type, task_id, name, payload, extra FROM durable_history WHERE hub = ? AND instance_id = ? AND generation = ? AND sequence > ? ORDER BY sequence"


class HistoryRows:
    """The histories of one task hub."""

    def __init__(self, sql: Sql, hub: str) -> None:
        self._sql = sql
        self._hub = hub

    def rows(self, instance_id: str, generation: int, after: int, at: Micros, events: Sequence[HistoryEvent]) -> list[HistoryRow]:
        """The rows that append events after that sequence number."""
        hub = self._hub
        return [(hub, instance_id, generation, after + number, at, *event_row(event)) for number, event in enumerate(events, 1)]

    def insert(self, rows: Sequence[HistoryRow]) -> None:
        """Append; the primary key refuses a second row with the same number."""
        self._sql.insert_many(_INSERT, _KINDS, rows)

    def load(self, instance_id: str, generation: int) -> list[Recorded]:
        """The whole history of one generation, each event of which has to be readable: code is replayed with it."""
        rows = self._sql.rows(_SELECT, (self._hub, instance_id, generation, 0))
        return [Recorded(row[0], row[1], row_event(instance_id, row[2:])) for row in rows]

    def page(self, instance_id: str, generation: int, after: int, limit: int) -> HistoryPage:
        """Events after that sequence number; what cannot be read has a mark in its place, and hides none of the others."""
        rows = self._sql.rows(f"{_SELECT} LIMIT ?", (self._hub, instance_id, generation, after, limit + 1))
        events = tuple(_shown(instance_id, row) for row in rows[:limit])
        return HistoryPage(events, events[-1].sequence if len(rows) > limit else None)

    def delete(self, instance_ids: Sequence[str]) -> None:
        """Delete all generations of instances."""
        self._sql.run_for("DELETE FROM durable_history WHERE hub = ? AND instance_id IN", (self._hub,), instance_ids)

    def delete_in_slices(self, instance_id: str, events: int, size: int) -> None:
        """Delete the events of an instance that has so many of them, so that no single statement takes long."""
        text = "DELETE FROM durable_history WHERE hub = ? AND instance_id = ? AND sequence > ? AND sequence <= ?"
        for begin in range(0, events, size):
            self._sql.run(text, (self._hub, instance_id, begin, begin + size))

    def delete_generation(self, instance_id: str, generation: int) -> None:
        """Delete one generation (rule 31: the history of the old one is emptied)."""
        self._sql.run("DELETE FROM durable_history WHERE hub = ? AND instance_id = ? AND generation = ?", (self._hub, instance_id, generation))


def _shown(instance_id: str, row: Sequence[Any]) -> Recorded:
    sequence, at, *columns = row
    try:
        return Recorded(sequence, at, row_event(instance_id, columns))
    except CorruptHistoryError as error:
        return Recorded(sequence, at, Unreadable(str(columns[0]), error.reason))
