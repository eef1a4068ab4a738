"""Strays: work that no worker takes. It waits with a warning, and fails when nobody has known it for too long (rule 8, REG-5)."""

from __future__ import annotations

from dataclasses import replace

from flask_durable.config import Settings
from flask_durable.core.capabilities import waiting_reason
from flask_durable.core.failure import FailureDetails
from flask_durable.errors import NotRegisteredError
from flask_durable.logs import get_logger
from flask_durable.registry import Registry
from flask_durable.runtime.abilities import Abilities
from flask_durable.storage.interface import Batch, FailInstance, InstanceRecord, Store
from flask_durable.watchers import Watchers

logger = get_logger("flask_durable.worker")

UNKNOWN_SECONDS = 5.0
_PAGE = 100
_MOST_REMEMBERED = 10_000


class Strays:
    """Looks after work that this worker does not take; used by one thread at a time."""

    def __init__(self, store: Store, registry: Registry, settings: Settings, abilities: Abilities, watchers: Watchers) -> None:
        self._store = store
        self._registry = registry
        self._limit = settings.unknown_orchestrator_timeout
        self._abilities = abilities
        self._watchers = watchers
        self._told: set[str] = set()

    def look(self, worker_id: str) -> tuple[str, ...]:
        """Warn of instances that wait, fail those that have waited too long; returns names of activities whose calls have waited too long."""
        own, now = self._abilities.present(), self._store.now()
        others = self._abilities.others(worker_id)
        before = now - round(self._limit * 1e6)
        self._warn(worker_id, now - round(min(self._limit, UNKNOWN_SECONDS) * 1e6))
        if not own.is_selective:
            known = [replace(own.runnable(), bounds=None), *(each.runnable() for each in others)]
            for record in self._store.unclaimable(known, own.runnable().bounds, before, _PAGE):
                self._fail(record)
        if own.has_chosen_activities or any(each.activities is None for each in others):
            return ()
        names = self._store.unclaimable_activities(sorted(own.activities or ()), before)
        return tuple(name for name in names if not any(each.knows_activity(name) for each in others))

    def _warn(self, worker_id: str, before: int) -> None:
        own, others = self._abilities.present(), None
        if own.is_selective:
            return
        for record in self._store.unclaimable([own.runnable()], None, before, _PAGE):
            if record.instance_id in self._told:
                continue
            if others is None:
                others = self._abilities.others(worker_id)
            if len(self._told) >= _MOST_REMEMBERED:
                self._told.clear()
            self._told.add(record.instance_id)
            reason = waiting_reason(record.name, record.version, [own, *others]) or "another worker takes it, and has not yet"
            logger.warning("Instance %s of orchestrator %s waits: %s", record.instance_id, record.name, reason)

    def _fail(self, record: InstanceRecord) -> None:
        try:
            self._registry.orchestrator(record.name, record.version)
        except NotRegisteredError as error:
            logger.error("Instance %s fails: %s", record.instance_id, error)
            committed = self._store.commit(
                Batch(commands=[FailInstance(record.instance_id, FailureDetails.from_exception(error), record.execution_id)])
            )
            self._watchers.notify(committed.ended)
