"""Payloads to JSON text and back: one strict codec for inputs, outputs, results, events and statuses.

JSON values only: None, bool, int, float, str, list, tuple (comes back as a list) and dict with string keys. Anything else, NaN, infinities,
lone surrogates and nesting beyond the limit are refused where the value is handed over, naming the place inside the value (rule 55).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from flask_durable.errors import InvalidArgumentError, PayloadTooLargeError

DEFAULT_MAX_BYTES = 1024 * 1024
DEFAULT_MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 1000

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)
_encode_text = _encoder.encode


def encode(value: Any, *, what: str, max_bytes: int = DEFAULT_MAX_BYTES, max_depth: int = DEFAULT_MAX_DEPTH) -> str | None:
    """JSON text of a value; None, which means absent (SCH-4), stays None.

    Args:
        value: the value.
        what: its name in error messages, for example ``"input"``.
        max_bytes: limit in bytes of UTF-8.
        max_depth: how deep lists and dicts may be nested.

    Raises:
        InvalidArgumentError: the value is not JSON; the message says where.
        PayloadTooLargeError: the text is over the limit.
    """
    if value is None:
        return None
    if type(value) is not str:
        _check(value, what, "", max_depth)
    try:
        text = _encode_text(value)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"The {what} contains a lone surrogate, which is no Unicode text") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"The {what} cannot be encoded as JSON: {error}") from error
    if size > max_bytes:
        raise PayloadTooLargeError(what, size, max_bytes)
    return text


def decode(text: str | None) -> Any:
    """The value of a stored JSON text; None for None."""
    return None if text is None else json.loads(text)


def parse(text: str | bytes, *, what: str, max_depth: int = DEFAULT_MAX_DEPTH) -> Any:
    """Parse JSON text that comes from outside, by the same rules as :func:`encode`.

    Raises:
        InvalidArgumentError: not JSON, not UTF-8, NaN or infinity, too deep.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"The {what} is not UTF-8 text") from error
    except RecursionError as error:
        raise InvalidArgumentError(f"The {what} is nested too deeply; at most {max_depth} levels are allowed") from error
    except ValueError as error:
        raise InvalidArgumentError(f"The {what} is not valid JSON: {error}") from error
    _check(value, what, "", max_depth)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any, what: str, path: str, depth: int) -> None:
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return
    if kind is int:
        _check_integer(value, what, path)
    elif kind is float:
        if value - value != 0:
            raise InvalidArgumentError(f"The {what} contains {value}{_at(path)}, which JSON cannot carry")
    elif isinstance(value, list | tuple):
        _descend(what, depth)
        for index, item in enumerate(value):
            if type(item) is not str:
                _check(item, what, f"{path}[{index}]", depth - 1)
    elif isinstance(value, dict):
        _descend(what, depth)
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidArgumentError(f"The {what} has a key {key!r} of type {type(key).__name__}{_at(path)}; JSON keys are strings")
            if type(item) is not str:
                _check(item, what, f"{path}.{key}", depth - 1)
    elif not isinstance(value, str | int | float):
        raise InvalidArgumentError(
            f"The {what} contains a {kind.__module__}.{kind.__qualname__}{_at(path)}; "
            "allowed are None, bool, int, float, str, and lists and string-keyed dicts of these"
        )


def _check_integer(value: int, what: str, path: str) -> None:
    if value.bit_length() > MAX_INTEGER_DIGITS * 3.3:
        raise InvalidArgumentError(f"The {what} contains an integer of more than {MAX_INTEGER_DIGITS} digits{_at(path)}")


def _descend(what: str, depth: int) -> None:
    if depth <= 0:
        raise InvalidArgumentError(f"The {what} is nested too deeply, or contains itself; at most {DEFAULT_MAX_DEPTH} levels are allowed by default (DURABLE_MAX_PAYLOAD_DEPTH)")


def _at(path: str) -> str:
    return f" at {path[:200]}" if path else ""
