"""What queries may say, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_durable.core.status import RuntimeStatus
from flask_durable.http.errors import ApiError
from flask_durable.http.parsing import check_text, parse_boolean, parse_moment, parse_seconds, parse_statuses, parse_tags, single_values

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00z",
        "2026-01-31t12:00:00",
        "2026-01-31 12:00:00",
        "2026-01-31T12:00",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00.0000000Z",
        "2026-01-31T12:00:00.000+00:00",
        "2026-01-31T14:00:00+02:00",
        "2026-01-31T14:00:00 02:00",
        "2026-01-31T14:00:00+0200",
        "2026-01-31T14:00:00+02",
        "2026-01-31T07:30:00-04:30",
        " 2026-1-31T12:00:00Z ",
    ],
)
def test_a_moment_may_be_written_in_many_ways(text: str) -> None:
    assert parse_moment(text) == NOON


def test_what_python_makes_of_datetime_min_is_understood() -> None:
    assert parse_moment("1-01-01T00:00:00.000000Z") == datetime.min.replace(tzinfo=UTC)


def test_a_date_is_its_first_moment_and_digits_beyond_microseconds_are_cut() -> None:
    assert parse_moment("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_moment("2026-01-31T12:00:00.1234567Z").microsecond == 123456


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026", "2026-13-01", "2026-02-30", "2026-01-31T25:00:00Z", "2026-01-31T12:00:60Z", "2026-01-31T12:00:00+25:00", "0-01-01", "0001-01-01T00:00:00+02:00",
     "9999-12-31T23:59:59-02:00", "2026-01-31T12:00:00Z\n;", "٢٠٢٦-01-01", "1738324800"],
)  # fmt: skip
def test_what_is_no_moment_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="Not a moment"):
        parse_moment(text)


@given(st.text(max_size=40))
def test_no_text_makes_the_parsers_fall_over(text: str) -> None:
    for parse in (parse_moment, parse_boolean, parse_seconds, check_text, lambda each: parse_statuses([each]), lambda each: parse_tags([each])):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either outcome is fine


@given(st.datetimes(timezones=st.timezones()))
def test_every_moment_that_python_writes_is_read_back(moment: datetime) -> None:
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        return
    if expected.isoformat()[19:] and moment.utcoffset().seconds % 60 == 0:  # type: ignore[union-attr]
        assert parse_moment(moment.isoformat()) == expected


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False)])
def test_booleans_come_in_any_case(text: str, value: bool) -> None:
    assert parse_boolean(text) is value


@pytest.mark.parametrize("text", ["", "1", "0", "yes", "on", "truee"])
def test_other_words_are_no_booleans(text: str) -> None:
    with pytest.raises(ValueError, match="Not a boolean"):
        parse_boolean(text)


def test_statuses_are_repeated_or_separated_by_commas_in_any_case() -> None:
    assert parse_statuses(["running,PENDING", " Failed", "Running"]) == (RuntimeStatus.RUNNING, RuntimeStatus.PENDING, RuntimeStatus.FAILED)


@pytest.mark.parametrize("text", ["Done", "", "Running,", "Running;Failed"])
def test_an_unknown_status_is_refused_since_ignoring_it_would_widen_a_purge(text: str) -> None:
    with pytest.raises(ValueError, match="is not a runtime status"):
        parse_statuses([text])


def test_tags_have_a_key_and_a_value() -> None:
    assert parse_tags(["team:a", "url:http://x", "empty:", "team:a"]) == {"team": "a", "url": "http://x", "empty": ""}
    for bad in (["team"], [":a"], ["team:a", "team:b"], ["team:\x00"]):
        with pytest.raises(ValueError, match=r"tag|Contains"):
            parse_tags(bad)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e999", "", "abc", "0x10", "1_0", "\u0661"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Not a number of seconds"):
        parse_seconds(text)


def test_query_names_have_no_case_and_one_value() -> None:
    names = {"showinput": "showInput", "tag": "tag"}

    assert single_values({"SHOWINPUT": ["true"], "Tag": ["a:1"], "tag": ["b:2"], "x": ["1"]}, names, frozenset({"tag"})) == (
        {"showInput": "true", "tag": ["a:1", "b:2"]},
        ["x"],
    )
    assert single_values({"showInput": ["true", "true"]}, names, frozenset()) == ({"showInput": "true"}, [])
    with pytest.raises(ApiError, match="showInput is given more than once"):
        single_values({"showInput": ["true"], "showinput": ["false"]}, names, frozenset())
