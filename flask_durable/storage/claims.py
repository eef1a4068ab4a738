"""Claiming work: what is ready and belongs to nobody, or is held by this worker and has new messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask_durable.core.capabilities import Runnable
from flask_durable.core.times import Micros
from flask_durable.errors import CorruptHistoryError
from flask_durable.logs import get_logger
from flask_durable.storage.calls import NOBODYS, CallRows
from flask_durable.storage.clock_steps import ClockSteps
from flask_durable.storage.database import Sql
from flask_durable.storage.inbox import InboxRows
from flask_durable.storage.interface import SUSPECT_DELIVERIES, ClaimRequest, Committed, InstanceRecord, Neighbour, OrchestrationWorkItem, Ready
from flask_durable.storage.rows import INSTANCE_COLUMNS, instance_record, shown_record
from flask_durable.storage.signs import Sign

logger = get_logger("flask_durable.storage")

MESSAGES_PER_TURN = 1000
"""So many messages at most go into one turn; the rest makes the instance ready again."""

_LOOK = (
    "SELECT {now},"
    " (SELECT ready_at FROM durable_instance WHERE hub = ? AND worker_id IS NULL AND ready_at IS NOT NULL ORDER BY {after_null}ready_at LIMIT 1),"
    " (SELECT ready_at FROM durable_instance WHERE hub = ? AND worker_id = ? AND ready_at IS NOT NULL ORDER BY ready_at LIMIT 1),"
    " (SELECT precedence FROM durable_activity WHERE hub = ? AND worker_id IS NULL AND deliveries < ? ORDER BY {after_null}precedence, queued_at LIMIT 1),"
    " worker_id, expires_at, lock_slot, heartbeat_at, {sign} FROM durable_worker WHERE hub = ?"
)


class Claims:
    """Claims for the workers of one task hub.

    Args:
        sql: the database.
        hub: the task hub.
        inbox: messages, which go along with the instances.
        calls: the queue of calls.
        sign: by which a dead worker is seen at once.
        steps: learns what database time is.
    """

    def __init__(self, sql: Sql, hub: str, inbox: InboxRows, calls: CallRows, sign: Sign, steps: ClockSteps) -> None:
        self._steps = steps
        self._sql = sql
        self._hub = hub
        self._inbox = inbox
        self._calls = calls
        self._sign = sign

    def peek(self, worker_id: str, claim: ClaimRequest) -> Ready:
        """Look, without writing, whether there is anything to claim, and when the next sleeping instance is due.

        One statement tells that nothing is due for anybody, and who the other workers are; only when something is, others ask whether it is for this one.
        """
        began = self._steps.begin()
        now_text, parameters = self._sql.now_expression()
        found = self._sql.rows(
            _LOOK.format(now=now_text, sign=self._sign.column, after_null=self._sql.after_null("worker_id")),
            (*parameters, self._hub, self._hub, worker_id, self._hub, claim.max_deliveries, self._hub),
        )
        others = tuple(Neighbour(row[4], row[5], row[6], row[7], bool(row[8])) for row in found if row[4] != worker_id)
        if len(others) == len(found):
            return Ready(False, None, is_registered=False, neighbours=others)
        now, due, held = self._steps.note(began, self._sql.learn_now(found[0][0])), found[0][1], found[0][2]
        is_left = due is not None and due <= now
        if is_left:
            due = self._first_free(claim)
        due = min((moment for moment in (due, held) if moment is not None), default=None)
        is_ready, waits_for_room = due is not None and due <= now, False
        if not is_ready and found[0][3] is not None:
            is_left = True
            is_ready = claim.activities > 0 and self._calls.has_free(claim)
            waits_for_room = not is_ready and bool(claim.limited)
        return Ready(is_ready, due, is_left=is_left and not is_ready, waits_for_room=waits_for_room, neighbours=others)

    def _first_free(self, claim: ClaimRequest) -> Micros | None:
        names, parameters = taken_by(claim.runnable)
        first: Micros | None = self._sql.value(
            f"SELECT ready_at FROM durable_instance WHERE hub = ? AND worker_id IS NULL AND ready_at IS NOT NULL AND deliveries < ?{names}"
            f" ORDER BY {self._sql.after_null('worker_id')}ready_at LIMIT 1",
            (self._hub, claim.max_deliveries, *parameters),
        )
        return first

    def take(self, worker_id: str, claim: ClaimRequest, now: Micros, committed: Committed) -> None:
        """Claim within the present transaction; what was claimed goes into ``committed``."""
        if claim.instances > 0:
            rows = self._held(worker_id, claim, now) + self._take_instances(worker_id, claim, now)
            committed.orchestrations = [work for row in rows if (work := self._work(row, now)) is not None]
            committed.has_more = len(rows) >= claim.instances
            if any(work.is_suspect for work in committed.orchestrations):
                claim = replace(claim, with_suspects=False)  # one at a time, of either kind
        if claim.activities > 0:
            committed.activities = self._calls.take(worker_id, claim)
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
                f"UPDATE durable_instance SET worker_id = ?, deliveries = deliveries + 1 WHERE hub = ? AND instance_id = ? AND {NOBODYS}",
                (worker_id, self._hub, row[0]),
            ):
                taken.append(row)
        return taken

    def _free_instances(self, claim: ClaimRequest, now: Micros, least: int, below: int, limit: int) -> list[tuple[Any, ...]]:
        names, parameters = taken_by(claim.runnable)
        return self._sql.rows(
            f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND worker_id IS NULL AND ready_at <= ? AND deliveries >= ? AND deliveries < ?"
            f"{names} ORDER BY {self._sql.after_null('worker_id')}ready_at LIMIT ?{self._sql.skip_locked}",
            (self._hub, now, least, below, *parameters, limit),
        )

    def left_over(self, workers: Sequence[Runnable], bounds: tuple[str, str] | None, ready_before: Micros, limit: int) -> list[InstanceRecord]:
        """Instances within those version keys that belong to nobody, have been ready since before that time, and that none of those takes."""
        among, within = taken_by(Runnable(bounds=bounds))
        conditions = [taken_by(each) for each in workers]
        parameters = [parameter for _, each in conditions for parameter in each]
        others = "".join(f" AND NOT (1 = 1{text})" for text, _ in conditions)
        rows = self._sql.rows(
            f"SELECT {INSTANCE_COLUMNS} FROM durable_instance WHERE hub = ? AND worker_id IS NULL AND ready_at <= ?{among}{others} ORDER BY {self._sql.after_null('worker_id')}ready_at LIMIT ?",
            (self._hub, ready_before, *within, *parameters, limit),
        )
        return [shown_record(row) for row in rows]

    def left_over_activities(self, known: Sequence[str], queued_before: Micros) -> list[str]:
        """Names, other than those, of activities with calls that have been in the queue since before that time."""
        names = f" AND name NOT IN ({', '.join('?' * len(known))})" if known else ""
        text = f"SELECT DISTINCT name FROM durable_activity WHERE hub = ? AND worker_id IS NULL AND queued_at < ?{names}"
        return [str(row[0]) for row in self._sql.rows(text, (self._hub, queued_before, *known))]


def taken_by(runnable: Runnable) -> tuple[str, tuple[Any, ...]]:
    """The condition for the instances that somebody takes, and its parameters."""
    text = ""
    parameters: list[str] = []
    if runnable.names is not None:
        free = [name for name in runnable.names if name not in runnable.least_keys]
        # An IN without names is no SQL
        choices = [f"name IN ({', '.join('?' * len(free))})" if free else "1 = 0", *("(name = ? AND version_key >= ?)" for _ in runnable.least_keys)]
        text = f" AND ({' OR '.join(choices)})" if runnable.least_keys else f" AND {choices[0]}"
        parameters = [*free, *(text for pair in runnable.least_keys.items() for text in pair)]
    if runnable.bounds is not None:
        text += " AND version_key >= ? AND version_key <= ?"
        parameters.extend(runnable.bounds)
    return text, tuple(parameters)
