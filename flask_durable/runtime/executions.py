"""Cache of warm executions: live generators by instance, so that a turn costs its new events and not the whole history."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from flask_durable.core.execution import Execution


class ExecutionCache:
    """The least recently used executions beyond the capacity are closed; they are rebuilt from history when needed.

    Args:
        capacity: how many to keep; 0 keeps none.
        close: closes one that is not kept any more.
    """

    def __init__(self, capacity: int, close: Callable[[Execution], None] = Execution.close) -> None:
        self._capacity = capacity
        self.close = close
        self._kept: OrderedDict[str, Execution] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, instance_id: str, execution: Execution) -> None:
        """Keep an execution that is exactly as its committed history."""
        if self._capacity == 0:
            self.close(execution)
            return
        self.drop(instance_id)
        self._kept[instance_id] = execution
        while len(self._kept) > self._capacity:
            self.close(self._kept.popitem(last=False)[1])

    def take(self, instance_id: str, execution_id: str, sequence: int) -> Execution | None:
        """Take the execution out if it stands at that point of that execution's history; a stale one is closed."""
        execution = self._kept.pop(instance_id, None)
        if execution is None:
            return None
        if execution.execution_id == execution_id and execution.sequence == sequence:
            return execution
        self.close(execution)
        return None

    def drop(self, instance_id: str) -> None:
        """Close the execution of an instance."""
        execution = self._kept.pop(instance_id, None)
        if execution is not None:
            self.close(execution)

    def clear(self) -> None:
        """Close all."""
        while self._kept:
            self.close(self._kept.popitem()[1])
