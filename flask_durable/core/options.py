"""ActivityOptions: what is promised for the calls of an activity, as one checked value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask_durable.core.failure import NonRetriableError, is_named
from flask_durable.core.retry import RetryPolicy
from flask_durable.core.times import Micros
from flask_durable.errors import InvalidArgumentError

MAX_PRIORITY = 1000
MAX_CONCURRENCY = 100_000
_LONGEST_TIMEOUT = 366 * 86_400


@dataclass(frozen=True, slots=True)
class ActivityOptions:
    """The options of an activity (rules 25, 26, 54, 56).

    Args:
        timeout: how long one attempt may run, from its begin on a thread; seconds or timedelta.
        non_retriable: exception classes (their subclasses count) or names for which no policy makes a further attempt.
        at_most_once: never begin an attempt again that a lost worker may have begun.
        max_concurrency: at most so many calls run at the same time in one process.
        hub_concurrency: at most so many calls run at the same time in the whole task hub.
        priority: calls with a higher one are taken first; -1000 to 1000.
        retry_policy: for calls that are given none.
        transactional: run it inside a transaction that also records its result; needs the app's own database object.

    Raises:
        InvalidArgumentError: when a value is out of its range.
    """

    timeout: float | timedelta | None = None
    non_retriable: Sequence[type[BaseException] | str] = ()
    at_most_once: bool = False
    max_concurrency: int | None = None
    hub_concurrency: int | None = None
    priority: int = 0
    retry_policy: RetryPolicy | None = None
    transactional: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        timeout_micros(self.timeout)
        object.__setattr__(self, "non_retriable", _error_kinds(self.non_retriable))
        for name in ("at_most_once", "transactional"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgumentError(f"{name} is True or False, not {getattr(self, name)!r}")
        for name in ("max_concurrency", "hub_concurrency"):
            _check_concurrency(name, getattr(self, name))
        check_priority(self.priority)
        check_retry_policy(self.retry_policy)

    @property
    def concurrency(self) -> int | None:
        """How many calls one process may run at the same time; None for no limit."""
        limits = [limit for limit in (self.max_concurrency, self.hub_concurrency) if limit is not None]
        return min(limits) if limits else None

    def is_non_retriable(self, error: BaseException) -> bool:
        """Whether a policy must leave this exception alone, decided where it was raised (rule 26)."""
        if isinstance(error, NonRetriableError):
            return True
        return any(is_named(type(error), kind) if isinstance(kind, str) else isinstance(error, kind) for kind in self.non_retriable)


def timeout_micros(timeout: Any) -> Micros | None:
    """A timeout in microseconds.

    Raises:
        InvalidArgumentError: it is no positive time.
    """
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _LONGEST_TIMEOUT:
        raise InvalidArgumentError(f"timeout is a number of seconds or a timedelta, above 0 and at most a year; got {timeout!r}")
    return max(1, round(seconds * 1_000_000))


def check_priority(priority: Any) -> int:
    """A priority in its range.

    Raises:
        InvalidArgumentError: it is none.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise InvalidArgumentError(f"priority is a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {priority!r}")
    return priority


def check_retry_policy(policy: Any) -> RetryPolicy | None:
    """A retry policy, or None.

    Raises:
        InvalidArgumentError: it is something else.
    """
    if policy is not None and not isinstance(policy, RetryPolicy):
        raise InvalidArgumentError(f"retry_policy is a RetryPolicy, not {type(policy).__name__}")
    return policy


def _check_concurrency(name: str, limit: Any) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_CONCURRENCY:
        raise InvalidArgumentError(f"{name} is a whole number from 1 to {MAX_CONCURRENCY}, or None for no limit; got {limit!r}")


def _error_kinds(kinds: Any) -> tuple[type[BaseException] | str, ...]:
    if not isinstance(kinds, list | tuple) or not all(map(_is_error_kind, kinds)):
        raise InvalidArgumentError(f"non_retriable is a tuple of exception classes or names, not {kinds!r}")
    return tuple(kinds)


def _is_error_kind(kind: object) -> bool:
    return (isinstance(kind, str) and bool(kind)) or (isinstance(kind, type) and issubclass(kind, BaseException))


DEFAULT_OPTIONS = ActivityOptions()
"""Those of an activity that was registered without any, or elsewhere."""
