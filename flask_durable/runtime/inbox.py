"""Inbox of the loop: what other threads hand over to it."""

from __future__ import annotations

import queue
from collections.abc import Callable

from flask_durable.errors import DurableError
from flask_durable.runtime.steps import Submission
from flask_durable.storage.interface import Command, Outcome


class Inbox:
    """A queue that many threads fill and the loop's thread empties."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[object] = queue.SimpleQueue()

    def put(self, item: object) -> None:
        """Hand something over."""
        self._items.put(item)

    def is_empty(self) -> bool:
        """Whether nothing is there now."""
        return self._items.empty()

    def take(self, limit: int, seconds: float) -> list[object]:
        """All that is there, up to a limit; waits up to so many seconds for the first."""
        taken: list[object] = []
        try:
            taken.append(self._items.get(timeout=seconds) if seconds else self._items.get_nowait())
            while len(taken) < limit:
                taken.append(self._items.get_nowait())
        except queue.Empty:
            pass
        return taken

    def refuse(self, error: DurableError) -> None:
        """Answer the commands that wait with an error: nothing can be carried out now. All else stays."""
        for item in self.take(self._items.qsize(), 0.0):
            if not isinstance(item, Submission):
                self._items.put(item)
            elif item.take():
                item.answer(error)

    def carry_out_the_rest(self, execute: Callable[[Command], Outcome]) -> None:
        """After the end of the loop: let the caller's thread carry out the commands that are left."""
        while True:
            left = self.take(1, 0.0)
            if not left:
                return
            submission = left[0]
            if isinstance(submission, Submission) and not submission.is_withdrawn:
                try:
                    submission.answer(execute(submission.command))
                except DurableError as error:
                    submission.answer(error)
