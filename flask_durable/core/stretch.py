"""Stretch: what the code asks for from one event that it is given to the next, and how much a whole turn may ask for (rule 10).

Law: when the code fails in a stretch in which it asked for too much, nothing that it asked for in this stretch is written or done. So the history of
such a failure is short, however much was asked for.
"""

from __future__ import annotations

from collections import deque

from flask_durable.core.context import LimitExceededError
from flask_durable.core.events import HistoryEvent
from flask_durable.core.turn import Mark, Turn


class Stretch:
    """The present stretch of one execution.

    Args:
        limit: so many calls at most in one turn.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._mark: Mark | None = None
        self._began_at = 0
        self._asked_too_much = False

    def turn_begins(self) -> None:
        """The calls of a turn are counted from here."""
        self._count = 0

    def begin(self, began_at: int, turn: Turn | None) -> None:
        """The code gets an event.

        Args:
            began_at: length of the history before that event.
            turn: the present turn, with that event, unless this is a replay.
        """
        self._began_at, self._asked_too_much = began_at, False
        self._mark = turn.mark() if turn is not None else None

    def count(self) -> None:
        """The code asks for something.

        Raises:
            LimitExceededError: it has asked for too much in this turn.
        """
        self._count += 1
        if self._count > self._limit:
            self._asked_too_much = True
            raise LimitExceededError(
                f"More than {self._limit} calls without a yield (DURABLE_MAX_ACTIONS_PER_TURN); "
                "yield groups of calls, or spread the work over sub-orchestrations or continue_as_new"
            )

    def failed(self, turn: Turn | None, asked: deque[HistoryEvent]) -> int | None:
        """The code has failed; if it asked for too much, what it asked for in this stretch never happened.

        Args:
            turn: the present turn, unless this is a replay.
            asked: what it has asked for in a replay, and was not found in the history yet.

        Returns:
            The length of the history up to which it can have been sound then, at most.
        """
        if not self._asked_too_much:
            return None
        if turn is not None and self._mark is not None:
            turn.back_to(self._mark)
        asked.clear()
        return self._began_at
