"""Activity calls that are queued: which of them a worker takes, under the limits of their names, and the mark that one was begun."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flask_durable.core.times import Micros
from flask_durable.storage.database import Sql
from flask_durable.storage.interface import SUSPECT_DELIVERIES, ActivityWorkItem, ClaimRequest

HELD = "suspended"
"""What stands for a worker in the calls of a suspended instance: no worker has such an id, so none takes them (rule 36)."""

TO_QUEUE = (
    f"worker_id = (SELECT CASE WHEN i.status = 'Suspended' THEN '{HELD}' END FROM durable_instance i"
    " WHERE i.hub = durable_activity.hub AND i.instance_id = durable_activity.instance_id)"
)
"""Takes a call away from its worker: into the queue, or to what is held."""


NOT_TO_BEGIN = (
    "begun_at IS NULL AND EXISTS (SELECT 1 FROM durable_instance i WHERE i.hub = durable_activity.hub"
    " AND i.instance_id = durable_activity.instance_id AND i.completed_at IS NOT NULL)"
)
"""The calls of ended instances; one that was begun and must not be begun twice is still to be reported as lost."""


NOBODYS = "COALESCE(worker_id, '') = ''"
"""Belongs to nobody, of a row that is found by its key: PostgreSQL without statistics would rather read all that belongs to nobody, by an index."""


class CallRows:
    """The queue of activity calls of one task hub."""

    def __init__(self, sql: Sql, hub: str) -> None:
        self._sql = sql
        self._hub = hub

    def has_free(self, claim: ClaimRequest) -> bool:
        """Whether a claim would find a call, without writing or locking."""
        rooms = _Rooms(self, claim)
        while True:
            names, parameters = rooms.condition("name")
            name = self._sql.value(
                f"SELECT name FROM durable_activity WHERE hub = ? AND worker_id IS NULL AND deliveries < ?{names}"
                f" ORDER BY {self._sql.after_null('worker_id')}precedence, queued_at LIMIT 1",
                (self._hub, claim.max_deliveries, *parameters),
            )
            if name is None or rooms.has_room(name):
                return name is not None

    def take(self, worker_id: str, claim: ClaimRequest) -> list[ActivityWorkItem]:
        """Claim calls within the present transaction, those of the highest priority first."""
        rooms = _Rooms(self, claim)
        taken = self._take(worker_id, rooms, 0, min(SUSPECT_DELIVERIES, claim.max_deliveries), claim.activities)
        if claim.with_suspects and len(taken) < claim.activities:
            taken += self._take(worker_id, rooms, SUSPECT_DELIVERIES, claim.max_deliveries, 1)
        return taken

    def begin(self, worker_id: str, item: ActivityWorkItem, at: Micros) -> bool:
        """Mark a call that must not be begun twice; False when it no longer belongs to that worker (rule 54).

        Doing it again with the same time gives the same answer.
        """
        text = (
            "UPDATE durable_activity SET begun_at = ? WHERE hub = ? AND execution_id = ? AND task_id = ? AND worker_id = ?"
            " AND (begun_at IS NULL OR begun_at = ?)"
        )
        return self._sql.run(text, (at, self._hub, item.execution_id, item.task_id, worker_id, at)) == 1

    def release(self, worker_id: str, items: Sequence[ActivityWorkItem]) -> None:
        """Put calls back into the queue that this worker has not begun: nobody died with them."""
        self._sql.run_many(
            f"UPDATE durable_activity SET {TO_QUEUE}, deliveries = deliveries - 1 WHERE hub = ? AND execution_id = ? AND task_id = ?"
            " AND worker_id = ? AND deliveries > 0",
            [(self._hub, item.execution_id, item.task_id, worker_id) for item in items],
        )
        self._sql.run_many(
            f"DELETE FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ? AND worker_id IS NULL AND {NOT_TO_BEGIN}",
            [(self._hub, item.execution_id, item.task_id) for item in items],
        )

    def count_taken(self, name: str) -> int:
        """How many calls of a name the workers of the hub hold."""
        text = "SELECT COUNT(*) FROM durable_activity WHERE hub = ? AND worker_id IS NOT NULL AND worker_id <> ? AND name = ?"
        return int(self._sql.value(text, (self._hub, HELD, name)))

    def lock_limit(self, name: str) -> None:
        """Keep other workers from claiming calls of that name until this transaction is over; SQLite has one writer anyway."""
        if self._sql.is_sqlite:
            return
        text = f"SELECT 1 FROM durable_limit WHERE hub = ? AND name = ?{self._sql.for_update}"
        if self._sql.row(text, (self._hub, name)) is None:
            self._sql.run(f"{self._sql.insert_ignore} durable_limit (hub, name) VALUES (?, ?){self._sql.on_conflict}", (self._hub, name))
            self._sql.row(text, (self._hub, name))

    def _take(self, worker_id: str, rooms: _Rooms, least: int, below: int, wanted: int) -> list[ActivityWorkItem]:
        taken: list[ActivityWorkItem] = []
        while True:
            limit = wanted - len(taken)
            rows = self._free(rooms, least, below, limit)
            rooms.settle(row[4] for row in rows)
            was_refused = False
            for row in rows:
                if not rooms.has_room(row[4]):
                    was_refused = True
                elif self._claim(worker_id, row):
                    rooms.taken(row[4])
                    taken.append(_work_item(worker_id, row))
            if not was_refused or len(rows) < limit:
                return taken

    def _claim(self, worker_id: str, row: tuple[Any, ...]) -> bool:
        *_, begun_at, ended_at = row
        if ended_at is not None and begun_at is None:  # given back in the very moment in which its instance failed
            self._sql.run("DELETE FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ?", (self._hub, row[1], row[3]))
            return False
        text = (
            f"UPDATE durable_activity SET worker_id = ?, deliveries = deliveries + 1 WHERE hub = ? AND execution_id = ? AND task_id = ? AND {NOBODYS}"
        )
        return self._sql.run(text, (worker_id, self._hub, row[1], row[3])) == 1

    def _free(self, rooms: _Rooms, least: int, below: int, limit: int) -> list[tuple[Any, ...]]:
        names, parameters = rooms.condition("a.name")
        return self._sql.rows(
            "SELECT a.instance_id, a.execution_id, i.generation, a.task_id, a.name, a.input, a.attempt, a.first_task_id, a.deliveries + 1, i.trace,"
            " a.precedence, a.timeout, a.begun_at, i.completed_at"
            " FROM durable_activity a JOIN durable_instance i ON i.hub = a.hub AND i.instance_id = a.instance_id"
            f" WHERE a.hub = ? AND a.worker_id IS NULL AND a.deliveries >= ? AND a.deliveries < ?{names}"
            f" ORDER BY {self._sql.after_null('a.worker_id')}a.precedence, a.queued_at LIMIT ?"
            + ("" if self._sql.is_sqlite else " FOR UPDATE OF a SKIP LOCKED" if self._sql.is_postgresql else ""),
            (self._hub, least, below, *parameters, limit),
        )


class _Rooms:
    """How many more calls of each limited name one claim may take.

    A limit over the whole hub is looked at only when a call of its name comes up; names without room are left out of the next query.
    """

    def __init__(self, rows: CallRows, claim: ClaimRequest) -> None:
        self._rows = rows
        self._claim = claim
        self._free = {limit.name: limit.free for limit in claim.limited}
        self._hub = {limit.name: limit.hub for limit in claim.limited if limit.hub is not None}
        self._is_settled = False

    def condition(self, column: str) -> tuple[str, tuple[Any, ...]]:
        """SQL for the names that may be taken now."""
        claim = self._claim
        if claim.activity_names is None:
            full = tuple(name for name, free in self._free.items() if free <= 0)
            return (f" AND {column} NOT IN ({', '.join('?' * len(full))})" if full else ""), full
        names = claim.activity_names + tuple(name for name, free in self._free.items() if free > 0)
        return (f" AND {column} IN ({', '.join('?' * len(names))})" if names else " AND 1 = 0"), names

    def settle(self, names: Any) -> None:
        """Lock the limits over the whole hub before the first row changes, in one order for all workers."""
        if self._is_settled or not self._hub or not any(name in self._hub for name in names):
            return
        self._is_settled = True
        for name in sorted(self._hub):
            if self._look(name) > 0:
                self._rows.lock_limit(name)
                self._look(name)

    def has_room(self, name: str) -> bool:
        """Whether one more call of that name may be taken."""
        if not self._is_settled and name in self._hub:
            self._look(name)
        return self._free.get(name, 1) > 0

    def taken(self, name: str) -> None:
        """One was taken."""
        if name in self._free:
            self._free[name] -= 1

    def _look(self, name: str) -> int:
        if self._free[name] > 0:
            self._free[name] = min(self._free[name], self._hub[name] - self._rows.count_taken(name))
        return self._free[name]


def _work_item(worker_id: str, row: tuple[Any, ...]) -> ActivityWorkItem:
    instance_id, execution_id, generation, task_id, name, text, attempt, first_task_id, deliveries, trace, precedence, timeout, begun_at, _ = row
    carrier = json.loads(trace) if trace else {}
    return ActivityWorkItem(
        instance_id, execution_id, generation, task_id, name, text, attempt, first_task_id, deliveries, carrier,
        -precedence, timeout, worker_id, begun_at is not None,
    )  # fmt: skip
