"""Transactions whose COMMIT was not answered: they may have landed, and must not blindly be run again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import peewee

from flask_durable.logs import get_logger

logger = get_logger("flask_durable.storage")

Result = TypeVar("Result")


class CommitFailedError(Exception):
    """COMMIT raised, and its error does not say that nothing was written; ``result`` is what the transaction came to."""

    def __init__(self, result: Any) -> None:
        super().__init__("The answer to a COMMIT was lost")
        self.result = result


def run(transaction: AbstractContextManager[Any], work: Callable[[], Result], says_no: Callable[[BaseException], bool]) -> Result:
    """Run work in a transaction of our own.

    Args:
        transaction: commits at its end.
        work: what reads and writes.
        says_no: whether an error of the database means that it has rolled the transaction back.

    Raises:
        CommitFailedError: it may have been committed.
    """
    is_done = False
    try:
        with transaction:
            result = work()
            is_done = True
        return result
    except (peewee.IntegrityError, peewee.DataError, peewee.ProgrammingError):
        raise
    except Exception as error:
        if is_done and not says_no(error):
            logger.warning("The answer to a COMMIT was lost: %s: %s", type(error).__name__, error)
            raise CommitFailedError(result) from error
        raise
