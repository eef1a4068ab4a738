"""RetryPolicy: when the next attempt of a call is made; arithmetic on orchestration time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from flask_durable.core.failure import FailureDetails
from flask_durable.core.times import Micros
from flask_durable.errors import InvalidArgumentError

_SECOND = 1_000_000
_LONGEST: Micros = 100 * 365 * 86_400 * _SECOND
"""A hundred years: a wait that long never ends, and still is a date."""


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
    non_retriable: Sequence[type[BaseException] | str] = ()
    handler: Callable[[RetryContext], bool] | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        _micros("first_retry_interval", self.first_retry_interval)
        _optional_micros("max_retry_interval", self.max_retry_interval)
        _optional_micros("retry_timeout", self.retry_timeout)
        if not _is_number(self.max_number_of_attempts, int) or self.max_number_of_attempts < 1:
            raise InvalidArgumentError(f"max_number_of_attempts is a whole number of at least 1, not {self.max_number_of_attempts!r}")
        if not _is_number(self.backoff_coefficient, int, float) or not 1 <= self.backoff_coefficient < float("inf"):
            raise InvalidArgumentError(f"backoff_coefficient is a number of at least 1, not {self.backoff_coefficient!r}")
        if not isinstance(self.non_retriable, list | tuple) or not all(map(_is_kind, self.non_retriable)):
            raise InvalidArgumentError(f"non_retriable is a list of exception classes or names, not {self.non_retriable!r}")
        object.__setattr__(self, "non_retriable", tuple(self.non_retriable))
        if self.handler is not None and not callable(self.handler):
            raise InvalidArgumentError(f"handler is a function of a RetryContext, not {self.handler!r}")

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
        if any(failure.is_type(kind) or failure.origin.is_type(kind) for kind in self.non_retriable):
            return None
        start = now + self._wait(attempt)
        timeout = _optional_micros("retry_timeout", self.retry_timeout)
        if timeout is not None and start - first_attempt_at > timeout:
            return None
        if self.handler is not None:
            context = RetryContext(attempt, timedelta(microseconds=now - first_attempt_at), failure)
            if not self.handler(context):
                return None
        return start

    def _wait(self, attempt: int) -> Micros:
        first = _micros("first_retry_interval", self.first_retry_interval)
        cap = _optional_micros("max_retry_interval", self.max_retry_interval)
        longest = _LONGEST if cap is None else min(cap, _LONGEST)
        if first == 0:
            return 0
        try:
            wait = first * float(self.backoff_coefficient) ** (attempt - 1)
        except OverflowError:
            return longest
        return int(min(wait, longest))


def _optional_micros(name: str, value: float | timedelta | None) -> Micros | None:
    return None if value is None else _micros(name, value)


def _micros(name: str, value: float | timedelta) -> Micros:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(seconds, int, float) or not 0 <= seconds < float("inf"):
        raise InvalidArgumentError(f"{name} is a number of seconds or a timedelta, not negative; got {value!r}")
    return round(seconds * _SECOND)


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_kind(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, type) and issubclass(value, BaseException))
