"""Python values as JSON values, by what they are: dataclasses, enums, times, numbers, sets, bytes and models.

No type is written into the result: what a value was is known only to the annotation of whoever receives it (core/typed.py). docs/values.md has
the table. A value that is JSON already never comes here.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from flask_durable.core.places import Place, at
from flask_durable.errors import DurableError, InvalidArgumentError, PayloadTooLargeError

ALLOWED = "allowed are JSON values, dataclasses, enums, dates and times, Decimal, UUID, bytes, sets, tuples and pydantic models (docs/values.md)"

_JSON_LEAVES = (str, int, float, bool, type(None))


def plain(value: Any, *, what: str, max_depth: int, max_items: int) -> Any:
    """The same as JSON values, in new lists and dicts; numbers, texts and keys are left for the codec to check.

    Args:
        value: any of the kinds that are supported, nested.
        what: its name in error messages.
        max_depth: how deep it may be nested.
        max_items: how many parts it may have.

    Raises:
        InvalidArgumentError: a part of it is of another kind; the message says where.
        PayloadTooLargeError: it has too many parts.
    """
    return _Flattening(what, max_depth, max_items).value(value, None, max_depth)


def too_deep(what: str, max_depth: int) -> InvalidArgumentError:
    """The error for a value that is nested too deeply."""
    return InvalidArgumentError(
        f"The {what} is nested too deeply, or contains itself; at most {max_depth} levels are allowed (DURABLE_MAX_PAYLOAD_DEPTH)"
    )


class _Flattening:
    __slots__ = ("items", "max_depth", "max_items", "what")

    def __init__(self, what: str, max_depth: int, max_items: int) -> None:
        self.what = what
        self.max_depth = max_depth
        self.max_items = max_items
        self.items = 0

    def value(self, value: Any, place: Place, depth: int) -> Any:
        if isinstance(value, Enum):
            return self.value(value.value, place, depth)
        if isinstance(value, _JSON_LEAVES):
            return value
        if isinstance(value, list | tuple):
            self._enter(len(value), depth)
            return [self.value(item, (place, index), depth - 1) for index, item in enumerate(value)]
        if isinstance(value, dict):
            self._enter(len(value), depth)
            return {key: self.value(item, (place, key), depth - 1) for key, item in value.items()}
        if isinstance(value, set | frozenset):
            self._enter(len(value), depth)
            return _in_order([self.value(item, (place, "<item of a set>"), depth - 1) for item in value])
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value) if field.init]
            self._enter(len(names), depth)
            return {name: self.value(self._attribute(value, name, place), (place, name), depth - 1) for name in names}
        return self._other(value, place, depth)

    def _other(self, value: Any, place: Place, depth: int) -> Any:
        kind = type(value)
        for known, write in _WRITERS:
            if isinstance(value, known):
                return write(value)
        if isinstance(value, Decimal):
            if not value.is_finite():
                raise InvalidArgumentError(f"The {self.what} contains Decimal('{value}'){at(place)}, which JSON cannot carry")
            return str(value)
        if callable(getattr(kind, "model_dump", None)) and callable(getattr(kind, "model_validate", None)):
            return self.value(self._dumped(value, place), place, depth)
        raise InvalidArgumentError(f"The {self.what} contains a {kind.__module__}.{kind.__qualname__}{at(place)}; {ALLOWED}")

    def _attribute(self, value: Any, name: str, place: Place) -> Any:
        try:
            return getattr(value, name)
        except AttributeError as error:
            raise InvalidArgumentError(f"The {self.what} contains a {type(value).__qualname__} without its field {name!r}{at(place)}") from error

    def _dumped(self, value: Any, place: Place) -> Any:
        try:
            return value.model_dump(mode="json", by_alias=True, round_trip=True)
        except DurableError:
            raise
        except Exception as error:
            raise InvalidArgumentError(f"The {self.what} contains a {type(value).__qualname__} that cannot be written{at(place)}: {error}") from error

    def _enter(self, length: int, depth: int) -> None:
        if depth <= 0:
            raise too_deep(self.what, self.max_depth)
        self.items += length + 1
        if self.items > self.max_items:
            raise PayloadTooLargeError(self.what, self.items, self.max_items)


def _in_order(items: list[Any]) -> list[Any]:
    """Items of a set in an order that does not depend on hashes: that of numbers or texts, or else that of their JSON texts."""
    kinds = set(map(type, items))
    if kinds <= {int} or kinds <= {float} or kinds <= {str}:
        return sorted(items)
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True, default=repr))


def duration_text(value: timedelta) -> str:
    """An ISO 8601 duration of days and seconds, exact to the microsecond: ``P1DT2.5S``; negative ones begin with a minus."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = f"{value.seconds}.{value.microseconds:06d}".rstrip("0").rstrip(".") if value.microseconds else str(value.seconds)
    return f"{sign}P{value.days}D" + (f"T{seconds}S" if seconds != "0" else "")


_WRITERS: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (datetime, datetime.isoformat),  # before date, of which it is a kind
    (date, date.isoformat),
    (time, time.isoformat),
    (timedelta, duration_text),
    (UUID, str),
    (bytes, lambda value: base64.b64encode(value).decode()),
)
