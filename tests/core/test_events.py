from __future__ import annotations

import dataclasses

import pytest

from flask_durable.core import events
from flask_durable.core.actions import ASKED
from flask_durable.core.events import EVENT_TYPES, HistoryEvent, TaskScheduled, Unreadable
from flask_durable.core.execution import _HANDLERS, IGNORED


def test_every_kind_of_event_is_listed_under_its_name() -> None:
    kinds = {each for each in vars(events).values() if isinstance(each, type) and issubclass(each, HistoryEvent)} - {HistoryEvent, Unreadable}
    assert {kind.__name__: kind for kind in kinds} == EVENT_TYPES


def test_an_execution_knows_what_to_do_with_every_kind_and_but_one_thing() -> None:
    known = [*_HANDLERS, *ASKED, *IGNORED]
    assert sorted(known, key=repr) == sorted(EVENT_TYPES.values(), key=repr)


@pytest.mark.parametrize("kind", EVENT_TYPES.values())
def test_events_are_facts_and_cannot_be_changed(kind: type[HistoryEvent]) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)


def test_equal_events_are_equal() -> None:
    assert TaskScheduled(1, "a", "{}") == TaskScheduled(1, "a", "{}", 1, 0)
    assert TaskScheduled(1, "a") != TaskScheduled(1, "a", None, 2)
