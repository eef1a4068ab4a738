"""Retention: finding ended instances that are old enough to go, and deleting them in small steps.

Laws:

1. An instance that has a parent stays for as long as the parent's row is there: a parent that runs, or that may be rewound, finds its children.
2. Ended instances are looked at in the order in which they ended, so many at a time, wherever the last look stopped. So no statement grows
   with what is kept.
3. What is deleted is locked first and looked at again; what somebody else has locked is left for the next time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import Micros
from flask_durable.storage.database import Sql
from flask_durable.storage.history import HistoryRows
from flask_durable.storage.interface import SweepPosition
from flask_durable.storage.turns import TurnRows

MOST_EVENTS = 5000
"""So many events of histories are deleted in one transaction, unless a single instance has more."""

_WINDOW = (
    "SELECT instance_id, execution_id, status, completed_at, sequence, parent_instance_id FROM durable_instance"
    " WHERE hub = ? AND completed_at < ?{after} ORDER BY completed_at, instance_id LIMIT ?"
)
_LOCK = (
    "SELECT instance_id, execution_id, status, completed_at FROM durable_instance"
    " WHERE hub = ? AND completed_at >= ? AND completed_at <= ? AND instance_id IN"
)
_AFTER = " AND completed_at >= ? AND (completed_at > ? OR instance_id > ?)"


class Candidate(NamedTuple):
    """An ended instance as it was read, before anything is locked."""

    instance_id: str
    execution_id: str
    status: str
    completed_at: Micros
    events: int
    parent_instance_id: str | None


class RetentionRows:
    """The ended instances of one task hub."""

    def __init__(self, sql: Sql, hub: str, history: HistoryRows, turns: TurnRows) -> None:
        self._sql = sql
        self._hub = hub
        self._history = history
        self._turns = turns

    def look(self, cutoffs: Mapping[RuntimeStatus, Micros], after: SweepPosition | None, limit: int) -> tuple[list[Candidate], SweepPosition | None]:
        """Which of the next ended instances may go, and where the look after this one begins; None when this was the last.

        Args:
            cutoffs: instances with that status that ended before that time may go; those with other statuses stay.
            after: where the last look stopped.
            limit: so many are looked at, at most.
        """
        of_status: dict[str, Micros] = {status.value: cutoff for status, cutoff in cutoffs.items()}
        position = () if after is None else (after.completed_at, after.completed_at, after.instance_id)
        text = _WINDOW.format(after=_AFTER if position else "")
        rows = [Candidate(*row) for row in self._sql.rows(text, (self._hub, max(cutoffs.values()), *position, limit))]
        old = [each for each in rows if each.completed_at < of_status.get(each.status, 0)]
        parents = self._existing({each.parent_instance_id for each in old if each.parent_instance_id is not None})
        chosen, stop = _first_few([each for each in old if each.parent_instance_id not in parents])
        last = stop or (rows[-1] if len(rows) == limit else None)
        return chosen, SweepPosition(last.completed_at, last.instance_id) if last else None

    def delete(self, candidates: Sequence[Candidate]) -> int:
        """Delete those that are still as they were read and that nobody holds; returns how many."""
        # The times let every database find the rows by the index that the look has just read
        head = (self._hub, candidates[0].completed_at, candidates[-1].completed_at)
        rows = self._sql.rows_of(_LOCK, head, [each.instance_id for each in candidates], self._sql.skip_locked)
        unchanged = set(rows)
        doomed = [each for each in candidates if each[:4] in unchanged]
        for each in doomed:
            if each.events > MOST_EVENTS:
                self._history.delete_in_slices(each.instance_id, each.events, MOST_EVENTS)
        self._turns.delete([(each.instance_id, each.execution_id) for each in doomed])
        return len(doomed)

    def _existing(self, instance_ids: set[str | None]) -> set[str]:
        if not instance_ids:
            return set()
        text = "SELECT instance_id FROM durable_instance WHERE hub = ? AND instance_id IN"
        return {row[0] for row in self._sql.rows_of(text, (self._hub,), sorted(map(str, instance_ids)))}


def _first_few(candidates: Sequence[Candidate]) -> tuple[list[Candidate], Candidate | None]:
    """As many as make up a transaction of bounded size, and the last of them when more are left."""
    events = 0
    for index, each in enumerate(candidates):
        events += each.events
        if events > MOST_EVENTS and index:
            return list(candidates[:index]), candidates[index - 1]
    return list(candidates), None
