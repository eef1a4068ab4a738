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
    if moment.utcoffset() is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: Micros) -> datetime:
    """Convert to an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


_EARLIEST = to_micros(datetime.min.replace(tzinfo=UTC))
_LATEST = to_micros(datetime.max.replace(tzinfo=UTC))


def fire_time(when: datetime | timedelta, now: Micros) -> Micros:
    """When a timer is due: a delay counts from ``now``, a moment is itself (TIM-1).

    Raises:
        InvalidArgumentError: for anything that is neither, or lies outside the years 1 to 9999.
    """
    if isinstance(when, timedelta):
        fire_at = now + when // _MICROSECOND
    elif isinstance(when, datetime):
        fire_at = to_micros(when)
    else:
        raise InvalidArgumentError(f"A timer takes a datetime or a timedelta, not {type(when).__name__}: {when!r}")
    if not _EARLIEST <= fire_at <= _LATEST:
        raise InvalidArgumentError(f"The timer's time {when!r} lies outside the years 1 to 9999")
    return fire_at
