"""Registry: which orchestrators and activities an extension object knows, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask_durable.core.ids import check_name
from flask_durable.errors import InvalidArgumentError, NotRegisteredError

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """A registered orchestrator."""

    name: str
    function: Function


@dataclass(frozen=True, slots=True)
class Activity:
    """A registered activity."""

    name: str
    function: Function


class Registry:
    """The functions of one extension object; two objects do not see each other's (REG-2)."""

    def __init__(self) -> None:
        self._orchestrators: dict[str, Orchestrator] = {}
        self._activities: dict[str, Activity] = {}
        self._names: dict[object, str] = {}
        self._orchestrator_names: tuple[str, ...] = ()
        self._activity_names: tuple[str, ...] = ()

    def add_orchestrator(self, function: Function, name: str | None = None) -> Orchestrator:
        """Register an orchestrator under its own name or the one given (REG-1).

        Raises:
            InvalidArgumentError: the name is taken or not allowed, or a lambda has none.
        """
        entry = Orchestrator(self._new_name("orchestrator", function, name, self._orchestrators), function)
        self._orchestrators[entry.name] = entry
        self._orchestrator_names = tuple(sorted(self._orchestrators))
        self._names[function] = entry.name
        return entry

    def add_activity(self, function: Function, name: str | None = None) -> Activity:
        """Register an activity under its own name or the one given (REG-1).

        Raises:
            InvalidArgumentError: the name is taken or not allowed, or a lambda has none.
        """
        entry = Activity(self._new_name("activity", function, name, self._activities), function)
        self._activities[entry.name] = entry
        self._activity_names = tuple(sorted(self._activities))
        self._names[function] = entry.name
        return entry

    def include(self, other: Registry) -> None:
        """Add all that another registry holds, under the same rules."""
        for orchestrator in other._orchestrators.values():
            self.add_orchestrator(orchestrator.function, orchestrator.name)
        for activity in other._activities.values():
            self.add_activity(activity.function, activity.name)

    def orchestrator(self, name: str) -> Orchestrator:
        """The orchestrator of that name.

        Raises:
            NotRegisteredError: there is none.
        """
        try:
            return self._orchestrators[name]
        except KeyError:
            raise NotRegisteredError("orchestrator", name, self.orchestrator_names()) from None

    def activity(self, name: str) -> Activity:
        """The activity of that name.

        Raises:
            NotRegisteredError: there is none.
        """
        try:
            return self._activities[name]
        except KeyError:
            raise NotRegisteredError("activity", name, self.activity_names()) from None

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

    def _new_name(self, kind: str, function: Function, name: str | None, taken: dict[str, Any]) -> str:
        if not callable(function):
            raise InvalidArgumentError(f"An {kind} is a function, not {type(function).__name__}: {function!r}")
        chosen = name if name is not None else getattr(function, "__name__", "")
        if name is None and (chosen == "<lambda>" or not chosen):
            raise InvalidArgumentError(f"This {kind} has no name of its own; give one: @durable.{kind}(name=...)")
        check_name(kind, chosen)
        if chosen in taken:
            raise InvalidArgumentError(f"An {kind} named {chosen!r} is already registered")
        return chosen
