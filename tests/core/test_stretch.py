"""A failure for too many calls leaves none of the calls of its stretch behind, warm and cold, and can be rewound."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from flask_durable.core.context import LimitExceededError, Limits, OrchestrationContext
from flask_durable.core.events import EventRaised, ExecutionCompleted, ExecutionStarted, TaskCompleted, TaskFailed, TaskScheduled
from flask_durable.core.failure import TaskFailedError
from flask_durable.core.rewind import plan

from .driver import BOOM, Driver

Ctx = OrchestrationContext
Code = Generator[Any, Any, Any]
LIMITS = Limits(actions_per_turn=3)


def ask_for_all(ctx: Ctx) -> None:
    """Four calls of all kinds."""
    ctx.call_activity("a")
    ctx.call_sub_orchestrator("child")
    ctx.send_event("other", "news")
    ctx.call_activity("a")


def at_once(ctx: Ctx) -> Code:
    ask_for_all(ctx)
    yield


def for_another_reason(ctx: Ctx) -> Code:
    try:
        ask_for_all(ctx)
    except Exception as error:
        raise ValueError("no") from error
    yield


@pytest.mark.parametrize("main", [at_once, for_another_reason])
def test_what_was_asked_for_before_a_failure_for_too_many_calls_never_happened(main: Callable[..., Any]) -> None:  # rule 10
    driver = Driver(main, limits=LIMITS)
    turn = driver.first
    assert [type(each) for each in turn.events] == [ExecutionStarted, ExecutionCompleted]
    assert (turn.status, turn.children, turn.sent_events, turn.activities) == ("Failed", [], [], [])
    assert driver.replayed().nondeterminism is None


def test_code_that_does_with_the_calls_it_got_has_them(  # rule 10
) -> None:
    def main(ctx: Ctx) -> Code:
        tasks = []
        try:
            for _ in range(5):
                tasks.append(ctx.call_activity("a"))
        except LimitExceededError:
            ctx.set_custom_status("enough")
        yield ctx.when_all(tasks)

    driver = Driver(main, limits=LIMITS)
    assert [each.task_id for each in driver.first.activities] == [1, 2, 3]
    assert driver.replayed().nondeterminism is None
    assert driver.give(*(TaskCompleted(number) for number in (1, 2, 3))).status == "Completed"


@pytest.mark.parametrize("is_cold", [False, True])
def test_calls_of_earlier_stretches_of_the_turn_stay(is_cold: bool) -> None:  # rule 10
    def main(ctx: Ctx) -> Code:
        yield ctx.wait_for_external_event("x")
        ctx.call_activity("first")
        yield ctx.wait_for_external_event("x")
        ask_for_all(ctx)

    driver = Driver(main, limits=LIMITS, is_cold=is_cold)
    turn = driver.give(EventRaised("x"), EventRaised("x"))
    assert [type(each) for each in turn.events] == [EventRaised, TaskScheduled, EventRaised, ExecutionCompleted]
    assert driver.replayed().nondeterminism is None
    assert turn.events[-1].sound_until == 1  # type: ignore[attr-defined]


def test_a_rewind_for_a_failed_call_begins_before_the_stretch_that_asked_too_much() -> None:  # rules 10, 45
    # Given code that asks for too much because of a failed call, which it sees after it has asked for something
    def main(ctx: Ctx) -> Code:
        call, event = ctx.call_activity("a"), ctx.wait_for_external_event("x")
        yield ctx.when_any([event])
        ctx.call_activity("between")
        yield ctx.wait_for_external_event("x")
        ctx.call_activity("before")
        try:
            call.get_result()
        except TaskFailedError:
            ask_for_all(ctx)
        return "through"

    driver = Driver(main, limits=LIMITS)
    driver.give(TaskFailed(1, BOOM))
    turn = driver.give(EventRaised("x"), EventRaised("x"))
    ended = turn.events[-1]
    assert isinstance(ended, ExecutionCompleted)
    assert turn.status == "Failed"

    # Then the history is sound up to what is written of it
    assert [type(each) for each in turn.events] == [EventRaised, TaskScheduled, EventRaised, ExecutionCompleted]
    assert (ended.blamed, ended.sound_until) == ((1,), 5)

    # And after a rewind the call is made again, the event comes again, and the code goes on
    planned = plan(driver.history)
    assert [each.task_id for each in planned.activities] == [1, 2]
    assert [type(message.event) for message in planned.messages] == [EventRaised]
    driver.execution = driver._fresh()
    driver.history += [type(driver.history[-1])(len(driver.history) + 1, driver.now, planned.event)]
    driver.execution.replay(driver.history)
    assert driver.execution.nondeterminism is None
    assert driver.done(1).status == "Running"
    turn = driver.give(EventRaised("x"))
    assert turn.status == "Completed", turn
