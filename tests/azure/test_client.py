"""The client under the names of Azure's SDK, in views and outside of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from flask import Flask, request
from support import finish, has_status, until

import flask_durable.azure as df
from flask_durable import (
    FlaskDurable,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFailedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    RuntimeStatus,
)


@pytest.fixture
def base_config(base_config):
    return {**base_config, "DURABLE_MANAGEMENT_API": True}


@pytest.fixture
def durable(durable) -> FlaskDurable:
    """An app with an orchestrator that does as its input says."""
    functions = df.DFApp()

    @functions.orchestration_trigger(context_name="context")
    def obedient(context):
        wanted = context.get_input()
        if wanted == "fail":
            raise ValueError("as told")
        if wanted == "wait":
            return (yield context.wait_for_external_event("Go"))
        return wanted

    durable.register(functions)
    durable.start_worker()
    return durable


@pytest.fixture
def azure(durable) -> df.DurableOrchestrationClient:
    return df.DurableOrchestrationClient(durable.client)


@pytest.fixture
def views(durable):
    """A test client of the app, with the views of a migrated HTTP trigger."""
    flask_app = durable._state()._app
    functions = df.DFApp()

    @flask_app.post("/start/<name>")
    @functions.durable_client_input(client_name="client")
    def http_start(name, client):
        instance_id = client.start_new(name, client_input=request.get_json())
        return client.create_check_status_response(request, instance_id)

    @flask_app.post("/run/<name>")
    @functions.durable_client_input(client_name="client")
    def http_run(name, client):
        instance_id = client.start_new(name, client_input=request.get_json())
        timeout = request.args.get("timeout", 20_000, type=int)
        return client.wait_for_completion_or_create_check_status_response(request, instance_id, timeout, retry_interval_in_milliseconds=1)

    return flask_app.test_client()


def test_an_instance_is_started_seen_and_purged(durable, azure):  # SCH-5, MGT-5
    before = datetime.now(UTC) - timedelta(minutes=1)
    instance_id = azure.start_new("obedient", instance_id="one", client_input=[1, 2], version="3")
    finish(durable, instance_id)
    status = azure.get_status(instance_id, show_history=True, show_history_output=True, show_input=True)
    assert status
    assert (status.name, status.instance_id, status.input_, status.output) == ("obedient", "one", [1, 2], [1, 2])
    assert status.runtime_status is df.OrchestrationRuntimeStatus.Completed
    assert before < status.created_time <= status.last_updated_time
    assert [entry["EventType"] for entry in status.history] == ["ExecutionStarted", "ExecutionCompleted"]
    assert status.to_json()["runtimeStatus"] == "Completed"
    assert azure.get_status(instance_id).input_ is None
    assert azure.purge_instance_history(instance_id).instances_deleted == 1
    assert azure.purge_instance_history(instance_id).instances_deleted == 0
    gone = azure.get_status(instance_id)
    assert not gone
    assert gone.to_json() == {}


def test_an_ended_instance_is_replaced_and_a_living_one_is_not(durable, azure):  # SCH-2
    finish(durable, azure.start_new("obedient", "same", 1))
    azure.start_new("obedient", "same", "wait")
    with pytest.raises(InstanceExistsError):
        azure.start_new("obedient", "same", 3)
    azure.raise_event("same", "go", 4)
    assert finish(durable, "same").output == 4


def test_instances_are_controlled(durable, azure):  # MGT-1, MGT-2, MGT-4
    azure.start_new("obedient", "held", "wait")
    azure.suspend("held", "audit")
    until(has_status(durable, "held", RuntimeStatus.SUSPENDED))
    azure.resume("held", "done")
    until(has_status(durable, "held", RuntimeStatus.RUNNING))
    azure.terminate("held", "enough")
    assert finish(durable, "held").output == "enough"
    for command in (azure.terminate, azure.suspend, azure.resume):
        command("held", "again")
        with pytest.raises(InstanceNotFoundError):
            command("unknown", "again")
    assert finish(durable, "held").output == "enough"
    with pytest.raises(InstanceFinishedError):
        azure.raise_event("held", "Go")
    with pytest.raises(InstanceNotFoundError):
        azure.raise_event("unknown", "Go")
    again = azure.restart("held", restart_with_new_instance_id=False)
    azure.raise_event("held", "Go", 1)
    assert (again, finish(durable, "held").output) == ("held", 1)
    assert azure.restart("held") != "held"


def test_a_failed_instance_is_rewound(durable, azure):  # REW-1, REW-3
    outcomes = [ValueError("not yet"), "done"]
    functions = df.DFApp()

    @functions.activity_trigger(input_name="value")
    def unsteady(value):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @functions.orchestration_trigger(context_name="context")
    def mended(context):
        return (yield context.call_activity("unsteady", 1))

    durable.register(functions)
    assert finish(durable, azure.start_new("mended", "one")).runtime_status is RuntimeStatus.FAILED
    with pytest.raises(df.NotSupportedError):
        azure.rewind("one", "again", task_hub_name="other")
    azure.rewind("one", "again")
    assert finish(durable, "one").output == "done"
    with pytest.raises(InstanceNotFailedError):
        azure.rewind("one", "again")


def test_terminating_leaves_the_children_as_in_azure(durable, azure):  # MGT-3, rule 38
    functions = df.DFApp()

    @functions.orchestration_trigger(context_name="context")
    def parent(context):
        return (yield context.call_sub_orchestrator("obedient", "wait", instance_id="child"))

    durable.register(functions)
    azure.start_new("parent", "parent")
    until(lambda: azure.get_status("child"))
    azure.terminate("parent", "enough")
    assert finish(durable, "parent").output == "enough"
    azure.raise_event("child", "Go", 1)
    assert finish(durable, "child").output == 1


def test_instances_are_listed_and_purged_by_window_and_status(durable, azure):  # QRY-1, MGT-6
    for number in range(3):
        finish(durable, azure.start_new("obedient", f"n{number}", number))
    finish(durable, azure.start_new("obedient", "bad", "fail"))
    failed, completed = df.OrchestrationRuntimeStatus.Failed, df.OrchestrationRuntimeStatus.Completed
    shown = {status.instance_id: (status.input_, status.output) for status in azure.get_status_all()}
    assert shown == {"n0": (0, 0), "n1": (1, 1), "n2": (2, 2), "bad": ("fail", "as told")}
    assert [status.instance_id for status in azure.get_status_by(runtime_status=[failed])] == ["bad"]
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert azure.get_status_by(created_time_to=long_ago) == []
    assert azure.purge_instance_history_by(long_ago, datetime.now(UTC) + timedelta(days=1), [completed]).instances_deleted == 3
    assert [status.instance_id for status in azure.get_status_all()] == ["bad"]


def test_a_view_answers_with_the_links(views, durable):
    answer = views.post("/start/obedient", json="wait")
    assert answer.status_code == 202
    assert answer.json["statusQueryGetUri"] == answer.headers["Location"]
    assert answer.headers["Retry-After"].isdigit()
    status = views.get(answer.headers["Location"])
    assert status.json["instanceId"] == answer.json["id"]
    assert views.post(answer.json["sendEventPostUri"].format(eventName="Go"), json=5).status_code == 202
    assert finish(durable, answer.json["id"]).output == 5
    with durable._state()._app.test_request_context():
        links = df.DurableOrchestrationClient().get_client_response_links(request, "x")
        assert links == df.DurableOrchestrationClient(durable.client).create_http_management_payload("x")


@pytest.mark.parametrize(("told", "status", "shown"), [({"a": 1}, 200, {"a": 1}), ("fail", 500, "Failed")])
def test_a_view_waits_for_the_end(views, told, status, shown):
    answer = views.post("/run/obedient", json=told)
    assert answer.status_code == status
    assert (answer.json if status == 200 else answer.json["runtimeStatus"]) == shown


def test_a_view_that_waited_in_vain_answers_with_the_links(views):
    answer = views.post("/run/obedient?timeout=1", json="wait")
    assert (answer.status_code, answer.json["statusQueryGetUri"]) == (202, answer.headers["Location"])


def test_what_is_not_supported_says_what_to_use_instead(durable, azure):
    refused = [
        lambda: azure.read_entity_state("counter"),
        lambda: azure.signal_entity("counter", "add"),
        lambda: azure.raise_event("x", "Go", task_hub_name="other"),
        lambda: df.DFApp().durable_client_input("client", task_hub="other"),
        lambda: df.Blueprint().entity_trigger(context_name="context"),
        lambda: df.EntityId,
        lambda: df.ManagedIdentityTokenSource,
    ]
    for ask in refused:
        with pytest.raises(df.NotSupportedError, match="instead, "):
            ask()
    with pytest.raises(AttributeError, match="write HTTP triggers as Flask views"):
        df.DFApp().route("x")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = df.Nothing


def test_arguments_are_checked(durable, azure):
    with pytest.raises(InvalidArgumentError, match="durable.client or nothing"):
        df.DurableOrchestrationClient("starter")
    with pytest.raises(InvalidArgumentError, match="not be more than"):
        azure.wait_for_completion_or_create_check_status_response(None, "x", 10, 20)
    with Flask("bare").app_context(), pytest.raises(InvalidArgumentError, match="has no FlaskDurable"):
        df.DurableOrchestrationClient()


@pytest.mark.parametrize("interval", [0, -1, "5", None, True, float("inf")])
def test_a_retry_interval_is_above_zero(interval):  # RTY-7
    with pytest.raises(ValueError, match="first_retry_interval_in_milliseconds is a number above 0"):
        df.RetryOptions(interval, 3)


def test_retry_options_are_checked_where_they_are_made_and_where_they_are_used():  # RTY-7
    with pytest.raises(ValueError, match="max_number_of_attempts"):
        df.RetryOptions(5, 0)
    options = df.RetryOptions(first_retry_interval_in_milliseconds=1500, max_number_of_attempts=3)
    assert options.to_policy().first_retry_interval == timedelta(seconds=1.5)
    with pytest.raises(InvalidArgumentError, match="retry_options is a RetryOptions or a RetryPolicy, not dict; it comes before the input"):
        df.DurableOrchestrationContext(SimpleNamespace(call_activity=None)).call_activity_with_retry("a", {"the": "input"}, options)


def test_functions_take_the_one_argument_that_their_decorator_names():
    functions = df.DFApp()
    with pytest.raises(InvalidArgumentError, match="takes one argument; both takes"):

        @functions.orchestration_trigger(context_name="context")
        def both(context, value):
            yield

    with pytest.raises(InvalidArgumentError, match="names its parameter 'city', but it is 'town'"):

        @functions.activity_trigger(input_name="city")
        def greet(town):
            return town
