"""Transactional activities: running one until its transaction is settled, whatever becomes of the database meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from flask_durable.core.events import HistoryEvent, TaskCompleted
from flask_durable.errors import ActivityTimeoutError, StoreUnavailableError
from flask_durable.logs import get_logger
from flask_durable.runtime.activities import ActivityContext, ActivityRunner
from flask_durable.storage.interface import ActivityTransactionError, ActivityWorkItem, Store, TransactionPhase

logger = get_logger("flask_durable.activities")

MOST_RUNS = 3
"""So often a call is run whose transaction the database does not take, for a deadlock or a lost connection; then the attempt has failed."""

_AGAIN_SECONDS = 0.2

MayEnd = Callable[[], bool]
"""Asked when the function has ended: False when its time is over. From a True on, the time counts no more."""


@dataclass(slots=True)
class Ended:
    """How a call ended here.

    Args:
        event: its outcome, still to be recorded; None when there is nothing to record.
        is_recorded: whether its outcome is in the database already.
    """

    event: HistoryEvent | None
    is_recorded: bool = False


class TransactionalCalls:
    """Runs transactional activities; it may be called from many threads.

    Args:
        is_stopping: set when the worker stops: what has not begun by then is left to others.
    """

    def __init__(self, store: Store, runner: ActivityRunner, is_stopping: threading.Event) -> None:
        self._store = store
        self._runner = runner
        self._is_stopping = is_stopping

    def turn(self) -> AbstractContextManager[object]:
        """Wait for those of which the database runs one at a time."""
        return self._store.activity_turn()

    def run(self, context: ActivityContext, may_end: MayEnd) -> Ended:
        """Run a call until it is recorded, has failed, or is somebody else's."""
        item, runs = context.item, 0
        while not self._is_stopping.is_set() and not context.is_expired:
            run = _Run(self._store, item, may_end)
            event = self._runner.run(context, run.enclose)
            trouble = run.trouble
            if trouble is None:
                return Ended(None, is_recorded=True) if run.is_recorded else Ended(event)
            logger.warning("The transaction of activity %s of instance %s came to nothing: %s", item.name, item.instance_id, trouble)
            if trouble.phase is not TransactionPhase.BEGIN:
                runs += 1
                if not self._is_held(item):
                    return self._gone(item, trouble)
                if not trouble.is_passing or runs >= MOST_RUNS:
                    return Ended(event)
            self._is_stopping.wait(_AGAIN_SECONDS)
        return Ended(None)

    def _gone(self, item: ActivityWorkItem, trouble: ActivityTransactionError) -> Ended:
        if trouble.phase is TransactionPhase.COMMIT:  # what seemed to fail was done
            return Ended(None, is_recorded=True)
        logger.warning(
            "Activity %s of instance %s has no effect here: the call no longer belongs to this worker, or its result is not wanted any more", item.name,
            item.instance_id,
        )  # fmt: skip
        return Ended(None)

    def _is_held(self, item: ActivityWorkItem) -> bool:
        """Whether the call is still this worker's, so that nothing was recorded; when the worker stops first, others find out."""
        while True:
            try:
                return self._store.is_activity_held(item)
            except StoreUnavailableError as error:
                logger.warning("It is not known what became of activity %s of instance %s: %s", item.name, item.instance_id, error)
            if self._is_stopping.wait(_AGAIN_SECONDS):
                return False


class _Run:
    """One run of the function inside one transaction."""

    def __init__(self, store: Store, item: ActivityWorkItem, may_end: MayEnd) -> None:
        self._store = store
        self._item = item
        self._may_end = may_end
        self.is_recorded = False
        self.trouble: ActivityTransactionError | None = None

    def enclose(self, work: Callable[[], str | None]) -> str | None:
        """Run work in the transaction that also records what it gives."""
        item = self._item
        text: str | None = None

        def outcome() -> HistoryEvent:
            nonlocal text
            text = work()
            if not self._may_end():
                raise ActivityTimeoutError(item.name, 0.0)  # nobody waits for it, and what it wrote must not stay
            return TaskCompleted(item.task_id, text)

        try:
            self._store.run_activity(item, outcome)
        except ActivityTransactionError as trouble:
            self.trouble = trouble
            raise trouble.error from None
        self.is_recorded = True
        return text
