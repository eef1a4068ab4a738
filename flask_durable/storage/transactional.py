"""Transactional activities: an activity's own writes, the end of its call and its result, in one transaction of the activity's thread.

Laws:

1. The transaction ends the call only while it belongs to the worker that began it and its result is wanted; otherwise nothing of it stays.
2. Nothing is locked before the activity's code has ended but what the code locks by itself; on SQLite that is the right to write.
3. A commit whose outcome is not known is looked up before anything is done again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import peewee
from playhouse.pool import MaxConnectionsExceeded

from flask_durable.core.events import HistoryEvent
from flask_durable.core.times import Micros
from flask_durable.errors import InvalidArgumentError
from flask_durable.storage import callers
from flask_durable.storage.database import Sql
from flask_durable.storage.interface import ActivityResult, ActivityTransactionError, ActivityWorkItem, TransactionPhase

Deliver = Callable[[str | None, ActivityResult, Micros], bool]
"""Ends a call within the present transaction and puts its result into the inbox; False when it is not wanted."""

_IS_OURS = "SELECT 1 FROM durable_activity WHERE hub = ? AND execution_id = ? AND task_id = ? AND worker_id = ?"

_ENDED_ITSELF = (
    "A transactional activity must leave its transaction as it is: it has committed it, rolled it back, left one of its own open, or run a statement"
    " with which the database commits (on MySQL those that change tables)"
)
_ENDED_INSTANCE = "A transactional activity cannot end or delete the instance that has called it: its own result would have no place to go"


class ActivityTransactions:
    """Runs transactional activities on one database.

    Args:
        deliver: ends a call and puts its result into the inbox, within the present transaction.
    """

    def __init__(self, sql: Sql, hub: str, deliver: Deliver) -> None:
        self._sql = sql
        self._hub = hub
        self._deliver = deliver
        self._writer = threading.Lock()

    def turn(self) -> contextlib.AbstractContextManager[object]:
        """Wait for those of this process, of which SQLite runs one at a time; waiting here is cheaper and fairer than at the file."""
        return self._writer if self._sql.is_sqlite else contextlib.nullcontext()

    def run(self, item: ActivityWorkItem, work: Callable[[], HistoryEvent]) -> None:
        """Run work in a transaction and record what it gives as the outcome of the call.

        Raises:
            ActivityTransactionError: it was not begun, or could not be recorded; nothing is written unless the phase is COMMIT.
            Exception: whatever ``work`` raises; nothing is written.
        """
        database = self._sql.database
        connection = database.connection_context()
        try:
            connection.__enter__()
        except (peewee.PeeweeException, MaxConnectionsExceeded, OSError) as error:
            raise _trouble(TransactionPhase.BEGIN, error) from error
        try:
            self._run(item, work)
        finally:
            connection.__exit__(None, None, None)

    def is_held(self, item: ActivityWorkItem) -> bool:
        """Whether the call still belongs to the worker that claimed it; waits for a transaction that is just ending it."""
        return self._sql.transaction(lambda: self._is_ours(item, waits=True))

    def _run(self, item: ActivityWorkItem, work: Callable[[], HistoryEvent]) -> None:
        database = self._sql.database
        transaction = database.transaction("IMMEDIATE") if self._sql.is_sqlite else database.transaction()
        try:
            transaction.__enter__()
        except (peewee.PeeweeException, OSError) as error:
            raise _trouble(TransactionPhase.BEGIN, error) from error
        try:
            self._check_ours(item)
            event = work()
            self._record(item, event)
        except BaseException as error:
            self._roll_back(transaction, error)
            raise
        try:
            transaction.__exit__(None, None, None)
        except Exception as error:
            raise _trouble(TransactionPhase.COMMIT, error) from error

    def _check_ours(self, item: ActivityWorkItem) -> None:
        try:
            is_ours = self._is_ours(item, waits=False)
        except peewee.PeeweeException as error:
            raise _trouble(TransactionPhase.BEGIN, error) from error
        if not is_ours:
            raise ActivityTransactionError(TransactionPhase.GONE, InvalidArgumentError("The call no longer belongs to this worker"))

    def _is_ours(self, item: ActivityWorkItem, *, waits: bool) -> bool:
        text = f"{_IS_OURS}{self._sql.for_update}" if waits else _IS_OURS
        return self._sql.row(text, (self._hub, item.execution_id, item.task_id, item.worker_id)) is not None

    def _record(self, item: ActivityWorkItem, event: HistoryEvent) -> None:
        database = self._sql.database
        if database.transaction_depth() != 1 or not callers.is_really_open(database):
            raise InvalidArgumentError(_ENDED_ITSELF)
        try:
            # Read, not locked as by the loop's own commits: who deletes the row takes the call away in the same transaction, and the call's row decides
            at = self._sql.now_if("FROM durable_worker WHERE worker_id = ?", (item.worker_id,))
            is_wanted = at is not None and self._deliver(item.worker_id, ActivityResult(item, event), at)
        except (peewee.PeeweeException, OSError) as error:
            raise _trouble(TransactionPhase.RECORD, error) from error
        if not is_wanted:
            raise ActivityTransactionError(TransactionPhase.GONE, InvalidArgumentError(_ENDED_INSTANCE))

    def _roll_back(self, transaction: peewee._transaction, error: BaseException) -> None:
        database = self._sql.database
        while database.transaction_depth() > 1:  # what the code has begun and not ended
            database.pop_transaction()
        if database.transaction_depth():
            with contextlib.suppress(peewee.PeeweeException):  # the connection is gone, and the transaction with it
                transaction.__exit__(type(error), error, error.__traceback__)


def _trouble(phase: TransactionPhase, error: Exception) -> ActivityTransactionError:
    return ActivityTransactionError(phase, error, is_passing=isinstance(error, peewee.OperationalError | peewee.InterfaceError | OSError))
