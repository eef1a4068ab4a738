"""Marshmallow fields for what queries and bodies carry; parsing.py holds the rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marshmallow import ValidationError, fields

from flask_durable.http import parsing


class _Parsed(fields.Field[Any]):
    """A field whose text a function of parsing.py reads."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def _read(self, value: Any) -> Any:
        raise NotImplementedError

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return self._read(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


def _text(value: Any, read: Callable[[str], Any]) -> Any:
    if not isinstance(value, str):
        raise ValueError("Not a text")
    return read(value)


class Moment(_Parsed):
    """An ISO 8601 moment."""

    def _read(self, value: Any) -> Any:
        return _text(value, parsing.parse_moment)


class Text(_Parsed):
    """A text without control characters."""

    def _read(self, value: Any) -> Any:
        return _text(value, parsing.check_text)


class QueryFlag(_Parsed):
    """A boolean in a query, in any case."""

    def _read(self, value: Any) -> Any:
        return _text(value, parsing.parse_boolean)


class QuerySeconds(_Parsed):
    """A number of seconds in a query."""

    def _read(self, value: Any) -> Any:
        return _text(value, parsing.parse_seconds)


class BodyFlag(_Parsed):
    """A boolean in a body: the JSON value, not a text that looks like one."""

    def _read(self, value: Any) -> Any:
        if not isinstance(value, bool):
            raise ValueError("Not a boolean")
        return value


class Statuses(_Parsed):
    """Runtime statuses, repeated or separated by commas."""

    def _read(self, value: Any) -> Any:
        return parsing.parse_statuses(value)


class QueryTags(_Parsed):
    """Tags written ``key:value``, repeated."""

    def _read(self, value: Any) -> Any:
        return parsing.parse_tags(value)


class AnyJson(fields.Raw):
    """Any JSON value."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_none=True, **options)


LIST_FIELDS = (Statuses, QueryTags)
"""Fields that take all values of a repeated query argument."""

OPENAPI_TYPES: dict[type[fields.Field[Any]], tuple[str, str | None]] = {
    Moment: ("string", "date-time"),
    Text: ("string", None),
    QueryFlag: ("boolean", None),
    QuerySeconds: ("number", None),
    BodyFlag: ("boolean", None),
    Statuses: ("array", None),
    QueryTags: ("array", None),
}
"""Type and format of each of them in the OpenAPI document."""
