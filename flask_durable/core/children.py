"""Children that end with their parent: which calls ask for it, and which of them are open; known from the history alone (rule 42)."""

from __future__ import annotations

from collections.abc import Iterable

from flask_durable.core.events import HistoryEvent, SubOrchestrationCompleted, SubOrchestrationCreated, SubOrchestrationFailed
from flask_durable.errors import InvalidArgumentError

LEAVE = "leave"
TERMINATE = "terminate"


def check_on_parent_end(value: object) -> str:
    """Return what a child is to do at its parent's end when it is allowed.

    Raises:
        InvalidArgumentError: it is neither of the two words.
    """
    if value not in (LEAVE, TERMINATE):
        raise InvalidArgumentError(f"on_parent_end is {LEAVE!r} or {TERMINATE!r}, not {value!r:.100}")
    return str(value)


class BoundChildren:
    """The open calls of one execution whose children are terminated when it ends."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, None] = {}

    def see(self, events: Iterable[HistoryEvent]) -> None:
        """Learn from what was recorded."""
        for event in events:
            if isinstance(event, SubOrchestrationCreated):
                if event.on_parent_end == TERMINATE:
                    self._open[event.task_id] = None
            elif isinstance(event, SubOrchestrationCompleted | SubOrchestrationFailed):
                self._open.pop(event.task_id, None)

    @property
    def task_ids(self) -> tuple[int, ...]:
        """Numbers of the open calls, in the order in which they were made."""
        return tuple(self._open)
