"""Calling activities: one after another, many at once, failing, retried."""

from __future__ import annotations

import logging

import pytest
from flask import current_app, has_app_context
from support import event_names, finish, look, run, until

from flask_durable import RetryPolicy, RuntimeStatus, TaskFailedError, current_activity


def test_a_sequence_of_activities_gives_its_output(durable):  # SCH-5, ACT-1
    # Given an orchestrator that passes a value through five activities
    @durable.orchestrator
    def sequence(ctx, value):
        for _ in range(5):
            value = yield ctx.call_activity("double", value)
        return value

    durable.start_worker()

    # When it runs
    status = run(durable, sequence, 1, tags={"team": "a"}, version="1.2")

    # Then its status shows all that is known of it
    assert (status.name, status.runtime_status, status.input, status.output) == ("sequence", RuntimeStatus.COMPLETED, 1, 32)
    assert (status.tags, status.version, status.failure_details, status.parent_instance_id) == ({"team": "a"}, "1.2", None, None)
    assert status.created_time <= status.last_updated_time == status.completed_time
    assert event_names(durable, status.instance_id) == ["ExecutionStarted", *["TaskScheduled", "TaskCompleted"] * 5, "ExecutionCompleted"]


def test_a_fan_out_gives_results_in_the_order_of_the_calls(durable):  # TSK-1, ACT-5
    @durable.orchestrator
    def fan_out(ctx, count):
        return (yield ctx.when_all([ctx.call_activity("double", index) for index in range(count)]))

    durable.start_worker()
    assert finish(durable, durable.client.start(fan_out, 700), 60).output == [2 * index for index in range(700)]


def test_activities_of_one_fan_out_run_at_the_same_time(durable, ledger):  # ACT-5
    # Given four activities of which none ends before all have begun
    @durable.activity
    def meet(number):
        ledger.write(number)
        until(lambda: len(ledger) == 4)
        return number

    @durable.orchestrator
    def meeting(ctx):
        return (yield ctx.when_all([ctx.call_activity(meet, number) for number in range(4)]))

    durable.start_worker()
    assert run(durable, meeting).output == [0, 1, 2, 3]


def test_nothing_at_all_is_a_group_too(durable):  # rule 11
    @durable.orchestrator
    def nothing(ctx):
        everything = yield ctx.when_all([])
        settled = yield ctx.when_all_settled([])
        try:
            ctx.when_any([])
        except ValueError as error:
            return [everything, settled, str(error)]

    durable.start_worker()
    assert run(durable, nothing).output == [[], [], "when_any needs at least one task: of none, none can ever be the first"]


def test_a_failed_activity_can_be_caught(durable):  # ACT-2, ACT-3
    @durable.orchestrator
    def careful(ctx):
        try:
            yield ctx.call_activity("fail", "boom")
        except TaskFailedError as error:
            caught = [str(error), error.is_type(ValueError), error.details.type_name, "raise ValueError(text)" in error.details.traceback]
        return [*caught, (yield ctx.call_activity("double", 1))]

    durable.start_worker()
    status = run(durable, careful)
    assert status.output == ["Activity task #1 failed: boom", True, "builtins.ValueError", True, 2]
    assert status.failure_details is None


def test_an_uncaught_failure_ends_the_instance_and_says_where(durable):  # ACT-4, rule 7
    @durable.orchestrator
    def careless(ctx):
        yield ctx.call_activity("fail", "boom")

    durable.start_worker()
    status = run(durable, careless)
    assert (status.runtime_status, status.output) == (RuntimeStatus.FAILED, "Activity task #1 failed: boom")
    assert status.failure_details.is_type(TaskFailedError)
    assert 'yield ctx.call_activity("fail", "boom")' in status.failure_details.traceback


def test_a_group_fails_with_its_first_failure_and_the_others_can_be_awaited(durable, gate):  # rule 12
    @durable.activity
    def slow():
        gate.wait()
        return "slow"

    @durable.orchestrator
    def group(ctx):
        late = ctx.call_activity(slow)
        try:
            yield ctx.when_all([late, ctx.call_activity("fail", "at once")])
        except TaskFailedError as error:
            ctx.set_custom_status(str(error))
        return (yield late)

    durable.start_worker()
    instance_id = durable.client.start(group)
    until(lambda: look(durable, instance_id).custom_status == "Activity task #2 failed: at once")
    gate.open()
    assert finish(durable, instance_id).output == "slow"


def test_a_settled_group_never_raises(durable):  # rule 12
    @durable.orchestrator
    def settled(ctx):
        tasks = yield ctx.when_all_settled([ctx.call_activity("fail", "no"), ctx.call_activity("double", 4)])
        return [str(task.get_exception()) if task.is_failed else task.result for task in tasks]

    durable.start_worker()
    assert run(durable, settled).output == ["Activity task #1 failed: no", 8]


def test_an_unknown_activity_fails_as_a_call(durable):  # REG-5
    @durable.orchestrator
    def asks(ctx):
        try:
            yield ctx.call_activity("nobody")
        except TaskFailedError as error:
            return str(error)

    durable.start_worker()
    assert run(durable, asks).output.startswith("Activity task #1 failed: No activity named 'nobody' is registered here")


def test_retries_run_until_one_succeeds_under_one_idempotency_key(durable, ledger):  # RTY-1, rule 54
    @durable.activity
    def flaky():
        ledger.write([current_activity.attempt, current_activity.idempotency_key])
        if len(ledger) < 3:
            raise OSError("not yet")
        return "at last"

    @durable.orchestrator
    def patient(ctx):
        return (yield ctx.call_activity(flaky, retry_policy=RetryPolicy(0.01, 5, backoff_coefficient=2)))

    durable.start_worker()
    assert run(durable, patient).output == "at last"
    assert [attempt for attempt, _ in ledger.read()] == [1, 2, 3]
    assert len({key for _, key in ledger.read()}) == 1


def test_retries_end_with_the_last_failure_and_the_number_of_the_call(durable, ledger):  # RTY-1, RTY-4
    @durable.activity
    def never():
        ledger.write(current_activity.attempt)
        raise OSError(f"failure {len(ledger)}")

    @durable.orchestrator
    def gives_up(ctx):
        yield ctx.call_activity("double", 1)
        yield ctx.call_activity(never, retry_policy=RetryPolicy(0.01, 3))

    durable.start_worker()
    status = run(durable, gives_up)
    assert (status.runtime_status, status.output) == (RuntimeStatus.FAILED, "Activity task #2 failed: failure 3")
    assert ledger.read() == [1, 2, 3]
    assert event_names(durable, status.instance_id).count("TimerCreated") == 2


def test_some_failures_are_not_retried(durable, ledger):  # rule 26
    @durable.activity
    def declined():
        ledger.write(current_activity.attempt)
        raise PermissionError("declined")

    @durable.orchestrator
    def pays(ctx):
        yield ctx.call_activity(declined, retry_policy=RetryPolicy(0.01, 5, non_retriable=(PermissionError,)))

    durable.start_worker()
    assert run(durable, pays).output == "Activity task #1 failed: declined"
    assert ledger.read() == [1]


def test_a_handler_decides_about_retries(durable):  # rule 25
    @durable.orchestrator
    def decides(ctx):
        policy = RetryPolicy(0.01, 10, handler=lambda failed: failed.attempt < 2 and failed.failure.is_type("ValueError"))
        yield ctx.call_activity("fail", "again", retry_policy=policy)

    durable.start_worker()
    status = run(durable, decides)
    assert status.output == "Activity task #1 failed: again"
    assert event_names(durable, status.instance_id).count("TaskScheduled") == 2


def test_a_call_that_will_be_retried_is_open_in_a_group(durable):  # RTY-6, rule 27
    @durable.orchestrator
    def races(ctx):
        retried = ctx.call_activity("fail", "no", retry_policy=RetryPolicy(3600, 2))
        sure = ctx.call_activity("double", 21)
        winner = yield ctx.when_any([retried, sure])
        return [winner is sure, winner.result, retried.is_complete]

    durable.start_worker()
    assert run(durable, races).output == [True, 42, False]


def test_an_activity_knows_its_call_and_runs_in_an_app_context(durable):  # rules 54, 57
    @durable.activity
    def tells():
        return {
            "instance": current_activity.instance_id,
            "name": current_activity.name,
            "number": current_activity.task_id,
            "attempt": current_activity.attempt,
            "delivery": current_activity.delivery,
            "cancelled": current_activity.is_cancelled,
            "app": current_app.name,
        }

    @durable.orchestrator
    def asks(ctx):
        yield ctx.call_activity("double", 1)
        return [(yield ctx.call_activity(tells)), has_app_context()]

    durable.start_worker()
    status = run(durable, asks)
    assert status.output == [
        {"instance": status.instance_id, "name": "tells", "number": 2, "attempt": 1, "delivery": 1, "cancelled": False, "app": "shop"},
        False,
    ]


def test_outside_an_activity_there_is_no_current_one(durable):  # DESIGN 1
    with pytest.raises(RuntimeError, match="There is no current activity"):
        _ = current_activity.attempt


def test_values_travel_as_copies(durable):  # rule 55
    # Given an activity that changes its input
    @durable.activity
    def changes(order):
        order["items"].append("changed")
        return order

    @durable.orchestrator
    def passes(ctx):
        order = {"items": [1]}
        changed = yield ctx.call_activity(changes, order)
        again = yield ctx.call_activity(changes, order)
        return [order, changed, again, (yield ctx.call_activity("double", (1, 2)))]

    durable.start_worker()
    changed = {"items": [1, "changed"]}
    assert run(durable, passes).output == [{"items": [1]}, changed, changed, [1, 2, 1, 2]]


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}, -0.0, 2**70, "\N{SNOWMAN}\N{GRINNING FACE}", {"": {"deep": [None, [1.5]]}}])
def test_every_json_value_makes_the_round(durable, value):  # B4, rule 26
    @durable.activity
    def same(given):
        return given

    @durable.orchestrator
    def echo(ctx, given):
        return (yield ctx.call_activity(same, given))

    durable.start_worker()
    status = run(durable, echo, value)
    assert (status.input, status.output) == (value, value)


def test_a_result_that_is_no_json_fails_its_call(durable):  # SCH-8, rule 55
    durable.activity(name="object")(lambda: {"inner": [object()]})

    @durable.orchestrator
    def gets_an_object(ctx):
        yield ctx.call_activity("object")

    durable.start_worker()
    status = run(durable, gets_an_object)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert "The result of activity 'object' contains a builtins.object at .inner[0]" in status.output


def test_an_output_that_is_no_json_fails_the_instance(durable):  # SCH-8
    @durable.orchestrator
    def returns_a_number(ctx):
        return 1j

    durable.start_worker()
    status = run(durable, returns_a_number)
    assert status.runtime_status is RuntimeStatus.FAILED
    assert status.output.startswith("The output contains a builtins.complex")


def test_an_activity_that_raises_system_exit_fails_its_call_only(durable):  # rule 7
    durable.activity(name="leave")(lambda: (_ for _ in ()).throw(SystemExit(3)))

    @durable.orchestrator
    def survives(ctx):
        try:
            yield ctx.call_activity("leave")
        except TaskFailedError as error:
            return error.details.type_name

    durable.start_worker()
    assert run(durable, survives).output == "builtins.SystemExit"


def test_an_orchestrator_that_raises_fails_with_the_chain_of_causes(durable):  # rule 7
    @durable.orchestrator
    def breaks(ctx):
        yield ctx.call_activity("double", 1)
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise RuntimeError("effect") from error

    durable.start_worker()
    status = run(durable, breaks)
    assert (status.runtime_status, status.output) == (RuntimeStatus.FAILED, "effect")
    assert status.failure_details.is_caused_by(KeyError)


@pytest.mark.parametrize("yielded", [5, "text", [1], None])
def test_what_is_no_task_is_refused_at_the_yield(durable, yielded):  # DET-9, rule 6
    @durable.orchestrator
    def confused(ctx):
        try:
            yield yielded
        except ValueError as error:
            return str(error)

    durable.start_worker()
    assert run(durable, confused).output.startswith("The orchestrator yielded a")


def test_plain_and_async_orchestrators_work_too(durable):  # REG-4
    @durable.orchestrator
    def plain(ctx, value):
        return value * 2

    @durable.orchestrator
    async def coroutine(ctx, value):
        first, second = await ctx.when_all([ctx.call_activity("double", value), ctx.call_activity("double", value)])
        try:
            await ctx.call_activity("fail", "async")
        except TaskFailedError as error:
            return [first, second, str(error)]

    @durable.orchestrator(name="lazy")
    def without_input(ctx):
        return ctx.input

    durable.start_worker()
    assert run(durable, plain, 21).output == 42
    assert run(durable, coroutine, 21).output == [42, 42, "Activity task #3 failed: async"]
    assert run(durable, "lazy", 7).output == 7


def test_what_is_still_open_at_the_end_does_not_delay_it(durable, gate):  # DET-10, rule 15
    @durable.activity
    def slow():
        gate.wait()

    @durable.orchestrator
    def leaves(ctx):
        ctx.call_activity(slow)
        ctx.create_timer(ctx.current_utc_datetime.replace(year=9000))
        ctx.wait_for_external_event("Never")
        return (yield ctx.call_activity("double", 1))

    durable.start_worker()
    status = run(durable, leaves)
    assert status.output == 2
    gate.open()
    durable.stop_worker()
    assert event_names(durable, status.instance_id)[-1] == "ExecutionCompleted"


def test_time_and_ids_are_the_same_in_every_replay(durable, ledger):  # rules 3, 4, DET-2
    @durable.orchestrator
    def records(ctx):
        told = []
        for _ in range(3):
            told.append([str(ctx.new_uuid()), ctx.current_utc_datetime.isoformat()])
            yield ctx.call_activity("double", 1)
        ledger.write(told)
        return told

    durable.start_worker()
    told = run(durable, records).output
    assert told == ledger.read()[-1]
    assert len({pair[0] for pair in told}) == 3
    assert [pair[1] for pair in told] == sorted(pair[1] for pair in told)
    assert all(pair[1].endswith("+00:00") for pair in told)


def test_the_replay_safe_logger_writes_each_line_once(durable, ledger):  # DET-11, rule 5
    class Writes(logging.Handler):
        def emit(self, record):
            ledger.write(record.getMessage())

    shop = logging.getLogger("shop")
    shop.setLevel(logging.INFO)
    shop.handlers = [Writes()]

    @durable.orchestrator
    def logs(ctx):
        logger = ctx.create_replay_safe_logger(shop)
        for step in range(3):
            logger.info("step %d", step)
            yield ctx.call_activity("double", step)
        logger.info("end")

    durable.start_worker()
    run(durable, logs)
    assert ledger.read() == ["step 0", "step 1", "step 2", "end"]
