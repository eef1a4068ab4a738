"""Batches: what of a step goes into the one transaction, how much of the new work this worker keeps, and when it claims more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask_durable.config import Settings
from flask_durable.core.events import TaskScheduled
from flask_durable.core.turn import Turn
from flask_durable.runtime.abilities import Abilities
from flask_durable.runtime.capacity import Capacity
from flask_durable.runtime.in_flight import InFlight
from flask_durable.runtime.steps import Step
from flask_durable.runtime.suspects import Suspects
from flask_durable.runtime.turns import Held
from flask_durable.storage.interface import ActivityWorkItem, Batch, ClaimRequest, Command, Committed, StartInstance

BATCH = 256
"""At most so many turns in one commit, so that no caller waits long for its turn."""

SHARE = 16
"""At least so many instances are claimed at a time, also when there is no room for their calls: not all of them make any."""


class BatchPlanner:
    """Makes the batches of one worker; used by the engine's thread, but for its flags.

    ``wants_claim`` makes the next batch claim instances. ``is_draining`` makes it keep and claim nothing. ``stray_activities`` names activities that
    nobody knows and whose calls have waited too long: they are claimed here, and fail.
    """

    def __init__(
        self,
        settings: Settings,
        abilities: Abilities,
        capacity: Capacity,
        in_flight: InFlight,
        suspects: Suspects,
        has_neighbours: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._abilities = abilities
        self._capacity = capacity
        self._in_flight = in_flight
        self._suspects = suspects
        self._has_neighbours = has_neighbours
        self._is_starved = True
        self._number = 0
        self.wants_claim = True
        self.is_draining = False
        self.stray_activities: tuple[str, ...] = ()

    def work_was_seen(self) -> None:
        """There is something in the tables to claim."""
        if not self.is_draining:
            self.wants_claim = self._is_starved = True

    def call_ended(self, item: ActivityWorkItem, is_recorded: bool = False) -> None:
        """A call ended here: if only so many of its name may run, or it was a suspect, the next one can be claimed in the same transaction.

        Args:
            item: the call.
            is_recorded: its outcome waits for its instance in the tables.
        """
        is_cleared = self._suspects.call_ended(item)
        if not self.is_draining and (is_recorded or is_cleared or self._in_flight.is_limited(item.name)):
            self.wants_claim = True

    def claim(self, rooms: dict[str, int] | None = None) -> ClaimRequest:
        """All that this worker can take now.

        Args:
            rooms: how many calls of each limited name there is room for, after those that are kept in the same transaction.
        """
        rooms = self._in_flight.rooms() if rooms is None else rooms
        names = self._abilities.activity_names()
        return ClaimRequest(
            instances=self._share(),
            activities=self._capacity.free,
            runnable=self._abilities.runnable(),
            activity_names=(*(name for name in names if name not in rooms), *self.stray_activities),
            limited=tuple(limit for limit in self._in_flight.limits(rooms) if limit.name in names),
            max_deliveries=self._settings.max_deliveries,
            with_suspects=self._suspects.may_come,
        )

    def _share(self) -> int:
        # What one worker holds, others cannot run; and calls that it has no room for come back as messages of others, which costs both of them
        return min(BATCH, max(SHARE, 2 * self._capacity.free)) if self._has_neighbours() else BATCH

    def make_batch(self, step: Step, worker_id: str) -> Batch:
        """The transaction of a step."""
        self._number += 1
        rooms = self._in_flight.rooms()
        for held, _, commit in step.turns:
            turn = commit.turn
            commit.keep = not _is_over(turn) and turn.open_activities > 0 and not self.is_draining
            commit.claimed_activities = 0 if self.is_draining else self._take(turn, worker_id, rooms)
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
            claim=self.claim(rooms) if wants_claim and not self.is_draining else None,
            claimed_starts=frozenset() if self.is_draining else self._startable(commands),
            number=self._number,
        )

    def _startable(self, commands: Sequence[Command]) -> frozenset[str]:
        starts = (each for each in commands if isinstance(each, StartInstance))
        return frozenset(each.instance_id for each in starts if self._abilities.runs(each.name, each.version))

    def _take(self, turn: Turn, worker_id: str, rooms: dict[str, int]) -> int:
        abilities = self._abilities
        own = [event for event in turn.activities if abilities.knows_activity(event.name)]
        own, kept = self._choose(own, rooms)
        if len(own) == len(turn.activities):
            turn.activities = own
            return kept
        # A call that no worker knows fails at once, as a call (REG-5). One that others know, or that a filter excludes here, is for them.
        failing = {name for name in {event.name for event in turn.activities} if abilities.fails_activity(name, worker_id)}
        lost = [event for event in turn.activities if event.name in failing]
        rest = [event for event in turn.activities if event.name not in failing and not abilities.knows_activity(event.name)]
        turn.activities = [*lost, *own, *rest]
        self._capacity.force(len(lost))
        return len(lost) + kept

    def _choose(self, own: list[TaskScheduled], rooms: dict[str, int]) -> tuple[list[TaskScheduled], int]:
        """The calls with those in front that this worker keeps, and their number: the highest priority first, no more of a name than its limits allow."""
        if not rooms and not any(event.priority for event in own):
            return own, self._capacity.take(len(own))
        free = self._capacity.free
        kept: list[TaskScheduled] = []
        rest: list[TaskScheduled] = []
        for event in sorted(own, key=lambda event: -event.priority):
            room = 0 if self._in_flight.is_hub_limited(event.name) else rooms.get(event.name, 1)
            if len(kept) >= free or room <= 0:
                rest.append(event)
                continue
            kept.append(event)
            if event.name in rooms:
                rooms[event.name] = room - 1
        # A limit over the whole hub is kept by the claim, which comes in the same transaction.
        self.wants_claim |= any(self._in_flight.is_hub_limited(event.name) for event in rest)
        return kept + rest, self._capacity.take(len(kept))

    def committed(self, batch: Batch, committed: Committed) -> None:
        """Learn from a commit whether there is more to claim."""
        self.wants_claim |= self._suspects.had_turns(batch.turns) and not self.is_draining
        self._suspects.claimed(committed)
        if batch.claim is None:
            return
        if batch.claim.activities:
            self._is_starved = len(committed.activities) >= batch.claim.activities
        self.wants_claim |= committed.has_more and (self._capacity.free > 0 or not self._has_neighbours())  # else at the next look


def _is_over(turn: Turn) -> bool:
    return turn.status.is_final or turn.next_generation is not None


def _makes_work(held: Held, turn: Turn) -> bool:
    """Whether the turn writes rows that somebody should claim in the same transaction."""
    if turn.children or turn.sent_events or turn.next_generation:
        return True
    return turn.status.is_final and held.record.parent_instance_id is not None
