"""OrchestrationContext: what orchestrator code may ask for; every call makes a task and notes an action."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from flask_durable.core import codec
from flask_durable.core.children import LEAVE, check_on_parent_end
from flask_durable.core.events import EventSent, ExecutionStarted, HistoryEvent, SubOrchestrationCreated, TaskScheduled, TimerCreated
from flask_durable.core.failure import TaskFailedError
from flask_durable.core.ids import check_instance_id, check_name, check_version, child_execution_id, child_instance_id, derived_uuid
from flask_durable.core.mailbox import NOT_GIVEN, EventTask, Mailbox, TimedEventTask
from flask_durable.core.options import ActivityOptions, check_priority, check_retry_policy, timeout_micros
from flask_durable.core.retry import RetryPolicy
from flask_durable.core.signature import Function, Signature, activity_signature, orchestrator_signature
from flask_durable.core.tags import check_tags
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
from flask_durable.core.typed import PLAIN, ValueType, value_type
from flask_durable.errors import DurableError, InvalidArgumentError

OptionsOf = Callable[[str], ActivityOptions]
"""Gives the options of the activity of a name; the default ones when it is not registered here."""

FunctionOf = Callable[[str, str, str | None], Function | None]
"""Gives the function that is registered here as a kind (``"activity"`` or ``"orchestrator"``), name and version."""

_UNKNOWN = Signature()

_MAX_REFUSALS = 100
"""So often an abandoned execution is told so. Code that catches even that and goes on must come to a yield, where it can be left."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one instance may ask for (rule 10); sizes in bytes of JSON.

    A timer that takes longer than ``timer_interval`` is carried out in stages (TIM-5).
    """

    payload_bytes: int = codec.DEFAULT_MAX_BYTES
    payload_depth: int = codec.DEFAULT_MAX_DEPTH
    custom_status_bytes: int = 16 * 1024
    actions_per_turn: int = 100_000
    history_events: int = 1_000_000
    timer_interval: Micros | None = None

    def history_error(self) -> LimitExceededError:
        """What an instance with too many events fails with."""
        text = f"The history has more than {self.history_events} events (DURABLE_MAX_HISTORY_EVENTS); use continue_as_new to begin a new one"
        return LimitExceededError(text)


class LimitExceededError(DurableError):
    """An instance asks for more than its limits allow (rule 10)."""

    code = "limit_exceeded"


class Recorder(Protocol):
    """Where the context notes what was asked for: the execution."""

    def note(self, event: HistoryEvent) -> None:
        """An action was asked for."""

    def timer_cancelled(self, task_id: int) -> None:
        """A timer must not fire any more."""

    def met_again(self, asked: SubOrchestrationCreated, as_number: Callable[[int], SubOrchestrationCreated]) -> SubOrchestrationCreated:
        """The child that is asked for, or the same one from a turn that was taken back."""


class ContextClosedError(DurableError):
    """The context of an abandoned execution was used, in a ``finally`` block of the orchestrator."""

    code = "context_closed"


class OrchestrationContext:
    """The first argument of every orchestrator. All it gives is the same in each replay."""

    def __init__(
        self,
        started: ExecutionStarted,
        recorder: Recorder,
        limits: Limits,
        name_of: Callable[[object], str],
        options_of: OptionsOf,
        version_of: Callable[[object], str | None],
        function_of: FunctionOf,
        signature: Signature,
    ) -> None:
        self._started = started
        self._recorder = recorder
        self._limits = limits
        self._name_of = name_of
        self._options_of = options_of
        self._version_of = version_of
        self._function_of = function_of
        self._signature = signature
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
        """The instance's input, a fresh copy at each call, of the type that the orchestrator's parameter declares."""
        return self.get_input()

    def get_input(self, data_type: Any = None) -> Any:
        """The instance's input, as Azure's SDK names it.

        Args:
            data_type: the type that it is to have; otherwise that of the orchestrator's parameter.

        Raises:
            TypeMismatchError: it does not fit.
        """
        kind = self._signature.input if data_type is None else value_type(data_type, what=f"get_input of {self.name}")
        return kind.decode(self._started.input, what=f"input of orchestrator {self.name!r}")

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

    def call_activity(
        self,
        activity: object,
        input: Any = None,
        *,
        retry_policy: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        priority: int | None = None,
        return_type: Any = None,
    ) -> Task:
        """Call an activity, by function or name, with one input value.

        Args:
            activity: the function or its registered name.
            input: a value of any kind in docs/values.md.
            retry_policy: when and how often to call it again if it fails; otherwise the activity's own policy, if it is registered here.
            timeout: how long each attempt may run; otherwise the activity's own timeout.
            priority: -1000 to 1000, higher ones are taken first; otherwise the activity's own, if it is registered here.
            return_type: type of the result; otherwise the one that the activity declares, if it is registered here (rule 55).
        """
        name = check_name("activity", self._name_of(activity))
        options = self._options_of(name)
        function = activity if callable(activity) else self._function_of("activity", name, None)
        signature = _UNKNOWN if function is None else activity_signature(function)
        text = self._encode(input, f"input of activity {name!r}", signature.input)
        result, what = _result_type(signature, return_type), f"result of activity {name!r}"
        limit = timeout_micros(timeout)
        rank = options.priority if priority is None else check_priority(priority)

        def schedule(attempt: int, first: int) -> CallTask:
            task_id = self._next_id()
            task = ActivityTask(self._order, first or task_id)
            task.read_by(result, what)
            return self._open_call(TaskScheduled(task_id, name, text, attempt, task.task_id, rank, limit), task, task_id)

        return self._call(schedule, options.retry_policy if retry_policy is None else retry_policy)

    def call_sub_orchestrator(
        self,
        orchestrator: object,
        input: Any = None,
        *,
        instance_id: str | None = None,
        retry_policy: RetryPolicy | None = None,
        version: str | None = None,
        on_parent_end: str = LEAVE,
        tags: Mapping[str, str] | None = None,
        inherit_tags: bool = False,
        return_type: Any = None,
    ) -> Task:
        """Run another orchestrator as a child and wait for its output (SUB-2).

        Args:
            orchestrator: the function or its registered name.
            input: a value of any kind in docs/values.md.
            instance_id: the child's id; otherwise one is derived.
            retry_policy: when and how often to run it anew if it fails.
            version: the child's version; otherwise that of the function, or else the worker's default (VER-1, rule 49).
            on_parent_end: what becomes of the child if it is still open when this execution completes, fails or continues as new:
                ``"leave"`` lets it go on by itself, ``"terminate"`` ends it with all its open children (rule 42).
            tags: the child's tags.
            inherit_tags: give it this instance's tags too; of two values for one key the child's own counts.
            return_type: type of the output; otherwise the one that the orchestrator declares, if it is registered here (rule 55).
        """
        name = check_name("orchestrator", self._name_of(orchestrator))
        given = None if instance_id is None else check_instance_id(instance_id)
        version = self._version_of(orchestrator) if version is None else check_version(version)
        function = orchestrator if callable(orchestrator) else self._function_of("orchestrator", name, version)
        signature = _UNKNOWN if function is None else orchestrator_signature(function)
        text = self._encode(input, f"input of orchestrator {name!r}", signature.input)
        result, what = _result_type(signature, return_type), f"output of orchestrator {name!r}"
        policy = check_on_parent_end(on_parent_end)
        labels = check_tags({**self._started.tags, **check_tags(tags)} if inherit_tags else tags)

        def as_number(task_id: int) -> SubOrchestrationCreated:
            child = given or child_instance_id(self.instance_id, self.execution_id, task_id)
            return SubOrchestrationCreated(task_id, name, child, child_execution_id(self.execution_id, task_id), text, version, policy, labels)

        def create(_attempt: int, first: int) -> CallTask:
            event = self._recorder.met_again(as_number(self._next_id()), as_number)
            if given is None and self._is_replaying:
                self._made_up_ids.add(event.task_id)
            task = ChildTask(self._order, first or event.task_id)
            task.read_by(result, what)
            return self._open_call(event, task, event.task_id)

        return self._call(create, retry_policy)

    def create_timer(self, when: datetime | timedelta) -> TimerTask:
        """A durable timer: a moment (naive: UTC) or a delay from the context's clock (TIM-1)."""
        self._check_open()
        return self._timer(fire_time(when, self._now))

    def wait_for_external_event(
        self, name: str, *, timeout: datetime | timedelta | None = None, default: Any = NOT_GIVEN, data_type: Any = None
    ) -> Task:
        """Wait for an external event; the result is its data.

        Args:
            name: the event's name, whatever its case.
            timeout: how long to wait, or until when.
            default: the result when the time is over; without one, EventTimeoutError is raised (rule 22).
            data_type: type of the data; data that does not fit is taken, and raises TypeMismatchError at the yield.
        """
        self._check_open()
        check_name("event", name)
        fire_at = None if timeout is None else fire_time(timeout, self._now)
        event = EventTask(self._order, name)
        event._on_cancel = lambda: self._mailbox.forget(event)
        if data_type is not None:
            event.read_by(value_type(data_type, what=f"The event {name!r}"), f"data of event {name!r}")
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
        text = self._encode(input, "input", self._signature.input)
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

    def _open_call(self, event: HistoryEvent, task: CallTask, task_id: int) -> CallTask:
        self._tasks[task_id] = task
        self._recorder.note(event)
        return task

    def _call(self, begin: Callable[[int, int], CallTask], given: RetryPolicy | None) -> Task:
        self._check_open()
        policy = check_retry_policy(given)
        if policy is None:
            return begin(1, 0)
        first_id = 0

        def attempt(number: int) -> Task:
            nonlocal first_id
            task = begin(number, first_id)
            first_id = first_id or task.task_id
            return task

        def plan(number: int, error: TaskFailedError) -> TimerTask | None:
            start = policy.next_attempt_at(attempt=number, first_attempt_at=retrying.began, now=self._now, failure=error.details)
            return None if start is None else self._timer(start)

        retrying = RetryingTask(self._order, attempt, plan, self._now)
        return retrying

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

    def _encode(self, value: Any, what: str, kind: ValueType = PLAIN) -> str | None:
        return kind.encode(value, what=what, max_bytes=self._limits.payload_bytes, max_depth=self._limits.payload_depth)

    def _check_open(self) -> None:
        if self._is_closed and self._refusals < _MAX_REFUSALS:
            self._refusals += 1
            raise ContextClosedError("This execution was abandoned; its code is no longer running as part of the instance")


def _result_type(signature: Signature, given: Any) -> ValueType:
    return signature.result if given is None else value_type(given, what="A return_type")


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
