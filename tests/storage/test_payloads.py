"""Payloads through the real databases: each row of a table gives back, to the character, what it was given."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_durable.core import codec
from flask_durable.core.events import EventRaised, EventSent, ExecutionCompleted, SubOrchestrationFailed, TaskCompleted, TaskFailed, TaskScheduled
from flask_durable.core.failure import FailureDetails
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.typed import value_type
from flask_durable.storage.interface import RaiseEvent

MEGABYTE = 1024 * 1024

EDGES: dict[str, Any] = {
    "2**53-1": 2**53 - 1,
    "2**53": 2**53,
    "2**53+1": 2**53 + 1,
    "-2**53-1": -(2**53) - 1,
    "2**63-1": 2**63 - 1,
    "2**63": 2**63,
    "-2**63-1": -(2**63) - 1,
    "2**64": 2**64,
    "a thousand digits": 10**1000 - 1,
    "-0.0": -0.0,
    "smallest float": 5e-324,
    "largest float": 1.7976931348623157e308,
    "0.1+0.2": 0.1 + 0.2,
    "U+0000": "a\x00b",
    "U+0000 as a key": {"\x00": ["\x00"]},
    "every control character": "".join(map(chr, range(0x20))) + "\x7f\x80\x9f",
    "escapes": "\\u0000 \\ \" ' \\' %s ? :name {} \n\r\t",
    "line separators": "\u2028\u2029\ufeff\ufffe\uffff",
    "outside the basic plane": "😀\U0010ffff" * 3,
    "composed and not": ["\u00e9", "e\u0301", {"\u00e9": 1, "e\u0301": 2}],
    "upper and lower case": {"A": 1, "a": 2, "ß": 3, "ss": 4},
    "trailing spaces": ["a ", "a", " a", ""],
    "false values": [0, False, "", [], {}, None],
    "empty text": "",
    "one megabyte": "x" * (MEGABYTE - 2),
    "one megabyte of wide characters": "😀" * (MEGABYTE // 4 - 1),
    "64 levels": None,
}

level: Any = []
for _ in range(codec.DEFAULT_MAX_DEPTH - 1):
    level = [level]
EDGES["64 levels"] = level

TYPED: list[tuple[Any, Any]] = [
    (datetime, datetime(1, 1, 1)),
    (datetime, datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    (Decimal, Decimal("1E-400")),
    (bytes, bytes(range(256))),
    (frozenset[str], frozenset({"\x00", "a", "é"})),
]


def through(desk: Any, text: str | None) -> list[str | None]:
    """The text in every place that holds payloads, as another reader finds it."""
    instance_id = desk.start(input=text)
    desk.do(RaiseEvent(instance_id, "E", text))
    work = next(work for work in desk.claim().orchestrations if work.record.instance_id == instance_id)
    record = work.record
    failure = FailureDetails("a.A", "m", "t", data=text)
    events = [
        TaskScheduled(1, "a", text, 1, 1),
        TaskCompleted(1, text),
        EventSent(2, "nobody", "E", text),
        TaskFailed(3, failure),
        SubOrchestrationFailed(4, failure),
        ExecutionCompleted(RuntimeStatus.COMPLETED, text),
    ]
    desk.turn(record, *events)
    history = [recorded.event for recorded in desk.store.load_history(instance_id, record.generation)]
    assert history == events
    found = desk.store.get_instance(instance_id)
    delivered = [message.event.data for message in work.messages if isinstance(message.event, EventRaised)]
    return [record.input, found.input, found.output, *delivered]


@pytest.mark.parametrize("name", EDGES)
def test_edges_of_json_come_back_as_they_were(desk: Any, name: str) -> None:  # B4, SCH-4, SCH-9
    value = EDGES[name]
    text = codec.encode(value, what="input")
    assert through(desk, text) == [text] * 4
    back = codec.decode(text)
    assert repr(back) == repr(value)
    if isinstance(value, float):
        assert math.copysign(1, back) == math.copysign(1, value)


@pytest.mark.parametrize(("hint", "value"), TYPED)
def test_edges_of_typed_values_come_back_as_they_were(desk: Any, hint: Any, value: Any) -> None:  # B4, rule 55
    kind = value_type(hint, what="test")
    text = kind.encode(value, what="input", max_bytes=MEGABYTE, max_depth=64)
    for found in through(desk, text):
        assert kind.decode(found, what="input") == value


def test_of_a_key_that_comes_twice_the_last_counts() -> None:  # B4
    assert codec.parse('{"a": 1, "b": 2, "a": 3}', what="input") == {"a": 3, "b": 2}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values)
def test_any_json_comes_back_as_it_was(desk: Any, value: Any) -> None:  # B4, rule 55
    text = codec.encode([value], what="input", max_depth=100)
    assert through(desk, text) == [text] * 4
