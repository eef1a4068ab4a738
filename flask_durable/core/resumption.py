"""Resumption: what a replay does when it comes to a rewind, and what the first turn after one has to put right (rule 45)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask_durable.core.context import OrchestrationContext
from flask_durable.core.events import ExecutionRewound, SubOrchestrationCreated
from flask_durable.core.tasks import RetryingTask
from flask_durable.core.times import Micros
from flask_durable.core.turn import Turn


class Resumption:
    """The rewinds in the history of one execution.

    ``last_task_id`` is the highest number given before the last of them.
    """

    def __init__(self) -> None:
        self._leftovers: list[SubOrchestrationCreated] = []
        self._cancelled_timers: list[int] = []
        self._is_last = False
        self.last_task_id = 0

    def rewound(self, event: ExecutionRewound, at: Micros, left: Sequence[SubOrchestrationCreated], context: OrchestrationContext | None) -> None:
        """The replay comes to a rewind.

        Args:
            event: the rewind.
            at: its time.
            left: children of the part that was taken back which the code meets again.
            context: the code's context, if the code has begun.
        """
        self._is_last = True
        self._leftovers.extend(left)
        self.last_task_id = event.last_task_id
        if context is None:
            return
        context._last_task_id = max(context._last_task_id, event.last_task_id)
        for task_id in event.redone:
            task = context._tasks.get(task_id)
            for group in task._parents if task is not None else ():
                if isinstance(group, RetryingTask):
                    group.start_over(at)

    def went_on(self) -> None:
        """The replay comes to something that followed a turn."""
        self._is_last = False

    def timer_cancelled(self, task_id: int) -> None:
        """The code cancels a timer in the replay."""
        self._cancelled_timers.append(task_id)

    def replayed(self, context: OrchestrationContext | None) -> None:
        """The replay is over: what the code has set in it is written already, unless a rewind came last."""
        if context is not None and not self._is_last:
            context._custom_status_changed = False

    def begin(self, turn: Turn) -> None:
        """A turn begins; after a rewind, timers that are cancelled in what still counts were set again."""
        if self._is_last:
            turn.cancelled_timers.extend(self._cancelled_timers)
        self._is_last = False
        self._cancelled_timers.clear()

    def met_again(self, asked: SubOrchestrationCreated, as_number: Callable[[int], SubOrchestrationCreated]) -> SubOrchestrationCreated:
        """The child that the code asks for, or the same one from a turn that was taken back.

        Args:
            asked: as a new call.
            as_number: the same with another number.
        """
        for left in self._leftovers:
            if as_number(left.task_id) == left:
                self._leftovers.remove(left)
                return left
        return asked
