from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

import pytest

from flask_durable.core.times import fire_time, from_micros, to_micros
from flask_durable.errors import InvalidArgumentError

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)


class Nowhere(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return None


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC),
        datetime(2024, 2, 29, 1, 2, 3, 0, tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_moments_round_trip_to_the_microsecond(moment: datetime) -> None:  # rule 18
    assert from_micros(to_micros(moment)) == moment
    assert from_micros(to_micros(moment)).tzinfo is UTC


def test_naive_moments_are_utc_and_aware_ones_are_converted() -> None:  # rule 16, TIM-1
    assert to_micros(NOON.replace(tzinfo=None)) == to_micros(NOON)
    assert to_micros(NOON.replace(tzinfo=Nowhere())) == to_micros(NOON)
    assert to_micros(datetime(2024, 3, 10, 14, tzinfo=timezone(timedelta(hours=2)))) == to_micros(NOON)


def test_a_delay_counts_from_the_given_time_and_a_moment_is_itself() -> None:  # TIM-1
    now = to_micros(NOON)
    assert fire_time(timedelta(seconds=1, microseconds=1), now) == now + 1_000_001
    assert fire_time(NOON + timedelta(days=1), now) == now + 86_400_000_000
    assert fire_time(timedelta(0), now) == now
    assert fire_time(timedelta(seconds=-5), now) == now - 5_000_000
    assert fire_time(NOON - timedelta(days=1), now) == now - 86_400_000_000


@pytest.mark.parametrize(
    "when",
    [
        timedelta.max,
        timedelta.min,
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_times_that_no_datetime_can_show_are_refused(when: datetime | timedelta) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        fire_time(when, to_micros(NOON))
    assert str(caught.value) == f"The timer's time {when!r} lies outside the years 1 to 9999"


def test_the_last_moment_of_all_is_a_time() -> None:
    assert from_micros(fire_time(datetime.max.replace(tzinfo=UTC), 0)) == datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize("when", [5, 5.0, "tomorrow", None, True, date(2024, 1, 1)])
def test_anything_else_is_no_time(when: object) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        fire_time(when, 0)  # type: ignore[arg-type]
    assert str(caught.value) == f"A timer takes a datetime or a timedelta, not {type(when).__name__}: {when!r}"
