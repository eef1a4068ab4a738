"""OrchestrationContext: what orchestrator code may ask for; every call makes a task and notes an action."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from flask_durable.core import codec
from flask_durable.core.events import EventSent, ExecutionStarted, HistoryEvent, SubOrchestrationCreated, TaskScheduled, TimerCreated
from flask_durable.core.failure import TaskFailedError
from flask_durable.core.ids import check_instance_id, check_name, check_version, child_execution_id, child_instance_id, derived_uuid
from flask_durable.core.mailbox import NOT_GIVEN, EventTask, Mailbox, TimedEventTask
from flask_durable.core.retry import RetryPolicy
from flask_durable.core.tasks import (
    ActivityTask,
    CallTask,
    ChildTask,
    Completions,
    RetryingTask,
    Task,
    TimerTask,
    WhenAll,
    WhenAllSettled,
    when_all,
    when_all_settled,
    when_any,
)
from flask_durable.core.times import Micros, fire_time, from_micros
from flask_durable.errors import DurableError, InvalidArgumentError

_MAX_REFUSALS = 100
"""So often an abandoned execution is told so. Code that catches even that and goes on must come to a yield, where it can be left."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one instance may ask for (rule 10); sizes in bytes of JSON."""

    payload_bytes: int = codec.DEFAULT_MAX_BYTES
    payload_depth: int = codec.DEFAULT_MAX_DEPTH
    custom_status_bytes: int = 16 * 1024
    actions_per_turn: int = 100_000
    history_events: int = 1_000_000


class LimitExceededError(DurableError):
    """An instance asks for more than its limits allow (rule 10)."""

    code = "limit_exceeded"


class Recorder(Protocol):
    """Where the context notes what was asked for: the execution."""

    def note(self, event: HistoryEvent) -> None:
        """An action was asked for."""

    def timer_cancelled(self, task_id: int) -> None:
        """A timer must not fire any more."""


class ContextClosedError(DurableError):
    """The context of an abandoned execution was used, in a ``finally`` block of the orchestrator."""

    code = "context_closed"


class OrchestrationContext:
    """The first argument of every orchestrator. All it gives is the same in each replay."""

    def __init__(self, started: ExecutionStarted, recorder: Recorder, limits: Limits, name_of: Callable[[object], str]) -> None:
        self._started = started
        self._recorder = recorder
        self._limits = limits
        self._name_of = name_of
        self._order = Completions()
        self._tasks: dict[int, Task] = {}
        self._mailbox = Mailbox()
        self._made_up_ids: set[int] = set()
        self._last_task_id = 0
        self._uuids = 0
        self._now: Micros = 0
        self._is_replaying = False
        self._is_closed = False
        self._refusals = 0
        self._custom_status: str | None = None
        self._custom_status_changed = False
        self._next: tuple[str | None, bool, str | None] | None = None

    # -- what is known

    @property
    def instance_id(self) -> str:
        """Id of this instance."""
        return self._started.instance_id

    @property
    def parent_instance_id(self) -> str | None:
        """Id of the instance that called this one, or None (SUB-1)."""
        return self._started.parent_instance_id

    @property
    def execution_id(self) -> str:
        """Id of this generation of the instance."""
        return self._started.execution_id

    @property
    def generation(self) -> int:
        """How often the instance has continued as new."""
        return self._started.generation

    @property
    def name(self) -> str:
        """Name of this orchestrator."""
        return self._started.name

    @property
    def version(self) -> str | None:
        """Version the instance was started with (VER-1)."""
        return self._started.version

    @property
    def tags(self) -> Mapping[str, str]:
        """Tags the instance was started with."""
        return dict(self._started.tags)

    @property
    def input(self) -> Any:
        """The instance's input, a fresh copy at each call."""
        return codec.decode(self._started.input)

    def get_input(self) -> Any:
        """The instance's input, as Azure's SDK names it."""
        return self.input

    @property
    def is_replaying(self) -> bool:
        """Whether recorded history is being delivered; false exactly while new events are (rule 5)."""
        return self._is_replaying

    @property
    def current_utc_datetime(self) -> datetime:
        """Time at which the present turn began, aware; the same in each replay, and never running back (rule 3)."""
        return from_micros(self._now)

    @property
    def custom_status(self) -> Any:
        """The custom status that this generation has set."""
        return codec.decode(self._custom_status)

    # -- calls

    def call_activity(self, activity: object, input: Any = None, *, retry_policy: RetryPolicy | None = None) -> Task:
        """Call an activity, by function or name, with one input value.

        Args:
            activity: the function or its registered name.
            input: any JSON value.
            retry_policy: when and how often to call it again if it fails.
        """
        name = check_name("activity", self._name_of(activity))
        text = self._encode(input, f"input of activity {name!r}")
        return self._call(lambda attempt, first: self._schedule(name, text, attempt, first), retry_policy, "Activity")

    def call_sub_orchestrator(
        self,
        orchestrator: object,
        input: Any = None,
        *,
        instance_id: str | None = None,
        retry_policy: RetryPolicy | None = None,
        version: str | None = None,
    ) -> Task:
        """Run another orchestrator as a child and wait for its output (SUB-2).

        Args:
            orchestrator: the function or its registered name.
            input: any JSON value.
            instance_id: the child's id; otherwise one is derived.
            retry_policy: when and how often to run it anew if it fails.
            version: the child's version; otherwise the worker's default.
        """
        name = check_name("orchestrator", self._name_of(orchestrator))
        text = self._encode(input, f"input of orchestrator {name!r}")
        given = None if instance_id is None else check_instance_id(instance_id)
        version = None if version is None else check_version(version)

        def create(_attempt: int, first: int) -> CallTask:
            task_id = self._next_id()
            child = given or child_instance_id(self.instance_id, self.execution_id, task_id)
            if given is None and self._is_replaying:
                self._made_up_ids.add(task_id)
            event = SubOrchestrationCreated(task_id, name, child, child_execution_id(self.execution_id, task_id), text, version)
            return self._open_call(event, ChildTask(self._order, first or task_id), task_id)

        return self._call(create, retry_policy, "Sub-orchestration")

    def create_timer(self, when: datetime | timedelta) -> TimerTask:
        """A durable timer: a moment (naive: UTC) or a delay from the context's clock (TIM-1)."""
        self._check_open()
        return self._timer(fire_time(when, self._now))

    def wait_for_external_event(self, name: str, *, timeout: datetime | timedelta | None = None, default: Any = NOT_GIVEN) -> Task:
        """Wait for an external event; the result is its data.

        Args:
            name: the event's name, whatever its case.
            timeout: how long to wait, or until when.
            default: the result when the time is over; without one, EventTimeoutError is raised (rule 22).
        """
        self._check_open()
        check_name("event", name)
        fire_at = None if timeout is None else fire_time(timeout, self._now)
        event = EventTask(self._order, name)
        event._on_cancel = lambda: self._mailbox.forget(event)
        timer = None if fire_at is None else self._timer(fire_at)
        self._mailbox.wait(event)
        if timer is None:
            return event
        return TimedEventTask(self._order, event, timer, default)

    def send_event(self, instance_id: str, name: str, data: Any = None) -> None:
        """Send an external event to another instance; it is dropped when there is none (EVT-6)."""
        if str(instance_id).startswith("@"):
            raise InvalidArgumentError(f"The instance id {instance_id!r} begins with '@': entities are signalled, they take no events")
        check_instance_id(instance_id)
        check_name("event", name)
        text = self._encode(data, "event data")
        self._recorder.note(EventSent(self._next_id(), instance_id, name, text))

    # -- groups

    def when_all(self, tasks: Iterable[Task]) -> Task:
        """All of these: the results in order, or the first failure."""
        return self._ordered(when_all(tasks))

    def when_all_settled(self, tasks: Iterable[Task]) -> Task:
        """All of these, however they end: the list of the tasks."""
        return self._ordered(when_all_settled(tasks))

    def when_any(self, tasks: Iterable[Task]) -> Task:
        """The first of these: that task."""
        return when_any(tasks)

    # -- names of Azure's SDK

    task_all = when_all
    task_any = when_any

    def call_activity_with_retry(self, name: object, retry_options: RetryPolicy, input_: Any = None) -> Task:
        """The same as call_activity with a retry policy."""
        return self.call_activity(name, input_, retry_policy=retry_options)

    def call_sub_orchestrator_with_retry(self, name: object, retry_options: RetryPolicy, input_: Any = None, instance_id: str | None = None) -> Task:
        """The same as call_sub_orchestrator with a retry policy."""
        return self.call_sub_orchestrator(name, input_, instance_id=instance_id, retry_policy=retry_options)

    # -- the instance itself

    def continue_as_new(self, input: Any = None, *, save_events: bool = True, version: str | None = None) -> None:
        """Begin anew with an empty history when the orchestrator returns or yields; the first call counts (rules 31 to 34).

        Args:
            input: the new generation's input.
            save_events: carry over the external events nobody has read yet.
            version: the new generation's version; otherwise the same.
        """
        self._check_open()
        text = self._encode(input, "input")
        version = self.version if version is None else check_version(version)
        if self._next is None:
            self._next = (text, save_events, version)

    def set_custom_status(self, value: Any) -> None:
        """Set the status that clients see; None removes it (rule 48, SCH-7)."""
        self._check_open()
        limits = self._limits
        self._custom_status = codec.encode(value, what="custom status", max_bytes=limits.custom_status_bytes, max_depth=limits.payload_depth)
        self._custom_status_changed = True

    def new_uuid(self) -> uuid.UUID:
        """A UUID that is the same in each replay and different everywhere else (rule 4)."""
        self._uuids += 1
        return derived_uuid(self.execution_id, self._uuids)

    def create_replay_safe_logger(self, logger: logging.Logger) -> ReplaySafeLogger:
        """A logger that is silent while recorded history is delivered (DET-11)."""
        return ReplaySafeLogger(logger, self)

    # -- helpers

    def _schedule(self, name: str, text: str | None, attempt: int, first: int) -> CallTask:
        task_id = self._next_id()
        first = first or task_id
        return self._open_call(TaskScheduled(task_id, name, text, attempt, first), ActivityTask(self._order, first), task_id)

    def _open_call(self, event: HistoryEvent, task: CallTask, task_id: int) -> CallTask:
        self._tasks[task_id] = task
        self._recorder.note(event)
        return task

    def _call(self, begin: Callable[[int, int], CallTask], policy: RetryPolicy | None, what: str) -> Task:
        self._check_open()
        if policy is None:
            return begin(1, 0)
        if not isinstance(policy, RetryPolicy):
            raise InvalidArgumentError(f"retry_policy is a RetryPolicy, not {type(policy).__name__}")
        first_id = 0
        began = self._now

        def attempt(number: int) -> Task:
            nonlocal first_id
            task = begin(number, first_id)
            first_id = first_id or task.task_id
            return task

        def plan(number: int, error: TaskFailedError) -> TimerTask | None:
            start = policy.next_attempt_at(attempt=number, first_attempt_at=began, now=self._now, failure=error.details)
            return None if start is None else self._timer(start)

        return RetryingTask(self._order, attempt, plan)

    def _timer(self, fire_at: Micros) -> TimerTask:
        task_id = self._next_id()

        def cancelled() -> None:
            self._tasks.pop(task_id, None)
            self._recorder.timer_cancelled(task_id)

        task = TimerTask(self._order, task_id, fire_at, cancelled)
        self._tasks[task_id] = task
        self._recorder.note(TimerCreated(task_id, fire_at))
        return task

    def _ordered(self, group: Task) -> Task:
        if isinstance(group, WhenAll | WhenAllSettled) and group.order is not self._order:
            group.order = self._order
            group.completion = self._order.next()
        return group

    def _next_id(self) -> int:
        self._check_open()
        self._last_task_id += 1
        return self._last_task_id

    def _encode(self, value: Any, what: str) -> str | None:
        return codec.encode(value, what=what, max_bytes=self._limits.payload_bytes, max_depth=self._limits.payload_depth)

    def _check_open(self) -> None:
        if self._is_closed and self._refusals < _MAX_REFUSALS:
            self._refusals += 1
            raise ContextClosedError("This execution was abandoned; its code is no longer running as part of the instance")


class ReplaySafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Passes on to a logger, except while the orchestrator replays."""

    def __init__(self, logger: logging.Logger, context: OrchestrationContext) -> None:
        super().__init__(logger, {})
        self._context = context

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave message and arguments as they are."""
        return msg, kwargs

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name logging gave it
        """Whether a record of that level would be emitted now."""
        return not self._context.is_replaying and super().isEnabledFor(level)
