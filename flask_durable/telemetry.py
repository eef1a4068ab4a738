"""Telemetry: spans and W3C trace context; the OpenTelemetry API only, which does nothing while no SDK is set up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.trace import Status, StatusCode

ATTRIBUTE_PREFIX = "durable.management."
CARRIED_HEADERS = ("traceparent", "tracestate", "baggage")
MAX_HEADER_LENGTH = 2048


class Telemetry:
    """Makes the spans of one app.

    Args:
        is_enabled: False makes every method do nothing.
    """

    def __init__(self, *, is_enabled: bool = True) -> None:
        self._is_enabled = is_enabled
        self._tracer = trace.get_tracer("flask_durable")

    @contextlib.contextmanager
    def management_span(
        self, operation: str, attributes: Mapping[str, str | int | None] | None = None, *, linked_to: Mapping[str, str] | None = None
    ) -> Iterator[ManagementSpan]:
        """A span ``Management.<operation>`` around a client call.

        Args:
            operation: name of the operation.
            attributes: their names get the prefix ``durable.management.``.
            linked_to: the stored trace context of an instance that this call goes back to.
        """
        if not self._is_enabled:
            yield ManagementSpan(None)
            return
        with self._span(f"Management.{operation}", {}, _links(linked_to or {})) as span:
            wrapped = ManagementSpan(span if span.is_recording() else None)
            for name, value in (attributes or {}).items():
                wrapped.set(name, value)
            yield wrapped

    def capture(self) -> dict[str, str]:
        """The present trace context as W3C headers, to be stored with an instance; empty when there is none."""
        if not self._is_enabled:
            return {}
        if not trace.get_current_span().get_span_context().is_valid and not baggage.get_all():
            return {}
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return {name: value for name, value in carrier.items() if name in CARRIED_HEADERS and len(value) <= MAX_HEADER_LENGTH}

    @contextlib.contextmanager
    def incoming(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Take over the trace context of a request, unless the app's own instrumentation already did."""
        found = self._headers(headers)
        if not found or trace.get_current_span().get_span_context().is_valid:
            yield
            return
        with self._attached(found):
            yield

    @contextlib.contextmanager
    def activity_span(self, carrier: Mapping[str, str], name: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
        """Run an activity inside the trace of the caller that started its instance."""
        if not self._is_enabled or not carrier:
            yield
            return
        with self._attached(carrier), self._span(f"activity:{name}", attributes):
            yield

    @contextlib.contextmanager
    def _span(self, name: str, attributes: Mapping[str, str | int], links: Sequence[trace.Link] = ()) -> Iterator[trace.Span]:
        # An exception's text and stack may hold what the caller handed over: a span gets its type only (S7)
        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes), links=links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
                raise

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        if not self._is_enabled:
            return {}
        found = {name: headers[name] for name in CARRIED_HEADERS if name in headers}
        return {name: value for name, value in found.items() if len(value) <= MAX_HEADER_LENGTH}

    @contextlib.contextmanager
    def _attached(self, carrier: Mapping[str, str]) -> Iterator[None]:
        token = context.attach(propagate.extract(dict(carrier)))
        try:
            yield
        finally:
            context.detach(token)


def _links(carrier: Mapping[str, str]) -> list[trace.Link]:
    found = trace.get_current_span(propagate.extract(dict(carrier), context.Context())).get_span_context()
    return [trace.Link(found)] if found.is_valid else []


def instrument(app: Any) -> None:
    """Let OpenTelemetry's Flask instrumentation make a span for each request of an app, unless that is switched on already."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    if not getattr(app, "_is_instrumented_by_opentelemetry", False):
        FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]  # the library has no types here


class ManagementSpan:
    """A span that may not be recording."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def set(self, name: str, value: str | int | None) -> None:
        """Set one attribute; None is left out."""
        if self._span is not None and value is not None:
            self._span.set_attribute(ATTRIBUTE_PREFIX + name, value)
