"""Rewind in the core: what is blamed, what still counts, what is to be done, and how a replay goes on from there."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

from flask_durable.core.context import OrchestrationContext as Ctx
from flask_durable.core.events import (
    EventRaised,
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
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
from flask_durable.core.execution import Execution
from flask_durable.core.failure import FailureDetails, TaskFailedError
from flask_durable.core.retry import RetryPolicy
from flask_durable.core.rewind import Message, effective, leftovers, plan
from flask_durable.core.status import RuntimeStatus

from .driver import BOOM, SECOND, Driver, event

Code = Generator[Any, Any, Any]
STARTED = ExecutionStarted("main", "i", "e1")
FAILED = RuntimeStatus.FAILED


def recorded(*events: HistoryEvent) -> list[Recorded]:
    """A history in which each event has a turn of its own."""
    return [Recorded(number, number * SECOND, each) for number, each in enumerate(events, 1)]


def verdict(driver: Driver) -> tuple[tuple[int, ...], tuple[int, ...], int | None]:
    completed = driver.turns[-1].events[-1]
    assert isinstance(completed, ExecutionCompleted)
    assert completed.status is FAILED
    return completed.blamed, completed.unseen, completed.sound_until


def driven(function: Any, *steps: Any, is_cold: bool = False) -> Driver:
    """A driver that has got these outcomes: a number is a success of that call, a negative one its failure."""
    driver = Driver(function, is_cold=is_cold)
    for step in steps:
        driver.give(
            *((TaskCompleted(each, '"ok"') if each > 0 else TaskFailed(-each, BOOM)) for each in (step if isinstance(step, tuple) else (step,)))
        )
    return driver


def rewind(driver: Driver, *unread: HistoryEvent) -> Any:
    """Rewind a driver as a store would; returns the plan. Its messages are not delivered yet."""
    planned = plan(driver.history, [Message(driver.now, each) for each in unread])
    driver.now += SECOND
    driver.history.append(Recorded(driver.history[-1].sequence + 1, driver.now, planned.event))
    driver.execution = driver.replayed()
    assert driver.execution.nondeterminism is None
    return planned


# ---------------------------------------------------------------- blame


@pytest.mark.parametrize("is_cold", [False, True])
def test_what_leaves_the_code_is_blamed_on_the_last_attempt(is_cold: bool) -> None:  # rule 45
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a", retry_policy=RetryPolicy(first_retry_interval=1, max_number_of_attempts=2))

    driver = Driver(main, is_cold=is_cold)
    driver.failed(1)
    driver.fired(2)
    driver.failed(3)
    assert verdict(driver) == ((3,), (), 7)


def caused(error: BaseException) -> BaseException:
    made = RuntimeError("mine")
    made.__cause__ = error
    return made


def in_context(error: BaseException) -> BaseException:
    made = RuntimeError("mine")
    made.__context__ = error
    return made


def suppressed(error: BaseException) -> BaseException:
    made = in_context(error)
    made.__suppress_context__ = True
    return made


@pytest.mark.parametrize(
    ("wrap", "blamed"),
    [
        (lambda error: error, (1,)),
        (caused, (1,)),
        (in_context, (1,)),
        (lambda error: caused(in_context(error)), (1,)),
        (lambda error: ExceptionGroup("several", [KeyError(), ExceptionGroup("inner", [caused(error)])]), (1,)),
        (lambda error: caused(ExceptionGroup("several", [error])), (1,)),
        (suppressed, ()),
        (lambda error: KeyError(), ()),
        (lambda error: TaskFailedError("made by hand", BOOM, 1), ()),
    ],
)
def test_causes_contexts_and_members_of_groups_count(wrap: Any, blamed: tuple[int, ...]) -> None:  # rule 45
    def main(ctx: Ctx) -> Code:
        made: BaseException | None = None
        try:
            yield ctx.call_activity("a")
        except TaskFailedError as error:
            made = wrap(error)
        raise made or AssertionError

    assert verdict(driven(main, -1))[0] == blamed


def test_errors_that_lead_to_each_other_in_a_circle_end_the_search() -> None:
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        one, two = KeyError("one"), KeyError("two")
        one.__cause__, two.__cause__ = two, one
        raise one

    assert verdict(driven(main, 1)) == ((), (), 2)


def test_a_failure_counts_from_the_moment_the_code_learns_of_it() -> None:  # REW-3
    def main(ctx: Ctx) -> Code:
        early, late = ctx.call_activity("early"), ctx.call_activity("late")
        yield late
        stored = ctx.call_activity("store")
        yield stored
        yield early

    driver = driven(main, -1, 2, 4 - 1)
    # 1 started, 2 early, 3 late, 4 early failed, 5 late done, 6 store, 7 store done
    assert verdict(driver) == ((1,), (), 7)
    planned = rewind(driver)
    assert planned.event == ExecutionRewound(None, 7, (1,), 3)
    assert planned.activities == (TaskScheduled(1, "early", None, 1, 1),)
    assert driver.done(1).status is RuntimeStatus.COMPLETED


def test_a_failure_that_the_code_never_came_to_see_is_redone_too() -> None:  # REW-3
    def main(ctx: Ctx) -> Code:
        results = []
        for task in [ctx.call_activity(name) for name in "abc"]:
            results.append((yield task))
        return results

    driver = driven(main, -3, -2, 1)
    assert verdict(driver) == ((2,), (3,), 7)
    assert [call.task_id for call in rewind(driver).activities] == [2, 3]
    driver.done(3, "c")
    driver.done(2, "b")
    assert driver.output == ["ok", "b", "c"]


def test_a_failure_handled_before_is_not_redone() -> None:  # rule 45
    def main(ctx: Ctx) -> Code:
        first, second = ctx.call_activity("first"), ctx.call_activity("second")
        try:
            yield first
        except TaskFailedError:
            pass
        return (yield second)

    driver = driven(main, (-1, -2))
    assert verdict(driver)[:2] == ((2,), ())
    assert rewind(driver).event.redone == (2,)
    assert driver.done(2, "now").status is RuntimeStatus.COMPLETED


def test_an_error_of_the_codes_own_goes_back_to_the_turn_before() -> None:  # rule 45
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        ctx.call_activity("never begun")
        raise KeyError("bug")

    driver = driven(main, 1)
    assert verdict(driver) == ((), (), 2)
    planned = rewind(driver)
    assert planned.event == ExecutionRewound(None, 2, (), 2)
    assert planned.activities == ()
    assert [message.event for message in planned.messages] == [TaskCompleted(1, '"ok"')]


def test_a_handled_failure_is_delivered_again_as_it_was_when_the_code_failed_by_itself() -> None:  # rule 45
    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_activity("a")
        except TaskFailedError:
            pass
        raise KeyError("bug")

    driver = driven(main, -1)
    assert verdict(driver) == ((), (), 2)
    assert [message.event for message in rewind(driver).messages] == [TaskFailed(1, BOOM)]


@pytest.mark.parametrize("look", ["is_failed", "is_complete", "get_exception", "group", "any"])
def test_a_failure_that_was_looked_at_and_followed_by_an_own_error_is_redone(look: str) -> None:  # REW-3
    def main(ctx: Ctx) -> Code:
        task, other = ctx.call_activity("a"), ctx.call_activity("b")
        group = ctx.when_any([task])
        yield other
        if look == "group":
            assert group.is_complete
        elif look == "any":
            assert (yield ctx.when_any([group])) is group
        elif look == "get_exception":
            task.get_exception()
        else:
            assert getattr(task, look)
        raise KeyError("gave up")

    assert verdict(driven(main, -1, 2))[0] == (1,)
    assert verdict(driven(main, -1, 2, is_cold=True))[0] == (1,)


def test_what_comes_after_a_failure_in_the_same_turn_is_not_consumed() -> None:  # REW-3
    def main(ctx: Ctx) -> Code:
        yield ctx.when_all([ctx.call_activity(name) for name in "abc"])

    turn = driven(main, (-2, 1, 3)).turns[-1]
    assert turn.undelivered == 2
    assert turn.events[:-1] == [TaskFailed(2, BOOM)]


# ---------------------------------------------------------------- what still counts


def test_a_history_without_rewinds_counts_whole() -> None:
    history = recorded(STARTED, TaskScheduled(1, "a"), TaskCompleted(1))
    assert effective(history) == history
    assert leftovers(history) == {}


def test_several_rewinds_take_back_one_after_the_other() -> None:  # REW-1, REW-5
    history = recorded(
        STARTED,
        TaskScheduled(1, "a"),
        TaskFailed(1, BOOM),
        ExecutionCompleted(FAILED, None, BOOM, (1,), (), 3),
        ExecutionRewound(None, 3, (1,), 1),
        TaskFailed(1, BOOM),
        ExecutionCompleted(FAILED, None, BOOM, (1,), (), 6),
        ExecutionRewound(None, 6, (1,), 1),
        TaskCompleted(1),
    )
    assert [each.sequence for each in effective(history)] == [1, 2, 5, 8, 9]


def test_a_rewind_may_take_back_an_earlier_one() -> None:
    history = recorded(
        STARTED,
        TaskScheduled(1, "a"),
        TaskScheduled(2, "b"),
        TaskFailed(2, BOOM),
        ExecutionCompleted(FAILED, None, BOOM, (2,), (), 4),
        ExecutionRewound(None, 4, (2,), 2),
        ExecutionCompleted(FAILED, None, BOOM, (1,), (), 2),
        ExecutionRewound(None, 2, (1,), 2),
    )
    assert [each.sequence for each in effective(history)] == [1, 2, 8]


def test_only_children_of_a_turn_that_failed_by_itself_are_met_again() -> None:  # REW-4
    child = SubOrchestrationCreated(1, "c", "i:c", "e2")

    def told(blamed: tuple[int, ...]) -> dict[int, list[SubOrchestrationCreated]]:
        return leftovers(recorded(STARTED, child, ExecutionCompleted(FAILED, None, BOOM, blamed, (), 1), ExecutionRewound(None, 1, (), 1)))

    assert told(()) == {4: [child]}
    assert told((7,)) == {4: []}


# ---------------------------------------------------------------- plans


def test_late_outcomes_of_calls_that_count_are_kept_and_failures_redone() -> None:  # REW-3
    history = recorded(
        STARTED,
        TaskScheduled(1, "a"),
        TaskScheduled(2, "b"),
        TaskScheduled(3, "c"),
        TimerCreated(4, 99 * SECOND),
        TaskFailed(1, BOOM),
        TaskScheduled(5, "compensate"),
        TaskCompleted(5),
        ExecutionCompleted(FAILED, None, BOOM, (1,), (), 6),
    )
    unread = [
        Message(20, TaskCompleted(2, '"late"')),
        Message(21, TaskFailed(3, BOOM)),
        Message(22, TaskCompleted(5, '"of what no longer counts"')),
        Message(23, SubOrchestrationCompleted(2, '"of another kind"')),
        Message(24, EventRaised("E", "1")),
        Message(99 * SECOND, TimerFired(4, 99 * SECOND)),
        Message(25, TaskCompleted(2, '"twice"')),
    ]
    planned = plan(history, unread, reason='"why"')
    assert planned.event == ExecutionRewound('"why"', 6, (1, 3), 5)
    assert list(planned.messages) == [unread[0], unread[4], unread[5]]
    assert [call.task_id for call in planned.activities] == [1, 3]
    assert planned.timers == ()
    assert planned.has_started


def test_messages_come_in_the_order_in_which_they_arrived() -> None:  # rule 20
    history = recorded(STARTED, EventRaised("E", "1"), EventRaised("E", "2"), ExecutionCompleted(FAILED, None, BOOM, (), (), 1))
    planned = plan(history, [Message(90, EventRaised("E", "4"))], [EventRaised("E", "3")])
    assert [message.event.data for message in planned.messages] == ["1", "2", "3", "4"]  # type: ignore[attr-defined]
    assert [message.at for message in planned.messages] == [2 * SECOND, 3 * SECOND, 4 * SECOND, 90]


def test_a_first_turn_that_failed_begins_anew() -> None:  # rule 45
    planned = plan(recorded(STARTED, EventRaised("E"), ExecutionCompleted(FAILED, None, BOOM, (), (), 0)))
    assert not planned.has_started
    assert planned.event.resumes_after == 0
    assert [message.event for message in planned.messages] == [EventRaised("E")]


def test_children_without_an_outcome_are_named() -> None:  # REW-4
    failed, done, late = (SubOrchestrationCreated(number, "c", f"i:{number}", f"x{number}") for number in (1, 2, 3))
    history = recorded(
        STARTED,
        failed,
        done,
        late,
        SubOrchestrationCompleted(2),
        SubOrchestrationFailed(1, BOOM),
        ExecutionCompleted(FAILED, None, BOOM, (1,), (), 6),
    )
    assert plan(history).children == (failed, late)
    assert plan(history, [Message(9, SubOrchestrationCompleted(1)), Message(9, SubOrchestrationCompleted(3))]).children == ()


@pytest.mark.parametrize("again", [SubOrchestrationFailed(1, BOOM), SubOrchestrationCompleted(1, '"late"')], ids=["fails", "succeeds"])
def test_a_child_that_ends_once_more_changes_nothing_of_what_was_handled(again: HistoryEvent) -> None:  # rule 45, DET-8
    def main(ctx: Ctx) -> Code:
        policy = RetryPolicy(first_retry_interval=1, max_number_of_attempts=2)
        return (yield ctx.call_sub_orchestrator("c", retry_policy=policy))

    # Given an instance whose first attempt was handled by the policy, and that failed for the second one
    driver = Driver(main)
    driver.child_failed(1)
    driver.fired(2)
    driver.child_failed(3)
    assert verdict(driver)[0] == (3,)

    # When the child of the first attempt, rewound alone, has told its end again by the time of the rewind
    planned = rewind(driver, again)

    # Then only the second attempt is made again
    assert planned.event.redone == (3,)
    assert planned.messages == ()
    assert [child.task_id for child in planned.children] == [3]
    assert driver.child_done(3, "in the end").status is RuntimeStatus.COMPLETED


def test_a_turn_that_runs_again_gets_the_failure_it_had_and_not_a_later_one() -> None:  # rule 45, DET-8
    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_sub_orchestrator("c")
        except TaskFailedError:
            raise KeyError("bug") from None

    driver = Driver(main)
    driver.child_failed(1)
    assert verdict(driver)[0] == ()
    planned = rewind(driver, SubOrchestrationFailed(1, FailureDetails("builtins.ValueError", "later")))
    assert planned.event.redone == ()
    assert [message.event for message in planned.messages] == [SubOrchestrationFailed(1, BOOM)]


def test_a_failure_from_before_there_were_rewinds_takes_back_its_turn() -> None:  # rule 45
    history = [
        *recorded(STARTED, TaskScheduled(1, "a")),
        *(Recorded(number, 9 * SECOND, each) for number, each in ((3, TaskCompleted(1)), (4, ExecutionCompleted(FAILED, None, BOOM)))),
    ]
    planned = plan(history)
    assert planned.event.resumes_after == 2
    assert [message.event for message in planned.messages] == [TaskCompleted(1)]


def test_the_stage_of_a_long_timer_is_no_outcome() -> None:  # TIM-5
    timer = TimerCreated(1, 99)
    history = recorded(STARTED, timer, TimerFired(1, 50), ExecutionCompleted(FAILED, None, BOOM, (), (), 3))
    assert plan(history).timers == (timer,)
    assert plan(history, [Message(70, TimerFired(1, 70))]).timers == ()


def test_nothing_at_all_can_be_planned_for() -> None:
    assert plan([]).event == ExecutionRewound(None, 0, (), 0)


# ---------------------------------------------------------------- replay


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_retried_call_starts_over_with_its_attempts_and_its_timeout(is_cold: bool) -> None:  # rule 45, RTY-2
    def main(ctx: Ctx) -> Code:
        policy = RetryPolicy(first_retry_interval=1, max_number_of_attempts=2, retry_timeout=10)
        return (yield ctx.call_activity("a", retry_policy=policy))

    driver = Driver(main, is_cold=is_cold)
    driver.failed(1)
    driver.fired(2)
    driver.failed(3)
    driver.now += 3600 * SECOND
    planned = rewind(driver)
    assert planned.activities == (TaskScheduled(3, "a", None, 1, 1),)
    turn = driver.failed(3)
    assert [type(each) for each in turn.events] == [TaskFailed, TimerCreated]
    assert driver.fired(4).activities == [TaskScheduled(5, "a", None, 2, 1)]
    assert driver.failed(5).status is FAILED
    assert verdict(driver)[0] == (5,)


def test_further_calls_have_numbers_that_were_never_used() -> None:  # rule 45
    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_activity("a")
        except TaskFailedError:
            yield ctx.call_activity("compensate")
            raise
        return (yield ctx.call_activity("b"))

    driver = driven(main, -1, 2)
    rewind(driver)
    assert driver.done(1).activities == [TaskScheduled(3, "b", None, 1, 3)]


def test_a_child_begun_in_a_turn_taken_back_is_met_again_by_the_same_call_only() -> None:  # REW-4
    bugs = [True]

    def main(ctx: Ctx) -> Code:
        yield ctx.wait_for_external_event("go")
        task = ctx.call_sub_orchestrator("child", 1)
        if bugs:
            raise KeyError("bug")
        other = ctx.call_sub_orchestrator("child", 2)
        return [(yield task), (yield other)]

    driver = Driver(main)
    first = driver.raised("go").children[0]
    bugs.clear()
    planned = rewind(driver)
    assert planned.children == ()
    turn = driver.give(*(message.event for message in planned.messages))
    assert turn.children[0] == first
    assert turn.children[1].task_id > first.task_id
    assert turn.children[1].instance_id != first.instance_id
    assert driver.replayed().nondeterminism is None


def test_the_first_turn_after_a_rewind_writes_what_was_set_before() -> None:  # SCH-7, TIM-3
    def main(ctx: Ctx) -> Code:
        timer = ctx.create_timer(timedelta(hours=1))
        ctx.set_custom_status("working")
        yield ctx.wait_for_external_event("go")
        timer.cancel()
        try:
            yield ctx.call_activity("a")
        except TaskFailedError:
            ctx.set_custom_status("failing")
            raise

    driver = Driver(main)
    driver.raised("go")
    driver.failed(2)
    rewind(driver)
    turn = driver.give()
    assert (turn.custom_status, turn.custom_status_changed, turn.cancelled_timers) == ('"working"', True, [1])
    turn = driver.give()
    assert (turn.custom_status_changed, turn.cancelled_timers) == (False, [])


def test_is_replaying_and_the_clock_are_right_after_a_rewind() -> None:  # DET-2, DET-3
    seen = []

    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        seen.append((ctx.is_replaying, ctx.current_utc_datetime))

    driver = driven(main, -1)
    rewind(driver)
    driver.done(1)
    assert [is_replaying for is_replaying, _ in seen] == [False]
    assert seen[0][1].timestamp() * SECOND == driver.turns[-1].at


def test_code_that_no_longer_fits_what_counts_is_found_out() -> None:  # DET-6
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")

    def changed(ctx: Ctx) -> Code:
        yield ctx.call_activity("b")

    driver = driven(main, -1)
    rewind(driver)
    assert driver.mismatch(changed) == (1, "call_activity('a')", "call_activity('b')")


def test_a_contradicted_history_blames_nobody() -> None:  # DET-6, rule 45
    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_activity("a")
        except TaskFailedError:
            yield ctx.call_activity("b")

    def changed(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        yield ctx.call_activity("c")

    driver = driven(main, -1)
    execution = Execution(changed)
    execution.replay(driver.history)
    completed = execution.advance(driver.now + 1, [event("E")]).events[-1]
    assert isinstance(completed, ExecutionCompleted)
    assert (completed.blamed, completed.unseen, completed.sound_until) == ((), (), 4)
    assert isinstance(completed.failure, FailureDetails)
