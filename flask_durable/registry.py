"""Registry: which orchestrators and activities an extension object knows, by name; orchestrators also by version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask_durable.core.exceptions import ExceptionTypes
from flask_durable.core.ids import check_name, check_version
from flask_durable.core.options import DEFAULT_OPTIONS, ActivityOptions
from flask_durable.core.versions import version_key
from flask_durable.errors import InvalidArgumentError, NotRegisteredError

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """A registered orchestrator; one name may have several, by version (rule 50)."""

    name: str
    function: Function
    version: str | None = None

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return self.name if self.version is None else f"{self.name} (version {self.version})"


@dataclass(frozen=True, slots=True)
class Activity:
    """A registered activity."""

    name: str
    function: Function
    options: ActivityOptions = DEFAULT_OPTIONS


class Registry:
    """The functions of one extension object; two objects do not see each other's (REG-2)."""

    def __init__(self) -> None:
        self.exceptions = ExceptionTypes()
        self._orchestrators: dict[str, tuple[Orchestrator, ...]] = {}
        self._activities: dict[str, Activity] = {}
        self._limited: Mapping[str, ActivityOptions] = {}
        self._activity_checks: list[Callable[[Activity], None]] = []
        self._names: dict[object, str] = {}
        self._versions: dict[object, str | None] = {}
        self._orchestrator_names: tuple[str, ...] = ()
        self._activity_names: tuple[str, ...] = ()
        self.revision = 0

    def add_orchestrator(self, function: Function, name: str | None = None, version: str | None = None) -> Orchestrator:
        """Register an orchestrator under its own name or the one given, for all versions or from one version on (REG-1, rule 50).

        Raises:
            InvalidArgumentError: the name is taken for that version or not allowed, or a lambda has none.
        """
        version = None if version is None else check_version(version)
        entry = Orchestrator(self._new_name("orchestrator", function, name), function, version)
        others = self._orchestrators.get(entry.name, ())
        if any(version_key(other.version) == version_key(version) for other in others):
            raise InvalidArgumentError(f"An orchestrator named {entry.name!r} is already registered {_for_version(version)}".rstrip())
        self._orchestrators[entry.name] = tuple(sorted((*others, entry), key=lambda each: version_key(each.version)))
        self._orchestrator_names = tuple(sorted(self._orchestrators))
        self._names[function], self._versions[function] = entry.name, version
        self.revision += 1
        return entry

    def add_activity(self, function: Function, name: str | None = None, options: ActivityOptions = DEFAULT_OPTIONS) -> Activity:
        """Register an activity under its own name or the one given (REG-1).

        Raises:
            InvalidArgumentError: the name is taken or not allowed, or a lambda has none.
        """
        entry = Activity(self._new_name("activity", function, name), function, options)
        if entry.name in self._activities:
            raise InvalidArgumentError(f"An activity named {entry.name!r} is already registered")
        for check in self._activity_checks:
            check(entry)
        self._activities[entry.name] = entry
        if options.concurrency is not None:
            self._limited = {**self._limited, entry.name: options}  # a new one, since the engine may be reading the old
        self._activity_names = tuple(sorted(self._activities))
        self._names[function] = entry.name
        self.revision += 1
        return entry

    def check_activities(self, check: Callable[[Activity], None]) -> None:
        """Have every activity checked, those that are there and those to come; what the check raises keeps one from being registered."""
        for activity in self._activities.values():
            check(activity)
        self._activity_checks.append(check)

    def include(self, other: Registry) -> None:
        """Add all that another registry holds, under the same rules."""
        self.exceptions.include(other.exceptions)
        for orchestrators in other._orchestrators.values():
            for orchestrator in orchestrators:
                self.add_orchestrator(orchestrator.function, orchestrator.name, orchestrator.version)
        for activity in other._activities.values():
            self.add_activity(activity.function, activity.name, activity.options)

    def orchestrator(self, name: str, version: str | None = None) -> Orchestrator:
        """The orchestrator that runs instances of that name and version (rule 50).

        That is the one registered for the version, or else for the highest version below it; one without version is for all the rest.

        Raises:
            NotRegisteredError: there is none.
        """
        entries = self._orchestrators.get(name, ())
        key = version_key(version)
        for entry in reversed(entries):
            if version_key(entry.version) <= key:
                return entry
        if entries:
            raise NotRegisteredError(
                "orchestrator", name, tuple(entry.label for entry in entries), fitting=_for_version(version) or "without version"
            )
        raise NotRegisteredError("orchestrator", name, self.orchestrator_names())

    def orchestrator_versions(self, name: str) -> tuple[str | None, ...]:
        """The versions that orchestrators of that name are registered for, in ascending order."""
        return tuple(entry.version for entry in self._orchestrators.get(name, ()))

    def default_version(self, function_or_name: object, configured: str | None) -> str | None:
        """The version of a new instance that is given none (rules 49, 50).

        A function has the one it is registered with; else it is the configured one, or else the newest that the name is registered for.
        """
        own = self.version_of(function_or_name)
        if own is not None or configured is not None:
            return own if own is not None else configured
        versions = self.orchestrator_versions(self.name_of(function_or_name))
        return versions[-1] if versions else None

    def version_of(self, function_or_name: object) -> str | None:
        """The version that an orchestrator function is registered with; None for a name."""
        try:
            return self._versions.get(function_or_name)
        except TypeError:
            return None

    def activity(self, name: str) -> Activity:
        """The activity of that name.

        Raises:
            NotRegisteredError: there is none.
        """
        try:
            return self._activities[name]
        except KeyError:
            raise NotRegisteredError("activity", name, self.activity_names()) from None

    def options_of(self, activity: str) -> ActivityOptions:
        """The options of the activity of that name; the default ones when there is none."""
        found = self._activities.get(activity)
        return DEFAULT_OPTIONS if found is None else found.options

    def limited_activities(self) -> Mapping[str, ActivityOptions]:
        """Those of which only so many calls run at the same time; asked for at every call."""
        return self._limited

    def function_of(self, kind: str, name: str, version: str | None = None) -> Function | None:
        """The function of that name and version, registered as ``"activity"`` or ``"orchestrator"``; None when there is none."""
        try:
            return self.activity(name).function if kind == "activity" else self.orchestrator(name, version).function
        except NotRegisteredError:
            return None

    def has_orchestrator(self, name: str) -> bool:
        """Whether an orchestrator of that name is registered."""
        return name in self._orchestrators

    def has_activity(self, name: str) -> bool:
        """Whether an activity of that name is registered."""
        return name in self._activities

    def orchestrator_names(self) -> tuple[str, ...]:
        """Names of all orchestrators, sorted."""
        return self._orchestrator_names

    def activity_names(self) -> tuple[str, ...]:
        """Names of all activities, sorted."""
        return self._activity_names

    def name_of(self, function_or_name: object) -> str:
        """The registered name of a function; a string is taken as a name (REG-3).

        A function that is not registered here goes by its own name: another process may know it.

        Raises:
            InvalidArgumentError: neither a function nor a name.
        """
        if isinstance(function_or_name, str):
            return function_or_name
        try:
            return self._names[function_or_name]
        except (KeyError, TypeError):
            pass
        own = getattr(function_or_name, "__name__", None)
        if callable(function_or_name) and isinstance(own, str) and own != "<lambda>":
            return own
        raise InvalidArgumentError(f"Name an orchestrator or activity by its function or its registered name, not by {function_or_name!r}")

    def _new_name(self, kind: str, function: Function, name: str | None) -> str:
        if not callable(function):
            raise InvalidArgumentError(f"An {kind} is a function, not {type(function).__name__}: {function!r}")
        chosen = name if name is not None else getattr(function, "__name__", "")
        if name is None and (chosen == "<lambda>" or not chosen):
            raise InvalidArgumentError(f"This {kind} has no name of its own; give one: @durable.{kind}(name=...)")
        check_name(kind, chosen)
        return chosen


def _for_version(version: str | None) -> str:
    return "" if version is None else f"for version {version!r}"
