"""Execution: one generation of an instance as live code; history goes in, a Turn comes out.

Law: what :meth:`Execution.advance` gives depends on the history and the events handed over, on nothing else.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from flask_durable.core.actions import ASKED, is_same, mismatch, open_activities
from flask_durable.core.blame import Blame, Verdict
from flask_durable.core.children import BoundChildren
from flask_durable.core.context import FunctionOf, Limits, OptionsOf, OrchestrationContext
from flask_durable.core.events import (
    EventRaised,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    Recorded,
    SubOrchestrationCompleted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from flask_durable.core.exceptions import ExceptionTypes
from flask_durable.core.failure import FailureDetails, SubOrchestrationFailedError, TaskFailedError
from flask_durable.core.ids import next_execution_id, own_name
from flask_durable.core.options import DEFAULT_OPTIONS
from flask_durable.core.position import position
from flask_durable.core.resumption import Resumption
from flask_durable.core.rewind import effective, leftovers
from flask_durable.core.signature import orchestrator_signature
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.stretch import Stretch
from flask_durable.core.tasks import ActivityTask, CallTask, ChildTask, Task, TimerTask, not_a_task
from flask_durable.core.times import Micros
from flask_durable.core.turn import NextGeneration, Turn
from flask_durable.errors import InvalidArgumentError, NonDeterminismError
from flask_durable.logs import get_logger

logger = get_logger("flask_durable.core")

SomeTask = TypeVar("SomeTask", bound=Task)

IGNORED = (ExecutionSuspended, ExecutionResumed, ExecutionTerminated, ExecutionRewound, ExecutionCompleted)
"""Facts that the storage records by itself; the code does not see them."""

MAX_WRONG_YIELDS = 100
"""Code that so often in a row yields what is no task does not listen, and fails."""

MAX_CLOSINGS = 10
"""So often abandoned code may catch its closing and yield once more."""


class Execution:
    """One generation of an instance.

    Args:
        orchestrator: a generator function, an ``async def`` function or a plain function of ``(ctx, input)`` or ``(ctx)``.
        limits: how much it may ask for.
        name_of: the registered name of a function.
        options_of: the options of the activity of a name.
        version_of: the version of a child, named by function or name, that is given none with the call.
        function_of: the function that is registered here as a kind and name.
        exceptions: the exception classes that orchestrators may catch.
    """

    def __init__(
        self,
        orchestrator: Callable[..., Any],
        *,
        limits: Limits | None = None,
        name_of: Callable[[object], str] | None = None,
        options_of: OptionsOf | None = None,
        version_of: Callable[[object], str | None] = lambda _: None,
        function_of: FunctionOf | None = None,
        exceptions: ExceptionTypes | None = None,
    ) -> None:
        self._function = orchestrator
        self._signature = orchestrator_signature(orchestrator)
        self._limits = limits or Limits()
        self._name_of = name_of or own_name
        self._options_of = options_of or (lambda _name: DEFAULT_OPTIONS)
        self._version_of = version_of
        self._exceptions = exceptions or ExceptionTypes()
        self._function_of = function_of or (lambda _kind, _name, _version: None)
        self._context: OrchestrationContext | None = None
        self._code: Generator[Any, Any, Any] | Coroutine[Any, Any, Any] | None = None
        self._yielded: Task | None = None
        self._turn: Turn | None = None
        self._asked: deque[HistoryEvent] = deque()
        self._ending = "it ended"
        self._open_activities: set[int] = set()
        self._bound_children = BoundChildren()
        self._blame = Blame(self._length)
        self._resumption = Resumption()
        self._stretch = Stretch(self._limits.actions_per_turn)
        self._last_at: Micros = 0
        self.sequence = 0
        self.execution_id = ""
        self.instance_id = ""
        self.generation = 0
        self.nondeterminism: NonDeterminismError | None = None
        self.is_finished = False

    # -- the two ways in

    def replay(self, history: Sequence[Recorded]) -> None:
        """Bring fresh code to where its history ends; a contradiction is kept in ``nondeterminism`` (DET-5 to DET-7).

        Args:
            history: all of it; what rewinds took back is passed over.
        """
        left = leftovers(history) if any(isinstance(recorded.event, ExecutionRewound) for recorded in history) else {}
        if left:
            self._bound_children.see(recorded.event for recorded in history)
            history = effective(history)
        try:
            for recorded in history:
                if isinstance(recorded.event, ExecutionRewound):
                    self._resumption.rewound(recorded.event, recorded.at, left.get(recorded.sequence, ()), self._context)
                self._replay_one(recorded)
            if self._asked:
                raise mismatch(None, self._asked[0])
            if self.is_finished and not (history and isinstance(history[-1].event, ExecutionCompleted)):
                raise self._ended_early("that it is waiting")
        except NonDeterminismError as error:
            self.nondeterminism = NonDeterminismError(error.step, error.recorded, error.asked, position(self._function, self._code))
            self._open_activities = open_activities(history)
        self._bound_children.see(recorded.event for recorded in history)
        self._resumption.replayed(self._context)
        self.sequence = history[-1].sequence if history else 0

    def advance(self, at: Micros, events: Sequence[HistoryEvent]) -> Turn:
        """Deliver new events and say what follows.

        Args:
            at: the time of the turn; it is moved on when it is not after the turn before, or before a timer that has fired (TIM-2).
            events: what arrived, in order; ExecutionStarted first in the first turn.
        """
        at = max(at, self._last_at + 1, *(event.fire_at for event in events if isinstance(event, TimerFired)))
        turn = self._turn = Turn(at)
        self._resumption.begin(turn)
        before, self._last_at = self._last_at, at
        self._stretch.turn_begins()
        self._set_time(at, is_replaying=False)
        if self.nondeterminism is not None:
            turn.events.extend(events)
            self._raised(self.nondeterminism)
        else:
            self._deliver_all(turn, events)
        if not turn.events:
            self._last_at = before  # no history tells of such a turn
        self._close_turn(turn)
        return turn

    @property
    def has_code(self) -> bool:
        """Whether closing it runs code that somebody else wrote."""
        return getattr(self._code, "gi_frame", None) is not None or getattr(self._code, "cr_frame", None) is not None

    def close(self) -> None:
        """Abandon the code quietly; what its ``finally`` blocks ask for is refused."""
        if self._context is not None:
            self._context._is_closed = True
        self.is_finished = True
        code, self._code = self._code, None
        for _ in range(MAX_CLOSINGS):
            if code is None:
                return
            try:
                code.close()
                code = None
            except BaseException as error:  # noqa: BLE001 - user code in a finally block; the instance itself is not concerned
                logger.debug("Abandoned code of instance %s raised %s in its cleanup", self.instance_id, type(error).__name__)

    # -- called by the context

    def note(self, event: HistoryEvent) -> None:
        """The code asked for something."""
        self._stretch.count()
        if isinstance(event, TaskScheduled):
            self._open_activities.add(event.task_id)
        if self._turn is None:
            self._asked.append(event)
        else:
            self._turn.ask(event)

    def timer_cancelled(self, task_id: int) -> None:
        """A timer must not fire any more."""
        if self._turn is None:
            self._resumption.timer_cancelled(task_id)
        else:
            self._turn.cancelled_timers.append(task_id)

    def met_again(self, asked: SubOrchestrationCreated, as_number: Callable[[int], SubOrchestrationCreated]) -> SubOrchestrationCreated:
        """The child that is asked for, or the same one from a turn that was taken back."""
        return self._resumption.met_again(asked, as_number)

    # -- replay

    def _replay_one(self, recorded: Recorded) -> None:
        event, at = recorded.event, max(recorded.at, self._last_at)
        if at != self._last_at:
            self._last_at = at
            self._stretch.turn_begins()
        if isinstance(event, IGNORED):
            return
        self._resumption.went_on()
        if isinstance(event, ASKED):
            self._confirm(event)
            return
        if self._asked:
            raise mismatch(None, self._asked[0])
        if self.is_finished:
            raise self._ended_early(f"that it went on, with {type(event).__name__}")
        self._set_time(at, is_replaying=True)
        self._stretch.begin(recorded.sequence - 1, None)
        self.sequence = recorded.sequence
        self._deliver(event)

    def _confirm(self, recorded: HistoryEvent) -> None:
        asked = self._asked.popleft() if self._asked else None
        if isinstance(asked, SubOrchestrationCreated) and isinstance(recorded, SubOrchestrationCreated) and self._context is not None:
            made_up = self._context._made_up_ids
            if asked.task_id in made_up:  # the recorded one counts: it may come from before a rewind, or from an older release
                made_up.discard(asked.task_id)
                asked = replace(asked, instance_id=recorded.instance_id)
        if asked is None or not is_same(asked, recorded):
            raise mismatch(recorded, asked)
        if isinstance(recorded, TimerCreated) and self._context is not None:
            task = self._context._tasks.get(recorded.task_id)
            if isinstance(task, TimerTask):
                task.fire_at = recorded.fire_at

    def _ended_early(self, recorded: str) -> NonDeterminismError:
        step = self._context._last_task_id + 1 if self._context is not None else 1
        return NonDeterminismError(step, recorded, f"no more: {self._ending}")

    # -- new events

    def _deliver_all(self, turn: Turn, events: Sequence[HistoryEvent]) -> None:
        for index, event in enumerate(events):
            if self.is_finished:
                self._carry(turn, events[index:])
                turn.undelivered = len(events) - index
                return
            if isinstance(event, IGNORED) or self._is_unasked(event):
                continue
            turn.events.append(event)
            self._stretch.begin(self._length() - 1, turn)
            if self._length() > self._limits.history_events:
                self._raised(self._limits.history_error())
            else:
                self._deliver(event)

    def _is_unasked(self, event: HistoryEvent) -> bool:
        """Whether it is an outcome that nobody waits for: one that came again, or of a call that was given up (DET-8)."""
        kind = _TASKS.get(type(event))
        return kind is not None and self._awaited(event.task_id, kind) is None  # type: ignore[attr-defined]

    def _deliver(self, event: HistoryEvent) -> None:
        handler = _HANDLERS[type(event)]
        try:
            handler(self, event)
        except BaseException as error:  # noqa: BLE001 - a retry handler, a limit met by a further attempt, groups nested too deeply
            if not self.is_finished:
                self._raised(error)

    def _carry(self, turn: Turn, rest: Sequence[HistoryEvent]) -> None:
        following = turn.next_generation
        if following is not None:
            late = tuple(event for event in rest if isinstance(event, EventRaised))
            turn.next_generation = NextGeneration(following.execution_id, following.input, following.version, following.carried + late)

    def _length(self) -> int:
        """Number of the last event, with what the code has asked for so far."""
        return self.sequence + len(self._asked if self._turn is None else self._turn.events)

    def _close_turn(self, turn: Turn) -> None:
        self._turn = None
        self.sequence += len(turn.events)
        turn.open_activities = len(self._open_activities)
        self._bound_children.see(turn.events)
        context = self._context
        if context is not None:
            turn.custom_status = context._custom_status
            turn.custom_status_changed = context._custom_status_changed
            context._custom_status_changed = False
            context._is_replaying = True
        if turn.next_generation is not None or turn.status.is_final:
            turn.activities, turn.timers = [], []
            turn.bound_children = self._bound_children.task_ids
        turn.timers = [self._stage(timer, turn.at) for timer in turn.timers]

    def _stage(self, timer: TimerCreated, at: Micros) -> TimerCreated:
        """What the storage is to wait for: the timer's own time, or the end of its next stage (TIM-5)."""
        longest = self._limits.timer_interval
        return timer if longest is None else replace(timer, fire_at=min(timer.fire_at, at + longest))

    def _set_time(self, at: Micros, *, is_replaying: bool) -> None:
        if self._context is not None:
            self._context._now, self._context._is_replaying = at, is_replaying

    # -- one handler per kind of event

    def _on_started(self, event: ExecutionStarted) -> None:
        self.execution_id, self.instance_id, self.generation = event.execution_id, event.instance_id, event.generation
        signature = self._signature
        self._context = context = OrchestrationContext(
            event, self, self._limits, self._name_of, self._options_of, self._version_of, self._function_of, signature
        )
        context._last_task_id = self._resumption.last_task_id
        self._set_time(self._last_at, is_replaying=self._turn is None)
        try:
            value = self._function(context, *signature.arguments(event.input, what=f"input of orchestrator {event.name!r}"))
        except BaseException as error:  # noqa: BLE001 - whatever orchestrator code raises becomes the instance's failure (rule 7)
            self._raised(error)
            return
        if inspect.isgenerator(value) or inspect.iscoroutine(value):
            self._code = value
            self._step(None, None)
            self._go_on()
        else:
            self._returned(value)

    def _on_call_completed(self, event: TaskCompleted | SubOrchestrationCompleted) -> None:
        task = self._take(event.task_id, _CALLS[type(event)])
        if task is not None:
            self._open_activities.discard(event.task_id)
            task.complete_with_text(event.result)
            self._go_on()

    def _on_call_failed(self, event: TaskFailed | SubOrchestrationFailed) -> None:
        task = self._take(event.task_id, _CALLS[type(event)])
        if task is not None:
            self._open_activities.discard(event.task_id)
            what, kind = ("Activity", TaskFailedError) if isinstance(event, TaskFailed) else ("Sub-orchestration", SubOrchestrationFailedError)
            text = f"{what} task #{task.task_id} failed: {event.failure.message}"
            error = self._exceptions.error(kind, text, event.failure, task.task_id)
            self._blame.failed(event.task_id, error)
            task.fail(error)
            self._go_on()

    def _on_timer_fired(self, event: TimerFired) -> None:
        if self._is_stage(event):
            return
        task = self._take(event.task_id, TimerTask)
        if task is not None:
            task.complete(None)
            self._go_on()

    def _is_stage(self, event: TimerFired) -> bool:
        # The history says how a timer was carried out, so that a replay under another setting decides the same
        timer = self._context._tasks.get(event.task_id) if self._context is not None else None
        if not isinstance(timer, TimerTask) or event.fire_at >= timer.fire_at:
            return False
        if self._turn is not None:
            self._turn.timers.append(TimerCreated(timer.task_id, timer.fire_at))
        return True

    def _on_event_raised(self, event: EventRaised) -> None:
        if self._context is not None:
            self._context._mailbox.deliver(event)
            self._go_on()

    def _take(self, task_id: int, kind: type[SomeTask]) -> SomeTask | None:
        task = self._awaited(task_id, kind)
        if task is not None and self._context is not None:
            del self._context._tasks[task_id]
        return task

    def _awaited(self, task_id: int, kind: type[SomeTask]) -> SomeTask | None:
        task = self._context._tasks.get(task_id) if self._context is not None else None
        if isinstance(task, kind):  # rule 2: number and kind
            return task
        logger.debug("Instance %s: nobody waits for the outcome of call %s; it is ignored", self.instance_id, task_id)  # DET-8
        return None

    # -- running the code

    def _go_on(self) -> None:
        while not self.is_finished:
            task = self._yielded
            if task is None or task.completion is None:
                return
            error = task._error
            task.show(is_raised=error is not None)
            if error is not None:
                self._step(None, error.with_traceback(None))
            else:
                self._step(task, None)

    def _step(self, task: Task | None, error: BaseException | None) -> None:
        code, context = self._code, self._context
        if code is None or context is None:
            return
        self._yielded = None
        for _ in range(MAX_WRONG_YIELDS):
            try:
                yielded = code.send(None if task is None else task.value()) if error is None else code.throw(error)
            except StopIteration as stop:
                output = stop.value
                break
            except BaseException as raised:  # noqa: BLE001 - whatever orchestrator code raises becomes the instance's failure (rule 7)
                self._raised(raised)
                return
            if context._next is not None:
                self._continue_as_new()
                return
            error = self._refusal(yielded)
            if error is None:
                self._yielded = yielded
                context._mailbox.yielded(yielded)
                return
        else:
            self._raised(error or not_a_task(yielded))
            return
        self._returned(output)

    def _refusal(self, yielded: object) -> InvalidArgumentError | None:
        if not isinstance(yielded, Task):
            return not_a_task(yielded)
        if yielded.completion is None and self._context is not None and yielded.order is not self._context._order:
            return InvalidArgumentError("The orchestrator yielded a task of another instance; a task belongs to the context that made it")
        return None

    def _returned(self, value: Any) -> None:
        self._code = None
        if self._context is not None and self._context._next is not None:
            self._continue_as_new()
            return
        if inspect.isasyncgen(value):
            self._raised(InvalidArgumentError("The orchestrator is an async generator; write 'async def' with await, or 'def' with yield"))
            return
        try:
            kind, limits = self._signature.result, self._limits
            output = kind.encode(value, what="output", max_bytes=limits.payload_bytes, max_depth=limits.payload_depth)
            kind.check(output, what="output")
        except InvalidArgumentError as error:
            self._raised(error)  # SCH-8
            return
        self._end(RuntimeStatus.COMPLETED, output=output)

    def _raised(self, error: BaseException) -> None:
        latest = self._stretch.failed(self._turn, self._asked)
        verdict = Verdict((), (), self.sequence) if error is self.nondeterminism else self._blame.verdict(error, self.sequence, latest)
        self._end(RuntimeStatus.FAILED, failure=FailureDetails.from_exception(error, data_of=self._exceptions.data_of), verdict=verdict)

    def _end(
        self, status: RuntimeStatus, *, output: str | None = None, failure: FailureDetails | None = None, verdict: Verdict | None = None
    ) -> None:
        self.is_finished = True
        self._ending = f"it failed with {failure.type_name}: {failure.message}" if failure else "it ended"
        turn = self._turn
        if turn is not None:
            turn.events.append(ExecutionCompleted(status, output, failure, *(verdict or ())))
            turn.status, turn.output, turn.failure = status, output, failure

    def _continue_as_new(self) -> None:
        context, turn = self._context, self._turn
        self.is_finished, self._ending = True, "it continued as new"
        if context is None or context._next is None or turn is None:
            return
        text, keeps_events, version = context._next
        carried = tuple(context._mailbox.unread()) if keeps_events else ()
        turn.events.append(ExecutionCompleted(RuntimeStatus.CONTINUED_AS_NEW, text))
        turn.next_generation = NextGeneration(next_execution_id(self.execution_id), text, version, carried)


_CALLS: dict[type[HistoryEvent], type[CallTask]] = {
    **dict.fromkeys((TaskCompleted, TaskFailed), ActivityTask),
    **dict.fromkeys((SubOrchestrationCompleted, SubOrchestrationFailed), ChildTask),
}
_TASKS: dict[type[HistoryEvent], type[Task]] = {**_CALLS, TimerFired: TimerTask}
"""What an outcome is an outcome of (rule 2)."""

_HANDLERS: dict[type[HistoryEvent], Callable[[Execution, Any], None]] = {
    ExecutionStarted: Execution._on_started,
    TaskCompleted: Execution._on_call_completed,
    TaskFailed: Execution._on_call_failed,
    SubOrchestrationCompleted: Execution._on_call_completed,
    SubOrchestrationFailed: Execution._on_call_failed,
    TimerFired: Execution._on_timer_fired,
    EventRaised: Execution._on_event_raised,
}
