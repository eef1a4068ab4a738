"""Suspects: work that workers have died with before; a worker has one of them at a time, so that none dies with another's poison."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask_durable.storage.interface import ActivityWorkItem, Committed, TurnCommit

LONGEST = 5.0
"""Seconds after which one that still runs keeps this worker from the next one no more: poison kills sooner, and calls may take hours."""


class Suspects:
    """The one that this worker tries now; used by the engine's thread only.

    Args:
        monotonic: seconds of a clock that never steps.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._instance: str | None = None
        self._call: tuple[str, int] | None = None
        self._until = 0.0

    @property
    def may_come(self) -> bool:
        """Whether another one may be claimed."""
        return (self._instance is None and self._call is None) or self._monotonic() >= self._until

    def claimed(self, committed: Committed) -> None:
        """A claim brought these."""
        instances = [work.record.instance_id for work in committed.orchestrations if work.is_suspect]
        calls = [(item.execution_id, item.task_id) for item in committed.activities if item.is_suspect]
        if instances or calls:
            self._instance = instances[0] if instances else None
            self._call = calls[0] if calls else None
            self._until = self._monotonic() + LONGEST

    def had_turns(self, turns: Sequence[TurnCommit]) -> bool:
        """These turns were committed; returns whether that cleared the suspect."""
        if self._instance is None or all(commit.record.instance_id != self._instance for commit in turns):
            return False
        self._instance = None
        return True

    def call_ended(self, item: ActivityWorkItem) -> bool:
        """A call has ended; returns whether that cleared the suspect."""
        if self._call != (item.execution_id, item.task_id):
            return False
        self._call = None
        return True
