"""From request to values: query values, moments, bodies. Everything malformed is an InvalidArgumentError or ApiError, hence a 400."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from flask import Request

from flask_durable.config import Settings
from flask_durable.core import codec
from flask_durable.core.status import RuntimeStatus, parse_status
from flask_durable.http.errors import ApiError

ENVELOPE_BYTES = 64 * 1024
"""What a body may have besides the payload: tags, id, braces."""


class Absent:
    """Type of ABSENT."""


ABSENT: Final = Absent()
"""No body at all, which is not the same as the body ``null``."""

_MOMENT = re.compile(
    r"(?P<year>\d{1,4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:[Tt ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>[Zz]|[+\- ]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)


def parse_moment(text: str) -> datetime:
    """An ISO 8601 moment, in UTC; without zone it is UTC.

    A ``+`` that a query turned into a space is understood, and so are years of fewer than four digits: that is what ``strftime`` makes of
    ``datetime.min`` on Linux.

    Raises:
        ValueError: with a sentence that says what is allowed.
    """
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        raise ValueError("Not a moment: write it as 2026-01-31T12:00:00Z")
    parts = match.groupdict()
    micros = (parts["fraction"] or "").ljust(6, "0")[:6]
    try:
        moment = datetime(
            int(parts["year"]),
            int(parts["month"]),
            int(parts["day"]),
            int(parts["hour"] or 0),
            int(parts["minute"] or 0),
            int(parts["second"] or 0),
            int(micros),
            _zone(parts["zone"]),
        )
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("Not a moment between the years 1 and 9999") from None


def _zone(text: str | None) -> timezone:
    if text is None or text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)


def parse_boolean(text: str) -> bool:
    """True or false, in any case.

    Raises:
        ValueError: neither.
    """
    folded = text.strip().casefold()
    if folded not in ("true", "false"):
        raise ValueError("Not a boolean: write true or false")
    return folded == "true"


def parse_statuses(texts: Iterable[str]) -> tuple[RuntimeStatus, ...]:
    """Runtime statuses from repeated and comma-separated values, in any case.

    Raises:
        ValueError: naming the unknown one; ignoring it would widen a filter, and a purge with it.
    """
    found: dict[RuntimeStatus, None] = {}
    for text in texts:
        for word in text.split(","):
            status = parse_status(word)
            if status is None:
                raise ValueError(f"{word.strip()!r} is not a runtime status; there are {', '.join(RuntimeStatus)}")
            found[status] = None
    return tuple(found)


def parse_tags(texts: Iterable[str]) -> dict[str, str]:
    """Tags from ``key:value`` texts.

    Raises:
        ValueError: without colon, or two values for one key, which no instance can have.
    """
    tags: dict[str, str] = {}
    for text in texts:
        key, colon, value = check_text(text).partition(":")
        if not colon or not key:
            raise ValueError(f"A tag is written key:value, not {text!r}")
        if tags.setdefault(key, value) != value:
            raise ValueError(f"The tag {key!r} is given twice with different values")
    return tags


def parse_seconds(text: str) -> float:
    """A number of seconds, decimals allowed.

    Raises:
        ValueError: not a number, negative, NaN or infinite.
    """
    try:
        seconds = float(text) if re.fullmatch(r"[0-9.eE+\-]+", text.strip(), re.ASCII) else math.nan
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("Not a number of seconds")
    return seconds


def check_text(text: str) -> str:
    """The text, when every database can compare it.

    Raises:
        ValueError: it contains control characters or lone surrogates.
    """
    for character in text:
        if ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F or 0xD800 <= ord(character) <= 0xDFFF:
            raise ValueError(f"Contains {character!r}, which is not allowed here")
    return text


def single_values(arguments: Mapping[str, list[str]], names: Mapping[str, str], lists: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """Query arguments under their proper names, whatever case they came in, and the names that are unknown.

    Args:
        arguments: all values by the name that was sent.
        names: the proper name of each case-folded one.
        lists: proper names that may be repeated.

    Raises:
        ApiError: one value is asked for and different ones are given.
    """
    gathered: dict[str, list[str]] = {}
    unknown: list[str] = []
    for sent, values in arguments.items():
        name = names.get(sent.casefold())
        if name is None:
            unknown.append(sent)
        else:
            gathered.setdefault(name, []).extend(values)
    result: dict[str, Any] = {}
    for name, values in gathered.items():
        if name in lists:
            result[name] = values
        elif len(set(values)) > 1:
            raise ApiError(400, f"{name} is given more than once", errors={name: ["Given more than once, with different values."]})
        else:
            result[name] = values[0]
    return result, unknown


def read_body(request: Request, settings: Settings) -> Any:
    """The parsed JSON body, or ABSENT when there is none.

    Raises:
        ApiError: too large, without length, or of another media type and therefore not understood.
        InvalidArgumentError: not JSON, or not the JSON that this project stores.
    """
    limit = min(settings.max_payload_bytes + ENVELOPE_BYTES, request.max_content_length or sys.maxsize)
    # Werkzeug refuses by Content-Length, but cuts a chunked body off at the limit without a word: so one byte more is read
    request.max_content_length = limit + 1
    if request.content_length is None and request.headers.get("Transfer-Encoding") and not request.environ.get("wsgi.input_terminated"):
        # Werkzeug would take it for empty, and something would start without its input
        raise ApiError(411, "This server cannot read chunked bodies; send a Content-Length", code="length_required")
    raw = request.get_data(cache=True)
    if len(raw) > limit:
        raise ApiError(413, f"The body is too large; at most {limit} bytes are taken")
    if not raw:
        return ABSENT
    if request.mimetype and not _is_json(request.mimetype):
        raise ApiError(415, f"The body must be JSON with 'Content-Type: application/json', not {request.mimetype!r}")
    return codec.parse(raw, what="body", max_depth=settings.max_payload_depth + 1)


def _is_json(mimetype: str) -> bool:
    return mimetype == "application/json" or (mimetype.startswith("application/") and mimetype.endswith("+json"))
