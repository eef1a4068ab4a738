"""Payloads to JSON text and back: one strict codec for inputs, outputs, results, events and statuses.

JSON values: None, bool, int, float, str, list, tuple (comes back as a list) and dict with string keys; other kinds that core/plain.py knows are
written as such values. Anything else, NaN, infinities, lone surrogates and nesting beyond the limit are refused where the value is handed over,
naming the place inside the value (rule 55).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from flask_durable.core.places import Place, at
from flask_durable.core.plain import plain, too_deep
from flask_durable.errors import InvalidArgumentError, PayloadTooLargeError

DEFAULT_MAX_BYTES = 1024 * 1024
DEFAULT_MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 1000

_NUMBERS = (int, float)  # tuples: making a union at each question would take as long as the question
_LISTS = (list, tuple)
_LEAVES = frozenset({str, bool, type(None)})
_TOO_LARGE_INTEGER = 10**MAX_INTEGER_DIGITS

_encode_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False).encode


def encode(value: Any, *, what: str, max_bytes: int = DEFAULT_MAX_BYTES, max_depth: int = DEFAULT_MAX_DEPTH) -> str | None:
    """JSON text of a value; None, which means absent (SCH-4), stays None.

    Args:
        value: the value: JSON, or of a kind in docs/values.md.
        what: its name in error messages, for example ``"input"``.
        max_bytes: limit in bytes of UTF-8.
        max_depth: how deep lists and dicts may be nested.

    Raises:
        InvalidArgumentError: the value is none of these; the message says where.
        PayloadTooLargeError: the text is over the limit.
    """
    if value is None:
        return None
    if type(value) is str and len(value) + 2 > max_bytes:  # without a copy of it: that would take others' time
        raise PayloadTooLargeError(what, len(value) + 2, max_bytes)
    try:
        if type(value) not in _LEAVES:
            value = _checked(value, what, max_bytes, max_depth)
        text = _encode_text(value)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise _lone_surrogate(what, value) from error
    except InvalidArgumentError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"The {what} cannot be encoded as JSON: {error}") from error
    if size > max_bytes:
        raise PayloadTooLargeError(what, size, max_bytes)
    return text


def decode(text: str | None) -> Any:
    """The value of a stored JSON text; None for None."""
    return None if text is None else json.loads(text)


def parse(text: str | bytes, *, what: str, max_depth: int = DEFAULT_MAX_DEPTH) -> Any:
    """Parse JSON text that comes from outside, by the same rules as :func:`encode`; its size is the caller's affair.

    Raises:
        InvalidArgumentError: not JSON, not UTF-8, NaN or infinity, a lone surrogate, too deep.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_refuse_constant)
        _Check(what, max_depth, None).value(value, None, max_depth)
        if not text.isascii() or "\\u" in text:
            _encode_text(value).encode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"The {what} is not UTF-8 text") from error
    except UnicodeEncodeError as error:
        raise _lone_surrogate(what, value) from error
    except InvalidArgumentError:
        raise
    except RecursionError as error:
        raise InvalidArgumentError(f"The {what} is nested too deeply; at most {max_depth} levels are allowed") from error
    except ValueError as error:
        raise InvalidArgumentError(f"The {what} is not valid JSON: {error}") from error
    return value


def _checked(value: Any, what: str, max_bytes: int, max_depth: int) -> Any:
    try:
        _Check(what, max_depth, max_bytes).value(value, None, max_depth)
        return value
    except _NotJsonError:
        pass
    value = plain(value, what=what, max_depth=max_depth, max_items=max_bytes)
    _Check(what, max_depth, max_bytes).value(value, None, max_depth)
    return value


def is_json(value: Any) -> bool:
    """Whether a value consists of JSON values as it stands, whatever its limits."""
    try:
        _Check("value", DEFAULT_MAX_DEPTH, DEFAULT_MAX_BYTES).value(value, None, DEFAULT_MAX_DEPTH)
    except _NotJsonError:
        return False
    except InvalidArgumentError:
        return True  # the codec will say what is wrong with it
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _NotJsonError(Exception):
    """A part of the value is no JSON value as it stands."""


class _Check:
    """One walk through a value.

    Args:
        what: the value's name in messages.
        max_depth: how deep it may be nested.
        max_bytes: each item takes a byte at least, so one of more items than this is over the limit; None: no limit. Without this, a few
            lists that hold each other twice would take for ever.
    """

    __slots__ = ("items", "max_bytes", "max_depth", "what")

    def __init__(self, what: str, max_depth: int, max_bytes: int | None) -> None:
        self.what = what
        self.max_depth = max_depth
        self.max_bytes = max_bytes
        self.items = 0

    def value(self, value: Any, path: Place, depth: int) -> None:
        kind = type(value)
        if kind in _LEAVES:
            return
        if isinstance(value, _NUMBERS):
            self._number(value, path)
        elif isinstance(value, _LISTS):
            self._enter(len(value), depth)
            for index, item in enumerate(value):
                if type(item) not in _LEAVES:
                    self.value(item, (path, index), depth - 1)
        elif isinstance(value, dict):
            self._enter(len(value), depth)
            self._items_of(value, path, depth)
        elif not isinstance(value, str):
            raise _NotJsonError

    def _number(self, value: float, path: Place) -> None:
        if isinstance(value, int):
            if not -_TOO_LARGE_INTEGER < value < _TOO_LARGE_INTEGER:
                raise InvalidArgumentError(f"The {self.what} contains an integer of more than {MAX_INTEGER_DIGITS} digits{at(path)}")
        elif value - value != 0:
            raise InvalidArgumentError(f"The {self.what} contains {float(value)}{at(path)}, which JSON cannot carry")

    def _items_of(self, value: dict[Any, Any], path: Place, depth: int) -> None:
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidArgumentError(f"The {self.what} has a key {key!r:.100} of type {type(key).__name__}{at(path)}; JSON keys are strings")
            if type(item) not in _LEAVES:
                self.value(item, (path, key), depth - 1)

    def _enter(self, length: int, depth: int) -> None:
        if depth <= 0:
            raise too_deep(self.what, self.max_depth)
        self.items += length + 1
        if self.max_bytes is not None and self.items > self.max_bytes:
            raise PayloadTooLargeError(self.what, self.items, self.max_bytes)


def _lone_surrogate(what: str, value: Any) -> InvalidArgumentError:
    path = _find_surrogate(value, None)
    return InvalidArgumentError(f"The {what} contains a lone surrogate{at(path[0] if path else None)}, which is no Unicode text")


def _find_surrogate(value: Any, path: Place) -> tuple[Place] | None:
    if isinstance(value, str):
        return (path,) if any("\ud800" <= character <= "\udfff" for character in value) else None
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        found = _find_surrogate(key, path) or _find_surrogate(item, (path, key))
        if found:
            return found
    return None
