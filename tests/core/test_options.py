"""The options of an activity: their ranges, and which exceptions they make final."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flask_durable import FailureDetails, InvalidArgumentError, NonRetriableError, RetryPolicy
from flask_durable.core.options import ActivityOptions, timeout_micros


class PaymentError(Exception):
    pass


class DeclinedError(PaymentError):
    pass


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("timeout", 0, "timeout is a number of seconds or a timedelta, above 0"),
        ("timeout", -1.5, "above 0"),
        ("timeout", timedelta(0), "above 0"),
        ("timeout", "5", "a number of seconds"),
        ("timeout", True, "a number of seconds"),
        ("timeout", float("nan"), "above 0"),
        ("non_retriable", ValueError, "a tuple of exception classes or names"),
        ("non_retriable", "ValueError", "a tuple of exception classes or names"),
        ("non_retriable", (1,), "a tuple of exception classes or names"),
        ("non_retriable", ("",), "a tuple of exception classes or names"),
        ("at_most_once", 1, "at_most_once is True or False"),
        ("max_concurrency", 0, "max_concurrency is a whole number from 1"),
        ("max_concurrency", 1.5, "max_concurrency is a whole number from 1"),
        ("hub_concurrency", True, "hub_concurrency is a whole number from 1"),
        ("priority", 1001, "priority is a whole number from -1000 to 1000"),
        ("priority", "high", "priority is a whole number from -1000 to 1000"),
        ("retry_policy", 3, "retry_policy is a RetryPolicy, not int"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_allowed(option: str, value: Any, allowed: str) -> None:  # rule 56
    with pytest.raises(InvalidArgumentError, match=allowed):
        ActivityOptions(**{option: value})


def test_the_defaults_limit_nothing() -> None:  # rule 56
    options = ActivityOptions()
    assert (options.timeout, options.concurrency, options.priority, options.retry_policy, options.at_most_once) == (None, None, 0, None, False)


def test_a_timeout_is_seconds_or_a_timedelta() -> None:  # rule 56
    assert timeout_micros(None) is None
    assert timeout_micros(1.5) == timeout_micros(timedelta(seconds=1.5)) == 1_500_000
    assert timeout_micros(1e-9) == 1


@pytest.mark.parametrize(("process", "hub", "together"), [(None, None, None), (3, None, 3), (None, 2, 2), (3, 2, 2), (1, 5, 1)])
def test_one_process_runs_no_more_than_either_limit(process: int | None, hub: int | None, together: int | None) -> None:  # rule 56
    assert ActivityOptions(max_concurrency=process, hub_concurrency=hub).concurrency == together


@pytest.mark.parametrize("kind", [PaymentError, DeclinedError, "PaymentError", "DeclinedError", f"{__name__}.PaymentError"])
def test_a_non_retriable_kind_counts_for_its_subclasses(kind: type[BaseException] | str) -> None:  # rule 26
    options = ActivityOptions(non_retriable=[kind])
    assert options.is_non_retriable(DeclinedError())
    assert not options.is_non_retriable(ValueError())


def test_an_exception_can_say_of_itself_that_it_is_final() -> None:  # rule 26
    class CardExpiredError(NonRetriableError):
        pass

    assert ActivityOptions().is_non_retriable(CardExpiredError())
    failure = FailureDetails.from_exception(CardExpiredError("expired"))
    assert failure.is_non_retriable
    policy = RetryPolicy(0, 5)
    assert policy.next_attempt_at(attempt=1, first_attempt_at=0, now=0, failure=failure) is None


def test_an_exception_caused_by_a_final_one_is_not_final_itself() -> None:  # rule 26
    error = ValueError()
    error.__cause__ = NonRetriableError()
    failure = FailureDetails.from_exception(error)
    assert not failure.is_non_retriable
    assert failure.cause is not None
    assert failure.cause.is_non_retriable
