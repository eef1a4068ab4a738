"""Whole orchestrators: events in, turns out."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

import pytest

from flask_durable.core.context import ContextClosedError, Limits, OrchestrationContext
from flask_durable.core.events import (
    EventRaised,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    Recorded,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from flask_durable.core.execution import Execution
from flask_durable.core.failure import FailureDetails, SubOrchestrationFailedError, TaskFailedError
from flask_durable.core.ids import next_execution_id
from flask_durable.core.plain import ALLOWED
from flask_durable.core.retry import RetryContext, RetryPolicy
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.tasks import Task, when_all, when_any
from flask_durable.core.turn import NextGeneration, Turn
from flask_durable.errors import TaskCancelledError

from .driver import BOOM, SECOND, T0, Driver, event

Ctx = OrchestrationContext
Code = Generator[Any, Any, Any]


# ---------------------------------------------------------------- the kinds of orchestrators


def test_a_plain_function_just_returns() -> None:  # rule 6, REG-4
    def main(ctx: Ctx, input: int) -> int:
        return input + 1

    driver = Driver(main, 1)
    assert driver.first == Turn(
        T0, events=[driver.started, ExecutionCompleted(RuntimeStatus.COMPLETED, "2")], status=RuntimeStatus.COMPLETED, output="2"
    )
    assert (driver.execution.is_finished, driver.execution.sequence) == (True, 2)


def test_a_generator_and_a_coroutine_do_the_same() -> None:  # rule 6, REG-4
    def generator(ctx: Ctx, input: int) -> Code:
        return [(yield ctx.call_activity("a", input)), (yield ctx.when_all([ctx.call_activity("b"), ctx.call_activity("c")]))]

    async def coroutine(ctx: Ctx, input: int) -> Any:
        return [await ctx.call_activity("a", input), await ctx.when_all([ctx.call_activity("b"), ctx.call_activity("c")])]

    drivers = [Driver(generator, 5), Driver(coroutine, 5)]
    for driver in drivers:
        for task_id in (1, 3, 2):
            driver.done(task_id, task_id)
        assert driver.output == [1, [2, 3]]
    assert drivers[0].turns == drivers[1].turns


class Shop:
    def orchestrate(self, ctx: Ctx, input: Any) -> Any:
        return ["method", input]

    def __call__(self, ctx: Ctx) -> Any:
        return ["callable", ctx.input]


@pytest.mark.parametrize(
    ("function", "output"),
    [
        (lambda ctx: ["one", ctx.input], ["one", 7]),
        (lambda ctx, input: ["two", input], ["two", 7]),
        (lambda ctx, input=1: ["default", input], ["default", 7]),
        (lambda *args: ["star", args[1]], ["star", 7]),
        (lambda ctx, *, option=3: ["keyword", option], ["keyword", 3]),
        (Shop().orchestrate, ["method", 7]),
        (Shop(), ["callable", 7]),
    ],
)
def test_an_orchestrator_takes_the_context_and_maybe_the_input(function: Callable[..., Any], output: Any) -> None:
    assert Driver(function, 7).output == output


def test_a_generator_delegates_to_others() -> None:
    def inner(ctx: Ctx) -> Code:
        return (yield ctx.call_activity("a"))

    def main(ctx: Ctx) -> Code:
        return [(yield from inner(ctx)), (yield from inner(ctx))]

    driver = Driver(main)
    driver.done(1, "x")
    driver.done(2, "y")
    assert driver.output == ["x", "y"]


def test_an_async_generator_is_refused_with_a_hint() -> None:
    async def main(ctx: Ctx) -> Any:
        yield ctx.call_activity("a")

    assert Driver(main).failure.message == "The orchestrator is an async generator; write 'async def' with await, or 'def' with yield"


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}, {"a": [1.5, None]}])
def test_any_json_value_is_an_output_and_none_is_none(value: Any) -> None:  # SCH-4
    turn = Driver(lambda ctx: value).first
    assert (turn.status, turn.output is None) == ("Completed", value is None)


def test_an_output_that_is_no_json_fails_the_instance() -> None:  # SCH-8
    def plain(ctx: Ctx) -> Any:
        return {"when": 1j}

    def generator(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        return {"when": 1j}

    text = f"The output contains a builtins.complex at .when; {ALLOWED}"
    one, other = Driver(plain), Driver(generator)
    other.done(1)
    for driver in (one, other):
        assert (driver.failure.type_name, driver.failure.message, driver.failure.cause) == ("flask_durable.errors.InvalidArgumentError", text, None)


def test_an_output_over_the_limit_fails_the_instance() -> None:  # SCH-8
    driver = Driver(lambda ctx: "x" * 20, limits=Limits(payload_bytes=10))
    assert driver.failure.message == "The output is 22 bytes of JSON; at most 10 are allowed (DURABLE_MAX_PAYLOAD_BYTES and its kin)"


# ---------------------------------------------------------------- one turn after the other


def test_each_turn_holds_what_was_consumed_and_what_followed_in_order() -> None:  # rule 1, DET-1
    def main(ctx: Ctx) -> Code:
        first = yield ctx.call_activity("a", 1)
        second = yield ctx.call_activity("b", first)
        return [first, second]

    driver = Driver(main)
    one, two = TaskScheduled(1, "a", "1", 1, 1), TaskScheduled(2, "b", '"x"', 1, 2)
    assert driver.first == Turn(T0, events=[driver.started, one], activities=[one], open_activities=1)
    assert driver.done(1, "x") == Turn(T0 + SECOND, events=[TaskCompleted(1, '"x"'), two], activities=[two], open_activities=1)
    end = ExecutionCompleted(RuntimeStatus.COMPLETED, '["x",null]')
    assert driver.done(2) == Turn(T0 + 2 * SECOND, events=[TaskCompleted(2), end], status=RuntimeStatus.COMPLETED, output='["x",null]')
    assert [recorded.sequence for recorded in driver.history] == [1, 2, 3, 4, 5, 6] == list(range(1, driver.execution.sequence + 1))


def test_several_events_of_one_turn_are_delivered_one_by_one() -> None:  # rule 1
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        yield ctx.call_activity("b")

    turn = Driver(main).give(TaskCompleted(1), EventRaised("x"), TaskCompleted(2))
    assert turn.events == [
        TaskCompleted(1),
        TaskScheduled(2, "b", None, 1, 2),
        EventRaised("x"),
        TaskCompleted(2),
        ExecutionCompleted(RuntimeStatus.COMPLETED),
    ]


def test_a_complete_task_yielded_again_goes_on_at_once_with_the_same_result() -> None:  # rule 6, DET-9
    def main(ctx: Ctx) -> Code:
        task = ctx.call_activity("a")
        results = [(yield task), (yield task), (yield ctx.when_all([task, task]))]
        return [*results, task.result]

    driver = Driver(main)
    driver.done(1, {"n": 1})
    assert driver.output == [{"n": 1}, {"n": 1}, [{"n": 1}, {"n": 1}], {"n": 1}]


def test_late_duplicate_and_unknown_outcomes_are_ignored_and_logged(caplog: pytest.LogCaptureFixture) -> None:  # DET-8
    def main(ctx: Ctx) -> Code:
        timer = ctx.create_timer(timedelta(1))
        first = yield ctx.when_any([ctx.call_activity("a"), timer])
        assert first is not timer
        timer.cancel()
        yield ctx.call_activity("b")
        return "ok"

    with caplog.at_level(logging.DEBUG, "flask_durable.core"):
        driver = Driver(main)
        driver.done(2)
        for late in (TaskCompleted(2), TaskFailed(2, BOOM), TimerFired(1, 0), TaskCompleted(99)):
            assert driver.give(late) == Turn(driver.now, open_activities=1)
    assert [record.getMessage() for record in caplog.records] == [
        f"Instance i: nobody waits for the outcome of call {number}; it is ignored" for number in (2, 2, 1, 99)
    ]
    driver.done(3)
    assert driver.output == "ok"


def test_it_ends_at_once_with_open_tasks_and_starts_nothing_more() -> None:  # rule 15, DET-10
    def main(ctx: Ctx) -> Code:
        ctx.create_timer(timedelta(days=1))
        ctx.call_activity("slow")
        yield ctx.call_activity("a")
        ctx.call_activity("never")
        ctx.create_timer(timedelta(days=2))
        ctx.send_event("other", "Done")
        ctx.call_sub_orchestrator("child")
        return "ok"

    driver = Driver(main)
    turn = driver.done(3)
    assert (driver.output, turn.activities, turn.timers, len(turn.sent_events), len(turn.children)) == ("ok", [], [], 1, 1)
    assert turn.open_activities == 2


def test_events_after_the_end_of_a_batch_are_dropped() -> None:  # rule 15
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")

    driver = Driver(main)
    assert driver.give(TaskCompleted(1), EventRaised("x"), TaskCompleted(2)).events == [TaskCompleted(1), ExecutionCompleted(RuntimeStatus.COMPLETED)]


# ---------------------------------------------------------------- failing


def test_a_failed_activity_is_raised_at_the_yield_and_may_be_caught() -> None:  # ACT-2, ACT-3
    def main(ctx: Ctx) -> Code:
        ctx.create_timer(timedelta(1))
        try:
            yield ctx.call_activity("a")
        except TaskFailedError as error:
            caught = [str(error), error.task_id, error.is_type(ValueError), error.details.traceback]
        return [*caught, (yield ctx.call_activity("b"))]

    driver = Driver(main)
    driver.failed(2)
    turn = driver.done(3, "fine")
    assert driver.output == ["Activity task #2 failed: boom", 2, True, "Traceback: boom", "fine"]
    assert turn.failure is None


def test_a_failed_activity_that_is_not_caught_fails_the_instance() -> None:  # ACT-4
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")  # the line to be shown

    driver = Driver(main)
    turn = driver.failed(1)
    details = driver.failure
    assert (details.type_name, details.message, details.cause) == (
        "flask_durable.core.failure.TaskFailedError",
        "Activity task #1 failed: boom",
        BOOM,
    )
    assert 'yield ctx.call_activity("a")  # the line to be shown' in details.traceback
    assert turn.events[1] == ExecutionCompleted(RuntimeStatus.FAILED, None, details, blamed=(1,), sound_until=3)


def test_a_failed_child_is_raised_at_the_yield() -> None:  # SUB-2, rule 41
    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_sub_orchestrator("c")
        except SubOrchestrationFailedError as error:
            return [str(error), error.task_id, error.details.type_name]

    driver = Driver(main)
    driver.child_failed(1)
    assert driver.output == ["Sub-orchestration task #1 failed: boom", 1, "builtins.ValueError"]


def test_a_childs_output_is_the_result() -> None:  # SUB-2
    def main(ctx: Ctx) -> Code:
        return (yield ctx.call_sub_orchestrator("c"))

    driver = Driver(main)
    driver.child_done(1, [1])
    assert driver.output == [1]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(1),
        RecursionError("deep"),
        MemoryError(),
        asyncio.CancelledError(),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "generator", "later", "coroutine"])
def test_whatever_the_code_raises_fails_the_instance_and_not_the_engine(error: BaseException, kind: str) -> None:  # rule 7
    def plain(ctx: Ctx) -> Any:
        raise error

    def generator(ctx: Ctx) -> Code:
        raise error
        yield

    def later(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        raise error

    async def coroutine(ctx: Ctx) -> Any:
        raise error

    driver = Driver({"plain": plain, "generator": generator, "later": later, "coroutine": coroutine}[kind])
    if kind == "later":
        driver.done(1)
    is_wrapped = isinstance(error, StopIteration) and kind != "plain"
    expected = "builtins.RuntimeError" if is_wrapped else f"{type(error).__module__}.{type(error).__qualname__}"
    assert driver.failure.type_name == expected
    assert "raise error" in driver.failure.traceback + (driver.failure.cause.traceback if driver.failure.cause else "")
    assert driver.execution.is_finished


def test_endless_recursion_fails_the_instance() -> None:  # rule 7
    def main(ctx: Ctx) -> Any:
        return main(ctx)

    details = Driver(main).failure
    assert details.type_name == "builtins.RecursionError"
    assert len(details.traceback) < 32_001


def test_a_failure_keeps_its_causes() -> None:  # rule 7
    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_activity("a")
        except TaskFailedError as error:
            raise KeyError("order") from error

    driver = Driver(main)
    driver.failed(1)
    details = driver.failure
    assert details.cause is not None
    assert (details.message, details.cause.message, details.cause.cause) == ("'order'", "Activity task #1 failed: boom", BOOM)


def test_failing_after_continue_as_new_fails() -> None:  # rule 33
    def main(ctx: Ctx) -> Any:
        ctx.continue_as_new(1)
        raise ValueError("x")

    driver = Driver(main)
    assert (driver.failure.message, driver.first.next_generation) == ("x", None)


def test_an_unreadable_input_fails_the_instance() -> None:
    driver = Driver(lambda ctx, input: 1, started=ExecutionStarted("main", "i", "e1", 0, "{broken"))
    assert driver.failure.type_name == "json.decoder.JSONDecodeError"


@pytest.mark.parametrize("is_retried", [False, True])
def test_an_unreadable_result_fails_the_instance_and_not_the_engine(is_retried: bool) -> None:
    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.when_all([ctx.call_activity("a", retry_policy=RetryPolicy(1, 2) if is_retried else None)])
        finally:
            ctx.call_activity("cleanup")

    driver = Driver(main)
    turn = driver.give(TaskCompleted(1, "{broken"))
    assert driver.failure.type_name == "json.decoder.JSONDecodeError"
    driver.execution.close()
    assert turn.activities == []
    assert len(turn.events) == 2


# ---------------------------------------------------------------- yielding what is no task


def test_yielding_no_task_is_raised_at_that_yield() -> None:  # rule 6, DET-9
    def main(ctx: Ctx) -> Code:
        texts = []
        for wrong in (5, None, [ctx.call_activity("a")]):
            try:
                yield wrong
            except ValueError as error:
                texts.append(str(error).partition(".")[0].partition(";")[0])
        return [*texts, (yield ctx.call_activity("b"))]

    driver = Driver(main)
    driver.done(2, "ok")
    assert driver.output == [
        "The orchestrator yielded a int: 5, which is no task",
        "The orchestrator yielded a NoneType, which is no task",
        "The orchestrator yielded a list",
        "ok",
    ]


def test_yielding_no_task_and_not_catching_it_fails_the_instance() -> None:  # DET-9
    def main(ctx: Ctx) -> Code:
        yield "nothing"  # the line to be shown

    details = Driver(main).failure
    assert details.type_name == "flask_durable.errors.InvalidArgumentError"
    assert details.message.startswith("The orchestrator yielded a str: 'nothing', which is no task.")
    assert "the line to be shown" in details.traceback


def test_awaiting_something_else_fails_the_instance() -> None:  # rule 6
    async def main(ctx: Ctx) -> None:
        await asyncio.sleep(0)

    assert Driver(main).failure.message.startswith("The orchestrator yielded a NoneType, which is no task.")


def test_code_that_yields_nonsense_for_ever_fails() -> None:  # rule 6
    def main(ctx: Ctx) -> Code:
        while True:
            try:
                yield "nonsense"
            except ValueError:
                pass

    driver = Driver(main)
    assert driver.failure.message.startswith("The orchestrator yielded a str: 'nonsense', which is no task.")
    gc.collect()


def test_a_task_of_another_instance_is_refused() -> None:
    foreign: list[Task] = []

    def lender(ctx: Ctx) -> Code:
        foreign.append(ctx.call_activity("a"))
        yield foreign[0]

    def main(ctx: Ctx) -> Code:
        yield foreign[0]

    Driver(lender)
    assert Driver(main).failure.message == "The orchestrator yielded a task of another instance; a task belongs to the context that made it"


# ---------------------------------------------------------------- is_replaying


@pytest.mark.parametrize("is_cold", [False, True])
def test_each_stretch_of_code_is_passed_once_while_not_replaying(is_cold: bool) -> None:  # rule 5, DET-2
    seen: list[tuple[int, bool]] = []

    def main(ctx: Ctx) -> Code:
        seen.append((0, ctx.is_replaying))
        for step in (1, 2, 3):
            try:
                yield ctx.call_activity("a")
            except TaskFailedError:
                pass
            seen.append((step, ctx.is_replaying))

    driver = Driver(main, is_cold=is_cold)
    driver.give(TaskFailed(1, BOOM), TaskCompleted(2))
    driver.done(3)
    assert [step for step, is_replaying in seen if not is_replaying] == [0, 1, 2, 3]
    assert [step for step, is_replaying in seen if is_replaying] == ([0, 0, 1, 2] if is_cold else [])


# ---------------------------------------------------------------- nondeterminism


def original(ctx: Ctx) -> Code:
    ctx.send_event("other", "Go")
    yield ctx.call_activity("a", 1)
    yield ctx.create_timer(timedelta(1))
    yield ctx.call_sub_orchestrator("c", instance_id="child")


@pytest.fixture
def recorded() -> Driver:
    driver = Driver(original)
    driver.done(2)
    driver.fired(3)
    assert driver.replayed().nondeterminism is None
    return driver


CALLS: dict[str, Callable[..., Any]] = {
    "send": lambda ctx, target, name: ctx.send_event(target, name),
    "timer": lambda ctx: ctx.create_timer(timedelta(2)),
    "child": lambda ctx, instance_id: ctx.call_sub_orchestrator("c", instance_id=instance_id),
    "orchestrator": lambda ctx, name: ctx.call_sub_orchestrator(name, instance_id="child"),
    "activity": lambda ctx, name: ctx.call_activity(name, "other input"),
}


def changed(*steps: str, end: str = "wait") -> Callable[[Ctx], Code]:
    def main(ctx: Ctx) -> Code:
        for step in steps:
            kind, _, names = step.partition(" ")
            task = CALLS[kind](ctx, *names.split())
            if task is not None:
                yield task
        if end == "raise":
            raise KeyError("gone")
        if end == "continue":
            ctx.continue_as_new()

    return main


GO, A, TIMER, CHILD = "send other gO", "activity a", "timer", "child child"


def test_the_same_calls_fit_whatever_their_inputs_times_and_case_of_event_names(recorded: Driver) -> None:  # rule 2, DET-6
    assert recorded.replayed(changed(GO, A, TIMER, CHILD)).nondeterminism is None


@pytest.mark.parametrize(
    ("steps", "mismatch"),
    [
        (["activity b", A, TIMER, CHILD], (1, "send_event('Go' to 'other')", "call_activity('b')")),
        (["send other stop", A, TIMER, CHILD], (1, "send_event('Go' to 'other')", "send_event('stop' to 'other')")),
        (["send another Go", A, TIMER, CHILD], (1, "send_event('Go' to 'other')", "send_event('Go' to 'another')")),
        ([GO, "activity b", TIMER, CHILD], (2, "call_activity('a')", "call_activity('b')")),
        ([GO, "activity A", TIMER, CHILD], (2, "call_activity('a')", "call_activity('A')")),
        ([GO, TIMER, A, CHILD], (2, "call_activity('a')", "create_timer")),
        ([GO, A, CHILD, TIMER], (3, "create_timer", "call_sub_orchestrator('c', instance_id='child')")),
        ([GO, A, TIMER, "child other"], (4, "call_sub_orchestrator('c', instance_id='child')", "call_sub_orchestrator('c', instance_id='other')")),
        ([GO, A, TIMER, "orchestrator d"], (4, "call_sub_orchestrator('c', instance_id='child')", "call_sub_orchestrator('d', instance_id='child')")),
        ([GO, TIMER, CHILD], (2, "call_activity('a')", "create_timer")),
        ([A, TIMER, CHILD], (1, "send_event('Go' to 'other')", "call_activity('a')")),
        ([GO, GO, A, TIMER, CHILD], (2, "call_activity('a')", "send_event('gO' to 'other')")),
    ],
)  # fmt: skip
def test_changed_calls_are_found_with_step_and_both_sides(recorded: Driver, steps: list[str], mismatch: Any) -> None:  # rule 2, DET-5, DET-6
    assert recorded.mismatch(changed(*steps)) == mismatch


def test_a_call_that_is_no_longer_made_is_found(recorded: Driver) -> None:  # DET-7
    def waits(ctx: Ctx) -> Code:
        ctx.send_event("other", "Go")
        yield ctx.call_activity("a")
        yield ctx.wait_for_external_event("never")

    assert recorded.mismatch(waits) == (3, "create_timer", None)
    assert recorded.mismatch(changed(GO, A)) == (3, "create_timer", None)


def test_a_call_that_was_not_made_is_found() -> None:  # rule 2
    def before(ctx: Ctx) -> Code:
        yield ctx.wait_for_external_event("x")

    def after(ctx: Ctx) -> Code:
        yield ctx.when_all([ctx.wait_for_external_event("x"), ctx.call_activity("new")])

    def more(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        yield ctx.call_activity("new")

    assert Driver(before).mismatch(after) == (1, None, "call_activity('new')")
    driver = Driver(before)
    driver.raised("y")
    assert driver.mismatch(after) == (1, None, "call_activity('new')")

    def one(ctx: Ctx) -> Code:
        yield ctx.when_all([ctx.call_activity("a"), ctx.wait_for_external_event("x")])

    driver = Driver(one)
    driver.done(1)
    assert driver.mismatch(more) == (2, None, "call_activity('new')")


def test_code_that_ends_before_its_history_is_found() -> None:  # rule 2
    def early(ctx: Ctx) -> Code:
        ctx.send_event("other", "Go")
        yield ctx.call_activity("a")
        ctx.create_timer(timedelta(1))
        return 5

    driver = Driver(original)
    driver.done(2)
    driver.fired(3)
    assert driver.mismatch(early) == (4, "that it went on, with TimerFired", "no more: it ended")


@pytest.mark.parametrize(
    ("end", "text"), [("wait", "it ended"), ("raise", "it failed with builtins.KeyError: 'gone'"), ("continue", "it continued as new")]
)
def test_code_that_ends_where_it_waited_is_found(end: str, text: str) -> None:  # rule 2
    def waits(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        yield ctx.wait_for_external_event("x")

    driver = Driver(waits)
    driver.done(1)
    assert driver.mismatch(changed(A, end=end)) == (2, "that it is waiting", f"no more: {text}")


def test_a_contradicted_instance_fails_at_its_next_turn_and_its_open_calls_are_counted(recorded: Driver) -> None:  # rule 2, DET-5
    driver = Driver(original)
    execution = driver.replayed(changed("timer", A))
    assert execution.sequence == len(driver.history)
    turn = execution.advance(T0 + SECOND, [TaskCompleted(2), EventRaised("x")])
    assert turn.failure is not None
    assert turn.failure.type_name == "flask_durable.errors.NonDeterminismError"
    assert "at step 1: the history says send_event('Go' to 'other'), the code asked for create_timer" in turn.failure.message
    assert turn.events == [TaskCompleted(2), EventRaised("x"), ExecutionCompleted(RuntimeStatus.FAILED, None, turn.failure, sound_until=3)]
    assert (turn.status, turn.open_activities, turn.activities, turn.timers) == ("Failed", 1, [], [])
    execution.close()


def test_code_that_raises_a_nondeterminism_error_of_its_own_just_fails() -> None:
    from flask_durable.errors import NonDeterminismError

    def main(ctx: Ctx) -> Any:
        raise NonDeterminismError(1, "a", "b")

    driver = Driver(main)
    assert (driver.failure.type_name, driver.execution.nondeterminism) == ("flask_durable.errors.NonDeterminismError", None)


def test_a_replayed_timer_is_due_when_the_history_says() -> None:  # rule 2
    driver = Driver(original)
    driver.done(2)
    times: list[int] = []

    def later(ctx: Ctx) -> Code:
        ctx.send_event("other", "Go")
        yield ctx.call_activity("a")
        timer = ctx.create_timer(timedelta(9))
        try:
            yield timer
        finally:
            times.append(timer.fire_at)

    driver.replayed(later).close()
    assert times == [T0 + SECOND + 86_400 * SECOND]


def test_what_the_store_records_by_itself_is_passed_over_in_replay() -> None:  # rule 36
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        return str(ctx.current_utc_datetime)

    driver = Driver(main)
    for fact in (ExecutionSuspended("why"), ExecutionResumed()):
        driver.history.append(Recorded(len(driver.history) + 1, T0 + 50 * SECOND, fact))
    execution = driver.replayed()
    assert (execution.nondeterminism, execution.sequence) == (None, 4)
    assert execution.advance(T0 + 10 * SECOND, [TaskCompleted(1)]).at == T0 + 50 * SECOND + 1


# ---------------------------------------------------------------- retries


def retried(ctx: Ctx, input: dict[str, Any]) -> Code:
    options = dict(input)
    try:
        return (yield ctx.call_activity("a", "in", retry_policy=RetryPolicy(**options)))
    except TaskFailedError as error:
        return str(error)


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_failed_call_is_made_again_after_a_durable_timer(is_cold: bool) -> None:  # RTY-1, RTY-3, RTY-4
    driver = Driver(retried, {"first_retry_interval": 5, "max_number_of_attempts": 3, "backoff_coefficient": 2}, is_cold=is_cold)
    assert driver.first.activities == [TaskScheduled(1, "a", '"in"', 1, 1)]
    assert driver.failed(1).events[1:] == [TimerCreated(2, T0 + 6 * SECOND)]
    assert driver.fired(2).events[1:] == [TaskScheduled(3, "a", '"in"', 2, 1)]
    assert driver.failed(3).events[1:] == [TimerCreated(4, T0 + 17 * SECOND)]
    assert driver.fired(4).events[1:] == [TaskScheduled(5, "a", '"in"', 3, 1)]
    assert len(driver.failed(5).events) == 2
    assert driver.output == "Activity task #1 failed: boom"


def test_the_failure_after_all_attempts_is_the_last_one() -> None:  # RTY-4
    driver = Driver(retried, {"first_retry_interval": 0, "max_number_of_attempts": 2})
    driver.failed(1, FailureDetails("a.A", "first"))
    driver.fired(2)
    driver.failed(3, FailureDetails("a.A", "last"))
    assert driver.output == "Activity task #1 failed: last"


def test_a_later_success_is_the_result() -> None:
    driver = Driver(retried, {"first_retry_interval": 0, "max_number_of_attempts": 2})
    driver.failed(1)
    driver.fired(2)
    driver.done(3, "ok")
    assert driver.output == "ok"


@pytest.mark.parametrize("is_cold", [False, True])
def test_the_retry_timeout_is_measured_in_orchestration_time(is_cold: bool) -> None:  # RTY-2, RTY-3
    driver = Driver(retried, {"first_retry_interval": 4, "max_number_of_attempts": 9, "retry_timeout": 10}, is_cold=is_cold)
    assert driver.give(TaskFailed(1, BOOM), after=2).timers == [TimerCreated(2, T0 + 6 * SECOND)]
    driver.give(TimerFired(2, T0 + 6 * SECOND), after=4)
    driver.give(TaskFailed(3, BOOM), after=1)
    assert driver.output == "Activity task #1 failed: boom"


def test_the_timeout_and_the_elapsed_time_count_from_the_call_not_from_the_start() -> None:  # RTY-2, rule 25
    seen: list[RetryContext] = []

    def main(ctx: Ctx) -> Code:
        yield ctx.create_timer(timedelta(hours=1))
        yield ctx.call_activity("a", retry_policy=RetryPolicy(1, 5, retry_timeout=10, handler=lambda context: seen.append(context) or True))

    driver = Driver(main)
    driver.fired(1)
    assert len(driver.failed(2).timers) == 1
    assert seen == [RetryContext(1, timedelta(seconds=1), BOOM)]


def test_a_non_retriable_failure_ends_the_retrying() -> None:  # rule 26
    driver = Driver(retried, {"first_retry_interval": 1, "max_number_of_attempts": 9})
    driver.failed(1, FailureDetails("a.A", "no", is_non_retriable=True))
    assert driver.output == "Activity task #1 failed: no"


@pytest.mark.parametrize("error", [KeyError("handler"), SystemExit(1)])
def test_a_handler_that_raises_fails_the_call_or_the_instance_but_not_the_engine(error: BaseException) -> None:  # rule 25
    def handler(context: RetryContext) -> bool:
        raise error

    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_activity("a", retry_policy=RetryPolicy(1, 5, handler=handler))
        except KeyError as caught:
            return str(caught)

    driver = Driver(main)
    driver.failed(1)
    if isinstance(error, KeyError):
        assert driver.output == "'handler'"
    else:
        assert driver.failure.type_name == "builtins.SystemExit"
    driver.execution.close()


def test_retrying_calls_in_a_race_and_in_a_group_are_one_task_each() -> None:  # rule 27, RTY-6
    def main(ctx: Ctx) -> Code:
        calls = [ctx.call_activity(name, retry_policy=RetryPolicy(1, 2)) for name in "ab"]
        winner = yield ctx.when_any(calls)
        return [calls.index(winner), (yield ctx.when_all(calls))]

    driver = Driver(main)
    assert driver.failed(1).status == "Running"
    assert driver.done(2, "b").status == "Running"
    driver.fired(3)
    driver.done(4, "a")
    assert driver.output == [1, ["a", "b"]]


# ---------------------------------------------------------------- timers


def test_a_fired_timer_gives_none() -> None:  # TIM-2
    def main(ctx: Ctx) -> Code:
        return [(yield ctx.create_timer(timedelta(1)))]

    driver = Driver(main)
    driver.fired(1)
    assert driver.output == [None]


def test_a_timer_cancelled_in_a_later_turn_or_the_same_must_not_fire() -> None:  # TIM-3, rule 17
    def main(ctx: Ctx) -> Code:
        early, late = ctx.create_timer(timedelta(1)), ctx.create_timer(timedelta(2))
        assert early.cancel() is True
        yield ctx.call_activity("a")
        assert (late.cancel(), late.cancel()) == (True, False)
        try:
            yield late
        except TaskCancelledError:
            pass
        yield ctx.call_activity("b")

    driver = Driver(main)
    second = driver.done(3)
    assert ([timer.task_id for timer in driver.first.timers], driver.first.cancelled_timers) == ([1, 2], [1])
    assert (second.cancelled_timers, second.timers, second.status) == ([2], [], "Running")
    assert driver.fired(2).events == []


# ---------------------------------------------------------------- races


@pytest.mark.parametrize("is_cold", [False, True])
def test_the_winner_is_the_one_recorded_first_in_each_replay(is_cold: bool) -> None:  # rule 14
    def main(ctx: Ctx) -> Code:
        calls = [ctx.call_activity("a"), ctx.call_activity("b"), ctx.call_activity("c")]
        yield ctx.call_activity("d")
        winner = yield ctx.when_any(calls)
        return [calls.index(winner), winner.result, (yield ctx.call_activity("e"))]

    driver = Driver(main, is_cold=is_cold)
    for task_id in (3, 1, 4, 5):
        driver.done(task_id, task_id)
    assert driver.output == [2, 3, 5]


def test_groups_of_the_module_do_as_those_of_the_context() -> None:
    def main(ctx: Ctx) -> Code:
        a, b = ctx.call_activity("a"), ctx.call_activity("b")
        winner = yield when_any([a, b])
        nothing = yield when_all([])
        more = yield when_all([when_all([]), ctx.task_all([a, b])])
        assert (yield ctx.task_any([a, b])) is winner
        return [winner is b, nothing, (yield ctx.when_all([])), (yield ctx.when_all_settled([])), more]

    driver = Driver(main)
    driver.done(2, 2)
    driver.done(1, 1)
    assert driver.output == [True, [], [], [], [[], [1, 2]]]


def test_a_settled_group_never_raises() -> None:  # rule 12
    def main(ctx: Ctx) -> Code:
        tasks = yield ctx.when_all_settled([ctx.call_activity("a"), ctx.call_activity("b")])
        return [str(task.get_exception()) if task.is_failed else task.result for task in tasks]

    driver = Driver(main)
    driver.failed(1)
    driver.done(2, "ok")
    assert driver.output == ["Activity task #1 failed: boom", "ok"]


def test_a_group_that_failed_leaves_its_other_tasks_to_be_awaited() -> None:  # rule 12
    def main(ctx: Ctx) -> Code:
        slow = ctx.call_activity("slow")
        try:
            yield ctx.when_all([slow, ctx.call_activity("b")])
        except TaskFailedError as error:
            return [str(error), (yield slow)]

    driver = Driver(main)
    driver.failed(2)
    driver.done(1, "late")
    assert driver.output == ["Activity task #2 failed: boom", "late"]


def test_groups_nested_beyond_the_stack_fail_the_instance_and_not_the_engine() -> None:  # rule 7
    def main(ctx: Ctx) -> Code:
        group = ctx.call_activity("a")
        for _ in range(3_000):
            group = ctx.when_all([group])
        yield group

    driver = Driver(main)
    driver.done(1)
    assert driver.failure.type_name == "builtins.RecursionError"
    driver.execution.close()


# ---------------------------------------------------------------- events


def test_events_that_come_with_the_start_are_kept() -> None:  # rule 20, EVT-3
    def main(ctx: Ctx) -> Code:
        yield ctx.call_activity("a")
        return [(yield ctx.wait_for_external_event("GO")), (yield ctx.wait_for_external_event("go"))]

    driver = Driver(main, with_events=[event("go", 1), event("Go", 2)])
    driver.done(1)
    assert driver.output == [1, 2]


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_loop_of_event_or_timer_loses_no_event(is_cold: bool) -> None:  # rule 21
    def main(ctx: Ctx) -> Code:
        got: list[int] = []
        while len(got) < 4:
            waiting, timer = ctx.wait_for_external_event("go"), ctx.create_timer(timedelta(1))
            winner = yield ctx.when_any([waiting, timer])
            if winner is waiting:
                got.append(waiting.result)
                timer.cancel()
            else:
                yield ctx.call_activity("between")
        return got

    driver = Driver(main, is_cold=is_cold)
    driver.raised("go", 1)
    driver.fired(2)
    driver.raised("go", 2)
    driver.raised("go", 3)
    driver.done(3)
    assert driver.raised("go", 4).status == "Completed"
    assert driver.output == [1, 2, 3, 4]


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_wait_that_lost_gets_its_event_when_yielded_again(is_cold: bool) -> None:  # rule 21
    def main(ctx: Ctx) -> Code:
        waiting = ctx.wait_for_external_event("go")
        yield ctx.when_any([waiting, ctx.call_activity("a")])
        yield ctx.call_activity("b")
        assert not waiting.is_complete
        return [(yield ctx.wait_for_external_event("go")), (yield waiting)]

    driver = Driver(main, is_cold=is_cold)
    driver.done(1)
    driver.raised("go", "first")
    driver.done(2)
    driver.raised("go", "second")
    assert driver.output == ["first", "second"]


def test_a_timed_wait_that_wins_calls_its_timer_off_and_one_that_loses_raises() -> None:  # rule 22
    def main(ctx: Ctx) -> Code:
        first = yield ctx.wait_for_external_event("go", timeout=timedelta(seconds=5))
        second = yield ctx.wait_for_external_event("go", timeout=timedelta(seconds=5), default="none came")
        try:
            yield ctx.wait_for_external_event("go", timeout=timedelta(seconds=5))
        except TimeoutError as error:
            return [first, second, str(error)]

    driver = Driver(main)
    assert driver.raised("go", 1).cancelled_timers == [1]
    assert driver.fired(2).cancelled_timers == []
    driver.fired(3)
    assert driver.output == [1, "none came", "The external event 'go' did not come in time"]


# ---------------------------------------------------------------- continue as new


def following(input: str | None, *carried: EventRaised, version: str | None = None) -> NextGeneration:
    return NextGeneration(next_execution_id("e1"), input, version, carried)


@pytest.mark.parametrize("how", ["plain", "return", "yield", "await"])
def test_it_continues_when_the_code_returns_or_yields(how: str) -> None:  # rules 31 and 35, CAN-1, CAN-3
    def plain(ctx: Ctx) -> Any:
        ctx.continue_as_new([1])
        return "does not matter"

    def generator(ctx: Ctx) -> Code:
        ctx.continue_as_new([1])
        if how == "yield":
            yield ctx.when_any([ctx.wait_for_external_event("x")])
            raise AssertionError
        return {"not": {"json"}}

    async def coroutine(ctx: Ctx) -> Any:
        ctx.continue_as_new([1])
        await ctx.wait_for_external_event("x")

    driver = Driver({"plain": plain, "await": coroutine}.get(how, generator))
    done = ExecutionCompleted(RuntimeStatus.CONTINUED_AS_NEW, "[1]")
    assert driver.first == Turn(T0, events=[driver.started, done], next_generation=following("[1]"))
    assert driver.execution.is_finished
    driver.execution.close()


def test_the_first_call_counts() -> None:  # CAN-3
    def main(ctx: Ctx) -> None:
        ctx.continue_as_new(1, version="2")
        ctx.continue_as_new(2, save_events=False)

    assert Driver(main, with_events=[event("x")]).first.next_generation == following("1", event("x"), version="2")


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("2", "2")])
def test_the_version_stays_or_is_the_given_one(given: str | None, expected: str) -> None:  # VER
    def main(ctx: Ctx) -> None:
        ctx.continue_as_new(version=given)

    turn = Driver(main, started=ExecutionStarted("main", "i", "e1", version="1")).first
    assert turn.next_generation == following(None, version=expected)


def test_events_nobody_read_carry_over_in_order_with_those_of_the_same_batch() -> None:  # rule 32, CAN-2
    def main(ctx: Ctx) -> Code:
        yield ctx.wait_for_external_event("a")
        ctx.continue_as_new()

    driver = Driver(main, with_events=[event("b", 1), event("c", 2)])
    turn = driver.give(event("b", 3), event("a"), event("a", 4), TaskCompleted(9), event("b", 5))
    assert turn.next_generation == following(None, event("b", 1), event("c", 2), event("b", 3), event("a", 4), event("b", 5))
    assert turn.events == [event("b", 3), event("a"), ExecutionCompleted(RuntimeStatus.CONTINUED_AS_NEW)]


def test_without_save_events_only_those_after_the_call_carry_over() -> None:  # CAN-2
    def main(ctx: Ctx) -> Code:
        yield ctx.wait_for_external_event("a")
        ctx.continue_as_new(save_events=False)

    driver = Driver(main, with_events=[event("b", 1)])
    assert driver.give(event("a"), event("b", 2)).next_generation == following(None, event("b", 2))


def test_a_dormant_wait_takes_no_event_into_its_grave() -> None:  # rules 21 and 32
    def main(ctx: Ctx) -> Code:
        yield ctx.when_any([ctx.wait_for_external_event("a"), ctx.create_timer(timedelta(1))])
        yield ctx.call_activity("x")
        ctx.continue_as_new()

    driver = Driver(main)
    driver.fired(1)
    driver.raised("a", 1)
    assert driver.done(2).next_generation == following(None, event("a", 1))


def test_what_was_open_is_not_started_and_children_and_events_go_out() -> None:  # CAN-4, rule 31
    def main(ctx: Ctx) -> None:
        ctx.call_activity("a")
        ctx.create_timer(timedelta(1))
        ctx.send_event("other", "Go")
        ctx.call_sub_orchestrator("c")
        ctx.set_custom_status("kept")
        ctx.continue_as_new()

    turn = Driver(main).first
    assert (turn.activities, turn.timers, len(turn.sent_events), len(turn.children)) == ([], [], 1, 1)
    assert (turn.status, turn.custom_status, turn.custom_status_changed) == ("Running", '"kept"', True)


# ---------------------------------------------------------------- limits


def test_too_many_calls_in_one_turn_are_refused_with_a_hint() -> None:  # rule 10
    def main(ctx: Ctx, count: int) -> Code:
        yield ctx.when_all([ctx.call_activity("a") for _ in range(count)])
        yield ctx.when_all([ctx.call_activity("a") for _ in range(count)])

    limits = Limits(actions_per_turn=3)
    driver = Driver(main, 3, limits=limits)
    assert driver.give(TaskCompleted(1), TaskCompleted(2), TaskCompleted(3)).status == "Running"
    assert driver.replayed().nondeterminism is None
    assert Driver(main, 4, limits=limits).failure.message == (
        "More than 3 calls without a yield (DURABLE_MAX_ACTIONS_PER_TURN); yield groups of calls, or spread the work over sub-orchestrations or continue_as_new"
    )


def test_a_limit_met_by_further_attempts_fails_the_instance_and_not_the_engine() -> None:  # rule 10
    def main(ctx: Ctx) -> Code:
        yield ctx.when_all([ctx.call_activity("a", retry_policy=RetryPolicy(0, 5)) for _ in range(3)])

    driver = Driver(main, limits=Limits(actions_per_turn=3))
    driver.give(*(TaskFailed(number, BOOM) for number in (1, 2, 3)))
    turn = driver.give(*(TimerFired(number, driver.now) for number in (4, 5, 6)), *(TaskFailed(number, BOOM) for number in (7, 8, 9)))
    assert turn.failure is not None
    assert turn.failure.message.startswith("More than 3 calls without a yield")


def test_a_history_over_its_limit_fails_with_a_hint() -> None:  # rule 10
    def main(ctx: Ctx) -> Code:
        while True:
            yield ctx.wait_for_external_event("x")

    for is_cold in (False, True):
        driver = Driver(main, limits=Limits(history_events=4), is_cold=is_cold)
        driver.give(EventRaised("x"), EventRaised("x"), EventRaised("x"))
        turn = driver.give(EventRaised("x"), EventRaised("x"))
        assert driver.failure.message == "The history has more than 4 events (DURABLE_MAX_HISTORY_EVENTS); use continue_as_new to begin a new one"
        assert turn.events == [EventRaised("x"), ExecutionCompleted(RuntimeStatus.FAILED, None, turn.failure, sound_until=4)]
        driver.execution.close()


# ---------------------------------------------------------------- abandoning


def test_closing_runs_the_cleanup_and_refuses_what_it_asks_for() -> None:  # rule 7
    seen: list[str] = []

    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_activity("a")
        finally:
            for ask in (
                lambda: ctx.call_activity("b"),
                lambda: ctx.call_sub_orchestrator("b"),
                lambda: ctx.create_timer(timedelta(1)),
                lambda: ctx.wait_for_external_event("b"),
                lambda: ctx.send_event("b", "b"),  # type: ignore[func-returns-value]
                lambda: ctx.continue_as_new(),  # type: ignore[func-returns-value]
                lambda: ctx.set_custom_status(1),  # type: ignore[func-returns-value]
            ):
                try:
                    ask()
                except ContextClosedError as error:
                    seen.append(str(error))

    driver = Driver(main)
    driver.execution.close()
    driver.execution.close()
    assert driver.execution.is_finished
    assert seen == ["This execution was abandoned; its code is no longer running as part of the instance"] * 7
    assert len(driver.first.events) == 2


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt()])
def test_a_cleanup_that_raises_does_not_disturb(error: BaseException) -> None:
    def main(ctx: Ctx) -> Code:
        try:
            yield ctx.call_activity("a")
        finally:
            raise error

    Driver(main).execution.close()


def test_code_that_catches_its_closing_and_yields_again_is_closed_all_the_same() -> None:
    steps: list[int] = []

    def main(ctx: Ctx) -> Code:
        task = ctx.call_activity("a")
        for step in range(5):
            try:
                yield task
            except BaseException:  # noqa: BLE001 - what careless authors write
                steps.append(step)

    execution = Driver(main).execution
    execution.close()
    assert steps == [0, 1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_called_inside", [False, True])
def test_code_that_cannot_be_closed_does_not_hold_the_engine_up(is_called_inside: bool) -> None:
    def main(ctx: Ctx) -> Code:
        task = ctx.call_activity("a")
        while True:
            try:
                yield ctx.call_activity("b") if is_called_inside else task
            except BaseException:  # noqa: BLE001 - what careless authors write
                pass

    started = time.perf_counter()
    driver = Driver(main)
    driver.execution.close()
    assert time.perf_counter() - started < 1
    del driver
    gc.collect()


def test_an_unfinished_coroutine_is_closed_without_a_warning() -> None:
    async def main(ctx: Ctx) -> Any:
        await ctx.call_activity("a")

    Driver(main).execution.close()
    gc.collect()


def test_closing_what_never_began_or_has_ended_is_fine() -> None:
    Execution(lambda ctx: None).close()
    driver = Driver(lambda ctx: None)
    driver.execution.close()


# ---------------------------------------------------------------- cost


def test_a_long_sequence_and_a_wide_fan_out_cost_the_same_per_turn() -> None:
    def sequence(ctx: Ctx, count: int) -> Code:
        for number in range(count):
            yield ctx.call_activity("a", number)

    def fan_out(ctx: Ctx, count: int) -> Code:
        return len((yield ctx.when_all([ctx.call_activity("a", number) for number in range(count)])))

    def seconds(function: Any, count: int) -> float:
        execution = Execution(function)
        started = time.perf_counter()
        execution.advance(T0, [ExecutionStarted("main", "i", "e1", 0, str(count))])
        for number in range(1, count + 1):
            execution.advance(T0 + number, [TaskCompleted(number, "1")])
        assert execution.is_finished
        return (time.perf_counter() - started) / count

    for function in (sequence, fan_out):
        assert seconds(function, 20_000) < 5 * max(seconds(function, 1_000), 10e-6)


@pytest.mark.parametrize("is_cold", [False, True])
def test_an_outcome_of_another_kind_of_call_is_ignored(is_cold: bool) -> None:  # rule 2, DET-8
    def main(ctx: Ctx) -> Code:
        yield ctx.create_timer(timedelta(seconds=10))
        return [(yield ctx.call_activity("a")), (yield ctx.call_sub_orchestrator("child"))]

    driver = Driver(main, is_cold=is_cold)
    for deliver in (driver.done, driver.failed, driver.child_done):  # call 1 is a timer
        assert deliver(1).events == []
    driver.fired(1)
    for deliver in (driver.child_done, driver.fired):  # call 2 is an activity
        assert deliver(2).events == []
    driver.done(2, "result")
    for deliver in (driver.done, driver.failed, driver.fired):  # call 3 is a child
        assert deliver(3).events == []
    driver.child_done(3, "output")
    assert driver.output == ["result", "output"]
