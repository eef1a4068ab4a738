"""Mailbox: which wait gets which external event; the one rule (semantics.md 21) in one file.

Among the open waits for the name, the oldest one in the task tree being yielded now gets the event, else the oldest one that was never
yielded yet; otherwise the event is kept. So a wait that lost a race lies dormant, and takes nothing until it is yielded again.
"""

from __future__ import annotations

from collections import deque

from flask_durable.core.events import EventRaised
from flask_durable.core.tasks import EventTask, Task


class Mailbox:
    """The events and waits of one execution."""

    __slots__ = ("_arrivals", "_kept", "_waits")

    def __init__(self) -> None:
        self._waits: dict[str, list[EventTask]] = {}
        self._kept: dict[str, deque[tuple[int, EventRaised]]] = {}
        self._arrivals = 0

    def deliver(self, event: EventRaised, yielded: Task | None) -> None:
        """An event arrived; ``yielded`` is what the orchestrator waits for now."""
        folded = event.name.casefold()
        wait = self._taker(folded, yielded)
        if wait is None:
            self._arrivals += 1
            self._kept.setdefault(folded, deque()).append((self._arrivals, event))
            return
        self._waits[folded].remove(wait)
        wait.complete_with_text(event.data)

    def wait(self, task: EventTask) -> None:
        """A wait was made; a kept event completes it at once."""
        kept = self._kept.get(task.folded)
        if kept:
            self._take(task, kept)
        else:
            self._waits.setdefault(task.folded, []).append(task)

    def yielded(self, root: Task) -> None:
        """The orchestrator yields that task: the waits in it are awake, and take what is kept for them."""
        for folded, waits in self._waits.items():
            if not waits:
                continue
            for task in list(waits):
                if root.is_complete and not self._kept.get(folded):
                    break
                if not task.is_complete and task.belongs_to(root):
                    task.was_yielded = True
                    kept = self._kept.get(folded)
                    if kept:
                        waits.remove(task)
                        self._take(task, kept)

    def forget(self, task: EventTask) -> None:
        """A wait was cancelled; it takes no event (EVT-4)."""
        waits = self._waits.get(task.folded, [])
        if task in waits:
            waits.remove(task)

    def unread(self) -> list[EventRaised]:
        """All kept events, in order of arrival."""
        kept = [entry for entries in self._kept.values() for entry in entries]
        return [event for _, event in sorted(kept, key=lambda entry: entry[0])]

    def _take(self, task: EventTask, kept: deque[tuple[int, EventRaised]]) -> None:
        task.complete_with_text(kept.popleft()[1].data)

    def _taker(self, folded: str, yielded: Task | None) -> EventTask | None:
        waits = self._waits.get(folded)
        if not waits:
            return None
        if yielded is not None:
            for task in waits:
                if task.belongs_to(yielded):
                    return task
        for task in waits:
            if not task.was_yielded:
                return task
        return None
