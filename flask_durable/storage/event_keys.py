"""Event keys: which de-duplication keys an instance's external events have used; the database decides who was first."""

from __future__ import annotations

from collections.abc import Sequence

from flask_durable.core.times import Micros
from flask_durable.storage.database import Sql


class EventKeyRows:
    """The event keys of one task hub; a key lives as long as its instance's row."""

    def __init__(self, sql: Sql, hub: str) -> None:
        self._sql = sql
        self._hub = hub

    def is_used(self, instance_id: str, dedup_key: str) -> bool:
        """Whether an event with that key has been accepted; the caller holds the instance's row."""
        text = "SELECT 1 FROM durable_event_key WHERE hub = ? AND instance_id = ? AND dedup_key = ?"
        return self._sql.row(text, (self._hub, instance_id, dedup_key)) is not None

    def use(self, instance_id: str, dedup_key: str, at: Micros) -> None:
        """Remember the key of an event that was accepted."""
        text = "INSERT INTO durable_event_key (hub, instance_id, dedup_key, at) VALUES (?, ?, ?, ?)"
        self._sql.run(text, (self._hub, instance_id, dedup_key, at))

    def delete(self, instance_ids: Sequence[str]) -> None:
        """Forget the keys of instances that are deleted or replaced."""
        self._sql.run_for("DELETE FROM durable_event_key WHERE hub = ? AND instance_id IN", (self._hub,), instance_ids)
