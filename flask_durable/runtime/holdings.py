"""Holdings: the instances and activity calls this worker holds, and which of them are due for a turn; used by the engine's thread only."""

from __future__ import annotations

from collections.abc import Callable

from flask_durable.runtime.capacity import Capacity
from flask_durable.runtime.in_flight import InFlight
from flask_durable.runtime.steps import ActivityDone, Step
from flask_durable.runtime.turns import Held
from flask_durable.storage.interface import ActivityResult, ActivityWorkItem, InstanceRecord, OrchestrationWorkItem, TurnCommit


class Holdings:
    """What this worker holds.

    Args:
        hand_out: gives a claimed activity to the threads.
    """

    def __init__(self, capacity: Capacity, in_flight: InFlight, hand_out: Callable[[ActivityWorkItem], None]) -> None:
        self._capacity = capacity
        self._hand_out = hand_out
        self._held: dict[str, Held] = {}
        self._in_flight = in_flight
        self.ready: dict[str, Held] = {}
        self.slow: dict[str, Held] = {}
        self.foreign: list[ActivityResult] = []

    @property
    def has_work(self) -> bool:
        """Whether something is waiting to be advanced or committed."""
        return bool(self.ready or self.foreign)

    # -- coming in

    def started(self, record: InstanceRecord) -> None:
        """An instance was started here and claimed in the same commit."""
        self._hold(Held(record, record.sequence, record.has_started))

    def starting(self, record: InstanceRecord) -> Held:
        """An instance has its first turn together with its start."""
        held = self._held[record.instance_id] = Held(record, record.sequence, record.has_started)
        return held

    def claimed(self, work: OrchestrationWorkItem, worker_id: str) -> None:
        """An instance was claimed, or one held before has new messages."""
        record = work.record
        if record.instance_id in self.slow:
            return
        known = self._held.get(record.instance_id)
        if known is not None and known.record.execution_id == record.execution_id and record.worker_id == worker_id:
            known.messages = list(work.messages)
            self.ready[record.instance_id] = known
            return
        self._hold(Held(record, record.sequence, record.has_started, list(work.messages)))

    def launch(self, item: ActivityWorkItem) -> None:
        """Run an activity call that is claimed."""
        self._in_flight.add(item)
        self._hand_out(item)

    def ended(self, done: ActivityDone) -> None:
        """An activity ended here: its result goes to the instance if that is held, else to the instance's inbox."""
        item = done.item
        if done.event is None:
            if done.is_recorded:
                self._capacity.ended(done.seconds)
            else:
                self._capacity.give_back(1)
            self._in_flight.remove(item)
            return
        self._capacity.ended(done.seconds)
        if not self._in_flight.remove(item):
            return  # it was given back, or is from before this worker was taken for dead
        held = self._held.get(item.instance_id)
        result = ActivityResult(item, done.event)
        if held is None or held.record.execution_id != item.execution_id:
            self.foreign.append(result)
            return
        held.results.append(result)
        if item.instance_id not in self.slow:
            self.ready[item.instance_id] = held

    # -- going out

    def take_ready(self, step: Step, limit: int, controlled: set[str | None]) -> None:
        """Move what is due into a step, except for instances that a command of the same step changes, or that have a late turn in it already."""
        late = {held.record.instance_id for held, _, _ in step.turns}
        for instance_id in list(self.ready):
            if len(step.todo) >= limit:
                return
            if instance_id not in controlled and instance_id not in late:
                step.todo.append(self.ready.pop(instance_id))

    def committed(self, held: Held, commit: TurnCommit, sequence: int) -> None:
        """A turn was committed."""
        instance_id = held.record.instance_id
        held.sequence, held.has_started = sequence, True
        if commit.keep:
            if held.has_work:
                self.ready[instance_id] = held
            return
        self.drop(held)
        self.foreign.extend(held.results)

    def conflicted(self, held: Held, commit: TurnCommit) -> None:
        """The instance was changed from outside: its results go to its inbox, or nowhere when it has ended."""
        self._capacity.give_back(commit.claimed_activities)
        self.drop(held)
        self.foreign.extend(commit.results)
        self.foreign.extend(held.results)

    def undone(self, held: Held, commit: TurnCommit) -> None:
        """A turn could not be committed now: it is run again; the next claim brings its messages again."""
        self._capacity.give_back(commit.claimed_activities)
        held.results = [*commit.results, *held.results]
        held.messages = []
        if self._held.get(held.record.instance_id) is held and held.has_work:
            self.ready[held.record.instance_id] = held

    def let_go(self, instance_id: str) -> None:
        """A command has taken the instance away from this worker: no code of it runs any more; results that have come go to its inbox."""
        held = self._held.get(instance_id)
        if held is None or instance_id in self.slow:
            return
        del self._held[instance_id]
        self.ready.pop(instance_id, None)
        self.foreign.extend(held.results)

    def drop(self, held: Held) -> None:
        """Hold an instance no more."""
        instance_id = held.record.instance_id
        if self._held.get(instance_id) is held:
            del self._held[instance_id]
        if self.ready.get(instance_id) is held:
            del self.ready[instance_id]
        if self.slow.get(instance_id) is held:
            del self.slow[instance_id]

    def forget(self) -> None:
        """All of it belongs to others now."""
        for held in self.slow.values():
            held.is_abandoned = True
        self._held.clear()
        self._in_flight.clear()
        self.ready.clear()
        self.slow.clear()
        self.foreign.clear()
        self._capacity.reset()

    def _hold(self, held: Held) -> None:
        before = self._held.get(held.record.instance_id)
        if before is not None and before.results:  # it was taken away and came back before its turn
            self.foreign.extend(before.results)
        # Also without a message: a turn with nothing in it gives the instance back with its true due time.
        self._held[held.record.instance_id] = self.ready[held.record.instance_id] = held
