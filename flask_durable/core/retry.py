"""RetryPolicy: when the next attempt of a call is made; arithmetic on orchestration time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from flask_durable.core.failure import FailureDetails
from flask_durable.core.times import Micros
from flask_durable.errors import InvalidArgumentError

_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class RetryContext:
    """What a retry handler may decide by (rule 25).

    Args:
        attempt: number of the attempt that failed, 1 for the first.
        elapsed: orchestration time since the first attempt.
        failure: how that attempt failed.
    """

    attempt: int
    elapsed: timedelta
    failure: FailureDetails


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which waits, a failed call is made again (RTY-1, RTY-2, RTY-7).

    Args:
        first_retry_interval: wait before the second attempt; seconds or timedelta, not negative.
        max_number_of_attempts: at most so many attempts, the first included; 1 or more.
        backoff_coefficient: each further wait is the one before times this; 1 or more.
        max_retry_interval: no wait is longer; seconds or timedelta.
        retry_timeout: no attempt starts later than this after the call; seconds or timedelta.
        non_retriable: exception classes or names for which no further attempt is made.
        handler: called with a RetryContext before each further attempt, in orchestration; false ends the retrying.

    Raises:
        InvalidArgumentError: when a value is out of its range.
    """

    first_retry_interval: float | timedelta
    max_number_of_attempts: int
    backoff_coefficient: float = 1.0
    max_retry_interval: float | timedelta | None = None
    retry_timeout: float | timedelta | None = None
    non_retriable: tuple[type[BaseException] | str, ...] = ()
    handler: Callable[[RetryContext], bool] | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        _micros("first_retry_interval", self.first_retry_interval)
        _micros("max_retry_interval", self.max_retry_interval)
        _micros("retry_timeout", self.retry_timeout)
        if isinstance(self.max_number_of_attempts, bool) or not isinstance(self.max_number_of_attempts, int) or self.max_number_of_attempts < 1:
            raise InvalidArgumentError(f"max_number_of_attempts is a whole number of at least 1, not {self.max_number_of_attempts!r}")
        if not isinstance(self.backoff_coefficient, int | float) or not 1 <= self.backoff_coefficient < float("inf"):
            raise InvalidArgumentError(f"backoff_coefficient is a number of at least 1, not {self.backoff_coefficient!r}")

    def next_attempt_at(self, *, attempt: int, first_attempt_at: Micros, now: Micros, failure: FailureDetails) -> Micros | None:
        """When to start the attempt after the given one, or None when there is none.

        Args:
            attempt: number of the attempt that has just failed, 1 for the first.
            first_attempt_at: orchestration time of the call.
            now: orchestration time of the failure.
            failure: how it failed.
        """
        if attempt >= self.max_number_of_attempts or failure.is_non_retriable:
            return None
        if any(failure.is_type(kind) for kind in self.non_retriable):
            return None
        start = now + self._wait(attempt)
        timeout = _micros("retry_timeout", self.retry_timeout)
        if timeout is not None and start - first_attempt_at > timeout:
            return None
        if self.handler is not None:
            context = RetryContext(attempt, timedelta(microseconds=now - first_attempt_at), failure)
            if not self.handler(context):
                return None
        return start

    def _wait(self, attempt: int) -> Micros:
        first = _micros("first_retry_interval", self.first_retry_interval) or 0
        cap = _micros("max_retry_interval", self.max_retry_interval)
        longest = cap if cap is not None else 100 * 365 * 86_400 * _SECOND
        try:
            wait = first * float(self.backoff_coefficient) ** (attempt - 1)
        except OverflowError:
            return longest
        return int(min(wait, longest))


def _micros(name: str, value: float | timedelta | None) -> Micros | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise InvalidArgumentError(f"{name} is a number of seconds or a timedelta, not negative; got {value!r}")
    return round(value * _SECOND)
