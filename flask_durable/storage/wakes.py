"""Wakes: what a transaction leaves for other workers to claim, and the name under which they are told of it (PostgreSQL)."""

from __future__ import annotations

import hashlib
import threading

from flask_durable.storage.database import Sql
from flask_durable.storage.interface import Batch, Committed


class Wakes(threading.local):
    """What the present transaction of the calling thread has made ready so far."""

    def __init__(self) -> None:
        self._instances: set[str] = set()
        self._calls: set[tuple[str, int]] = set()
        self._is_any = False

    def clear(self) -> None:
        """A transaction begins, perhaps anew."""
        self.__init__()  # type: ignore[misc]  # as every thread does at first

    def instance(self, instance_id: str) -> None:
        """An instance has something to do, now or at a time that others do not know of."""
        self._instances.add(instance_id)

    def call(self, execution_id: str, task_id: int) -> None:
        """A call is in the queue."""
        self._calls.add((execution_id, task_id))

    def anything(self) -> None:
        """Something has become ready of which it is not known what."""
        self._is_any = True

    def are_left(self, batch: Batch, committed: Committed) -> bool:
        """Whether anything of it is left for others, after what the worker has claimed in the same transaction."""
        if self._is_any or self._makes_room(batch, committed):
            return True
        if self._instances - {work.record.instance_id for work in committed.orchestrations}:
            return True
        return bool(self._calls - {(item.execution_id, item.task_id) for item in committed.activities})

    def _makes_room(self, batch: Batch, committed: Committed) -> bool:
        """Whether calls have ended of names that are limited in the whole hub, and their places were not taken at once."""
        limited = {limit.name for limit in batch.claim.limited if limit.hub is not None} if batch.claim is not None else set()
        if not limited:
            return False
        ended = {result.item.name for result in batch.results}
        ended.update(result.item.name for commit in batch.turns for result in commit.results)
        return bool((ended & limited) - {item.name for item in committed.activities})


class Channel:
    """Through which those who listen are told, once the present transaction is committed; nothing happens where the database cannot."""

    def __init__(self, sql: Sql, hub: str) -> None:
        self._sql = sql
        self._hub = hub
        self.name = channel_of(hub)
        self._is_there: bool | None = None if sql.is_postgresql else False

    def tell(self, text: str) -> None:
        """Tell that."""
        self._tell("SELECT pg_notify(?, ?)", (self.name, text))

    def tell_unless_held(self, instance_id: str, worker_id: str) -> None:
        """Tell the others that an instance has a message, unless that worker has the instance."""
        text = "SELECT pg_notify(?, ?) FROM durable_instance WHERE hub = ? AND instance_id = ? AND (worker_id IS NULL OR worker_id <> ?)"
        self._tell(text, (self.name, worker_id, self._hub, instance_id, worker_id))

    def _tell(self, text: str, parameters: tuple[str, ...]) -> None:
        if self._is_there is None:  # others speak the same language without this function, and a call of it would undo the transaction
            self._is_there = self._sql.row("SELECT 1 FROM pg_proc WHERE proname = 'pg_notify'") is not None
        if self._is_there:
            self._sql.run(text, parameters)


def channel_of(hub: str) -> str:
    """The channel of a task hub; a hub is named by any text, a channel by a short identifier."""
    return f"durable_{hashlib.sha256(hub.encode()).hexdigest()[:32]}"
