"""Drives one execution by hand: events in, turns out; keeps the history as a store would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flask_durable.core import codec
from flask_durable.core.context import Limits
from flask_durable.core.events import (
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    Recorded,
    SubOrchestrationCompleted,
    SubOrchestrationFailed,
    TaskCompleted,
    TaskFailed,
    TimerCreated,
    TimerFired,
)
from flask_durable.core.execution import Execution
from flask_durable.core.failure import FailureDetails
from flask_durable.core.turn import Turn

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
BOOM = FailureDetails("builtins.ValueError", "boom", "Traceback: boom")


class Driver:
    """One generation of an instance; ``is_cold`` rebuilds it from its history before every turn."""

    def __init__(
        self,
        function: Callable[..., Any],
        input: Any = None,
        *,
        limits: Limits | None = None,
        is_cold: bool = False,
        started: ExecutionStarted | None = None,
        with_events: Sequence[HistoryEvent] = (),
    ) -> None:
        self.function = function
        self.limits = limits
        self.is_cold = is_cold
        self.execution = self._fresh()
        self.history: list[Recorded] = []
        self.turns: list[Turn] = []
        self.now = T0 - SECOND
        self.started = started or ExecutionStarted("main", "i", "e1", 0, codec.encode(input, what="input"))
        self.first = self.give(self.started, *with_events)

    def _fresh(self) -> Execution:
        return Execution(self.function, limits=self.limits)

    def give(self, *events: HistoryEvent, after: float = 1) -> Turn:
        """One turn with these events, so many seconds after the last one."""
        if self.is_cold and self.history:
            self.execution.close()
            self.execution = self._fresh()
            self.execution.replay(self.history)
            assert self.execution.nondeterminism is None
        self.now += round(after * SECOND)
        turn = self.execution.advance(self.now, events)
        self.turns.append(turn)
        self.history += [Recorded(number, turn.at, event) for number, event in enumerate(turn.events, len(self.history) + 1)]
        return turn

    def done(self, task_id: int, value: Any = None) -> Turn:
        return self.give(TaskCompleted(task_id, codec.encode(value, what="result")))

    def failed(self, task_id: int, failure: FailureDetails = BOOM) -> Turn:
        return self.give(TaskFailed(task_id, failure))

    def child_done(self, task_id: int, value: Any = None) -> Turn:
        return self.give(SubOrchestrationCompleted(task_id, codec.encode(value, what="result")))

    def child_failed(self, task_id: int, failure: FailureDetails = BOOM) -> Turn:
        return self.give(SubOrchestrationFailed(task_id, failure))

    def fired(self, task_id: int) -> Turn:
        times = [each.event.fire_at for each in self.history if isinstance(each.event, TimerCreated) and each.event.task_id == task_id]
        due = times[-1] if times else self.now
        return self.give(TimerFired(task_id, due), after=max(1.0, (due - self.now) / SECOND))

    def raised(self, name: str, data: Any = None) -> Turn:
        return self.give(event(name, data))

    @property
    def output(self) -> Any:
        """What the instance returned; it must have completed."""
        turn = self.turns[-1]
        assert turn.status == "Completed", turn.failure or turn.status
        return codec.decode(turn.output)

    @property
    def failure(self) -> FailureDetails:
        turn = self.turns[-1]
        assert turn.status == "Failed", turn.status
        assert turn.failure is not None
        return turn.failure

    def replayed(self, function: Callable[..., Any] | None = None) -> Execution:
        """Another execution from the same history, maybe of changed code."""
        execution = Execution(function or self.function, limits=self.limits)
        execution.replay(self.history)
        return execution

    def mismatch(self, function: Callable[..., Any]) -> tuple[int, str | None, str | None]:
        """What changed code contradicts the history in: step, recorded, asked."""
        error = self.replayed(function).nondeterminism
        assert error is not None
        assert f"step {error.step}: the history says {error.recorded or 'nothing'}, the code asked for {error.asked or 'nothing'}." in str(error)
        return error.step, error.recorded, error.asked


def event(name: str, data: Any = None) -> EventRaised:
    return EventRaised(name, codec.encode(data, what="data"))
