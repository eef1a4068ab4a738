"""Instants as microseconds since the epoch, UTC, and their conversion to aware datetimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask_durable.errors import InvalidArgumentError

Micros = int
"""Microseconds since 1970-01-01T00:00:00Z: what events, rows and leases carry."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> Micros:
    """Convert a datetime; a naive one is taken as UTC (TIM-1)."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: Micros) -> datetime:
    """Convert to an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def fire_time(when: datetime | timedelta, now: Micros) -> Micros:
    """When a timer is due: a delay counts from ``now``, a moment is itself (TIM-1).

    Raises:
        InvalidArgumentError: for anything that is neither, or lies beyond year 9999.
    """
    try:
        if isinstance(when, timedelta):
            return to_micros(from_micros(now) + when)
        if isinstance(when, datetime):
            return to_micros(when)
    except OverflowError as error:
        raise InvalidArgumentError(f"The timer's time {when!r} lies outside the years 1 to 9999") from error
    raise InvalidArgumentError(f"A timer takes a datetime or a timedelta, not {type(when).__name__}: {when!r}")
