"""Claiming work: what is ready and belongs to nobody, or is held by this worker and has new messages."""

from __future__ import annotations

import json
import logging
from typing import Any

from flask_durable.core.times import Micros
from flask_durable.errors import CorruptHistoryError
from flask_durable.storage.database import Sql
from flask_durable.storage.inbox import InboxRows
from flask_durable.storage.interface import ActivityWorkItem, ClaimRequest, Committed, OrchestrationWorkItem, Ready
from flask_durable.storage.rows import INSTANCE_COLUMNS, instance_record

logger = logging.getLogger("flask_durable.storage")

MESSAGES_PER_TURN = 1000
"""So many messages at most go into one turn; the rest makes the instance ready again."""

SUSPECT_DELIVERIES = 2
"""What was handed out so often without success is taken one at a time, so that a poisonous one takes no others along."""


class Claims:
    """Claims for the workers of one task hub."""

    def __init__(self, sql: Sql, hub: str, inbox: InboxRows) -> None:
        self._sql = sql
        self._hub = hub
        self._inbox = inbox

    def peek(self, worker_id: str, claim: ClaimRequest, now: Micros) -> Ready:
        """Look, without writing, whether there is anything to claim, and when the next sleeping instance is due."""
        names, parameters = _named("name", claim.orchestrators)
        free = self._sql.value(
            f"SELECT ready_at FROM durable_instance WHERE hub = ? AND worker_id IS NULL AND ready_at IS NOT NULL AND deliveries < ?{names}"
            " ORDER BY ready_at LIMIT 1",
            (self._hub, claim.max_deliveries, *parameters),
        )
        held = self._sql.value(
            "SELECT ready_at FROM durable_instance WHERE hub = ? AND worker_id = ? AND ready_at IS NOT NULL ORDER BY ready_at LIMIT 1",
            (self._hub, worker_id),
        )
        due = [moment for moment in (free, held) if moment is not None]
        is_ready = bool(due) and min(due) <= now
        if not is_ready and claim.activities > 0:
            names, parameters = _named("name", claim.activity_names, claim.unknown_before)
            text = f"SELECT 1 FROM durable_activity WHERE hub = ? AND worker_id IS NULL AND deliveries < ?{names} ORDER BY queued_at LIMIT 1"
            is_ready = self._sql.row(text, (self._hub, claim.max_deliveries, *parameters)) is not None
        return Ready(is_ready, min(due) if due else None)

    def take(self, worker_id: str, claim: ClaimRequest, now: Micros, committed: Committed) -> None:
        """Claim within the present transaction; what was claimed goes into ``committed``."""
        if claim.instances > 0:
            rows = self._held(worker_id, claim, now) + self._take_instances(worker_id, claim, now)
            committed.orchestrations = [work for row in rows if (work := self._work(row, now)) is not None]
            committed.has_more = len(rows) >= claim.instances
        if claim.activities > 0:
            committed.activities = self._take_activities(worker_id, claim)
            committed.has_more |= len(committed.activities) >= claim.activities

    def _work(self, row: tuple[Any, ...], now: Micros) -> OrchestrationWorkItem | None:
        """The claimed instance with its messages; one that cannot be read is parked, and takes no others along."""
        try:
            return OrchestrationWorkItem(instance_record(row), self._inbox.visible(row[0], now, MESSAGES_PER_TURN))
        except CorruptHistoryError as error:
            logger.error("Instance %s is parked: %s", row[0], error)
            self._sql.run(
                "UPDATE durable_instance SET parked_reason = ?, ready_at = NULL, worker_id = NULL WHERE hub = ? AND instance_id = ?",
                (str(error), self._hub, row[0]),
            )
            return None

    def _held(self, worker_id: str, claim: ClaimRequest, now: Micros) -> list[tuple[Any, ...]]:
        text = f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND worker_id = ? AND ready_at <= ? ORDER BY ready_at LIMIT ?"
        return self._sql.rows(text, (self._hub, worker_id, now, claim.instances))

    def _take_instances(self, worker_id: str, claim: ClaimRequest, now: Micros) -> list[tuple[Any, ...]]:
        rows = self._free_instances(claim, now, 0, min(SUSPECT_DELIVERIES, claim.max_deliveries), claim.instances)
        if claim.with_suspects and len(rows) < claim.instances:
            rows += self._free_instances(claim, now, SUSPECT_DELIVERIES, claim.max_deliveries, 1)
        taken = []
        for row in rows:
            if self._sql.run(
                "UPDATE durable_instance SET worker_id = ?, deliveries = deliveries + 1 WHERE hub = ? AND instance_id = ? AND worker_id IS NULL",
                (worker_id, self._hub, row[0]),
            ):
                taken.append(row)
        return taken

    def _free_instances(self, claim: ClaimRequest, now: Micros, least: int, below: int, limit: int) -> list[tuple[Any, ...]]:
        names, parameters = _named("name", claim.orchestrators)
        return self._sql.rows(
            f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND worker_id IS NULL AND ready_at <= ? AND deliveries >= ? AND deliveries < ?"
            f"{names} ORDER BY ready_at LIMIT ?{self._sql.skip_locked}",
            (self._hub, now, least, below, *parameters, limit),
        )

    def _take_activities(self, worker_id: str, claim: ClaimRequest) -> list[ActivityWorkItem]:
        rows = self._free_activities(claim, 0, min(SUSPECT_DELIVERIES, claim.max_deliveries), claim.activities)
        if claim.with_suspects and len(rows) < claim.activities:
            rows += self._free_activities(claim, SUSPECT_DELIVERIES, claim.max_deliveries, 1)
        taken = []
        for row in rows:
            if self._sql.run(
                "UPDATE durable_activity SET worker_id = ?, deliveries = deliveries + 1 WHERE hub = ? AND execution_id = ? AND task_id = ? AND worker_id IS NULL",
                (worker_id, self._hub, row[1], row[3]),
            ):
                taken.append(_work_item(row))
        return taken

    def _free_activities(self, claim: ClaimRequest, least: int, below: int, limit: int) -> list[tuple[Any, ...]]:
        names, parameters = _named("a.name", claim.activity_names, claim.unknown_before)
        return self._sql.rows(
            "SELECT a.instance_id, a.execution_id, i.generation, a.task_id, a.name, a.input, a.attempt, a.first_task_id, a.deliveries + 1, i.trace"
            " FROM durable_activity a JOIN durable_instance i ON i.hub = a.hub AND i.instance_id = a.instance_id"
            f" WHERE a.hub = ? AND a.worker_id IS NULL AND a.deliveries >= ? AND a.deliveries < ?{names} ORDER BY a.queued_at LIMIT ?"
            + ("" if self._sql.is_sqlite else " FOR UPDATE OF a SKIP LOCKED" if self._sql.is_postgresql else ""),
            (self._hub, least, below, *parameters, limit),
        )


def _work_item(row: tuple[Any, ...]) -> ActivityWorkItem:
    instance_id, execution_id, generation, task_id, name, text, attempt, first_task_id, deliveries, trace = row
    carrier = json.loads(trace) if trace else {}
    return ActivityWorkItem(instance_id, execution_id, generation, task_id, name, text, attempt, first_task_id, deliveries, carrier)


def _named(column: str, names: tuple[str, ...] | None, queued_before: Micros | None = None) -> tuple[str, tuple[Any, ...]]:
    if names is None:
        return "", ()
    known = f"{column} IN ({', '.join('?' * len(names))})" if names else "1 = 0"
    if queued_before is None:
        return f" AND {known}", names
    return f" AND ({known} OR {column.replace('name', 'queued_at')} < ?)", (*names, queued_before)
