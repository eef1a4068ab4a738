"""Timers that are carried out in stages."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

from flask_durable.core.context import Limits, OrchestrationContext
from flask_durable.core.events import TimerFired
from flask_durable.core.execution import Execution
from flask_durable.core.retry import RetryPolicy

from .driver import SECOND, T0, Driver, event

Ctx = OrchestrationContext
Code = Generator[Any, Any, Any]
SHORT = Limits(timer_interval=10 * SECOND)


def sleeper(ctx: Ctx) -> Code:
    yield ctx.create_timer(timedelta(seconds=25))
    return ctx.current_utc_datetime.timestamp() - T0 / SECOND


def fire(driver: Driver) -> Any:
    """Let the only timer that the storage has been told of become due."""
    (timer,) = driver.turns[-1].timers
    return driver.give(TimerFired(timer.task_id, timer.fire_at), after=(timer.fire_at - driver.now) / SECOND)


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_long_timer_has_stages_and_the_code_sees_one(is_cold: bool) -> None:  # TIM-5
    driver = Driver(sleeper, limits=SHORT, is_cold=is_cold)
    stages = [driver.first.timers[0].fire_at]
    while driver.turns[-1].status == "Running":
        fire(driver)
        stages += [timer.fire_at for timer in driver.turns[-1].timers]
    assert [(stage - T0) / SECOND for stage in stages] == [10, 20, 25]
    assert driver.output == 25
    kinds = [type(each.event).__name__ for each in driver.history]
    assert kinds == ["ExecutionStarted", "TimerCreated", "TimerFired", "TimerFired", "TimerFired", "ExecutionCompleted"]


def test_a_timer_within_the_limit_has_one_stage() -> None:  # TIM-5
    def short(ctx: Ctx) -> Code:
        yield ctx.create_timer(timedelta(seconds=10))

    driver = Driver(short, limits=SHORT)
    assert driver.first.timers[0].fire_at == T0 + 10 * SECOND
    assert fire(driver).status == "Completed"


@pytest.mark.parametrize("others", [Limits(), Limits(timer_interval=7 * SECOND), Limits(timer_interval=100 * SECOND)])
def test_a_replay_under_another_setting_goes_on_with_the_rest(others: Limits) -> None:  # TIM-5, DET-1
    driver = Driver(sleeper, limits=SHORT, is_cold=True)
    fire(driver)
    driver.limits = others
    fire(driver)
    while driver.turns[-1].status == "Running":
        fire(driver)
    assert driver.output == 25
    for limits in (SHORT, others):
        execution = Execution(sleeper, limits=limits)
        execution.replay(driver.history)
        assert execution.nondeterminism is None


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("stages", [0, 1, 2])
def test_it_can_be_cancelled_at_any_stage(stages: int, is_cold: bool) -> None:  # TIM-3, TIM-5
    def cancels(ctx: Ctx) -> Code:
        timer, stop = ctx.create_timer(timedelta(seconds=25)), ctx.wait_for_external_event("Stop")
        yield ctx.when_any([timer, stop])
        return timer.cancel()

    driver = Driver(cancels, limits=SHORT, is_cold=is_cold)
    for _ in range(stages):
        fire(driver)
    turn = driver.raised("Stop")
    assert (driver.output, turn.cancelled_timers) == (True, [1])


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_timer_cancelled_in_the_turn_that_begins_a_stage_is_gone(is_cold: bool) -> None:  # TIM-3, TIM-5
    def cancels(ctx: Ctx) -> Code:
        timer = ctx.create_timer(timedelta(seconds=25))
        yield ctx.wait_for_external_event("Stop")
        timer.cancel()
        yield ctx.wait_for_external_event("End")

    driver = Driver(cancels, limits=SHORT, is_cold=is_cold)
    turn = driver.give(TimerFired(1, T0 + 10 * SECOND), event("Stop"), after=10)
    assert turn.cancelled_timers == [1]
    assert driver.give(TimerFired(1, T0 + 20 * SECOND)).timers == []
    assert driver.raised("End").status == "Completed"


@pytest.mark.parametrize("is_cold", [False, True])
def test_waits_before_a_retry_have_stages_too(is_cold: bool) -> None:  # TIM-5, RTY-3
    def retries(ctx: Ctx) -> Code:
        return (yield ctx.call_activity("a", retry_policy=RetryPolicy(25, 2)))

    driver = Driver(retries, limits=SHORT, is_cold=is_cold)
    assert driver.failed(1).timers[0].fire_at == driver.now + 10 * SECOND
    assert [fire(driver).activities for _ in range(2)] == [[], []]
    assert [call.task_id for call in fire(driver).activities] == [3]
    driver.done(3, "well")
    assert driver.output == "well"


def test_the_deadline_of_a_wait_has_stages_too() -> None:  # TIM-5, rule 22
    def waits(ctx: Ctx) -> Code:
        return (yield ctx.wait_for_external_event("E", timeout=timedelta(seconds=15), default="late"))

    driver = Driver(waits, limits=SHORT)
    assert fire(driver).status == "Running"
    fire(driver)
    assert driver.output == "late"


@pytest.mark.parametrize("is_cold", [False, True])
def test_the_clock_has_reached_the_time_of_a_timer_that_fired(is_cold: bool) -> None:  # TIM-2, rule 3
    def waits_until(ctx: Ctx) -> Code:
        deadline, turns = ctx.current_utc_datetime + timedelta(seconds=5), 0
        while ctx.current_utc_datetime < deadline:
            yield ctx.create_timer(deadline)
            turns += 1
        return turns

    driver = Driver(waits_until, is_cold=is_cold)
    driver.give(TimerFired(1, T0 + 5 * SECOND), after=4.999)  # by a clock that is a little behind the one that found it due
    assert driver.output == 1
