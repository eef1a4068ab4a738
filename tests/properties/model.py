"""The model: what a generation of an instance must do, given what arrived; the rules alone, as naively as they can be written.

It shares nothing with the package but the history's event classes. Groups are not told of anything: after each arrival all open tasks are
looked at again until nothing changes.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from flask_durable import RetryPolicy

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TaskFailedError(Exception):
    pass


class SubOrchestrationFailedError(Exception):
    pass


class EventTimeoutError(Exception):
    pass


class TaskCancelledError(Exception):
    pass


class MTask:
    """A task; ``moment`` is when it was complete, in the order of all such moments."""

    def __init__(self, model: Model, members: tuple[MTask, ...] = ()) -> None:
        self.model = model
        self.members = members
        self.moment: int | None = None
        self.error: Exception | None = None
        self.value: Any = None
        model.tasks.append(self)

    @property
    def is_complete(self) -> bool:
        return self.moment is not None

    @property
    def is_failed(self) -> bool:
        return self.error is not None

    @property
    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value

    def get_exception(self) -> Exception | None:
        return self.error

    def end(self, value: Any = None, error: Exception | None = None) -> None:
        if self.moment is None:
            self.value, self.error, self.moment = value, error, self.model.next_moment()

    def look(self) -> None:
        """Complete it if it is by now."""

    def cancel(self) -> bool:
        if self.is_complete:
            return False
        self.end(error=TaskCancelledError("The task was cancelled"))
        self.model.settle()
        return True


class MCall(MTask):
    """One attempt of an activity or a child; ``first`` is the number of the call."""

    def __init__(self, model: Model, kind: str, number: int, first: int) -> None:
        super().__init__(model)
        self.kind, self.number, self.first = kind, number, first


class MTimer(MTask):
    def __init__(self, model: Model, number: int, fire_at: int) -> None:
        super().__init__(model)
        self.number, self.fire_at = number, fire_at


class MWait(MTask):
    """A wait for an event; it takes none once it has been yielded and is not being yielded now (rule 21)."""

    def __init__(self, model: Model, name: str) -> None:
        super().__init__(model)
        self.name = name.casefold()
        self.was_yielded = False


class MTimedWait(MTask):
    """A wait with a deadline (rule 22)."""

    def __init__(self, model: Model, wait: MWait, timer: MTimer, name: str, default: Any) -> None:
        super().__init__(model, (wait,))
        self.wait, self.timer, self.name, self.default = wait, timer, name, default

    def look(self) -> None:
        if self.is_complete:
            self.wait.end(error=TaskCancelledError())
            self.timer.end(error=TaskCancelledError())
        elif self.wait.is_complete:
            self.end(self.wait.value)
        elif self.timer.is_complete and self.default is Model.NOTHING:
            self.end(error=EventTimeoutError(f"The external event {self.name!r} did not come in time"))
        elif self.timer.is_complete:
            self.end(self.default)


class MRetried(MTask):
    """A call under a retry policy: one task, whatever its attempts do (rules 25, 27; RTY-1, RTY-2)."""

    def __init__(self, model: Model, policy: RetryPolicy, begin: Callable[[int, int], MCall]) -> None:
        super().__init__(model)
        self.policy, self.begin, self.attempt, self.began = policy, begin, 1, model.now
        self.call = begin(1, 0)
        self.timer: MTimer | None = None

    def look(self) -> None:
        if self.is_complete or not self.call.is_complete:
            return
        if self.timer is not None:
            if self.timer.is_complete:
                self.timer = None
                self.attempt += 1
                self.call = self.begin(self.attempt, self.call.first)
            return
        wait = micros(self.policy.first_retry_interval) * int(self.policy.backoff_coefficient) ** (self.attempt - 1)
        timeout = micros(self.policy.retry_timeout)
        is_late = self.policy.retry_timeout is not None and self.model.now + wait - self.began > timeout
        if not self.call.is_failed or self.attempt == self.policy.max_number_of_attempts or is_late:
            self.end(self.call.value, self.call.error)
        else:
            self.timer = self.model.timer(self.model.now + wait)


class MAll(MTask):
    """The results, or the first failure at once (rule 12)."""

    def look(self) -> None:
        failed = [member for member in self.members if member.is_failed]
        if failed:
            self.end(error=min(failed, key=lambda member: member.moment or 0).error)
        elif all(member.is_complete for member in self.members):
            self.end([member.value for member in self.members])


class MSettled(MTask):
    def look(self) -> None:
        if all(member.is_complete for member in self.members):
            self.end(list(self.members))


class MFirst(MTask):
    """What was complete first, whatever its place in the list (rule 14)."""

    def look(self) -> None:
        done = [member for member in self.members if member.is_complete]
        if done:
            self.end(min(done, key=lambda member: member.moment or 0))


class Model:
    """One generation; it is also the context that the program is given.

    ``asked`` is what the program has asked for and nobody has seen in the history yet; ``end`` how it ended.
    """

    NOTHING = object()

    def __init__(self, function: Callable[[Any, Any], Any], *, instance_id: str, execution_id: str, new_uuid: Callable[[], Any]) -> None:
        self.function = function
        self.instance_id = instance_id
        self.execution_id = execution_id
        self.new_uuid = new_uuid
        self.tasks: list[MTask] = []
        self.asked: deque[tuple[Any, ...]] = deque()
        self.end: tuple[Any, ...] | None = None
        self.custom_status: Any = Model.NOTHING
        self.now = 0
        self.moments = 0
        self.number = 0
        self.kept: list[tuple[str, Any]] = []
        self.calls: dict[tuple[str, int], MTask] = {}
        self.following: tuple[Any, bool] | None = None
        self.root: MTask | None = None

    # -- what arrives

    def start(self, input: Any) -> None:
        self.code = self.function(self, input)
        self.run(lambda: next(self.code))

    def arrive(self, kind: str, number: int, value: Any = None, failure: str | None = None) -> None:
        """The outcome of a call or a timer; one that nobody waits for is ignored (DET-8)."""
        task = self.calls.pop((kind, number), None)
        if self.end is not None or task is None or task.is_complete:
            return
        if failure is None:
            task.end(value)
        else:
            first = task.first if isinstance(task, MCall) else 0
            is_child = kind == "child"
            text = f"{'Sub-orchestration' if is_child else 'Activity'} task #{first} failed: {failure}"
            task.end(error=SubOrchestrationFailedError(text) if is_child else TaskFailedError(text))
        self.go_on()

    def event(self, name: str, data: Any) -> None:
        """An event goes to the oldest wait in what is being yielded, else to the oldest never yielded, else it is kept (rule 21)."""
        if self.end is not None:
            return
        folded = name.casefold()
        awake = [wait for wait in self.awake() if wait.name == folded]
        fresh = [wait for wait in self.waits() if wait.name == folded and not wait.was_yielded]
        if awake or fresh:
            (awake or fresh)[0].end(data)
            self.go_on()
        else:
            self.kept.append((name, data))

    # -- running the program

    def go_on(self) -> None:
        self.settle()
        while self.end is None and self.root is not None and self.root.is_complete:
            root = self.root
            if root.error is not None:
                error = root.error
                self.run(lambda error=error: self.code.throw(error))
            else:
                self.run(lambda value=root.value: self.code.send(value))

    def run(self, step: Callable[[], Any]) -> None:
        try:
            self.root = step()
        except StopIteration as stop:
            if self.following is not None:
                self.end = ("continued", self.following[0], [list(each) for each in self.kept] if self.following[1] else [])
            else:
                self.end = ("Completed", as_json(stop.value))
            return
        except Exception as error:  # noqa: BLE001 - the program failed
            self.end = ("Failed", type(error).__name__, str(error))
            return
        for task in tree(self.root, open_only=False):
            if isinstance(task, MWait):
                task.was_yielded = True
        self.take_kept()
        self.go_on()

    def take_kept(self) -> None:
        while True:
            wanted = [(wait, each) for wait in self.awake() for each in self.kept if each[0].casefold() == wait.name]
            if not wanted:
                return
            wait, each = wanted[0]
            self.kept.remove(each)
            wait.end(each[1])
            self.settle()

    def waits(self) -> list[MWait]:
        return [task for task in self.tasks if isinstance(task, MWait) and not task.is_complete]

    def awake(self) -> list[MWait]:
        found = set(tree(self.root, open_only=True)) if self.root is not None else set()
        return [wait for wait in self.waits() if wait in found]

    def settle(self) -> None:
        before = -1
        while before != self.moments + self.number:
            before = self.moments + self.number
            for task in list(self.tasks):
                if not task.is_complete or isinstance(task, MTimedWait):
                    task.look()

    def next_moment(self) -> int:
        self.moments += 1
        return self.moments

    def next_number(self) -> int:
        self.number += 1
        return self.number

    # -- the context

    @property
    def current_utc_datetime(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.now)

    def call_activity(self, name: str, input: Any, *, retry_policy: RetryPolicy | None) -> MTask:
        def begin(attempt: int, first: int) -> MCall:
            number = self.next_number()
            self.asked.append(("activity", number, name, as_json(input), attempt, first or number))
            return self.call("activity", number, first)

        return begin(1, 0) if retry_policy is None else MRetried(self, retry_policy, begin)

    def call_sub_orchestrator(self, name: str, input: Any, *, instance_id: str | None, retry_policy: RetryPolicy | None) -> MTask:
        def begin(_attempt: int, first: int) -> MCall:
            number = self.next_number()
            self.asked.append(("child", number, name, as_json(input), instance_id))
            return self.call("child", number, first)

        return begin(1, 0) if retry_policy is None else MRetried(self, retry_policy, begin)

    def call(self, kind: str, number: int, first: int) -> MCall:
        task = MCall(self, kind, number, first or number)
        self.calls[kind, number] = task
        return task

    def create_timer(self, delay: timedelta) -> MTimer:
        return self.timer(self.now + micros(delay))

    def timer(self, fire_at: int) -> MTimer:
        number = self.next_number()
        self.asked.append(("timer", number, fire_at))
        task = MTimer(self, number, fire_at)
        self.calls["timer", number] = task
        return task

    def wait_for_external_event(self, name: str, *, timeout: timedelta | None = None, default: Any = NOTHING) -> MTask:
        timer = None if timeout is None else self.create_timer(timeout)
        wait = MWait(self, name)
        for each in self.kept:
            if each[0].casefold() == wait.name:
                self.kept.remove(each)
                wait.end(each[1])
                break
        task: MTask = wait if timer is None else MTimedWait(self, wait, timer, name, default)
        self.settle()
        return task

    def send_event(self, instance_id: str, name: str, data: Any) -> None:
        self.asked.append(("event", self.next_number(), instance_id, name, as_json(data)))

    def when_all(self, tasks: list[MTask]) -> MTask:
        return self.group(MAll(self, tuple(tasks)))

    def when_all_settled(self, tasks: list[MTask]) -> MTask:
        return self.group(MSettled(self, tuple(tasks)))

    def when_any(self, tasks: list[MTask]) -> MTask:
        return self.group(MFirst(self, tuple(tasks)))

    def group(self, task: MTask) -> MTask:
        self.settle()
        return task

    def set_custom_status(self, value: Any) -> None:
        self.custom_status = value

    def continue_as_new(self, input: Any, *, save_events: bool) -> None:
        self.following = (as_json(input), save_events)


def tree(root: MTask, *, open_only: bool) -> Iterator[MTask]:
    """A task and all that it is made of; ``open_only`` leaves out what is complete, with all below it."""
    if open_only and root.is_complete:
        return
    yield root
    for member in root.members:
        yield from tree(member, open_only=open_only)


def micros(value: float | timedelta | None) -> int:
    return 0 if value is None else (value if isinstance(value, timedelta) else timedelta(seconds=value)) // timedelta(microseconds=1)


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
