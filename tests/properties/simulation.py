"""A world of instances in virtual time, around the core alone: it decides by a seed what happens next, and forgets executions at random points."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from flask_durable.core.events import (
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    Recorded,
    SubOrchestrationCompleted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
)
from flask_durable.core.execution import Execution
from flask_durable.core.failure import FailureDetails
from flask_durable.core.turn import Turn

from .interpreter import first_state, orchestrator, work
from .model import Model
from .programs import NAMES, Author, Program, is_confluent, smaller
from .verdict import check, same_end

MOST_STEPS = 3_000
SECOND = 1_000_000


@dataclass
class Instance:
    """One generation of an instance, as its world sees it."""

    started: ExecutionStarted
    execution: Execution
    parent: Instance | None = None
    parent_task_id: int = 0
    carried: list[HistoryEvent] = field(default_factory=list)
    inbox: list[HistoryEvent] = field(default_factory=list)
    past: list[HistoryEvent] = field(default_factory=list)
    history: list[Recorded] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    root: Program | None = None
    is_over: bool = False


def programs_of(seed: int) -> tuple[Program, Program]:
    """The two programs of a seed: siblings that send each other events."""
    random = Random(seed)
    return Author(random).program(), Author(random).program()


class World:
    """Runs programs to their end, and checks each generation against the model when it ends.

    Args:
        random: decides what happens next.
    """

    def __init__(self, programs: Sequence[Program], random: Random) -> None:
        self.random = random
        self.now = 1_700_000_000 * SECOND
        self.live: dict[str, Instance] = {}
        self.work: list[tuple[Instance, TaskScheduled]] = []
        self.timers: list[tuple[int, int, Instance, TimerFired]] = []
        self.count = 0
        self.turns = 0
        self.uuids: list[str] = []
        self.ends: list[tuple[Any, ...]] = []
        self.root_ends: list[tuple[Any, ...]] = []
        for number, program in enumerate(programs):
            text = json.dumps(first_state(program, f"root{1 - number}"))
            root = self.begin(ExecutionStarted("program", f"root{number}", f"e{number}", 0, text))
            root.root = program

    def begin(self, started: ExecutionStarted, **known: Any) -> Instance:
        instance = Instance(started, Execution(orchestrator), **known)
        self.live[started.instance_id] = instance
        return instance

    def run(self) -> None:
        for _ in range(MOST_STEPS):
            if not self.live:
                assert len(set(self.uuids)) == len(self.uuids), "a uuid was made twice"
                return
            self.step()
        raise AssertionError(f"these do not end: {sorted(self.live)}")

    # -- what happens

    def step(self) -> None:
        random = self.random
        due = [each for each in self.live.values() if each.inbox or not each.history]
        draw = random.random()
        if due and draw < 0.6:
            self.turn(random.choice(due))
        elif self.work and draw < 0.8:
            self.end_work()
        elif self.timers and draw < 0.9:
            self.fire()
        elif draw < 0.97:
            self.raise_event()
        else:
            self.repeat()

    def end_work(self) -> None:
        instance, asked = self.work.pop(self.random.randrange(len(self.work)))
        spec = json.loads(asked.input or "null")
        try:
            outcome: HistoryEvent = TaskCompleted(asked.task_id, json.dumps(work(spec, asked.attempt)))
        except ValueError as error:
            outcome = TaskFailed(asked.task_id, FailureDetails.from_exception(error))
        self.put(instance, outcome)

    def fire(self) -> None:
        fire_at, _, instance, event = heapq.heappop(self.timers)
        self.now = max(self.now, fire_at)
        if event.task_id not in instance.cancelled or self.random.random() < 0.1:  # some are too late to be cancelled
            self.put(instance, event)

    def raise_event(self) -> None:
        self.count += 1
        instance = self.live[self.random.choice(sorted(self.live))]
        self.put(instance, EventRaised(self.random.choice(NAMES), json.dumps(["outside", self.count])))

    def repeat(self) -> None:
        """The same outcome once more, as from a call that two workers ran (DET-8)."""
        instance = self.live[self.random.choice(sorted(self.live))]
        if instance.past:
            self.put(instance, self.random.choice(instance.past))

    def put(self, instance: Instance, event: HistoryEvent) -> None:
        if not instance.is_over:
            instance.inbox.append(event)
            if not isinstance(event, EventRaised):
                instance.past.append(event)

    # -- turns

    def turn(self, instance: Instance) -> None:
        self.turns += 1
        self.now += self.random.randrange(2_000)
        count = self.random.choice([1, 1, 2, 5]) if instance.history else 0
        events, instance.inbox = instance.inbox[:count], instance.inbox[count:]
        if not instance.history:
            events = [instance.started, *instance.carried]
        warm = instance.execution
        if instance.history and self.random.random() < 0.4:
            cold = instance.execution = Execution(orchestrator)
            cold.replay(instance.history)
            assert cold.nondeterminism is None, str(cold.nondeterminism)
            turn = warm.advance(self.now, events)
            assert cold.advance(self.now, events) == turn, "a replay makes a difference"
            warm.close()
        else:
            turn = warm.advance(self.now, events)
        self.now = max(self.now, turn.at)
        instance.history += [Recorded(number, turn.at, event) for number, event in enumerate(turn.events, len(instance.history) + 1)]
        self.carry_out(instance, turn)

    def carry_out(self, instance: Instance, turn: Turn) -> None:
        instance.cancelled.update(turn.cancelled_timers)
        self.work += [(instance, asked) for asked in turn.activities]
        for timer in turn.timers:
            self.count += 1
            heapq.heappush(self.timers, (timer.fire_at, self.count, instance, TimerFired(timer.task_id, timer.fire_at)))
        for sent in turn.sent_events:
            if sent.instance_id in self.live:
                self.put(self.live[sent.instance_id], EventRaised(sent.name, sent.data))
        for child in turn.children:
            self.create(instance, child)
        if turn.next_generation is not None:
            self.continue_as_new(instance, turn)
        elif turn.status.is_final:
            self.end(instance, turn)

    def create(self, parent: Instance, child: SubOrchestrationCreated) -> None:
        if child.instance_id in self.live:
            failure = FailureDetails("InstanceExistsError", f"{child.instance_id} is in use")
            self.put(parent, SubOrchestrationFailed(child.task_id, failure))
            return
        started = ExecutionStarted(child.name, child.instance_id, child.execution_id, 0, child.input, None, parent.started.instance_id)
        self.begin(started, parent=parent, parent_task_id=child.task_id)

    def continue_as_new(self, instance: Instance, turn: Turn) -> None:
        following, old = turn.next_generation, instance.started
        assert following is not None
        wanted = check(instance.history).model.end
        carried = [[each.name, json.loads(each.data or "null")] for each in following.carried]
        assert wanted is not None
        late = carried[len(wanted[2]) :] if wanted[0] == "continued" else []
        same_end(("continued", json.loads(following.input or "null"), carried), (*wanted[:2], [*wanted[2], *late]))
        instance.is_over = True
        started = ExecutionStarted(
            old.name, old.instance_id, following.execution_id, old.generation + 1, following.input, None, old.parent_instance_id
        )
        new = self.begin(started, parent=instance.parent, parent_task_id=instance.parent_task_id, carried=list(following.carried))
        new.root = instance.root
        new.inbox = [each for each in instance.inbox if isinstance(each, EventRaised)]

    def end(self, instance: Instance, turn: Turn) -> None:
        instance.is_over = True
        del self.live[instance.started.instance_id]
        model = check(instance.history).model
        if turn.failure is not None:
            end: tuple[Any, ...] = ("Failed", turn.failure.type_name.rpartition(".")[2], turn.failure.message)
            outcome: HistoryEvent = SubOrchestrationFailed(instance.parent_task_id, turn.failure)
        else:
            output = json.loads(turn.output or "null")
            end = ("Completed", output)
            self.uuids += output["uuids"]
            outcome = SubOrchestrationCompleted(instance.parent_task_id, turn.output)
        same_end(end, model.end)
        status = None if model.custom_status is Model.NOTHING else model.custom_status
        assert json.loads(turn.custom_status or "null") == status
        self.ends.append(end)
        if instance.parent is not None:
            self.put(instance.parent, outcome)
        if instance.root is not None:
            self.root_ends.append(end)
            if type(self) is World:
                check_confluent(instance.root, end)


def check_confluent(program: Program, end: tuple[Any, ...]) -> None:
    """Where the order cannot matter, another order gives the same: the one right answer."""
    if is_confluent(program):
        other = Quiet([program], Random(0))
        other.run()
        assert _essence(end) == _essence(other.root_ends[0]), "the order made a difference where none can"


def _essence(end: tuple[Any, ...]) -> str:
    """What has been seen, without the numbers of calls: retries take some too, and come when they come."""
    return re.sub(r"#\d+", "#", json.dumps(end[1]["seen"] if end[0] == "Completed" else end[1:]))


class Quiet(World):
    """A world of one program in which everything happens in the order in which it was asked for."""

    def step(self) -> None:
        due = [each for each in self.live.values() if each.inbox or not each.history]
        if due:
            self.turn(due[0])
        elif self.work:
            self.work.reverse()
            self.work.sort(key=lambda pair: pair[1].task_id)
            self.end_work()
        elif self.timers:
            self.fire()


def live(seed: int) -> World:
    """Run the programs of a seed."""
    return play(programs_of(seed), seed)


def play(programs: Sequence[Program], seed: int) -> World:
    """Run programs in the order of a seed."""
    world = World(programs, Random(seed + 1))
    world.run()
    return world


def shrink(programs: Sequence[Program], seed: int) -> Sequence[Program]:
    """The smallest programs found that still go wrong."""
    tries = 2_000
    while True:
        for less in _smaller(programs):
            tries -= 1
            if _goes_wrong(less, seed):
                programs = less
                break
            if tries <= 0:
                return programs
        else:
            return programs


def _smaller(programs: Sequence[Program]) -> Iterator[Sequence[Program]]:
    for index, program in enumerate(programs):
        for less in smaller(program):
            yield [*programs[:index], less, *programs[index + 1 :]]


def _goes_wrong(programs: Sequence[Program], seed: int) -> bool:
    try:
        play(programs, seed)
    except Exception:  # noqa: BLE001 - a crash is as wrong as a difference
        return True
    return False
