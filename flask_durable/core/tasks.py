"""Tasks: what an orchestrator yields; single ones and groups. They know nothing of history."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from flask_durable.core import codec
from flask_durable.core.blame import handled_by_policy, see
from flask_durable.core.failure import TaskFailedError
from flask_durable.core.times import Micros
from flask_durable.core.typed import ValueType
from flask_durable.errors import InvalidArgumentError, TaskCancelledError, TaskNotCompleteError, TypeMismatchError


class Task:
    """Something that will have a result; yield it or await it.

    ``completion`` is the place in the order in which the tasks of an execution were recorded as complete (rule 14); None while open.
    """

    __slots__ = ("_error", "_parents", "_read", "_result", "_text", "completion", "order")

    def __init__(self, order: Completions) -> None:
        self.order = order
        self.completion: int | None = None
        self._result: Any = None
        self._text: str | None = None
        self._read: Callable[[str | None], Any] | None = None
        self._error: Exception | None = None
        self._parents: list[Task] = []

    @property
    def is_complete(self) -> bool:
        """Whether there is a result, a failure or a cancellation."""
        self.show()
        return self.completion is not None

    @property
    def is_completed(self) -> bool:
        """The same, by the name it has in Azure's SDK."""
        return self.is_complete

    @property
    def is_failed(self) -> bool:
        """Whether asking for the result raises."""
        self.show()
        return self._error is not None

    @property
    def result(self) -> Any:
        """The result; see :meth:`get_result`."""
        return self.get_result()

    def get_result(self) -> Any:
        """The result of a complete task.

        Raises:
            TaskNotCompleteError: the task is still open.
            Exception: what made the task fail (TSK-5).
        """
        if self.completion is None:
            raise TaskNotCompleteError("The task is still open; yield it and use what the yield gives")
        self.show(is_raised=True)
        return self.value()

    def get_exception(self) -> Exception | None:
        """What made the task fail, or None."""
        self.show()
        return self._error

    def value(self) -> Any:
        """The result, for this package's own use: the code does not learn of it.

        Raises:
            Exception: what made the task fail.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._text is not None:
            self._result, self._text = codec.decode(self._text), None
        return self._result

    def show(self, *, is_raised: bool = False) -> None:
        """The code learns how the task ended: which failures it knows of from now on decides about a rewind (core/blame.py)."""
        if self._error is not None:
            see(self._error, is_raised=is_raised)

    def __await__(self) -> Generator[Task, Any, Any]:
        """Wait for the task in an ``async def`` orchestrator."""
        return (yield self)

    def complete(self, value: Any) -> None:
        """Give the task its result; a second one is ignored (DET-8)."""
        if self.completion is None:
            self._result = value
            self._end()

    def complete_with_text(self, text: str | None) -> None:
        """Give the task its result as JSON text, which is decoded when somebody asks; one that does not fit its declared type makes it fail."""
        if self.completion is not None:
            return
        if self._read is None:
            self._text = text
            self._end()
            return
        try:
            value = self._read(text)
        except TypeMismatchError as error:
            self.fail(error)
        else:
            self.complete(value)

    def read_by(self, kind: ValueType, what: str) -> None:
        """Let the result be of that type.

        Args:
            kind: the type.
            what: the result's name in error messages.
        """
        if kind.reader is not None:
            self._read = functools.partial(kind.decode, what=what)

    def fail(self, error: Exception) -> None:
        """Make the task fail."""
        if self.completion is None:
            self._error = error
            self._end()

    def members(self) -> Sequence[Task]:
        """What this group is made of, when the orchestrator holds it too."""
        return ()

    def belongs_to(self, root: Task) -> bool:
        """Whether this task is that one, or is in that group at any depth and its groups on the way there are still open."""
        seen: set[Task] = {self}
        todo: list[Task] = [self]
        while todo:
            task = todo.pop()
            if task is root:
                return True
            for parent in task._parents:
                if parent.completion is None and parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        return False

    def add_parent(self, group: Task) -> None:
        """Tell the group when this task is complete."""
        parents = self._parents
        parents.append(group)
        size = len(parents)
        if size >= 16 and size & (size - 1) == 0:  # a task that many groups have had in turn must not remember them all
            self._parents = [parent for parent in parents if parent.completion is None]

    def child_completed(self, child: Task) -> None:
        """Called by a member of this group when it is complete."""
        raise NotImplementedError

    def _end(self) -> None:
        self.completion = self.order.next()
        parents, self._parents = self._parents, []
        for parent in parents:
            parent.child_completed(self)


class Completions:
    """Counts completions within one execution."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def next(self) -> int:
        """The next place in the order."""
        self._count += 1
        return self._count


class CallTask(Task):
    """A call of an activity or a child orchestration: one attempt."""

    __slots__ = ("task_id",)

    def __init__(self, order: Completions, task_id: int) -> None:
        super().__init__(order)
        self.task_id = task_id


class ActivityTask(CallTask):
    """A call of an activity."""

    __slots__ = ()


class ChildTask(CallTask):
    """A run of a child orchestration."""

    __slots__ = ()


class CancellableTask(Task):
    """A task that the orchestrator can call off: a timer or a wait for an event."""

    __slots__ = ("_on_cancel", "is_cancelled")

    def __init__(self, order: Completions, on_cancel: Callable[[], None] | None = None) -> None:
        super().__init__(order)
        self._on_cancel = on_cancel
        self.is_cancelled = False

    def cancel(self) -> bool:
        """Call the task off; false when it is complete already (TIM-3)."""
        if self.completion is not None:
            return False
        self.is_cancelled = True
        self.fail(TaskCancelledError("The task was cancelled"))
        if self._on_cancel is not None:
            self._on_cancel()
        return True


class TimerTask(CancellableTask):
    """A durable timer."""

    __slots__ = ("fire_at", "task_id")

    def __init__(self, order: Completions, task_id: int, fire_at: Micros, on_cancel: Callable[[], None]) -> None:
        super().__init__(order, on_cancel)
        self.task_id = task_id
        self.fire_at = fire_at


class RetryingTask(Task):
    """A call that is made again when it fails: one task to whoever holds it (rule 27).

    Args:
        begin: makes attempt number n and returns its task.
        plan: called with the failed attempt's number and error; returns the timer to wait for, or None to give up.
        began: time of the first attempt.
    """

    __slots__ = ("_attempt", "_begin", "_plan", "began")

    def __init__(
        self, order: Completions, begin: Callable[[int], Task], plan: Callable[[int, TaskFailedError], TimerTask | None], began: Micros = 0
    ) -> None:
        super().__init__(order)
        self.began = began
        self._attempt = 1
        self._begin = begin
        self._plan = plan
        begin(1).add_parent(self)

    def start_over(self, now: Micros) -> None:
        """A rewind makes the present attempt again: it counts as the first one, made now (rule 45)."""
        self._attempt, self.began = 1, now

    def child_completed(self, child: Task) -> None:
        """An attempt ended, or the wait before the next one."""
        if isinstance(child, TimerTask):
            self._attempt += 1
            self._begin(self._attempt).add_parent(self)
            return
        error = child._error
        if error is None:
            self.complete(child.value())
            return
        try:
            timer = self._plan(self._attempt, error) if isinstance(error, TaskFailedError) else None
        except Exception as broken:  # noqa: BLE001 - the handler is user code: what it raises fails the call (rule 25)
            self.fail(broken)
            return
        if timer is None:
            self.fail(error)
        else:
            timer.add_parent(self)
            handled_by_policy(error)


class Group(Task):
    """Several tasks as one."""

    __slots__ = ("_members",)

    def __init__(self, order: Completions, members: Sequence[Task]) -> None:
        super().__init__(order)
        self._members = list(members)

    def members(self) -> Sequence[Task]:
        """The tasks of the group, in the order given."""
        return self._members

    def show(self, *, is_raised: bool = False) -> None:
        """The code learns how the group ended, and how the tasks did that it gets as the result."""
        super().show(is_raised=is_raised)
        todo, shown = [self._result], set()
        while todo:
            result = todo.pop()
            for task in result if isinstance(result, list) else (result,):
                if isinstance(task, Task) and id(task) not in shown:
                    shown.add(id(task))
                    Task.show(task)
                    todo.append(task._result)


class WhenAll(Group):
    """All of a group: the results in the order given, or the first failure at once (rules 11 to 13, TSK-1)."""

    __slots__ = ("_open",)

    def __init__(self, order: Completions, members: Sequence[Task]) -> None:
        super().__init__(order, members)
        self._open = 0
        failed = [member for member in self._members if member._error is not None]
        if failed:
            first = min(failed, key=_completion)
            self._fail_like(first)
            return
        for member in self._members:
            if member.completion is None:
                self._open += 1
                member.add_parent(self)
        self._check()

    def child_completed(self, child: Task) -> None:
        """One member is complete."""
        self._open -= 1
        if self.completion is not None:
            return
        if child._error is not None:
            self._fail_like(child)
        else:
            self._check()

    def _fail_like(self, member: Task) -> None:
        error = member._error
        if error is not None:
            self.fail(error)

    def _check(self) -> None:
        if self._open == 0:
            self.complete([member.value() for member in self._members])


class WhenAllSettled(Group):
    """All of a group, however they end: the result is the list of the tasks, and nothing is raised (rule 12)."""

    __slots__ = ("_open",)

    def __init__(self, order: Completions, members: Sequence[Task]) -> None:
        super().__init__(order, members)
        open_members = [member for member in self._members if member.completion is None]
        self._open = len(open_members)
        for member in open_members:
            member.add_parent(self)
        self._check()

    def child_completed(self, child: Task) -> None:
        """One member is complete."""
        self._open -= 1
        self._check()

    def _check(self) -> None:
        if self._open == 0:
            self.complete(list(self._members))


class WhenAny(Group):
    """The first of a group to complete or fail: the result is that task itself (rule 14, TSK-3)."""

    __slots__ = ()

    def __init__(self, order: Completions, members: Sequence[Task]) -> None:
        super().__init__(order, members)
        done = [member for member in members if member.completion is not None]
        if done:
            self.complete(min(done, key=_completion))
            return
        for member in members:
            member.add_parent(self)

    def child_completed(self, child: Task) -> None:
        """A member is complete; the first one wins."""
        self.complete(child)


def when_all(tasks: Iterable[Task]) -> Task:
    """A task for all of these; see :class:`WhenAll`. Of nothing: an empty list, at once."""
    members = _members("when_all", tasks)
    return WhenAll(_order(members), members)


def when_all_settled(tasks: Iterable[Task]) -> Task:
    """A task for all of these that never raises; see :class:`WhenAllSettled`."""
    members = _members("when_all_settled", tasks)
    return WhenAllSettled(_order(members), members)


def when_any(tasks: Iterable[Task]) -> Task:
    """A task for the first of these; see :class:`WhenAny`.

    Raises:
        InvalidArgumentError: of nothing: it would wait for ever (rule 11).
    """
    members = _members("when_any", tasks)
    if not members:
        raise InvalidArgumentError("when_any needs at least one task: of none, none can ever be the first")
    return WhenAny(_order(members), members)


def not_a_task(yielded: object) -> InvalidArgumentError:
    """The error for an orchestrator that yields something else (rule 6); it names no address, so that each replay says the same."""
    if isinstance(yielded, list | tuple):
        return InvalidArgumentError("The orchestrator yielded a list; yield ctx.when_all([...]) for all of them or ctx.when_any([...]) for the first")
    return InvalidArgumentError(
        f"The orchestrator yielded a {_shown(yielded)}, which is no task. "
        "Yield what ctx.call_activity, ctx.create_timer, ctx.wait_for_external_event and the like return"
    )


def _members(name: str, tasks: Iterable[Task]) -> list[Task]:
    if isinstance(tasks, Task) or not isinstance(tasks, Iterable):
        raise InvalidArgumentError(f"{name} takes a list of tasks, not a {_shown(tasks)}")
    members = list(tasks)
    for member in members:
        if not isinstance(member, Task):
            raise InvalidArgumentError(f"{name} takes tasks; its list holds a {_shown(member)}")
    return members


def _order(members: Sequence[Task]) -> Completions:
    # Groups of nothing belong to no execution; what is open always does.
    for member in members:
        if member.completion is None:
            return member.order
    return members[0].order if members else Completions()


def _completion(task: Task) -> int:
    return task.completion or 0


def _shown(value: object) -> str:
    name = type(value).__name__
    return f"{name}: {value!r:.100}" if type(value) in (str, int, float, bool) else name
