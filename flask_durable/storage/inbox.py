"""Inbox rows: messages that wait for an instance, and the one rule by which they make it ready."""

from __future__ import annotations

from collections.abc import Sequence

from flask_durable.core.events import EventRaised, HistoryEvent, TimerFired
from flask_durable.core.rewind import Message
from flask_durable.core.times import Micros
from flask_durable.storage.database import Sql
from flask_durable.storage.interface import InboxMessage
from flask_durable.storage.rows import event_row, row_event
from flask_durable.storage.wakes import Wakes

TimerRow = tuple[str, str, int, Micros]
"""instance_id, execution_id, task_id, fire_at."""

_INSERT = "INSERT INTO durable_message (hub, instance_id, execution_id, visible_at, event_type, task_id, name, payload, extra) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# A Pending instance stays asleep until its start time and a Suspended one until it is resumed: their messages are kept for then.
_WAKE = (
    "UPDATE durable_instance SET ready_at = CASE WHEN status <> 'Running' OR parked_reason IS NOT NULL THEN ready_at"
    " WHEN ready_at IS NULL OR ready_at > ? THEN ? ELSE ready_at END"
    " WHERE hub = ? AND instance_id = ?"
)
_TO_LIVE = " AND status IN ('Pending', 'Running', 'Suspended')"
# What a call comes to is kept for a failed instance too: it may be rewound (REW-3).
_TO_EXECUTION = " AND status IN ('Pending', 'Running', 'Suspended', 'Failed') AND execution_id = ?"


class InboxRows:
    """The inboxes of one task hub."""

    def __init__(self, sql: Sql, hub: str, wakes: Wakes) -> None:
        self._sql = sql
        self._hub = hub
        self._wakes = wakes

    def put(self, instance_id: str, event: HistoryEvent, at: Micros, *, execution_id: str | None = None) -> bool:
        """Deliver a message to a live instance; False when there is none (or it is another execution by now).

        Args:
            instance_id: whose inbox.
            event: the message.
            at: when it arrives.
            execution_id: for the outcome of a call: the execution that made it.
        """
        parameters = (at, at, self._hub, instance_id)
        if execution_id is None:
            is_live = self._sql.run(f"{_WAKE}{_TO_LIVE}", parameters)
        else:
            is_live = self._sql.run(f"{_WAKE}{_TO_EXECUTION}", (*parameters, execution_id))
        if not is_live:
            return False
        self._wakes.instance(instance_id)
        self._sql.run(_INSERT, (self._hub, instance_id, execution_id, at, *event_row(event)))
        return True

    def put_timers(self, timers: Sequence[TimerRow]) -> None:
        """Store timers as messages that become visible when they are due; the turn's own update wakes the instance for them."""
        self._sql.run_many(
            _INSERT,
            [
                (self._hub, instance_id, execution_id, fire_at, *event_row(TimerFired(task_id, fire_at)))
                for instance_id, execution_id, task_id, fire_at in timers
            ],
        )

    def cancel_timers(self, timers: Sequence[tuple[str, str, int]]) -> None:
        """Delete timers, given as (instance_id, execution_id, task_id)."""
        self._sql.run_many(
            "DELETE FROM durable_message WHERE hub = ? AND instance_id = ? AND execution_id = ? AND task_id = ? AND event_type = 'TimerFired'",
            [(self._hub, *timer) for timer in timers],
        )

    def visible(self, instance_id: str, now: Micros, limit: int) -> tuple[InboxMessage, ...]:
        """The messages that are visible now, in order of arrival; a timer arrives when it is due."""
        rows = self._sql.rows(
            "SELECT message_id, visible_at, event_type, task_id, name, payload, extra FROM durable_message"
            " WHERE hub = ? AND instance_id = ? AND visible_at <= ? ORDER BY message_id LIMIT ?",
            (self._hub, instance_id, now, limit),
        )
        if len(rows) > 1:
            rows = _by_arrival(rows)
        return tuple(InboxMessage(row[0], row_event(instance_id, row[2:])) for row in rows)

    def all(self, instance_id: str) -> list[Message]:
        """Every message, those that are not visible yet too, in the order of their ids."""
        rows = self._sql.rows(
            "SELECT visible_at, event_type, task_id, name, payload, extra FROM durable_message WHERE hub = ? AND instance_id = ? ORDER BY message_id",
            (self._hub, instance_id),
        )
        return [Message(row[0], row_event(instance_id, row[1:])) for row in rows]

    def replace(self, instance_id: str, execution_id: str, messages: Sequence[Message]) -> None:
        """Give an instance another inbox."""
        self.delete([instance_id])
        self._sql.run_many(
            _INSERT,
            [(self._hub, instance_id, None if isinstance(event, EventRaised) else execution_id, at, *event_row(event)) for at, event in messages],
        )

    def consume(self, message_ids: Sequence[int]) -> None:
        """Delete messages that a turn has taken."""
        self._sql.change_many("DELETE FROM durable_message WHERE message_id = ?", "i", [(message_id,) for message_id in message_ids])

    def delete(self, instance_ids: Sequence[str]) -> None:
        """Delete all messages of instances."""
        self._sql.run_for("DELETE FROM durable_message WHERE hub = ? AND instance_id IN", (self._hub,), instance_ids)

    def delete_execution(self, instance_id: str, execution_id: str) -> None:
        """Delete what was meant for one execution only: timers and results, not external events."""
        self._sql.run("DELETE FROM durable_message WHERE hub = ? AND instance_id = ? AND execution_id = ?", (self._hub, instance_id, execution_id))


def _by_arrival(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    # Ids grow in order of arrival, except that a timer's row is as old as the timer. The running maximum keeps the order of
    # the others even where the clock was set back between two of them (rule 20).
    keyed = []
    latest = 0
    for row in rows:
        due = int(str(row[1]))
        if row[2] != "TimerFired":
            due = latest = max(latest, due)
        keyed.append(((due, int(str(row[0]))), row))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]
