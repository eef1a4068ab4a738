"""Batches: what of a step goes into the one transaction, how much of the new work this worker keeps, and when it claims more."""

from __future__ import annotations

from collections.abc import Callable

from flask_durable.config import Settings
from flask_durable.core.times import Micros
from flask_durable.core.turn import Turn
from flask_durable.registry import Registry
from flask_durable.runtime.capacity import Capacity
from flask_durable.runtime.steps import Step
from flask_durable.runtime.turns import Held
from flask_durable.storage.interface import Batch, ClaimRequest, Command, Committed, StartInstance

BATCH = 256
"""At most so many turns in one commit, so that no caller waits long for its turn."""


class BatchPlanner:
    """Makes the batches of one worker; used by the engine's thread, but for its flags.

    ``wants_claim`` makes the next batch claim instances. ``is_draining`` makes it keep and claim nothing.
    """

    def __init__(self, settings: Settings, registry: Registry, capacity: Capacity, now: Callable[[], Micros]) -> None:
        self._now = now
        self._settings = settings
        self._registry = registry
        self._capacity = capacity
        self._is_starved = True
        self.wants_claim = True
        self.is_draining = False

    def work_was_seen(self) -> None:
        """There is something in the tables to claim."""
        if not self.is_draining:
            self.wants_claim = self._is_starved = True

    def claim(self) -> ClaimRequest:
        """All that this worker can take now."""
        return ClaimRequest(
            instances=BATCH,
            activities=self._capacity.free,
            orchestrators=self._registry.orchestrator_names(),
            activity_names=self._registry.activity_names(),
            unknown_before=self._now() - round(self._settings.unknown_orchestrator_timeout * 1e6),
            max_deliveries=self._settings.max_deliveries,
        )

    def make_batch(self, step: Step, worker_id: str) -> Batch:
        """The transaction of a step."""
        for held, _, commit in step.turns:
            turn = commit.turn
            commit.keep = not _is_over(turn) and turn.open_activities > 0 and not self.is_draining
            commit.claimed_activities = 0 if self.is_draining else self._take(turn)
            self._is_starved |= commit.claimed_activities < len(turn.activities)
            self.wants_claim |= _makes_work(held, turn)
        commands: list[Command] = [each.command for each in step.submissions]
        self.wants_claim |= any(not isinstance(command, StartInstance) for command in commands)
        wants_claim, self.wants_claim = self.wants_claim, False
        wants_claim |= self._is_starved and self._capacity.is_roomy
        return Batch(
            worker_id=worker_id,
            commands=commands + step.internal,
            turns=[commit for _, _, commit in step.turns],
            results=step.foreign,
            claim=self.claim() if wants_claim and not self.is_draining else None,
            claim_starts=frozenset() if self.is_draining else frozenset(self._registry.orchestrator_names()),
            default_version=self._settings.version,
        )

    def _take(self, turn: Turn) -> int:
        # A call of an activity that nobody here knows fails at once, as a call (REG-5); other workers would not find it.
        unknown = [event for event in turn.activities if not self._registry.has_activity(event.name)]
        if unknown:
            turn.activities = unknown + [event for event in turn.activities if self._registry.has_activity(event.name)]
            self._capacity.force(len(unknown))
        return len(unknown) + self._capacity.take(len(turn.activities) - len(unknown))

    def committed(self, batch: Batch, committed: Committed) -> None:
        """Learn from a commit whether there is more to claim."""
        if batch.claim is None:
            return
        if batch.claim.activities:
            self._is_starved = len(committed.activities) >= batch.claim.activities
        self.wants_claim |= committed.has_more


def _is_over(turn: Turn) -> bool:
    return turn.status.is_final or turn.next_generation is not None


def _makes_work(held: Held, turn: Turn) -> bool:
    """Whether the turn writes rows that somebody should claim in the same transaction."""
    if turn.children or turn.sent_events or turn.next_generation:
        return True
    return turn.status.is_final and held.record.parent_instance_id is not None
