from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from flask_durable.core.failure import TaskFailedError
from flask_durable.core.tasks import (
    CallTask,
    Completions,
    RetryingTask,
    Task,
    TimerTask,
    WhenAny,
    not_a_task,
    when_all,
    when_all_settled,
    when_any,
)
from flask_durable.errors import InvalidArgumentError, TaskCancelledError, TaskNotCompleteError

from .driver import BOOM

Group = Callable[[list[Task]], Task]


class Maker:
    """Makes tasks of one execution."""

    def __init__(self) -> None:
        self.order = Completions()
        self.cancelled: list[int] = []

    def calls(self, count: int) -> list[CallTask]:
        return [CallTask(self.order, number) for number in range(1, count + 1)]

    def timer(self, task_id: int = 9) -> TimerTask:
        return TimerTask(self.order, task_id, 0, lambda: self.cancelled.append(task_id))


@pytest.fixture
def make() -> Maker:
    return Maker()


def error(text: str = "boom") -> TaskFailedError:
    return TaskFailedError(text, BOOM, 1)


# ---------------------------------------------------------------- single tasks


def test_an_open_task_has_no_result(make: Maker) -> None:  # TSK-5
    (task,) = make.calls(1)
    assert (task.is_complete, task.is_completed, task.is_failed, task.get_exception()) == (False, False, False, None)
    for ask in (lambda: task.result, task.get_result):
        with pytest.raises(TaskNotCompleteError, match="yield it"):
            ask()


@pytest.mark.parametrize("value", [None, 0, False, "", [], {"a": 1}])
def test_a_complete_task_has_its_result_none_included(make: Maker, value: Any) -> None:  # rule 26
    (task,) = make.calls(1)
    task.complete(value)
    assert (task.is_complete, task.is_failed, task.result, task.get_exception()) == (True, False, value, None)


def test_a_result_in_json_is_decoded_once_so_that_each_asking_gives_the_same(make: Maker) -> None:  # rule 6
    (task,) = make.calls(1)
    task.complete_with_text('{"a":[1]}')
    assert task.result == {"a": [1]}
    assert task.result is task.get_result()


def test_a_failed_task_raises_its_failure_as_often_as_it_is_asked(make: Maker) -> None:  # TSK-5
    (task,) = make.calls(1)
    failure = error()
    task.fail(failure)
    depths = []
    for _ in range(5):
        with pytest.raises(TaskFailedError) as caught:
            task.get_result()
        assert caught.value is failure
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1
    assert (task.is_complete, task.is_failed, task.get_exception()) == (True, True, failure)


def test_the_first_outcome_counts(make: Maker) -> None:  # DET-8
    one, other = make.calls(2)
    one.complete(1)
    one.fail(error())
    one.complete_with_text("2")
    other.fail(error())
    other.complete(1)
    assert (one.result, one.is_failed, one.completion, other.is_failed, other.completion) == (1, False, 1, True, 2)


def test_a_cancelled_timer_raises_and_says_so(make: Maker) -> None:  # TIM-3, TSK-5, rule 17
    timer = make.timer(4)
    assert timer.is_cancelled is False
    assert timer.cancel() is True
    assert (timer.is_cancelled, timer.is_complete, timer.is_failed, make.cancelled) == (True, True, True, [4])
    with pytest.raises(TaskCancelledError):
        timer.get_result()
    assert timer.cancel() is False
    assert make.cancelled == [4]


def test_a_complete_timer_cannot_be_cancelled(make: Maker) -> None:  # TIM-3
    timer = make.timer()
    timer.complete(None)
    assert (timer.cancel(), timer.is_cancelled, timer.result, make.cancelled) == (False, False, None, [])


def test_only_timers_and_events_can_be_cancelled(make: Maker) -> None:  # TSK-5
    (task,) = make.calls(1)
    assert not hasattr(task, "cancel")
    assert not hasattr(when_all([task]), "cancel")


def test_await_yields_the_task_and_gives_what_is_sent(make: Maker) -> None:
    (task,) = make.calls(1)
    awaiting = task.__await__()
    assert next(awaiting) is task
    with pytest.raises(StopIteration) as stop:
        awaiting.send("value")
    assert stop.value.value == "value"


# ---------------------------------------------------------------- all


def test_all_gives_the_results_in_the_order_of_the_tasks(make: Maker) -> None:  # TSK-1
    tasks = make.calls(3)
    group = when_all(tasks)
    for index in (2, 0, 1):
        assert not group.is_complete
        tasks[index].complete(index)
    assert group.result == [0, 1, 2]


def test_all_fails_at_the_first_failure_and_the_others_stay_valid(make: Maker) -> None:  # rule 12
    one, two, three = make.calls(3)
    group = when_all([one, two, three])
    failure = error()
    three.fail(failure)
    assert (group.is_complete, group.get_exception()) == (True, failure)
    two.fail(error("later"))
    one.complete(1)
    assert (group.get_exception(), one.result) == (failure, 1)


def test_all_counts_what_is_complete_already(make: Maker) -> None:  # TSK-4, rule 13
    one, two = make.calls(2)
    one.complete(1)
    group = when_all([one, two])
    assert not group.is_complete
    two.complete(2)
    assert group.result == [1, 2]
    assert when_all([two, one]).result == [2, 1]


def test_all_of_tasks_that_failed_already_fails_like_the_first_that_did(make: Maker) -> None:  # rule 12, TSK-4
    one, two, three = make.calls(3)
    first = error("first")
    three.fail(first)
    one.fail(error("second"))
    assert when_all([one, two, three]).get_exception() is first


@pytest.mark.parametrize(("group", "result"), [(when_all, [])])
def test_all_of_nothing_is_an_empty_list_at_once(group: Group, result: Any) -> None:  # rule 11
    assert group([]).result == result
    assert when_all_settled([]).result == []


def test_any_of_nothing_is_an_error(make: Maker) -> None:  # rule 11
    with pytest.raises(InvalidArgumentError, match="^when_any needs at least one task: of none, none can ever be the first$"):
        when_any([])


def test_a_group_of_a_group_of_nothing_waits_for_the_rest_only(make: Maker) -> None:  # rule 11, rule 13
    (task,) = make.calls(1)
    group = when_all([when_all([]), task])
    assert group.order is make.order
    task.complete(1)
    assert group.result == [[], 1]
    assert when_any([when_all([])]).result.result == []


# ---------------------------------------------------------------- settled


def test_settled_waits_for_all_and_gives_the_tasks(make: Maker) -> None:  # rule 12, TSK-2
    one, two, three = make.calls(3)
    three.complete(3)
    group = when_all_settled([one, two, three])
    one.fail(error())
    assert not group.is_complete
    two.complete(2)
    assert group.result == [one, two, three]
    assert [task.is_failed for task in group.result] == [True, False, False]
    assert when_all_settled([one]).result == [one]


# ---------------------------------------------------------------- any


@pytest.mark.parametrize("fails", [False, True])
def test_any_gives_the_first_task_to_complete_or_fail(make: Maker, fails: bool) -> None:  # TSK-3
    one, two = make.calls(2)
    group = when_any([one, two])
    if fails:
        two.fail(error())
    else:
        two.complete(2)
    one.complete(1)
    assert group.result is two
    assert not group.is_failed


def test_any_of_complete_tasks_gives_the_one_recorded_first(make: Maker) -> None:  # rule 14
    one, two, three = make.calls(3)
    three.fail(error())
    one.complete(1)
    assert when_any([one, two, three]).result is three
    assert when_any([two, one]).result is one


# ---------------------------------------------------------------- groups of groups


def test_a_task_may_be_in_several_groups_and_twice_in_one(make: Maker) -> None:  # TSK-4, rule 13
    one, two = make.calls(2)
    groups = [when_all([one, one, two]), when_all_settled([two, one, one]), when_any([one, one]), when_all([one])]
    one.complete("x")
    assert [group.is_complete for group in groups] == [False, False, True, True]
    two.complete("y")
    assert [group.result for group in groups] == [["x", "x", "y"], [two, one, one], one, ["x"]]


def test_a_failing_task_twice_in_a_group_fails_it_once(make: Maker) -> None:  # rule 13
    (one,) = make.calls(1)
    group, settled = when_all([one, one]), when_all_settled([one, one])
    failure = error()
    one.fail(failure)
    assert (group.get_exception(), settled.result) == (failure, [one, one])


def test_groups_may_contain_groups(make: Maker) -> None:  # TSK-4, rule 13
    a, b, c, d = make.calls(4)
    inner_all, inner_any = when_all([a, b]), when_any([c, d])
    outer = when_all([inner_all, inner_any])
    race = when_any([inner_all, inner_any])
    d.complete("d")
    assert race.result is inner_any
    assert inner_any.result is d
    b.complete("b")
    a.complete("a")
    assert outer.result == [["a", "b"], d]


def test_the_failure_of_an_inner_group_is_that_of_the_outer_one(make: Maker) -> None:  # rule 12, rule 13
    a, b, c = make.calls(3)
    outer = when_all([when_all([a, b]), c])
    failure = error()
    b.fail(failure)
    assert outer.get_exception() is failure


def test_groups_take_any_iterable_of_tasks(make: Maker) -> None:
    tasks = make.calls(2)
    groups = [when_all(task for task in tasks), when_all_settled(iter(tasks)), when_any(tuple(tasks))]
    for task in tasks:
        task.complete(task.task_id)
    assert [group.result for group in groups] == [[1, 2], tasks, tasks[0]]


@pytest.mark.parametrize("group", [when_all, when_all_settled, when_any])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (5, "a list of tasks, not a int: 5"),
        (None, "a list of tasks, not a NoneType"),
        ([5], "tasks; its list holds a int: 5"),
        ([[]], "tasks; its list holds a list"),
    ],
)
def test_groups_of_something_else_are_refused(group: Any, wrong: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        group(wrong)
    assert str(caught.value) == f"{group.__name__} takes {message}"


@pytest.mark.parametrize("group", [when_all, when_all_settled, when_any])
def test_groups_of_one_task_without_a_list_are_refused(make: Maker, group: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{group.__name__} takes a list of tasks, not a CallTask$"):
        group(make.calls(1)[0])


def test_a_task_belongs_to_the_open_groups_above_it(make: Maker) -> None:  # rule 21
    a, b, c, d = make.calls(4)
    inner = when_any([a, b])
    outer = when_all([inner, c])
    assert [task.belongs_to(outer) for task in (a, b, c, d, inner, outer)] == [True, True, True, False, True, True]
    b.complete(1)
    assert [a.belongs_to(outer), c.belongs_to(outer)] == [False, True]


def test_a_task_forgets_the_groups_it_was_in(make: Maker) -> None:
    (stop,) = make.calls(1)
    started = time.perf_counter()
    for number in range(20_000):
        other = CallTask(make.order, number)
        group = when_any([stop, other])
        assert stop.belongs_to(group)
        other.complete(number)
    assert len(stop._parents) <= 16
    assert time.perf_counter() - started < 2


def test_groups_that_share_all_their_members_are_walked_once(make: Maker) -> None:
    tasks = make.calls(1)
    group: Task = tasks[0]
    for _ in range(60):
        group = when_all([group, group])
    assert tasks[0].belongs_to(group)


# ---------------------------------------------------------------- retrying


class Attempts:
    """A call with retries whose attempts and waits the test ends by hand."""

    def __init__(self, make: Maker, most: int) -> None:
        self.made: list[CallTask] = []
        self.timers: list[TimerTask] = []

        def begin(number: int) -> Task:
            self.made.append(CallTask(make.order, 1))
            return self.made[-1]

        def plan(number: int, failure: TaskFailedError) -> TimerTask | None:
            if number >= most:
                return None
            self.timers.append(make.timer())
            return self.timers[-1]

        self.task = RetryingTask(make.order, begin, plan)


def test_a_call_with_retries_is_open_until_an_attempt_succeeds(make: Maker) -> None:  # rule 27, RTY-6
    attempts = Attempts(make, 3)
    attempts.made[0].fail(error())
    assert (attempts.task.is_complete, len(attempts.made), len(attempts.timers)) == (False, 1, 1)
    attempts.timers[0].complete(None)
    assert (attempts.task.is_complete, len(attempts.made)) == (False, 2)
    attempts.made[1].complete(None)
    assert (attempts.task.is_complete, attempts.task.result) == (True, None)


def test_a_call_with_retries_fails_like_its_last_attempt(make: Maker) -> None:  # RTY-4
    attempts = Attempts(make, 2)
    attempts.made[0].fail(error("first"))
    attempts.timers[0].complete(None)
    last = error("last")
    attempts.made[1].fail(last)
    assert (attempts.task.get_exception(), len(attempts.made), len(attempts.timers)) == (last, 2, 1)


def test_a_group_sees_a_call_with_retries_as_one_task(make: Maker) -> None:  # rule 27, RTY-6
    attempts, (other,) = Attempts(make, 2), make.calls(1)
    everything, race, settled = when_all([attempts.task, other]), when_any([attempts.task, other]), when_all_settled([attempts.task, other])
    attempts.made[0].fail(error())
    assert [group.is_complete for group in (everything, race, settled)] == [False] * 3
    other.complete("o")
    assert race.result is other
    attempts.timers[0].complete(None)
    attempts.made[1].complete("x")
    assert everything.result == ["x", "o"]
    assert settled.result == [attempts.task, other]


def test_a_broken_handler_fails_the_call(make: Maker) -> None:  # rule 25
    broken = KeyError("handler")

    def plan(number: int, failure: TaskFailedError) -> TimerTask | None:
        raise broken

    made: list[CallTask] = []

    def begin(number: int) -> Task:
        made.append(CallTask(make.order, 1))
        return made[-1]

    task = RetryingTask(make.order, begin, plan)
    made[0].fail(error())
    assert task.get_exception() is broken


# ---------------------------------------------------------------- what is no task


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("shy")


@pytest.mark.parametrize(
    ("yielded", "shown"),
    [(None, "NoneType"), (5, "int: 5"), ("x" * 200, "str: '" + "x" * 99), (Shy(), "Shy"), ({}, "dict"), (object(), "object"), (WhenAny, "type")],
)
def test_the_error_for_what_is_no_task_names_it_without_addresses(yielded: Any, shown: str) -> None:  # rule 6, DET-9
    assert str(not_a_task(yielded)) == (
        f"The orchestrator yielded a {shown}, which is no task. Yield what ctx.call_activity, ctx.create_timer, ctx.wait_for_external_event and the like return"
    )


@pytest.mark.parametrize("yielded", [[], [1], (1, 2)])
def test_the_error_for_a_list_says_what_to_yield_instead(yielded: Any) -> None:  # rule 6
    assert (
        str(not_a_task(yielded)) == "The orchestrator yielded a list; yield ctx.when_all([...]) for all of them or ctx.when_any([...]) for the first"
    )
