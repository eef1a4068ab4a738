"""Capabilities: what one worker runs, as it tells the others, and why an instance finds no worker (rules 8, 49; WRK-5, REG-5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flask_durable.core.versions import VersionMatch, VersionRule, version_key

Versions = tuple[str | None, ...]
"""The versions under which one name is registered, in ascending order; None for a registration without version."""


@dataclass(frozen=True, slots=True)
class Runnable:
    """Which instances somebody takes, in terms that a query understands.

    Args:
        names: of these orchestrators; None for all.
        least_keys: for some of the names, the lowest version key that a registration fits.
        bounds: the lowest and the highest version key; None for all.
    """

    names: tuple[str, ...] | None = None
    least_keys: Mapping[str, str] = field(default_factory=dict)
    bounds: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one worker runs.

    Args:
        orchestrators: names with their registered versions, as far as a filter lets them through; None when it is not known.
        activities: names, likewise.
        rule: which versions of instances it takes.
        fails_mismatch: whether it fails instances of other versions, rather than leave them to others (VER-3).
        is_selective: whether it was limited to some orchestrators by name (WRK-5).
        has_chosen_activities: whether it was limited to some activities by name.
    """

    orchestrators: Mapping[str, Versions] | None = None
    activities: frozenset[str] | None = None
    rule: VersionRule = field(default_factory=lambda: VersionRule(match=VersionMatch.NONE))
    fails_mismatch: bool = False
    is_selective: bool = False
    has_chosen_activities: bool = False

    def runs(self, name: str, version: str | None) -> bool:
        """Whether it runs such an instance; False for one that it would only fail."""
        return self.knows(name, version) and self.rule.takes(version)

    def knows(self, name: str, version: str | None) -> bool:
        """Whether it has code for such an instance (rule 50)."""
        if self.orchestrators is None:
            return True
        versions = self.orchestrators.get(name)
        return versions is not None and (versions[0] is None or version_key(versions[0]) <= version_key(version))

    def knows_activity(self, name: str) -> bool:
        """Whether it has code for calls of that activity."""
        return self.activities is None or name in self.activities

    def runnable(self) -> Runnable:
        """What it takes from the tables."""
        bounds = None if self.fails_mismatch else self.rule.bounds()
        if self.orchestrators is None:
            return Runnable(bounds=bounds)
        least = {name: version_key(versions[0]) for name, versions in self.orchestrators.items() if versions[0] is not None}
        return Runnable(tuple(sorted(self.orchestrators)), least, bounds)

    def to_json(self) -> str:
        """The text in the worker's row."""
        document = {
            "orchestrators": None if self.orchestrators is None else {name: list(versions) for name, versions in self.orchestrators.items()},
            "activities": None if self.activities is None else sorted(self.activities),
            "version": self.rule.version,
            "versionMatch": self.rule.match.value,
            "versionFailure": "fail" if self.fails_mismatch else "reject",
            "isSelective": self.is_selective,
            "hasChosenActivities": self.has_chosen_activities,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None) -> Capabilities:
        """Read that text; what is missing or cannot be read makes a worker of which nothing is known, so that it may run anything."""
        try:
            document = json.loads(text or "{}")
            orchestrators, activities = document.get("orchestrators"), document.get("activities")
            return cls(
                None if orchestrators is None else {name: tuple(versions) for name, versions in orchestrators.items()},
                None if activities is None else frozenset(activities),
                VersionRule(document.get("version"), VersionMatch(document.get("versionMatch", VersionMatch.NONE))),
                document.get("versionFailure") == "fail",
                document.get("isSelective") is True,
                document.get("hasChosenActivities") is True,
            )
        except (ValueError, TypeError, AttributeError):
            return cls()


def waiting_reason(name: str, version: str | None, workers: Sequence[Capabilities]) -> str | None:
    """Why an instance that is due finds none of these workers; None when one of them takes it as soon as it has time."""
    if not workers:
        return "no worker is running"
    named = [each for each in workers if each.orchestrators is None or name in each.orchestrators]
    if not named:
        return f"no running worker knows orchestrator {name!r}"
    fitting = [each for each in named if each.knows(name, version)]
    if not fitting:
        registered = {label for each in named for label in _labels((each.orchestrators or {})[name])}
        return f"no running worker has code for {_of(version)} of orchestrator {name!r} (registered: {', '.join(sorted(registered))})"
    if not any(each.rule.takes(version) or each.fails_mismatch for each in fitting):
        running = {f"{each.rule.version or 'none'}, {each.rule.match.value}" for each in fitting}
        return f"no running worker takes {_of(version)} (running: {'; '.join(sorted(running))})"
    return None


def _of(version: str | None) -> str:
    return f"version {version}" if version is not None else "instances without version"


def _labels(versions: Versions) -> list[str]:
    return [version if version is not None else "without version" for version in versions]
