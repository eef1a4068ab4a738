"""Activity calls that were handed out and whose results have not come back, counted by name where the name is limited."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flask_durable.core.options import ActivityOptions
from flask_durable.storage.interface import ActivityWorkItem, NameLimit

Limited = Callable[[], Mapping[str, ActivityOptions]]
"""Gives the options of the activities of which only so many calls run at the same time."""


class InFlight:
    """Calls in the hands of this worker; used by the engine's thread only.

    Args:
        limited: the limited activities; more may be registered at any time.
    """

    def __init__(self, limited: Limited) -> None:
        self._limited = limited
        self._items: dict[tuple[str, int], ActivityWorkItem] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: ActivityWorkItem) -> None:
        """A call is handed out."""
        items, key = self._items, (item.execution_id, item.task_id)
        is_known = key in items  # it was given back and is here again before we were told
        items[key] = item
        if item.name in self._limited() and not is_known:
            self._counts[item.name] = self._counts.get(item.name, 0) + 1

    def remove(self, item: ActivityWorkItem) -> bool:
        """A call came back; False when it was given up before."""
        key = (item.execution_id, item.task_id)
        if self._items.get(key) is not item:
            return False
        del self._items[key]
        count = self._counts.get(item.name)
        if count:
            self._counts[item.name] = count - 1
        return True

    def clear(self) -> None:
        """None of them is ours any more."""
        self._items.clear()
        self._counts.clear()

    def is_limited(self, name: str) -> bool:
        """Whether only so many calls of that name run at the same time."""
        return name in self._limited()

    def rooms(self) -> dict[str, int]:
        """How many more calls of each limited name this process can take."""
        return {name: max(0, (options.concurrency or 0) - self._counts.get(name, 0)) for name, options in self._limited().items()}

    def is_hub_limited(self, name: str) -> bool:
        """Whether the database has to be asked before a call of that name is taken."""
        options = self._limited().get(name)
        return options is not None and options.hub_concurrency is not None

    def limits(self, rooms: Mapping[str, int]) -> tuple[NameLimit, ...]:
        """What a claim may take of each limited name, of which there is so much room left."""
        return tuple(NameLimit(name, rooms[name], options.hub_concurrency) for name, options in self._limited().items() if name in rooms)
