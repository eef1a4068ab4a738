"""Readers of values without parts: JSON values as numbers, texts, times, enums and their like."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

from flask_durable.core.places import Place
from flask_durable.core.plain import plain

Reader: TypeAlias = "Callable[[Any, Place], Any]"
"""Gives the typed value of a JSON value that stands at a place; raises MisfitError."""

_DURATION = re.compile(
    r"(?P<sign>-?)P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.(?P<micros>\d{1,6}))?S)?)?",
    re.ASCII,
)
_ANY_DEPTH, _ANY_SIZE = 64, 2**31


class MisfitError(Exception):
    """A part of a value is not of the type that is asked for.

    Args:
        place: which part.
        reason: what was expected and what was found.
    """

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


def expected(place: Place, wanted: str, value: Any) -> MisfitError:
    """The error for a value of the wrong kind."""
    return MisfitError(place, f"expected {wanted}, found {found(value)}")


def found(value: Any) -> str:
    """A JSON value as messages show it."""
    if value is None or isinstance(value, bool | int | float):
        return "null" if value is None else f"{value!r:.60}".lower()
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"a text of {len(value)} characters"
    return f"a list of {len(value)}" if isinstance(value, list) else "an object"


def enum_reader(kind: type[Enum]) -> Reader:
    """A reader of the members of an enum, by their values."""
    members = [(_of_member(member), member) for member in kind]
    shown = ", ".join(repr(value) for value, _ in members[:20])

    def read(value: Any, place: Place) -> Any:
        for known, member in members:
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return member
        if isinstance(value, bool):  # to an enum of numbers True would be 1
            raise expected(place, f"one of {shown}", value)
        try:
            return kind(value)  # combined flags, and values that _missing_ knows
        except Exception as error:
            raise expected(place, f"one of {shown}", value) from error

    return read


def literal_reader(values: tuple[Any, ...]) -> Reader:
    """A reader of a few values and no others."""
    allowed = [(_of_member(value), value) for value in values]
    shown = ", ".join(repr(value) for value, _ in allowed[:20])

    def read(value: Any, place: Place) -> Any:
        for known, member in allowed:
            if known == value and type(known) is type(value):
                return member
        raise expected(place, f"one of {shown}", value)

    return read


def _of_member(member: Any) -> Any:
    return plain(member, what="member", max_depth=_ANY_DEPTH, max_items=_ANY_SIZE)


def _text(value: Any, place: Place) -> str:
    if isinstance(value, str):
        return value
    raise expected(place, "str", value)


def _integer(value: Any, place: Place) -> int:
    if type(value) is int:
        return value
    raise expected(place, "int", value)


def _float(value: Any, place: Place) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise expected(place, "float", value) from error
    raise expected(place, "float", value)


def _boolean(value: Any, place: Place) -> bool:
    if isinstance(value, bool):
        return value
    raise expected(place, "bool", value)


def _nothing(value: Any, place: Place) -> None:
    if value is not None:
        raise expected(place, "null", value)


def _decimal(value: Any, place: Place) -> Decimal:
    # A float by its shortest text: 0.1 is meant as 0.1
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = Decimal(str(value))
        except (InvalidOperation, ValueError):
            number = Decimal("nan")
        if number.is_finite():
            return number
    raise expected(place, "Decimal", value)


def _from_text(kind: str, parse: Callable[[str], Any]) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if isinstance(value, str):
            try:
                return parse(value)
            except (ValueError, OverflowError) as error:
                raise expected(place, kind, value) from error
        raise expected(place, kind, value)

    return read


def _duration(value: Any, place: Place) -> timedelta:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timedelta(seconds=value)
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is not None and any(match.group(part) for part in ("weeks", "days", "hours", "minutes", "seconds")):
            parts = {part: int(match.group(part) or 0) for part in ("weeks", "days", "hours", "minutes", "seconds")}
            length = timedelta(**parts, microseconds=int((match.group("micros") or "").ljust(6, "0")))
            return -length if match.group("sign") else length
    except (OverflowError, ValueError) as error:
        raise expected(place, "timedelta (an ISO 8601 duration such as 'P1DT2.5S', or seconds)", value) from error
    raise expected(place, "timedelta (an ISO 8601 duration such as 'P1DT2.5S', or seconds)", value)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


SCALARS: dict[Any, Reader] = {
    str: _text,
    int: _integer,
    float: _float,
    bool: _boolean,
    type(None): _nothing,
    None: _nothing,
    Decimal: _decimal,
    datetime: _from_text("datetime (ISO 8601)", datetime.fromisoformat),
    date: _from_text("date (ISO 8601)", date.fromisoformat),
    time: _from_text("time (ISO 8601)", time.fromisoformat),
    timedelta: _duration,
    UUID: _from_text("UUID", UUID),
    bytes: _from_text("bytes (base64)", _bytes),
}
"""The reader of each type without parts."""
