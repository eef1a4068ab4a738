"""Spans: of management calls, and of activities inside the trace of the caller that started their instance."""

from __future__ import annotations

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import finish, run

from flask_durable import InstanceNotFoundError, RetryPolicy


@pytest.fixture(scope="module")
def exporter():
    """The one provider of this process, as an app would set it up."""
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
def spans(exporter):
    """Finished spans by name."""
    exporter.clear()

    def finished(name):
        return [span for span in exporter.get_finished_spans() if span.name == name]

    return finished


@pytest.fixture
def base_config(base_config):
    return {**base_config, "DURABLE_MANAGEMENT_API": True}


@pytest.fixture
def durable(durable):
    @durable.activity
    def traced():
        with trace.get_tracer("app").start_as_current_span("inside"):
            return [format(trace.get_current_span().get_span_context().trace_id, "032x"), baggage.get_baggage("tenant")]

    @durable.orchestrator
    def child(ctx):
        return (yield ctx.call_activity(traced))

    @durable.orchestrator
    def outer(ctx, name):
        return (yield ctx.call_sub_orchestrator(child)) if name == "child" else (yield ctx.call_activity(traced))

    return durable


@pytest.mark.parametrize("what", ["activity", "child"])
def test_a_span_made_in_an_activity_belongs_to_the_callers_trace(durable, spans, what):  # Tracing
    durable.start_worker()
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    try:
        with trace.get_tracer("app").start_as_current_span("caller") as caller:
            instance_id = durable.client.start("outer", what)
    finally:
        context.detach(token)
    trace_id = format(caller.get_span_context().trace_id, "032x")
    assert finish(durable, instance_id).output == [trace_id, "blue"]
    durable.stop_worker()
    (inside,) = spans("inside")
    (activity,) = spans("activity:traced")
    (start,) = spans("Management.StartOrchestration")
    assert inside.parent.span_id == activity.context.span_id
    assert activity.parent.span_id == start.context.span_id
    assert start.parent.span_id == caller.get_span_context().span_id
    assert {span.context.trace_id for span in (inside, activity, start)} == {caller.get_span_context().trace_id}
    assert activity.attributes["durable.task_id"] == 1


def test_the_trace_survives_the_worker(durable, make_durable, spans):  # Tracing
    with trace.get_tracer("app").start_as_current_span("caller") as caller:
        instance_id = durable.client.start("outer", "activity")
    durable.start_worker()
    assert finish(durable, instance_id).output[0] == format(caller.get_span_context().trace_id, "032x")


def test_activities_of_a_start_inside_a_request_are_in_its_trace(durable, spans):  # http-api 1.2
    durable.start_worker()
    app = durable._only._app
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    response = app.test_client().post(
        "/runtime/orchestrations/start/outer", json={"input": "activity"}, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    )
    assert response.status_code == 202
    assert finish(durable, response.get_json()["id"]).output[0] == trace_id


def test_management_calls_make_spans_with_attributes(durable, spans):  # http-api 1.2
    instance_id = durable.client.start("outer", "activity", instance_id="the-id")
    durable.client.raise_event(instance_id, "Go")
    durable.client.get_status(instance_id)
    durable.client.terminate(instance_id, "the reason")
    durable.client.purge(instance_id)
    prefix = "durable.management."
    attributes = {
        operation: {key.removeprefix(prefix): value for key, value in spans(f"Management.{operation}")[0].attributes.items()}
        for operation in ("StartOrchestration", "RaiseEvent", "GetStatus", "Terminate", "Purge")
    }
    assert attributes == {
        "StartOrchestration": {"orchestrator": "outer", "instance_id": "the-id", "response.instance_id": "the-id"},
        "RaiseEvent": {"instance_id": "the-id", "event_name": "Go"},
        "GetStatus": {"instance_id": "the-id", "response.runtime_status": "Pending"},
        "Terminate": {"instance_id": "the-id", "terminate.reason": "the reason"},
        "Purge": {"instance_id": "the-id", "response.deleted": 1},
    }


def test_a_management_call_that_fails_has_a_span_that_says_so(durable, spans):
    with pytest.raises(InstanceNotFoundError):
        durable.client.terminate("unknown")
    (span,) = spans("Management.Terminate")
    assert not span.status.is_ok


def test_payloads_do_not_get_into_spans(durable, spans, exporter):  # S7
    durable.start_worker()
    durable.client.get_status(run(durable, "outer", "top secret").instance_id)
    assert all("top secret" not in span.to_json() for span in exporter.get_finished_spans())


def test_tracing_can_be_switched_off(make_durable, spans, exporter):
    durable = make_durable(DURABLE_OTEL="off")

    @durable.activity
    def valid():
        return trace.get_current_span().get_span_context().is_valid

    @durable.orchestrator
    def asks(ctx):
        return (yield ctx.call_activity(valid))

    durable.start_worker()
    with trace.get_tracer("app").start_as_current_span("caller"):
        instance_id = durable.client.start(asks)
    assert finish(durable, instance_id).output is False
    assert [span.name for span in exporter.get_finished_spans()] == ["caller"]


@pytest.mark.parametrize("cache_size", [1000, 0])
def test_a_replay_makes_no_span_again(make_durable, spans, cache_size):  # Tracing
    durable = make_durable(DURABLE_CACHE_SIZE=cache_size)

    @durable.activity
    def step(number):
        return number + 1

    @durable.orchestrator
    def steps(ctx):
        number = 0
        for _ in range(4):
            number = yield ctx.call_activity(step, number)
        return number

    durable.start_worker()
    with trace.get_tracer("app").start_as_current_span("caller"):
        instance_id = durable.client.start(steps)
    assert finish(durable, instance_id).output == 4
    durable.stop_worker()
    (start,) = spans("Management.StartOrchestration")
    assert [span.attributes["durable.task_id"] for span in spans("activity:step")] == [1, 2, 3, 4]
    assert {span.parent.span_id for span in spans("activity:step")} == {start.context.span_id}


def test_each_attempt_of_a_call_has_a_span(durable, spans):  # Tracing
    tries = []

    @durable.activity
    def second_time():
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")

    @durable.orchestrator
    def retries(ctx):
        yield ctx.call_activity(second_time, retry_policy=RetryPolicy(0, 2))

    durable.start_worker()
    run(durable, retries)
    durable.stop_worker()
    assert [span.attributes["durable.task_id"] for span in spans("activity:second_time")] == [1, 3]
    assert [span.status.is_ok for span in spans("activity:second_time")] == [False, True]


def test_the_trace_goes_on_in_the_next_generation(durable, spans):  # Tracing, rule 31
    @durable.orchestrator
    def generations(ctx, number):
        yield ctx.call_activity("traced")
        if number < 2:
            ctx.continue_as_new(number + 1)

    durable.start_worker()
    with trace.get_tracer("app").start_as_current_span("caller"):
        instance_id = durable.client.start(generations, 0)
    finish(durable, instance_id)
    durable.stop_worker()
    (start,) = spans("Management.StartOrchestration")
    assert [span.parent.span_id for span in spans("activity:traced")] == [start.context.span_id] * 3


@pytest.mark.parametrize("under_new_id", [True, False])
def test_a_restart_begins_a_trace_linked_to_the_first(durable, spans, under_new_id):  # Tracing, rule 47
    durable.start_worker()
    first = run(durable, "outer", "activity")
    (start,) = spans("Management.StartOrchestration")
    with trace.get_tracer("app").start_as_current_span("again") as again:
        second = durable.client.restart(first.instance_id, new_instance_id=under_new_id)
    assert finish(durable, second).output[0] == format(again.get_span_context().trace_id, "032x")
    durable.stop_worker()
    (restart,) = spans("Management.RestartOrchestration")
    assert [link.context.span_id for link in restart.links] == [start.context.span_id]
    assert restart.parent.span_id == again.get_span_context().span_id
    assert dict(restart.attributes) == {
        "durable.management.instance_id": first.instance_id,
        "durable.management.response.instance_id": second,
    }
    assert spans("activity:traced")[1].parent.span_id == restart.context.span_id


def test_a_restart_in_a_process_without_tracing_keeps_the_trace(durable, make_durable, spans):  # Tracing, rule 47
    durable.start_worker()
    first = run(durable, "outer", "activity")
    quiet = make_durable(DURABLE_OTEL="off")
    second = quiet.client.restart(first.instance_id)
    assert finish(durable, second).output == first.output
