"""Abilities: what this worker runs, from what is registered, its version and its filters; and what the other workers say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask_durable.config import Settings
from flask_durable.core.capabilities import Capabilities, Runnable
from flask_durable.core.versions import VersionMatch, VersionRule
from flask_durable.errors import StoreUnavailableError
from flask_durable.logs import get_logger
from flask_durable.registry import Registry
from flask_durable.storage.interface import Store

logger = get_logger("flask_durable.worker")


@dataclass(frozen=True, slots=True)
class WorkFilter:
    """Names that a worker is limited to (WRK-5); nothing for an empty list, everything for None."""

    orchestrations: tuple[str, ...] | None = None
    activities: tuple[str, ...] | None = None


class Abilities:
    """What one worker runs; functions may be registered while it does.

    Args:
        work_filter: the names that it is limited to.
    """

    def __init__(self, store: Store, registry: Registry, settings: Settings, work_filter: WorkFilter) -> None:
        self._store = store
        self._registry = registry
        self._filter = work_filter
        self._rule = VersionRule(settings.version, VersionMatch(settings.version_match))
        self._fails_mismatch = settings.version_failure == "fail"
        self._revision = -1
        self._present = Capabilities()
        self._runnable = Runnable()
        self._activity_names: tuple[str, ...] = ()

    def present(self) -> Capabilities:
        """What it runs now."""
        self._refresh()
        return self._present

    def runnable(self) -> Runnable:
        """What it takes from the tables."""
        self._refresh()
        return self._runnable

    def activity_names(self) -> tuple[str, ...]:
        """The activities that it runs, sorted."""
        self._refresh()
        return self._activity_names

    def runs(self, name: str, version: str | None) -> bool:
        """Whether it runs such an instance."""
        return self.present().runs(name, version)

    def knows_activity(self, name: str) -> bool:
        """Whether it runs calls of that activity."""
        return self.present().knows_activity(name)

    def refusal(self, version: str | None) -> str | None:
        """Why an instance of that version must fail here; None when it need not (VER-3)."""
        return None if not self._fails_mismatch or self._rule.takes(version) else self._rule.refusal(version)

    def fails_activity(self, name: str, worker_id: str) -> bool:
        """Whether a call of an activity that is not among the present ones fails here, since nobody else would find it either (REG-5)."""
        if self.present().has_chosen_activities or self._registry.has_activity(name):
            return False
        try:
            return not any(each.knows_activity(name) for each in self.others(worker_id))
        except StoreUnavailableError:
            return False

    def warn_of_unknown_names(self) -> None:
        """Say which names of the filter nothing is registered under: it may be a slip."""
        registry = self._registry
        for kind, chosen, known in (
            ("orchestrator", self._filter.orchestrations, registry.orchestrator_names()),
            ("activity", self._filter.activities, registry.activity_names()),
        ):
            for name in sorted(set(chosen or ()) - set(known)):
                logger.warning("The worker is limited to names, and %s %r among them is not registered", kind, name)

    def others(self, worker_id: str) -> list[Capabilities]:
        """What the other live workers run, as they have said."""
        return [each.capabilities for each in self._store.live_workers() if each.worker_id != worker_id]

    def _refresh(self) -> None:
        revision = self._registry.revision
        if self._revision != revision:
            self._present = present = self._collected()
            self._runnable, self._activity_names = present.runnable(), tuple(sorted(present.activities or ()))
            self._revision = revision

    def _collected(self) -> Capabilities:
        registry, chosen = self._registry, self._filter
        orchestrators = {name: registry.orchestrator_versions(name) for name in registry.orchestrator_names() if _passes(chosen.orchestrations, name)}
        return Capabilities(
            orchestrators,
            frozenset(name for name in registry.activity_names() if _passes(chosen.activities, name)),
            self._rule,
            self._fails_mismatch,
            chosen.orchestrations is not None,
            chosen.activities is not None,
        )


def _passes(chosen: Sequence[str] | None, name: str) -> bool:
    return chosen is None or name in chosen
