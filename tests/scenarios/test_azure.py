"""Orchestrators written for Azure's Python SDK, run with their import changed: the patterns of its documentation, and its edges."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar
from urllib.request import urlopen

import pytest
from support import event_names, finish, has_status, look, run, until

import flask_durable.azure as df
from flask_durable import RetryPolicy, RuntimeStatus


@pytest.fixture
def functions():
    """What the test's functions are declared on; `register` takes it up."""
    return df.DFApp()


@pytest.fixture
def start(durable, functions):
    """Registers what was declared, starts the worker, and starts an instance."""

    def begin(name, client_input=None, **options):
        durable.register(functions)
        durable.start_worker()
        return durable.client.start(name, client_input, **options)

    return begin


# -- the patterns


def test_function_chaining(durable, functions, start):  # ACT-1, SCH-5
    @functions.activity_trigger(input_name="city")
    def greet(city: str) -> str:
        return f"Hello {city}!"

    @functions.orchestration_trigger(context_name="context")
    def tour(context: df.DurableOrchestrationContext):
        greetings = []
        for city in context.get_input():
            greetings.append((yield context.call_activity("greet", city)))
        return greetings

    status = finish(durable, start("tour", ["Oslo", "Lima"]))
    assert (status.name, status.output) == ("tour", ["Hello Oslo!", "Hello Lima!"])


def test_fan_out_and_fan_in(durable, functions, start):  # TSK-1, ACT-5
    @functions.activity_trigger(input_name="folder")
    def list_files(folder):
        return [f"{folder}/{number}" for number in range(20)]

    @functions.activity_trigger(input_name="path")
    def copy_file(path):
        return len(path)

    @functions.orchestration_trigger(context_name="context")
    def backup(context):
        files = yield context.call_activity(list_files, context.get_input())
        copies = [context.call_activity("copy_file", path) for path in files]
        sizes = yield context.task_all(copies)
        return sum(sizes)

    assert finish(durable, start("backup", "home")).output == sum(len(f"home/{number}") for number in range(20))


def test_a_monitor_polls_with_timers_and_continues_as_new(durable, functions, start, ledger):  # CAN-1, TIM-1
    @functions.activity_trigger(input_name="place")
    def is_clear(place):
        ledger.write(place)
        return len(ledger) == 3

    @functions.orchestration_trigger(context_name="context")
    def monitor(context: df.DurableOrchestrationContext):
        job = context.get_input()
        if datetime.fromisoformat(job["until"]) < context.current_utc_datetime:
            return "gave up"
        if (yield context.call_activity("is_clear", job["place"])):
            return f"clear after {job['rounds']} rounds"
        yield context.create_timer(context.current_utc_datetime + timedelta(milliseconds=20))
        context.continue_as_new({**job, "rounds": job["rounds"] + 1})
        return context.will_continue_as_new

    job = {"place": "Bergen", "rounds": 1, "until": (datetime.now(UTC) + timedelta(minutes=5)).isoformat()}
    status = finish(durable, start("monitor", job))
    assert (status.output, status.input["rounds"]) == ("clear after 3 rounds", 3)


@pytest.mark.parametrize("answer", [True, False, None])
def test_a_human_is_asked_and_an_unneeded_timer_is_cancelled(durable, functions, start, answer):  # rule 14, TIM-3
    @functions.orchestration_trigger(context_name="context")
    def approval(context: df.DurableOrchestrationContext):
        context.set_custom_status({"asked": context.get_input()})
        approved = context.wait_for_external_event("Approved")
        patience = timedelta(days=3) if context.get_input() != "nobody" else timedelta(milliseconds=30)
        timeout = context.create_timer(context.current_utc_datetime + patience)
        winner = yield context.task_any([approved, timeout])
        if winner == timeout:
            return [context.custom_status, "escalated", timeout.is_cancelled]
        timeout.cancel()
        return [context.custom_status, winner.result, timeout.is_cancelled]

    asked = "nobody" if answer is None else "ann"
    instance_id = start("approval", asked)
    if answer is not None:
        durable.client.raise_event(instance_id, "Approved", answer)
    expected = [{"asked": asked}, "escalated", False] if answer is None else [{"asked": asked}, answer, True]
    assert finish(durable, instance_id).output == expected


def test_orchestrators_call_orchestrators(durable, functions, start):  # SUB-1, SUB-2, VER-1
    @functions.orchestration_trigger(context_name="context")
    def provision(context):
        return [context.get_input(), context.parent_instance_id, context.instance_id, context.version]

    @functions.orchestration_trigger(context_name="context", orchestration="ProvisionAll")
    def provision_all(context: df.DurableOrchestrationContext):
        given = context.call_sub_orchestrator("provision", "a", instance_id=f"{context.instance_id}-a", version="7")
        retried = context.call_sub_orchestrator_with_retry(provision, df.RetryOptions(10, 2), input_="b", instance_id=f"{context.instance_id}-b")
        return (yield context.task_all([given, retried]))

    status = finish(durable, start("ProvisionAll", instance_id="all"))
    assert status.output == [["a", "all", "all-a", "7"], ["b", "all", "all-b", None]]


def test_eternal_orchestrations_keep_events_that_nobody_has_read(durable, functions, start):  # rule 32
    @functions.orchestration_trigger(context_name="context")
    def counter(context):
        total = context.get_input() or 0
        total += yield context.wait_for_external_event("Add")
        if total >= 10:
            return total
        context.continue_as_new(total)

    instance_id = start("counter")
    for number in (1, 2, 3, 4):
        durable.client.raise_event(instance_id, "Add", number)
    assert finish(durable, instance_id).output == 10


# -- failures and retries


def test_a_failed_activity_is_retried_at_a_fixed_interval(durable, functions, start, ledger):  # rule 25, RTY-1
    @functions.activity_trigger(input_name="value")
    def flaky(value):
        ledger.write(value)
        if len(ledger) < 3:
            raise ValueError("not yet")
        return value

    @functions.orchestration_trigger(context_name="context")
    def stubborn(context):
        options = df.RetryOptions(first_retry_interval_in_milliseconds=10, max_number_of_attempts=3)
        return (yield context.call_activity_with_retry("flaky", options, {"n": 1}))

    instance_id = start("stubborn")
    assert finish(durable, instance_id).output == {"n": 1}
    assert ledger.read() == [{"n": 1}] * 3
    assert event_names(durable, instance_id).count("TimerFired") == 2


def test_a_failure_is_caught_as_an_exception(durable, functions, start):  # ACT-2
    @functions.orchestration_trigger(context_name="context")
    def careful(context):
        try:
            yield context.call_activity("fail", "boom")
        except Exception as error:  # noqa: BLE001 - as Azure's samples do
            return str(error)

    assert finish(durable, start("careful")).output == "Activity task #1 failed: boom"


class Unsteady(BaseHTTPRequestHandler):
    """Answers 503 twice, then 200."""

    answers: ClassVar[list[int]] = []

    def do_GET(self):
        self.send_response(503 if len(self.answers) < 2 else 200)
        self.answers.append(1)
        self.end_headers()
        self.wfile.write(b"fine")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def unsteady_service():
    Unsteady.answers = []
    server = HTTPServer(("127.0.0.1", 0), Unsteady)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_http_call_is_an_activity_and_is_retried_with_backoff_and_a_handler(durable, functions, start, unsteady_service, ledger):  # rule 29
    # Given a service that fails twice, an activity that asks it, and a policy with all that Azure's options lack
    @functions.activity_trigger(input_name="url")
    def fetch(url):
        with urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    def may_retry(retry):
        ledger.write([retry.attempt, retry.failure.is_type("HTTPError")])
        return True

    @functions.orchestration_trigger(context_name="context")
    def call(context):
        policy = RetryPolicy(timedelta(milliseconds=20), 5, backoff_coefficient=3, retry_timeout=timedelta(minutes=1), handler=may_retry)
        return (yield context.call_activity_with_retry("fetch", policy, context.get_input()))

    # When it is called, then the third attempt succeeds, after waits of 20 and 60 ms
    instance_id = start("call", unsteady_service)
    assert finish(durable, instance_id).output == "fine"
    assert {tuple(each) for each in ledger.read()} == {(1, True), (2, True)}  # a replay asks again
    recorded = durable.client.history(instance_id).events
    failed = [each.at for each in recorded if type(each.event).__name__ == "TaskFailed"]
    timers = [each.event.fire_at for each in recorded if type(each.event).__name__ == "TimerCreated"]
    assert [fire_at - at for fire_at, at in zip(timers, failed, strict=True)] == [20_000, 60_000]


def test_a_retry_timeout_ends_an_orchestration_that_does_not_catch_it(durable, functions, start):  # rule 29, RTY-2
    @functions.orchestration_trigger(context_name="context")
    def call(context):
        policy = RetryPolicy(timedelta(hours=1), 100, retry_timeout=timedelta(minutes=5))
        return (yield context.call_activity_with_retry("fail", policy, "still down"))

    status = finish(durable, start("call"))
    assert (status.runtime_status, status.output) == (RuntimeStatus.FAILED, "Activity task #1 failed: still down")
    assert "TimerCreated" not in event_names(durable, status.instance_id)


# -- where the two differ on purpose


def test_groups_of_nothing_and_failed_groups(durable, functions, start):  # rules 11, 12
    @functions.orchestration_trigger(context_name="context")
    def groups(context):
        nothing = yield context.task_all([])
        try:
            context.task_any([])
        except ValueError as error:
            refused = str(error)
        waiting = context.wait_for_external_event("never")
        try:
            yield context.task_all([waiting, context.call_activity("fail", "boom")])
        except Exception as error:  # noqa: BLE001 - as Azure's samples do
            return [nothing, refused, str(error), waiting.is_completed]

    output = finish(durable, start("groups")).output
    assert output == [[], "when_any needs at least one task: of none, none can ever be the first", "Activity task #1 failed: boom", False]


def test_events_of_one_name_are_served_in_order_and_each_once(durable, functions, start):  # rules 20, 21
    @functions.orchestration_trigger(context_name="context")
    def inbox(context):
        waits = [context.wait_for_external_event("mail") for _ in range(3)]
        return (yield context.task_all(waits))

    instance_id = start("inbox")
    for letter in "abc":
        durable.client.raise_event(instance_id, "Mail", letter)
    assert finish(durable, instance_id).output == ["a", "b", "c"]


def test_uuids_are_texts_and_guids_are_uuids(durable, functions, start):  # rule 4, DET-4
    @functions.orchestration_trigger(context_name="context")
    def ids(context):
        text, guid = context.new_uuid(), context.new_guid()
        yield context.create_timer(context.current_utc_datetime)
        return [isinstance(text, str), isinstance(guid, uuid.UUID), text, str(guid)]

    is_text, is_guid, *both = finish(durable, start("ids")).output
    assert (is_text, is_guid) == (True, True)
    assert len({str(uuid.UUID(each)) for each in both}) == 2


def test_results_and_events_have_the_expected_type(durable, functions, start):  # rule 55
    @functions.orchestration_trigger(context_name="context")
    def typed(context):
        moment = yield context.call_activity("double", "2026", expected_type=str)
        day = yield context.wait_for_external_event("Day", expected_type=date)
        return [moment, day.isoformat(), day.year]

    instance_id = start("typed")
    durable.client.raise_event(instance_id, "Day", "2026-11-25")
    assert finish(durable, instance_id).output == ["20262026", "2026-11-25", 2026]


def test_a_timer_takes_an_aware_moment_and_nothing_else(durable, functions, start):  # rule 16
    @functions.orchestration_trigger(context_name="context")
    def timers(context):
        refused = []
        for moment in (timedelta(seconds=1), datetime(2030, 1, 1)):
            try:
                context.create_timer(moment)
            except ValueError as error:
                refused.append(str(error).partition(",")[0])
        yield context.create_timer(fire_at=datetime(2020, 1, 1, tzinfo=UTC))
        return refused

    assert finish(durable, start("timers")).output == ["create_timer takes an aware datetime"] * 2


def test_what_is_not_there_says_what_to_use_instead(durable, functions, start):
    @functions.orchestration_trigger(context_name="context")
    def asks(context):
        asked = [
            lambda: context.call_http("GET", "http://example.com"),
            lambda: context.call_entity("counter", "add", 1),
            lambda: context.signal_entity("counter", "add", 1),
            lambda: context.histories,
            lambda: context.function_context,
        ]
        texts = []
        for ask in asked:
            try:
                ask()
            except df.NotSupportedError as error:
                texts.append(str(error).partition(";")[0])
        return [*texts, context.native.generation, context.is_replaying]
        yield

    start_of_all = "flask_durable.azure does not have "
    names = ["call_http", "entities", "entities", "histories", "function_context"]
    assert finish(durable, start("asks")).output == [*(start_of_all + name for name in names), 0, False]


# -- ways to register


def test_an_orchestrator_of_the_first_programming_model_is_registered_as_it_is(durable):  # REG-1, REG-3
    def orchestrator_function(context: df.DurableOrchestrationContext):
        return (yield context.call_activity("double", context.get_input()))

    main = df.Orchestrator.create(orchestrator_function)
    durable.orchestrator(name="Doubling")(main)
    durable.start_worker()
    assert run(durable, "Doubling", 4).output == 8
    assert run(durable, main, 5).output == 10


def test_blueprints_add_up_and_activities_may_be_async(durable, functions, start):  # REG-1
    shared = df.Blueprint(http_auth_level="anonymous")

    @shared.activity_trigger(input_name="value", activity="Triple")
    async def triple(value):
        return value * 3

    @shared.orchestration_trigger(context_name="context")
    def tripled(context):
        return (yield context.task_all([context.call_activity(triple, 1), context.call_activity("Triple", 2)]))

    functions.register_functions(shared)
    assert finish(durable, start("tripled")).output == [3, 6]


def test_an_orchestrator_can_be_tested_with_a_context_of_ones_own(functions):
    @functions.orchestration_trigger(context_name="context")
    def tested(context):
        return (yield context.call_activity("greet", "Oslo"))

    class Pretended:
        def call_activity(self, name, input_):
            return (name, input_)

    steps = tested(Pretended())
    assert next(steps) == ("greet", "Oslo")
    with pytest.raises(StopIteration) as ended:
        steps.send("Hello Oslo!")
    assert ended.value.value == "Hello Oslo!"


def test_a_suspended_instance_is_shown_as_azure_names_it(durable, functions, start):  # rule 36
    client = df.DurableOrchestrationClient(durable.client)
    instance_id = start("wait_for_go")
    client.suspend(instance_id, "audit")
    until(has_status(durable, instance_id, RuntimeStatus.SUSPENDED))
    assert client.get_status(instance_id).runtime_status == df.OrchestrationRuntimeStatus.Suspended
    client.resume(instance_id, "done")
    client.raise_event(instance_id, "Go", 1)
    assert finish(durable, instance_id).output == 1
    assert look(durable, instance_id).runtime_status == df.OrchestrationRuntimeStatus.Completed
