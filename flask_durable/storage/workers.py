"""Worker rows: registering, renewing, fencing, and taking work away from the dead."""

from __future__ import annotations

import enum
import os
import socket
from collections.abc import Sequence

import peewee

from flask_durable.core.capabilities import Capabilities
from flask_durable.core.times import Micros
from flask_durable.errors import StoreUnavailableError, WorkerLostError
from flask_durable.storage.calls import NOT_TO_BEGIN, TO_QUEUE
from flask_durable.storage.clock_steps import ClockSteps
from flask_durable.storage.database import Sql
from flask_durable.storage.interface import Neighbour, WorkerRecord
from flask_durable.storage.signs import FileSign, Seen, Sign

_SECOND = 1_000_000
_END_SILENT_HOLDERS = """
SELECT pg_terminate_backend(a.pid) FROM durable_worker w
JOIN pg_locks l ON l.locktype = 'transactionid' AND l.granted AND l.transactionid = w.xmax
JOIN pg_locks t ON t.locktype = 'relation' AND t.relation = 'durable_worker'::regclass AND t.mode = 'RowExclusiveLock' AND t.pid = l.pid
JOIN pg_stat_activity a ON a.pid = l.pid AND a.usename = current_user AND a.wait_event_type = 'Client'
WHERE w.worker_id = ? AND a.state_change < clock_timestamp() - INTERVAL '1 second'
"""
"""PostgreSQL has no limit for a session that falls silent between the statements of a pipeline, or after one that was followed by a Flush."""

_SHORTEST_WAIT = 0.25
"""Seconds that a heartbeat gets in any case, however short the lease is."""


class Death(enum.Enum):
    """How it shows that a worker is dead."""

    EXPIRED = "its lease is over"
    SEEN = "its sign of life is gone"


class WorkerRows:
    """The table of workers of one task hub.

    Args:
        sql: the database.
        hub: the task hub.
        sign: by which a dead process is seen at once.
        steps: learns what database time is, and tells whether a lease that is over means anything.
    """

    def __init__(self, sql: Sql, hub: str, sign: Sign, steps: ClockSteps) -> None:
        self._sql = sql
        self._steps = steps
        self._hub = hub
        self._sign = sign
        self._slots: dict[str, int | None] = {}

    def take_sign(self, worker_id: str) -> None:
        """Take a slot for a worker that is to be registered, before the transaction that tells others of it."""
        self._slots[worker_id] = self._sign.hold()

    def register(self, worker_id: str, lease_seconds: float, capabilities: Capabilities | None) -> None:
        """Insert the worker's row."""
        now = self._sql.now()
        row = (
            worker_id, self._hub, socket.gethostname()[:255], os.getpid(), self._slots.get(worker_id), now, now, now + round(lease_seconds * _SECOND),
            capabilities.to_json() if capabilities else None,
        )  # fmt: skip
        columns = "worker_id, hub, host, pid, lock_slot, started_at, heartbeat_at, expires_at, capabilities"
        # Its id is new: a row that is there already is from the same call, when the answer to its COMMIT was lost.
        text = f"{self._sql.insert_ignore} durable_worker ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?){self._sql.on_conflict}"
        try:
            self._sql.run(text, row)
        except peewee.ProgrammingError as error:
            raise StoreUnavailableError(f"No worker can be registered; its user needs to read and write all tables durable_…: {error}") from error

    def has_lost_sign(self, worker_id: str) -> bool:
        """Whether others may take that worker for dead although it lives; asks nobody."""
        slot = self._slots.get(worker_id)
        return slot is not None and not self._sign.is_held(slot)

    def renew(self, worker_id: str, lease_seconds: float, capabilities: Capabilities | None) -> bool:
        """Push the expiry out and, if given, say anew what the worker runs; False when the row is gone.

        It goes over the connection that holds the sign of life, so that a loss of that is noticed; then the row names a new slot.
        """
        if worker_id in self._slots and (self._slots[worker_id] is None or self.has_lost_sign(worker_id)):
            self.take_sign(worker_id)
        also = "".join(f", {name} = ?" for name in (["capabilities"] if capabilities else []))
        said = (capabilities.to_json(),) if capabilities else ()
        lease = round(lease_seconds * _SECOND)
        head, tail = "UPDATE durable_worker SET heartbeat_at = ", f", lock_slot = ?{also} WHERE worker_id = ?"
        rest = (self._slots.get(worker_id), *said, worker_id)
        changed = self._sign.run(
            f"{head}{self._sql.now_text}, expires_at = {self._sql.now_text} + ?{tail}", (lease, *rest), max(_SHORTEST_WAIT, lease_seconds / 3)
        )
        if changed is None:

            def update() -> int:
                now, at = self._sql.now_expression()
                return self._sql.run(f"{head}{now}, expires_at = {now} + ?{tail}", (*at, *at, lease, *rest))

            # On SQLite one statement is a transaction by itself, whoever has made the connection.
            run = self._sql.read if self._sql.is_sqlite else self._sql.transaction
            changed = run(update, is_vital=True)
        return changed == 1

    def fence(self, worker_id: str, number: int | None = None) -> Micros:
        """Refuse the transaction unless the worker's row is still there, and keep it there until the commit; returns database time.

        Args:
            worker_id: the worker.
            number: of the transaction, for the case that its COMMIT is not answered.

        Raises:
            WorkerLostError: it is gone.
        """
        lost = WorkerLostError(f"Worker {worker_id} is no longer registered")
        if number is None:
            return self._sql.now_unless("FROM durable_worker WHERE worker_id = ?" + self._sql.for_share, (worker_id,), lost)
        return self._sql.now_after("UPDATE durable_worker SET commit_number = ? WHERE worker_id = ?", (number, worker_id), lost)

    def release(self, worker_id: str) -> None:
        """Give back all that the worker holds and delete its row; nobody died with its calls, so they do not count as delivered."""
        # The row first, as in a reaping: this waits for a commit of the worker that is under way, and what that claims is given back too.
        self._sql.run("DELETE FROM durable_worker WHERE worker_id = ?", (worker_id,))
        self._sql.run(
            "UPDATE durable_activity SET deliveries = deliveries - 1 WHERE hub = ? AND worker_id = ? AND deliveries > 0", (self._hub, worker_id)
        )
        self._give_back(worker_id)

    def unlock(self, worker_id: str) -> None:
        """Drop the sign of life, after the release was committed."""
        slot = self._slots.pop(worker_id, None)
        if slot is not None:
            self._sign.release(slot)

    def reap(self, own_id: str | None) -> list[str]:
        """Delete the rows of dead workers and free what they held."""
        now = self._now()
        others = self._others(own_id)
        dead = [worker_id for worker_id, expires_at, seen in others if self._is_over(expires_at, seen.heartbeat_at, now) or self._sign.is_dead(seen)]
        reaped = []
        for worker_id in dead:
            if self._sql.is_postgresql:
                # A worker that is cut off in the middle of a commit must not keep the lock on its row, and with it its work, from others
                self._sql.run(_END_SILENT_HOLDERS, (worker_id,))
            if self._sql.run("DELETE FROM durable_worker WHERE worker_id = ?", (worker_id,)):
                self._give_back(worker_id)
                reaped.append(worker_id)
        return reaped

    def has_dead(self, own_id: str | None) -> Death | None:
        """Whether a look without writing shows a dead worker, and by what."""
        now = self._now()
        others = self._others(own_id)
        if any(self._is_over(expires_at, seen.heartbeat_at, now) for _, expires_at, seen in others):
            return Death.EXPIRED
        return Death.SEEN if any(self._sign.is_dead(seen) for *_, seen in others) else None

    def may_be_dead(self, neighbours: Sequence[Neighbour], now: Micros) -> bool:
        """Whether one of these workers, as they were seen a moment ago, seems to be dead."""
        return any(self._is_over(each.expires_at, each.heartbeat_at, now) or each.is_free or self._has_let_go(each) for each in neighbours)

    def _now(self) -> Micros:
        began = self._steps.begin()
        return self._steps.note(began, self._sql.now())

    def _is_over(self, expires_at: Micros, heartbeat_at: Micros, now: Micros) -> bool:
        """Whether a lease is over, and not just because the clock was set forward: then it gets its length anew, in which whoever lives renews it."""
        return expires_at < now and not self._steps.is_fresh((expires_at - heartbeat_at) / _SECOND)

    def _has_let_go(self, neighbour: Neighbour) -> bool:
        """Whether a sign that can be looked at without a connection is gone since."""
        return isinstance(self._sign, FileSign) and self._sign.is_dead(Seen(neighbour.lock_slot, neighbour.heartbeat_at, neighbour.is_free))

    def has_poison(self, max_deliveries: int) -> bool:
        """Whether there is work that nobody is given any more and whose instance does not say so yet."""
        instance = "SELECT 1 FROM durable_instance WHERE hub = ? AND worker_id IS NULL AND ready_at <= ? AND deliveries >= ? LIMIT 1"
        activity = (
            "SELECT 1 FROM durable_activity a JOIN durable_instance i ON i.hub = a.hub AND i.instance_id = a.instance_id"
            " WHERE a.hub = ? AND a.worker_id IS NULL AND a.deliveries >= ? AND i.parked_reason IS NULL LIMIT 1"
        )
        if self._sql.row(instance, (self._hub, self._sql.now(), max_deliveries)) is not None:
            return True
        return self._sql.row(activity, (self._hub, max_deliveries)) is not None

    def park_poison(self, max_deliveries: int) -> None:
        """Park instances that too many workers died with, so that they end in a reason and not in a crash loop (rule 9)."""
        reason = f"Handed out {max_deliveries} times, and each time the worker died with it"
        park = "UPDATE durable_instance SET parked_reason = ?, ready_at = NULL, worker_id = NULL WHERE hub = ? AND parked_reason IS NULL AND "
        self._sql.run(park + "worker_id IS NULL AND ready_at IS NOT NULL AND deliveries >= ?", (reason, self._hub, max_deliveries))
        poison = self._sql.rows(
            "SELECT instance_id, name FROM durable_activity WHERE hub = ? AND worker_id IS NULL AND deliveries >= ?", (self._hub, max_deliveries)
        )
        for instance_id, name in poison:
            self._sql.run(park + "instance_id = ?", (f"Activity {name!r}: {reason[0].lower()}{reason[1:]}", self._hub, instance_id))

    def all(self) -> list[WorkerRecord]:
        """All workers of the hub."""
        text = "SELECT worker_id, host, pid, started_at, heartbeat_at, expires_at, capabilities FROM durable_worker WHERE hub = ? ORDER BY started_at"
        found = self._sql.rows(text, (self._hub,))
        return [WorkerRecord(row[0], row[1], row[2], row[3], row[4], row[5], Capabilities.from_json(row[6])) for row in found]

    def live(self) -> list[WorkerRecord]:
        """The workers of the hub whose lease is not over."""
        now = self._sql.now()
        return [worker for worker in self.all() if worker.expires_at >= now]

    def _others(self, own_id: str | None) -> list[tuple[str, Micros, Seen]]:
        text = f"SELECT worker_id, expires_at, lock_slot, heartbeat_at, {self._sign.column} FROM durable_worker WHERE hub = ? AND worker_id <> ?"
        return [(str(row[0]), int(row[1]), Seen(row[2], int(row[3]), bool(row[4]))) for row in self._sql.rows(text, (self._hub, own_id or ""))]

    def _give_back(self, worker_id: str) -> None:
        self._sql.run("UPDATE durable_instance SET worker_id = NULL WHERE hub = ? AND worker_id = ?", (self._hub, worker_id))
        # Calls of failed instances run on for the case of a rewind; nobody begins them again.
        self._sql.run(f"DELETE FROM durable_activity WHERE hub = ? AND worker_id = ? AND {NOT_TO_BEGIN}", (self._hub, worker_id))
        self._sql.run(
            f"UPDATE durable_activity SET {TO_QUEUE}, deliveries = CASE WHEN begun_at IS NULL THEN deliveries ELSE 0 END WHERE hub = ? AND worker_id = ?",
            (self._hub, worker_id),
        )
