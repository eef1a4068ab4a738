"""What orchestrator code may ask for: each call, its action and its refusals."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from flask_durable.core.context import Limits, OrchestrationContext
from flask_durable.core.events import EventSent, ExecutionStarted, SubOrchestrationCreated, TaskFailed, TaskScheduled, TimerCreated, TimerFired
from flask_durable.core.execution import Execution
from flask_durable.core.ids import child_execution_id, child_instance_id
from flask_durable.core.options import DEFAULT_OPTIONS, ActivityOptions
from flask_durable.core.plain import ALLOWED
from flask_durable.core.retry import RetryPolicy
from flask_durable.core.times import from_micros
from flask_durable.errors import InvalidArgumentError, PayloadTooLargeError

from .driver import BOOM, SECOND, T0, Driver

Code = Generator[Any, Any, Any]


def pay(order: Any) -> None: ...


def refusal(ask: Callable[[OrchestrationContext], Any], *, limits: Limits | None = None) -> str:
    """The message with which the context refuses something; nothing must follow from it."""
    caught: list[InvalidArgumentError] = []

    def main(ctx: OrchestrationContext) -> None:
        try:
            ask(ctx)
        except InvalidArgumentError as error:
            caught.append(error)

    turn = Driver(main, limits=limits).first
    assert (turn.status, len(turn.events)) == ("Completed", 2)
    return str(caught[0])


# ---------------------------------------------------------------- what is known


def test_the_context_tells_what_the_instance_was_started_with() -> None:  # SUB-1, VER-1
    seen: dict[str, Any] = {}

    def main(ctx: OrchestrationContext) -> None:
        names = ["instance_id", "parent_instance_id", "execution_id", "generation", "name", "version", "tags", "input", "custom_status"]
        seen.update({name: getattr(ctx, name) for name in names})

    Driver(main, started=ExecutionStarted("main", "i", "e1", 3, '{"a":1}', "2.0", "parent", {"k": "v"}))
    assert seen == {
        "instance_id": "i", "parent_instance_id": "parent", "execution_id": "e1", "generation": 3, "name": "main", "version": "2.0",
        "tags": {"k": "v"}, "input": {"a": 1}, "custom_status": None,
    }  # fmt: skip
    Driver(main)
    assert (seen["parent_instance_id"], seen["version"], seen["tags"], seen["input"]) == (None, None, {}, None)


def test_the_input_is_a_copy_each_time_and_the_tags_too() -> None:  # rule 55
    def main(ctx: OrchestrationContext, input: list[int]) -> list[Any]:
        input.append(2)
        ctx.input.append(3)
        ctx.tags["x"] = "y"  # type: ignore[index]  # what a careless author does
        return [input, ctx.input, ctx.get_input(), ctx.tags]

    assert Driver(main, [1]).output == [[1, 2], [1], [1], {}]


def test_the_clock_shows_when_the_turn_began_and_is_aware() -> None:  # rule 3, DET-3
    def main(ctx: OrchestrationContext) -> Code:
        times = [ctx.current_utc_datetime, ctx.current_utc_datetime]
        yield ctx.call_activity("a")
        times.append(ctx.current_utc_datetime)
        yield ctx.when_all([ctx.call_activity("a"), ctx.call_activity("a")])
        times.append(ctx.current_utc_datetime)
        return [str(each) for each in times]

    driver = Driver(main)
    second = driver.done(1)
    from flask_durable.core.events import TaskCompleted

    third = driver.give(TaskCompleted(2), TaskCompleted(3), after=7)
    assert (driver.first.at, second.at, third.at) == (T0, T0 + SECOND, T0 + 8 * SECOND)
    assert driver.output == [str(from_micros(at)) for at in (T0, T0, second.at, third.at)]
    assert from_micros(T0).tzinfo is UTC


def test_the_clock_never_runs_back() -> None:  # rule 3
    def main(ctx: OrchestrationContext) -> Code:
        before = ctx.current_utc_datetime
        yield ctx.call_activity("a")
        return (ctx.current_utc_datetime - before) / timedelta(microseconds=1)

    driver = Driver(main)
    driver.now -= 100 * SECOND
    assert driver.done(1).at == T0 + 1
    assert driver.output == 1


def test_uuids_are_the_same_in_each_replay_and_different_everywhere_else() -> None:  # rule 4, DET-4
    def main(ctx: OrchestrationContext) -> Code:
        first = [str(ctx.new_uuid()) for _ in range(3)]
        yield ctx.call_activity("a")
        return [*first, str(ctx.new_uuid())]

    found = []
    for execution_id in ("e1", "e1", "e2"):
        for is_cold in (False, True):
            driver = Driver(main, is_cold=is_cold, started=ExecutionStarted("main", "i", execution_id))
            driver.done(1)
            found.append(tuple(driver.output))
    assert len(set(found)) == 2
    assert len({each for made in found for each in made}) == 8
    assert all(uuid.UUID(each).version == 5 for each in found[0])


# ---------------------------------------------------------------- activities


def test_a_call_of_an_activity_is_recorded_with_its_number_name_and_input() -> None:  # ACT-5, REG-3
    def main(ctx: OrchestrationContext) -> Code:
        calls = [ctx.call_activity("pay", {"sum": 1}), ctx.call_activity(pay), ctx.call_activity("pay", input=0)]
        return (yield ctx.when_all(calls))

    scheduled = [TaskScheduled(1, "pay", '{"sum":1}', 1, 1), TaskScheduled(2, "pay", None, 1, 2), TaskScheduled(3, "pay", "0", 1, 3)]
    driver = Driver(main)
    assert (driver.first.activities, driver.first.events[1:], driver.first.open_activities) == (scheduled, scheduled, 3)


def test_functions_are_named_by_the_registry() -> None:  # REG-3
    def main(ctx: OrchestrationContext) -> Code:
        yield ctx.call_activity(pay)

    execution = Execution(main, name_of=lambda function: f"registered.{function.__name__}")  # type: ignore[attr-defined]
    assert execution.advance(T0, [ExecutionStarted("main", "i", "e1")]).activities == [TaskScheduled(1, "registered.pay", None, 1, 1)]


def test_inputs_are_by_value_from_the_moment_of_the_call() -> None:  # rule 55
    def main(ctx: OrchestrationContext) -> Code:
        order = [1]
        task = ctx.call_activity("pay", order)
        order.append(2)
        yield task

    assert Driver(main).first.activities[0].input == "[1]"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda ctx: ctx.call_activity(""), "The name of an activity has 1 to 200 characters that are not all blank; got ''"),
        (lambda ctx: ctx.call_activity("a", 1j), f"The input of activity 'a' contains a builtins.complex; {ALLOWED}"),
        (lambda ctx: ctx.call_activity("a", retry_policy=3), "retry_policy is a RetryPolicy, not int"),
        (lambda ctx: ctx.call_sub_orchestrator("a/b"), "The orchestrator name 'a/b' contains '/'; control characters and / \\ # ? are not allowed"),
        (lambda ctx: ctx.call_sub_orchestrator("a", object), f"The input of orchestrator 'a' contains a builtins.type; {ALLOWED}"),
        (lambda ctx: ctx.call_sub_orchestrator("a", instance_id="x/y"), "The instance id 'x/y' contains '/'; control characters and / \\ # ? are not allowed"),
        (lambda ctx: ctx.call_sub_orchestrator("a", version=2), "A version is a text of 1 to 100 characters, not 2"),
        (lambda ctx: ctx.create_timer(5), "A timer takes a datetime or a timedelta, not int: 5"),
        (lambda ctx: ctx.create_timer(timedelta.max), f"The timer's time {timedelta.max!r} lies outside the years 1 to 9999"),
        (lambda ctx: ctx.wait_for_external_event(" "), "The name of an event has 1 to 200 characters that are not all blank; got ' '"),
        (lambda ctx: ctx.wait_for_external_event("a", timeout=5), "A timer takes a datetime or a timedelta, not int: 5"),
        (lambda ctx: ctx.send_event("", "a"), "An instance id has 1 to 100 characters, this one has 0"),
        (lambda ctx: ctx.send_event("x", ""), "The name of an event has 1 to 200 characters that are not all blank; got ''"),
        (lambda ctx: ctx.send_event(None, "a"), "An instance id is a string, not NoneType"),
        (lambda ctx: ctx.send_event("@counter@1", "a"), "The instance id '@counter@1' begins with '@': entities are signalled, they take no events"),
        (lambda ctx: ctx.send_event("x", "a", float("nan")), "The event data contains nan, which JSON cannot carry"),
        (lambda ctx: ctx.continue_as_new({1: 2}), "The input has a key 1 of type int; JSON keys are strings"),
        (lambda ctx: ctx.continue_as_new(version=""), "A version is a text of 1 to 100 characters, not ''"),
        (lambda ctx: ctx.set_custom_status(1j), f"The custom status contains a builtins.complex; {ALLOWED}"),
        (lambda ctx: ctx.when_any([]), "when_any needs at least one task: of none, none can ever be the first"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_at_the_call_and_nothing_follows(ask: Any, message: str) -> None:  # rule 55, rule 11, EVT-7
    assert refusal(ask) == message


def test_a_refused_call_uses_up_no_number() -> None:
    def main(ctx: OrchestrationContext) -> Code:
        for wrong in (lambda: ctx.call_activity("a", 1j), lambda: ctx.send_event("", "a"), lambda: ctx.create_timer(5)):  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError):
                wrong()
        yield ctx.call_activity("a")

    assert Driver(main).first.activities == [TaskScheduled(1, "a", None, 1, 1)]


def test_payloads_are_limited_in_size_and_depth() -> None:
    limits = Limits(payload_bytes=10, payload_depth=2)
    assert "is 12 bytes of JSON; at most 10 are allowed" in refusal(lambda ctx: ctx.call_activity("a", "x" * 10), limits=limits)
    assert "at most 2 levels are allowed" in refusal(lambda ctx: ctx.call_activity("a", [[[]]]), limits=limits)


# ---------------------------------------------------------------- children


def test_a_child_has_the_given_id_or_one_made_of_parent_generation_and_number() -> None:  # SUB-1, rule 40
    def main(ctx: OrchestrationContext) -> Code:
        yield ctx.when_all([ctx.call_sub_orchestrator("c", 1), ctx.call_sub_orchestrator("c", instance_id="mine", version="2")])

    expected = [
        SubOrchestrationCreated(1, "c", child_instance_id("i", "e1", 1), child_execution_id("e1", 1), "1", None),
        SubOrchestrationCreated(2, "c", "mine", child_execution_id("e1", 2), None, "2"),
    ]
    assert Driver(main).first.children == expected
    other = Driver(main, started=ExecutionStarted("main", "i", "e2")).first.children
    assert other[0].instance_id == child_instance_id("i", "e2", 1) != expected[0].instance_id


def test_a_retried_child_gets_a_new_id_if_it_was_made_up_and_a_new_execution_in_any_case() -> None:  # rule 28, RTY-5
    def main(ctx: OrchestrationContext) -> Code:
        policy = RetryPolicy(5, 2)
        yield ctx.when_all(
            [ctx.call_sub_orchestrator("c", [1], retry_policy=policy), ctx.call_sub_orchestrator("c", instance_id="mine", retry_policy=policy)]
        )

    driver = Driver(main)
    driver.child_failed(1)
    driver.child_failed(2)
    again = [*driver.fired(3).children, *driver.fired(4).children]
    assert again == [
        SubOrchestrationCreated(5, "c", child_instance_id("i", "e1", 5), child_execution_id("e1", 5), "[1]"),
        SubOrchestrationCreated(6, "c", "mine", child_execution_id("e1", 6)),
    ]


# ---------------------------------------------------------------- timers


@pytest.mark.parametrize(
    ("when", "fire_at"),
    [
        (timedelta(seconds=5), T0 + 5 * SECOND),
        (timedelta(0), T0),
        (timedelta(days=-1), T0 - 86_400 * SECOND),
        (from_micros(T0 + 7), T0 + 7),
        (from_micros(T0 + 7).replace(tzinfo=None), T0 + 7),
        (from_micros(T0 + 7).astimezone(timezone(timedelta(hours=-5))), T0 + 7),
        (datetime(2000, 1, 1, tzinfo=UTC), 946_684_800 * SECOND),
        (timedelta(days=365 * 50), T0 + 365 * 50 * 86_400 * SECOND),
    ],
)
def test_a_timer_takes_a_moment_or_a_delay_from_the_contexts_clock(when: Any, fire_at: int) -> None:  # rule 16, TIM-1, TIM-2
    def main(ctx: OrchestrationContext) -> Code:
        task = ctx.create_timer(when)
        assert (task.fire_at, task.task_id) == (fire_at, 1)
        yield task

    first = Driver(main).first
    assert first.timers == [TimerCreated(1, fire_at)] == first.events[1:]


# ---------------------------------------------------------------- events


def test_a_timed_wait_sets_a_timer_and_a_plain_one_nothing() -> None:  # rule 22
    def main(ctx: OrchestrationContext) -> Code:
        ctx.wait_for_external_event("a")
        yield ctx.wait_for_external_event("b", timeout=timedelta(seconds=3))

    assert Driver(main).first.events[1:] == [TimerCreated(1, T0 + 3 * SECOND)]


def test_an_event_is_sent_with_number_target_name_and_data() -> None:  # EVT-6, DET-10
    def main(ctx: OrchestrationContext) -> None:
        assert ctx.send_event("other", "Go", [1]) is None  # type: ignore[func-returns-value]
        ctx.send_event("i", "self")

    first = Driver(main).first
    assert first.sent_events == [EventSent(1, "other", "Go", "[1]"), EventSent(2, "i", "self", None)]
    assert first.status == "Completed"


# ---------------------------------------------------------------- custom status


def test_the_latest_custom_status_of_a_turn_is_visible_and_none_removes_it() -> None:  # rule 48, SCH-7
    def main(ctx: OrchestrationContext) -> Code:
        ctx.set_custom_status("first")
        ctx.set_custom_status({"step": 1})
        assert ctx.custom_status == {"step": 1}
        yield ctx.call_activity("a")
        yield ctx.call_activity("b")
        ctx.set_custom_status(None)
        yield ctx.call_activity("c")
        ctx.set_custom_status(0)

    for is_cold in (False, True):
        driver = Driver(main, is_cold=is_cold)
        for task_id in (1, 2, 3):
            driver.done(task_id)
        assert [(turn.custom_status, turn.custom_status_changed) for turn in driver.turns] == [
            ('{"step":1}', True), ('{"step":1}', False), (None, True), ("0", True),
        ]  # fmt: skip


def test_a_custom_status_over_its_limit_is_refused_and_the_old_one_stays() -> None:  # rule 48
    def main(ctx: OrchestrationContext) -> str:
        ctx.set_custom_status("old")
        with pytest.raises(PayloadTooLargeError) as caught:
            ctx.set_custom_status("ü" * 8_192)
        return str(caught.value)

    driver = Driver(main)
    assert driver.output == "The custom status is 16386 bytes of JSON; at most 16384 are allowed (DURABLE_MAX_PAYLOAD_BYTES and its kin)"
    assert (driver.first.custom_status, driver.first.custom_status_changed) == ('"old"', True)


# ---------------------------------------------------------------- loggers


class Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_a_replay_safe_logger_says_each_line_once_and_reports_itself_off_meanwhile() -> None:  # rule 5, DET-11
    logger, collector = logging.getLogger("tests.core.replay_safe"), Collector()
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    off: list[bool] = []

    def main(ctx: OrchestrationContext) -> Code:
        log = ctx.create_replay_safe_logger(logger)
        for step in range(3):
            off.append(not any(log.isEnabledFor(level) for level in (logging.DEBUG, logging.INFO, logging.CRITICAL)))
            log.info("step %d", step, extra={"step": step})
            log.critical("loud")
            yield ctx.call_activity("a")

    driver = Driver(main, is_cold=True)
    driver.done(1)
    driver.done(2)
    assert [(record.getMessage(), record.name, record.funcName) for record in collector.records] == [
        (text, "tests.core.replay_safe", "main") for step in range(3) for text in (f"step {step}", "loud")
    ]
    assert [getattr(record, "step", None) for record in collector.records] == [0, None, 1, None, 2, None]
    assert off == [False, True, False, True, True, False]


def test_a_call_takes_priority_and_policy_from_its_activity_unless_it_has_its_own() -> None:  # rule 56, RTY-1
    options = {"urgent": ActivityOptions(priority=9, timeout=7, retry_policy=RetryPolicy(0, 2))}

    def main(ctx: Any) -> Any:
        yield ctx.when_all_settled(
            [ctx.call_activity("urgent"), ctx.call_activity("urgent", priority=0, timeout=2), ctx.call_activity("other", priority=-3)]
        )

    execution = Execution(main, options_of=lambda name: options.get(name, DEFAULT_OPTIONS))
    first = execution.advance(T0, [ExecutionStarted("main", "i", "e1")])

    # the activity's own timeout is not written down: it is for the process that runs the activity to say
    assert [(call.priority, call.timeout) for call in first.activities] == [(9, None), (0, 2_000_000), (-3, None)]

    # each further attempt has the same
    second = execution.advance(T0 + SECOND, [TaskFailed(number, BOOM) for number in (1, 2, 3)])
    third = execution.advance(T0 + 2 * SECOND, [TimerFired(timer.task_id, timer.fire_at) for timer in second.timers])
    assert [(call.priority, call.timeout, call.attempt, call.first_task_id) for call in third.activities] == [(9, None, 2, 1), (0, 2_000_000, 2, 2)]
