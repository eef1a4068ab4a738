"""Worker rows: registering, renewing, fencing, and taking work away from the dead."""

from __future__ import annotations

import os
import secrets
import socket

from flask_durable.core.times import Micros
from flask_durable.errors import WorkerLostError
from flask_durable.storage.database import Sql
from flask_durable.storage.interface import WorkerRecord
from flask_durable.storage.process_lock import SLOTS, ProcessLock

_SECOND = 1_000_000


class WorkerRows:
    """The table of workers of one task hub.

    Args:
        lock: where the database is a file of this host, the sign by which a dead process is seen at once.
    """

    def __init__(self, sql: Sql, hub: str, lock: ProcessLock | None) -> None:
        self._sql = sql
        self._hub = hub
        self._lock = lock
        self._slots: dict[str, int] = {}

    def register(self, worker_id: str, lease_seconds: float) -> None:
        """Insert the worker's row."""
        slot = self._hold_slot(worker_id)
        now = self._sql.now()
        self._sql.run(
            "INSERT INTO durable_worker (worker_id, hub, host, pid, lock_slot, started_at, heartbeat_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (worker_id, self._hub, socket.gethostname()[:255], os.getpid(), slot, now, now, now + round(lease_seconds * _SECOND)),
        )

    def _hold_slot(self, worker_id: str) -> int | None:
        slot = secrets.randbelow(SLOTS)
        if self._lock is None or not self._lock.hold(slot):
            return None
        self._slots[worker_id] = slot
        return slot

    def renew(self, worker_id: str, lease_seconds: float) -> bool:
        """Push the expiry out; False when the row is gone."""
        now = self._sql.now()
        text = "UPDATE durable_worker SET heartbeat_at = ?, expires_at = ? WHERE worker_id = ?"
        return self._sql.run(text, (now, now + round(lease_seconds * _SECOND), worker_id)) == 1

    def fence(self, worker_id: str) -> None:
        """Refuse the transaction unless the worker's row is still there, and keep it there until the commit.

        Raises:
            WorkerLostError: it is gone.
        """
        if self._sql.row("SELECT 1 FROM durable_worker WHERE worker_id = ?" + self._sql.for_share, (worker_id,)) is None:
            raise WorkerLostError(f"Worker {worker_id} is no longer registered")

    def release(self, worker_id: str) -> None:
        """Give back all that the worker holds and delete its row; nobody died with its calls, so they do not count as delivered."""
        self._sql.run(
            "UPDATE durable_activity SET deliveries = deliveries - 1 WHERE hub = ? AND worker_id = ? AND deliveries > 0", (self._hub, worker_id)
        )
        self._give_back(worker_id)
        self._sql.run("DELETE FROM durable_worker WHERE worker_id = ?", (worker_id,))

    def unlock(self, worker_id: str) -> None:
        """Drop the sign of life, after the release was committed."""
        slot = self._slots.pop(worker_id, None)
        if slot is not None and self._lock is not None:
            self._lock.release(slot)

    def reap(self, own_id: str | None) -> list[str]:
        """Delete the rows of dead workers and free what they held."""
        now = self._sql.now()
        dead = [row[0] for row in self._others(own_id) if self._is_dead(row, now)]
        reaped = []
        for worker_id in dead:
            if self._sql.run("DELETE FROM durable_worker WHERE worker_id = ?", (worker_id,)):
                self._give_back(worker_id)
                reaped.append(worker_id)
        return reaped

    def has_dead(self, own_id: str | None) -> bool:
        """Whether a look without writing shows a dead worker."""
        now = self._sql.now()
        return any(self._is_dead(row, now) for row in self._others(own_id))

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
        text = "SELECT worker_id, host, pid, started_at, heartbeat_at, expires_at FROM durable_worker WHERE hub = ? ORDER BY started_at"
        return [WorkerRecord(*row) for row in self._sql.rows(text, (self._hub,))]

    def _others(self, own_id: str | None) -> list[tuple[str, str, int | None, Micros]]:
        text = "SELECT worker_id, host, lock_slot, expires_at FROM durable_worker WHERE hub = ? AND worker_id <> ?"
        return [(str(row[0]), str(row[1]), row[2], int(row[3])) for row in self._sql.rows(text, (self._hub, own_id or ""))]

    def _is_dead(self, row: tuple[str, str, int | None, Micros], now: Micros) -> bool:
        _, _, slot, expires_at = row
        if expires_at < now:
            return True
        return slot is not None and self._lock is not None and self._lock.is_free(slot)

    def _give_back(self, worker_id: str) -> None:
        self._sql.run("UPDATE durable_instance SET worker_id = NULL WHERE hub = ? AND worker_id = ?", (self._hub, worker_id))
        self._sql.run("UPDATE durable_activity SET worker_id = NULL WHERE hub = ? AND worker_id = ?", (self._hub, worker_id))
