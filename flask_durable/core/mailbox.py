"""Mailbox: which wait gets which external event; the one rule (semantics.md 21) in one file.

Among the open waits for the name, the oldest one in the task tree being yielded now gets the event, else the oldest one that was never
yielded yet; otherwise the event is kept. So a wait that lost a race lies dormant, and takes nothing until it is yielded again: the mailbox
forgets it until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from flask_durable.core.events import EventRaised
from flask_durable.core.tasks import CancellableTask, Completions, Task, TimerTask
from flask_durable.errors import EventTimeoutError

NOT_GIVEN: Any = object()


class EventTask(CancellableTask):
    """A wait for an external event."""

    __slots__ = ("folded", "name", "number")

    def __init__(self, order: Completions, name: str, on_cancel: Callable[[], None] | None = None) -> None:
        super().__init__(order, on_cancel)
        self.name = name
        self.folded = name.casefold()
        self.number = 0


class TimedEventTask(CancellableTask):
    """A wait for an external event with a deadline: whichever comes first calls the other off (rule 22)."""

    __slots__ = ("_default", "_event", "_timer")

    def __init__(self, order: Completions, event: EventTask, timer: TimerTask, default: Any) -> None:
        super().__init__(order)
        self._event = event
        self._timer = timer
        self._default = default
        if event.completion is not None:
            self.child_completed(event)
            return
        event.add_parent(self)
        timer.add_parent(self)

    def members(self) -> tuple[Task, ...]:
        """The wait itself."""
        return (self._event,)

    def child_completed(self, child: Task) -> None:
        """The event came, or the time is over."""
        if self.completion is not None:
            return
        if child is self._event:
            error = child._error  # its data may be of the wrong type
            if error is None:
                self.complete(child.value())
            else:
                self.fail(error)
            self._timer.cancel()
        elif self._default is NOT_GIVEN:
            self.fail(EventTimeoutError(self._event.name))
            self._event.cancel()
        else:
            self.complete(self._default)
            self._event.cancel()

    def cancel(self) -> bool:
        """Call off the wait and its timer."""
        is_open = super().cancel()
        if is_open:
            self._event.cancel()
            self._timer.cancel()
        return is_open


class Mailbox:
    """The events and waits of one execution."""

    __slots__ = ("_arrivals", "_awake", "_fresh", "_kept", "_root", "_waits")

    def __init__(self) -> None:
        self._root: Task | None = None
        self._awake: dict[str, deque[EventTask]] = {}
        self._fresh: dict[str, dict[EventTask, None]] = {}
        self._kept: dict[str, deque[tuple[int, EventRaised]]] = {}
        self._arrivals = 0
        self._waits = 0

    def deliver(self, event: EventRaised) -> None:
        """An event arrived."""
        folded = event.name.casefold()
        wait = self._oldest_awake(folded) or self._oldest_fresh(folded)
        if wait is not None:
            wait.complete_with_text(event.data)
            return
        self._arrivals += 1
        self._kept.setdefault(folded, deque()).append((self._arrivals, event))

    def wait(self, task: EventTask) -> None:
        """A wait was made; a kept event completes it at once."""
        self._waits += 1
        task.number = self._waits
        kept = self._kept.get(task.folded)
        if kept:
            self._take(task, kept)
        else:
            self._fresh.setdefault(task.folded, {})[task] = None

    def yielded(self, root: Task) -> None:
        """The orchestrator yields that task: the open waits in it are awake, and take what is kept for them; no others are."""
        self._root = root
        if self._awake:
            self._awake = {}
        if not self._waits:
            return
        for task in _waits_in(root):
            self._fresh.get(task.folded, {}).pop(task, None)
            if task.completion is None and task.belongs_to(root):
                kept = self._kept.get(task.folded)
                if kept:
                    self._take(task, kept)
                else:
                    self._awake.setdefault(task.folded, deque()).append(task)

    def forget(self, task: EventTask) -> None:
        """A wait was cancelled; it takes no event (EVT-4)."""
        self._fresh.get(task.folded, {}).pop(task, None)

    def unread(self) -> list[EventRaised]:
        """All kept events, in order of arrival."""
        kept = [entry for entries in self._kept.values() for entry in entries]
        return [event for _, event in sorted(kept, key=lambda entry: entry[0])]

    def _take(self, task: EventTask, kept: deque[tuple[int, EventRaised]]) -> None:
        task.complete_with_text(kept.popleft()[1].data)

    def _oldest_awake(self, folded: str) -> EventTask | None:
        awake = self._awake.get(folded)
        while awake and self._root is not None:
            task = awake.popleft()
            if task.completion is None and task.belongs_to(self._root):
                return task
        return None

    def _oldest_fresh(self, folded: str) -> EventTask | None:
        fresh = self._fresh.get(folded)
        if not fresh:
            return None
        task = next(iter(fresh))
        del fresh[task]
        return task


def _waits_in(root: Task) -> list[EventTask]:
    """The open waits in a tree of tasks, oldest first."""
    if isinstance(root, EventTask):
        return [] if root.completion is not None else [root]
    found: list[EventTask] = []
    seen: set[Task] = {root}
    todo: list[Task] = [root]
    while todo:
        for task in todo.pop().members():
            if task in seen:
                continue
            seen.add(task)
            if not isinstance(task, EventTask):
                todo.append(task)
            elif task.completion is None:
                found.append(task)
    return sorted(found, key=lambda task: task.number)
