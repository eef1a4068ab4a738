"""The runtime statuses of an instance, and which of them are final."""

from __future__ import annotations

from enum import StrEnum


class RuntimeStatus(StrEnum):
    """Status of an instance, spelled as the HTTP API spells it."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TERMINATED = "Terminated"
    CANCELED = "Canceled"
    CONTINUED_AS_NEW = "ContinuedAsNew"

    @property
    def is_final(self) -> bool:
        """Whether an instance with this status has ended for good."""
        return self in FINAL_STATUSES


FINAL_STATUSES = frozenset({RuntimeStatus.COMPLETED, RuntimeStatus.FAILED, RuntimeStatus.TERMINATED, RuntimeStatus.CANCELED})
"""Nothing but rewind, restart and purge reaches an instance with one of these."""

LIVE_STATUSES = frozenset({RuntimeStatus.PENDING, RuntimeStatus.RUNNING, RuntimeStatus.SUSPENDED})
"""What an instance that has not ended can have; the words Canceled and ContinuedAsNew are known but never given."""


def parse_status(text: str) -> RuntimeStatus | None:
    """The status of that name, whatever its case; None when there is none."""
    return _BY_FOLDED_NAME.get(text.strip().casefold())


_BY_FOLDED_NAME = {status.value.casefold(): status for status in RuntimeStatus}
