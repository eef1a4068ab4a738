"""Outcomes: what came of a commit whose answer was lost and that the storage could not find out about within its deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from flask_durable.errors import OutcomeUnknownError, StoreUnavailableError
from flask_durable.logs import get_logger
from flask_durable.runtime.inbox import Inbox
from flask_durable.runtime.steps import Step
from flask_durable.storage.interface import Batch, Committed, Store

logger = get_logger("flask_durable.engine")


def find_out(store: Store, step: Step, batch: Batch, error: OutcomeUnknownError, inbox: Inbox, pause: Callable[[], bool]) -> Committed | None:
    """Nothing goes on before it is known, but for the callers, who are told so; None when nothing was written.

    Args:
        store: the storage.
        step: what the batch was made of; nobody waits for it any more afterwards.
        batch: what was to be committed.
        error: has what came of it, if it has landed.
        inbox: has what others want carried out meanwhile, which cannot be done.
        pause: waits a moment; False when the worker stops, which gives back all that it holds.

    Raises:
        WorkerLostError: the worker's row is gone, and nobody knows any more.
    """
    logger.warning("Whether a commit has landed is not known yet: %s", error.__cause__)
    for submission in step.submissions:
        submission.answer(error)
    step.submissions = []
    while True:
        try:
            return cast(Committed, error.result) if store.has_landed(batch) else None
        except StoreUnavailableError as away:
            inbox.refuse(away)
            if not pause():
                return None
