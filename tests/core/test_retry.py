from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flask_durable.core.failure import FailureDetails
from flask_durable.core.retry import RetryContext, RetryPolicy
from flask_durable.errors import InvalidArgumentError

from .driver import BOOM, SECOND, T0


def waits(policy: RetryPolicy, attempts: int = 6, *, took: float = 0) -> list[float | None]:
    """Seconds before each further attempt, when each attempt takes so long."""
    now, found = T0, []
    for attempt in range(1, attempts + 1):
        now += round(took * SECOND)
        start = policy.next_attempt_at(attempt=attempt, first_attempt_at=T0, now=now, failure=BOOM)
        found.append(None if start is None else (start - now) / SECOND)
        now = start if start is not None else now
    return found


def test_the_first_attempt_counts_and_the_wait_is_constant_by_default() -> None:  # rule 25, RTY-1
    assert waits(RetryPolicy(5, 3)) == [5, 5, None, None, None, None]
    assert waits(RetryPolicy(timedelta(seconds=5), 1), 1) == [None]


def test_each_wait_is_the_one_before_times_the_coefficient_up_to_the_cap() -> None:  # rules 25, 29, RTY-1
    assert waits(RetryPolicy(1, 10, backoff_coefficient=2)) == [1, 2, 4, 8, 16, 32]
    assert waits(RetryPolicy(1, 10, backoff_coefficient=2, max_retry_interval=timedelta(seconds=5))) == [1, 2, 4, 5, 5, 5]
    assert waits(RetryPolicy(0.5, 4, backoff_coefficient=1.5)) == [0.5, 0.75, 1.125, None, None, None]
    assert waits(RetryPolicy(10, 3, max_retry_interval=2)) == [2, 2, None, None, None, None]
    assert waits(RetryPolicy(1, 3, max_retry_interval=0)) == [0, 0, None, None, None, None]


def test_no_attempt_starts_later_than_the_timeout_after_the_call() -> None:  # rule 25, RTY-2
    assert waits(RetryPolicy(5, 10, retry_timeout=15)) == [5, 5, 5, None, None, None]
    assert waits(RetryPolicy(5, 10, retry_timeout=15), took=1) == [5, 5, None, None, None, None]
    assert waits(RetryPolicy(5, 10, retry_timeout=0), 1) == [None]
    assert waits(RetryPolicy(0, 3, retry_timeout=0)) == [0, 0, None, None, None, None]


@pytest.mark.parametrize("attempt", [1, 2, 50, 2_000, 10**9])
def test_waits_beyond_all_measure_end_at_a_hundred_years_or_the_cap(attempt: int) -> None:
    century = 100 * 365 * 86_400

    def wait(policy: RetryPolicy) -> float:
        start = policy.next_attempt_at(attempt=attempt, first_attempt_at=T0, now=T0, failure=BOOM)
        assert start is not None
        return (start - T0) / SECOND

    assert wait(RetryPolicy(1e300, 10**10, 10)) == century
    assert wait(RetryPolicy(1e300, 10**10, 10, max_retry_interval=1e200)) == century
    assert wait(RetryPolicy(1e300, 10**10, 10, max_retry_interval=7)) == 7
    assert wait(RetryPolicy(0, 10**10, 10)) == 0


def test_failures_that_say_so_or_are_listed_are_not_retried() -> None:  # rule 26
    policy = RetryPolicy(1, 5, non_retriable=[KeyError, "shop.PaymentDeclined", "Expired"])

    def is_retried(failure: FailureDetails) -> bool:
        return policy.next_attempt_at(attempt=1, first_attempt_at=T0, now=T0, failure=failure) is not None

    assert is_retried(BOOM)
    assert not is_retried(FailureDetails("builtins.ValueError", "boom", is_non_retriable=True))
    assert not is_retried(FailureDetails("builtins.KeyError", "'x'"))
    assert not is_retried(FailureDetails("shop.PaymentDeclined", "no"))
    assert is_retried(FailureDetails("bank.PaymentDeclined", "no"))
    assert not is_retried(FailureDetails("any.where.Expired", "late"))
    assert is_retried(FailureDetails("builtins.ValueError", "boom", cause=FailureDetails("builtins.KeyError", "'x'")))


def test_the_handler_decides_with_attempt_elapsed_time_and_failure() -> None:  # rule 25
    seen: list[RetryContext] = []

    def handler(context: RetryContext) -> bool:
        seen.append(context)
        return context.attempt < 3

    assert waits(RetryPolicy(2, 10, handler=handler), 3, took=1) == [2, 2, None]
    assert seen == [
        RetryContext(1, timedelta(seconds=1), BOOM),
        RetryContext(2, timedelta(seconds=4), BOOM),
        RetryContext(3, timedelta(seconds=7), BOOM),
    ]


def test_the_handler_is_not_asked_when_there_is_no_further_attempt_anyway() -> None:
    def handler(context: RetryContext) -> bool:
        raise AssertionError

    assert waits(RetryPolicy(2, 1, handler=handler), 1) == [None]
    assert waits(RetryPolicy(2, 5, retry_timeout=1, handler=handler), 1) == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_retry_interval": -1}, "first_retry_interval is a number of seconds or a timedelta, not negative; got -1"),
        ({"first_retry_interval": timedelta(seconds=-1)}, f"first_retry_interval is a number of seconds or a timedelta, not negative; got {timedelta(seconds=-1)!r}"),
        ({"first_retry_interval": float("nan")}, "first_retry_interval is a number of seconds or a timedelta, not negative; got nan"),
        ({"first_retry_interval": float("inf")}, "first_retry_interval is a number of seconds or a timedelta, not negative; got inf"),
        ({"first_retry_interval": True}, "first_retry_interval is a number of seconds or a timedelta, not negative; got True"),
        ({"first_retry_interval": None}, "first_retry_interval is a number of seconds or a timedelta, not negative; got None"),
        ({"max_retry_interval": -0.1}, "max_retry_interval is a number of seconds or a timedelta, not negative; got -0.1"),
        ({"max_retry_interval": "5"}, "max_retry_interval is a number of seconds or a timedelta, not negative; got '5'"),
        ({"retry_timeout": -1}, "retry_timeout is a number of seconds or a timedelta, not negative; got -1"),
        ({"max_number_of_attempts": 0}, "max_number_of_attempts is a whole number of at least 1, not 0"),
        ({"max_number_of_attempts": 2.0}, "max_number_of_attempts is a whole number of at least 1, not 2.0"),
        ({"max_number_of_attempts": True}, "max_number_of_attempts is a whole number of at least 1, not True"),
        ({"backoff_coefficient": 0.99}, "backoff_coefficient is a number of at least 1, not 0.99"),
        ({"backoff_coefficient": float("nan")}, "backoff_coefficient is a number of at least 1, not nan"),
        ({"backoff_coefficient": float("inf")}, "backoff_coefficient is a number of at least 1, not inf"),
        ({"backoff_coefficient": True}, "backoff_coefficient is a number of at least 1, not True"),
        ({"non_retriable": "ValueError"}, "non_retriable is a list of exception classes or names, not 'ValueError'"),
        ({"non_retriable": ValueError}, "non_retriable is a list of exception classes or names, not <class 'ValueError'>"),
        ({"non_retriable": (int,)}, "non_retriable is a list of exception classes or names, not (<class 'int'>,)"),
        ({"handler": 5}, "handler is a function of a RetryContext, not 5"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_when_the_policy_is_made(options: dict[str, Any], message: str) -> None:  # RTY-7
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is asserted in full
        RetryPolicy(**{"first_retry_interval": 1, "max_number_of_attempts": 3} | options)
    assert isinstance(caught.value, InvalidArgumentError)
    assert str(caught.value) == message
