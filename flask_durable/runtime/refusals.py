"""Refusals: what becomes of an instance that cannot have its turn; it fails, is parked, or waits for the database."""

from __future__ import annotations

from flask_durable.core.failure import FailureDetails
from flask_durable.errors import DurableError, StoreUnavailableError, VersionMismatchError
from flask_durable.logs import get_logger
from flask_durable.runtime.holdings import Holdings
from flask_durable.runtime.turns import Held
from flask_durable.storage.interface import Command, FailInstance, Park

logger = get_logger("flask_durable.engine")


class Refusals:
    """Decides, and collects the commands that the next commit carries out; used by the engine's thread only.

    Args:
        turn_timeout: seconds that a turn may take, for messages.
    """

    def __init__(self, holdings: Holdings, turn_timeout: float) -> None:
        self._holdings = holdings
        self._limit = f"{turn_timeout:g} s"
        self.commands: list[Command] = []

    def has_no_turn(self, held: Held, error: Exception) -> bool:
        """A turn could not be run for that reason; returns whether to wait a little, since it is tried again."""
        instance_id = held.record.instance_id
        if isinstance(error, StoreUnavailableError):
            logger.warning("The history of instance %s cannot be read now: %s", instance_id, error)
            self._holdings.ready[instance_id] = held
            return True
        if isinstance(error, VersionMismatchError):
            self._fail(held, FailureDetails.from_exception(error))
        elif isinstance(error, DurableError):
            self.park(held, str(error))
        else:
            logger.error("Instance %s cannot be brought back from its history", instance_id, exc_info=error)
            self.park(held, f"It cannot be brought back from its history: {type(error).__name__}: {error}")
        return False

    def is_too_slow(self, held: Held) -> bool:
        """A turn has had all the time there is; returns whether its code is to be interrupted."""
        if held.is_abandoned:
            return True
        if self._holdings.slow.get(held.record.instance_id) is not held:
            return False
        held.is_abandoned = True
        if held.is_replaying:
            held.results = [*held.taken, *held.results]
            self.park(held, f"Its code could not be brought back from its history within {self._limit} (DURABLE_TURN_TIMEOUT)")
        else:
            message = f"The orchestrator ran for more than {self._limit} without a yield (DURABLE_TURN_TIMEOUT)"
            self._fail(held, FailureDetails("flask_durable.TurnTimeout", message))
        return True

    def park(self, held: Held, reason: str) -> None:
        """Stop handing the instance out; its results go to its inbox."""
        logger.error("Instance %s is parked: %s", held.record.instance_id, reason)
        self._holdings.foreign.extend(held.results)
        self._holdings.drop(held)
        self.commands.append(Park(held.record.instance_id, reason, held.record.execution_id))

    def _fail(self, held: Held, failure: FailureDetails) -> None:
        self.commands.append(FailInstance(held.record.instance_id, failure, held.record.execution_id))
        self._holdings.foreign.extend((*held.in_turn, *held.results))
        self._holdings.drop(held)
