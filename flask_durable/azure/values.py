"""Values that Azure's SDK has under names of its own: retry options, statuses, and the error for what is not supported."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from flask_durable.core.retry import RetryPolicy
from flask_durable.errors import DurableError, InvalidArgumentError

_INSTEAD = {
    "call_http": "write an activity that makes the request, and call it with call_activity_with_retry and a RetryPolicy",
    "entities": "keep the state in your own tables, and change it in activities",
    "function_context": "ask Flask's app for its configuration in an activity",
    "histories": "ask durable.client.history(instance_id) outside of the orchestrator",
    "task_hub_name and connection_name": "give the app another DURABLE_TASK_HUB or DURABLE_DATABASE",
}


class NotSupportedError(DurableError, NotImplementedError):
    """Azure's SDK has it and flask_durable has not; the message says what to use instead.

    Args:
        what: a key of the table of replacements.
    """

    code = "not_supported"

    def __init__(self, what: str) -> None:
        super().__init__(f"flask_durable.azure does not have {what}; instead, {_INSTEAD[what]}")
        self.what = what


class OrchestrationRuntimeStatus(StrEnum):
    """The statuses by the names they have in Azure's SDK; they equal those of RuntimeStatus."""

    Running = "Running"
    Completed = "Completed"
    ContinuedAsNew = "ContinuedAsNew"
    Failed = "Failed"
    Canceled = "Canceled"
    Terminated = "Terminated"
    Pending = "Pending"
    Suspended = "Suspended"


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """A fixed wait between a number of attempts, the first included; RetryPolicy can do more and is taken in its place (rule 29).

    Args:
        first_retry_interval_in_milliseconds: wait before each further attempt; more than 0.
        max_number_of_attempts: at most so many attempts; 1 or more.

    Raises:
        InvalidArgumentError: when a value is out of its range.
    """

    first_retry_interval_in_milliseconds: int
    max_number_of_attempts: int

    def __post_init__(self) -> None:
        """Check both values."""
        interval: object = self.first_retry_interval_in_milliseconds
        if not isinstance(interval, int | float) or isinstance(interval, bool) or not 0 < interval < float("inf"):
            raise InvalidArgumentError(f"first_retry_interval_in_milliseconds is a number above 0, not {interval!r}")
        self.to_policy()

    def to_policy(self) -> RetryPolicy:
        """The same as a retry policy."""
        return RetryPolicy(timedelta(milliseconds=self.first_retry_interval_in_milliseconds), self.max_number_of_attempts)
