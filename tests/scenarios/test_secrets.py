"""Secrets: what is handed to orchestrations is in no log line and in no span, however much is logged and whatever fails."""

from __future__ import annotations

import contextlib
import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import finish, has_status, run, until

from flask_durable import ConfigurationError, RetryPolicy, RuntimeStatus, SubOrchestrationFailedError
from flask_durable.config import load_settings, mask_url
from flask_durable.errors import DurableError

SECRET = "4111-1111-1111-1111"


@pytest.fixture(scope="module")
def exporter():
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
def durable(durable):
    @durable.activity
    def pay(card):
        raise ValueError(f"the card {card} was refused")

    @durable.activity
    def echo(card):
        return {"card": card}

    @durable.orchestrator
    def child(ctx, card):
        ctx.set_custom_status({"card": card})
        yield ctx.call_activity(pay, card)

    @durable.orchestrator
    def order(ctx, card):
        with contextlib.suppress(SubOrchestrationFailedError):
            yield ctx.call_sub_orchestrator(child, card)
        yield ctx.call_activity(echo, card)
        yield ctx.wait_for_external_event("Go")
        yield ctx.call_activity(pay, card, retry_policy=RetryPolicy(first_retry_interval=0.001, max_number_of_attempts=2))

    @durable.orchestrator
    def crash(ctx, card):
        raise RuntimeError(card)

    @durable.orchestrator
    def not_json(ctx, card):
        return [card, object()]

    @durable.orchestrator
    def endless(ctx, card):
        yield ctx.call_activity("nobody knows it", card)

    return durable


@pytest.mark.one_process("it reads the log and the spans of its workers")
def test_neither_logs_nor_spans_hold_what_was_handed_over(durable, exporter, caplog):  # S7
    exporter.clear()
    with caplog.at_level(logging.DEBUG), trace.get_tracer("app").start_as_current_span("caller"):
        durable.start_worker()
        client = durable.client
        instance_id = client.start("order", SECRET)
        client.raise_event(instance_id, "Go", {"card": SECRET})
        assert finish(durable, instance_id).runtime_status is RuntimeStatus.FAILED
        assert [run(durable, name, SECRET).runtime_status for name in ("crash", "not_json", "endless")] == [RuntimeStatus.FAILED] * 3
        waiting = client.start("wait_for_go", SECRET)
        until(has_status(durable, waiting, RuntimeStatus.RUNNING))
        client.suspend(waiting, SECRET)
        client.resume(waiting, SECRET)
        for bad in (lambda: client.start("order", {SECRET: object()}), lambda: client.start("order", SECRET * 100_000)):
            with pytest.raises(DurableError):
                bad()
        client.get_status(instance_id, show_history=True, show_history_output=True)
        client.terminate(waiting)
        durable.stop_worker()

    assert caplog.records
    shown = [record for record in caplog.records if SECRET in record.getMessage() or SECRET in (record.exc_text or "")]
    assert [(record.name, record.getMessage()[:200]) for record in shown] == []
    assert SECRET not in caplog.text
    spans = exporter.get_finished_spans()
    assert {"activity:pay", "activity:echo", "Management.StartOrchestration"} <= {span.name for span in spans}
    assert [span.name for span in spans if SECRET in span.to_json()] == []
    assert {span.attributes.get("error.type") for span in spans if span.name == "activity:pay"} == {"ValueError"}


def test_the_failure_that_the_caller_reads_has_the_whole_text(durable):
    durable.start_worker()
    assert SECRET in run(durable, "child", SECRET).failure_details.to_json().__repr__()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/shop",
        f"mysql://me:{SECRET}@127.0.0.1:1/shop",
        f"postgresql://127.0.0.1:1/shop?password={SECRET}",
        f"postgresql://me:{SECRET}@[half/shop",
        f"postgresql://me:{SECRET}@127.0.0.1:99999999/shop",
        f"postgresql://me:{SECRET}@127.0.0.1/shop?nonsense=1",
    ],
)
def test_the_password_of_a_database_is_not_shown(make_durable, url, caplog):  # S7
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as caught:
        make_durable(DURABLE_DATABASE=url, DURABLE_DATABASE_TIMEOUT=0.2)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__
    assert SECRET not in caplog.text
    assert SECRET not in mask_url(url)


def test_settings_do_not_show_it_either():  # S7
    assert SECRET not in repr(load_settings({"DURABLE_DATABASE": f"postgresql://me:{SECRET}@127.0.0.1/shop"}))


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-workers"])
def test_the_files_of_sqlite_are_for_their_owner_only(durable, tmp_path, suffix, database_url):  # S12
    if not database_url.startswith("sqlite"):
        pytest.skip("a server keeps its own files")
    durable.start_worker()
    durable.client.start("wait_for_go")
    found = until(lambda: list(tmp_path.glob(f"*.db{suffix}")))
    assert [oct(path.stat().st_mode & 0o777) for path in found] == ["0o600"] * len(found)
