"""Random orchestrations whose calls fail and are mended: rewound, they end as if nothing had failed, and no success is repeated.

A small world stands for storage and activities: it queues, runs, loses and delivers calls in random order, several in one turn, also while the
instance has failed. Each turn is made by a warm execution and by one rebuilt from the history, and both must be equal.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from flask_durable.core.context import OrchestrationContext
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
    TimerCreated,
    TimerFired,
)
from flask_durable.core.execution import Execution
from flask_durable.core.failure import FailureDetails, TaskFailedError
from flask_durable.core.retry import RetryPolicy
from flask_durable.core.rewind import Message, plan
from flask_durable.core.tasks import Task
from flask_durable.core.turn import Turn

PROGRAMS = 250
LEAST = {
    "rewinds": 400,
    "late successes": 10,
    "late failures": 8,
    "unseen": 10,
    "children": 150,
    "retries": 50,
    "own faults": 15,
    "comp": 15,
    "met again": 5,
}
"""How often things must have happened for the test to be worth its time."""

BOOM = FailureDetails("builtins.ValueError", "boom")
SECOND = 1_000_000


class Author:
    """Writes programs: lists of steps; each call has a name of its own."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.names = 0

    def program(self) -> list[Any]:
        return [self.step() for _ in range(self.random.randint(2, 7))]

    def name(self, kind: str = "do") -> str:
        self.names += 1
        kind = self.random.choice([kind, kind, "child"]) if kind == "do" else kind
        return f"{kind}{self.names}"

    def step(self, depth: int = 0) -> Any:
        kind = self.random.choice(["call", "begin", "begin", "all", "all", "settled", "retry", "try", "bug", "timer", "event", "any"])
        if kind in ("call", "begin", "retry", "bug"):
            return [kind, self.name()]
        if kind in ("all", "settled"):
            return [kind, [self.name() for _ in range(self.random.randint(1, 4))]]
        if kind == "try" and depth < 2:
            return [kind, [self.step(depth + 1) for _ in range(self.random.randint(1, 3))], self.name("comp")]
        return ["timer"] if kind in ("try", "timer") else ["event"] if kind == "event" else ["any", self.name()]


def interpreter(world: World) -> Any:  # noqa: C901 - one branch for each kind of step
    """An orchestrator that carries a program out; whether it has its bugs is the world's affair."""

    def main(ctx: OrchestrationContext, program: list[Any]) -> Generator[Task, Any, Any]:  # noqa: C901
        begun: list[Task] = []
        results: list[Any] = []

        def call(name: str, policy: RetryPolicy | None = None) -> Task:
            if name.startswith("child"):
                return ctx.call_sub_orchestrator(name, instance_id=name, retry_policy=policy)
            return ctx.call_activity(name, retry_policy=policy)

        def carry_out(steps: list[Any]) -> Generator[Task, Any, None]:  # noqa: C901
            for kind, *rest in steps:
                if kind == "call":
                    results.append((yield call(rest[0])))
                elif kind == "begin":
                    begun.append(call(rest[0]))
                elif kind == "all":
                    results.append((yield ctx.when_all([call(name) for name in rest[0]])))
                elif kind == "settled":
                    tasks = yield ctx.when_all_settled([call(name) for name in rest[0]])
                    errors = [task.get_exception() for task in tasks if task.is_failed]
                    if errors:
                        raise RuntimeError("some failed")
                    results.append([task.result for task in tasks])
                elif kind == "retry":
                    results.append((yield call(rest[0], RetryPolicy(first_retry_interval=1, max_number_of_attempts=2))))
                elif kind == "try":
                    try:
                        yield from carry_out(rest[0])
                    except TaskFailedError:
                        yield ctx.call_activity(rest[1])
                        raise
                elif kind == "bug":
                    task = call(rest[0])
                    if rest[0] in world.bugs:
                        raise LookupError(rest[0])
                    results.append((yield task))
                elif kind == "timer":
                    yield ctx.create_timer(timedelta(seconds=5))
                elif kind == "any":
                    task = call(rest[0])
                    winner = yield ctx.when_any([task, ctx.wait_for_external_event("Never")])
                    results.append(winner.get_result())
                else:
                    results.append((yield ctx.wait_for_external_event("E")))

        yield from carry_out(program)
        for task in begun:
            results.append((yield task))
        return results

    return main


@dataclass
class World:
    """Storage and activities of one instance."""

    random: Random
    program: list[Any]
    broken: set[str] = field(default_factory=set)
    bugs: set[str] = field(default_factory=set)
    now: int = 1_700_000_000 * SECOND
    history: list[Recorded] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    queued: dict[int, HistoryEvent] = field(default_factory=dict)
    running: dict[int, HistoryEvent] = field(default_factory=dict)
    children: dict[str, Any] = field(default_factory=dict)
    successes: Counter[str] = field(default_factory=Counter)
    tally: Counter[str] = field(default_factory=Counter)
    ended: dict[int, HistoryEvent] = field(default_factory=dict)
    warm: Execution | None = None
    last: Turn | None = None
    events: int = 0

    def run(self) -> Any:
        self.turn([ExecutionStarted("main", "i", "e1", 0, _json(self.program))])
        for _ in range(3000):
            assert self.last is not None
            if self.last.status == "Completed":
                return self.last.output
            if self.last.status == "Failed":
                self.fail()
            else:
                self.go_on()
        raise AssertionError("no end")

    def go_on(self) -> None:
        self.now += self.random.randint(1, 3) * SECOND
        self.work()
        if self.random.random() < 0.5:
            self.events += 1
            self.inbox.append(Message(self.now, EventRaised("E", '"e"')))
        due = sorted((message for message in self.inbox if message.at <= self.now), key=lambda message: message.at)
        due = due[: self.random.randint(1, 4)]
        for message in due:
            self.inbox.remove(message)
        self.turn([message.event for message in due])

    def work(self) -> None:
        """Some calls begin, some end."""
        for waiting, number in ((self.queued, 3), (self.running, 2)):
            for task_id in self.random.sample(sorted(waiting), min(len(waiting), self.random.randint(0, number))):
                event = waiting.pop(task_id)
                if waiting is self.queued:
                    self.running[task_id] = event
                else:
                    self.inbox.append(Message(self.now, self.outcome(event)))

    def outcome(self, event: HistoryEvent) -> HistoryEvent:
        name, number = event.name, event.task_id  # type: ignore[attr-defined]
        if name in self.broken:
            self.ended[number] = TaskFailed(number, BOOM) if isinstance(event, TaskScheduled) else SubOrchestrationFailed(number, BOOM)
        else:
            self.successes[name] += 1
            text = _json(name.upper())
            self.ended[number] = TaskCompleted(number, text) if isinstance(event, TaskScheduled) else SubOrchestrationCompleted(number, text)
        return self.ended[number]

    def turn(self, events: list[HistoryEvent]) -> None:
        cold = Execution(interpreter(self))
        cold.replay(self.history)
        assert cold.nondeterminism is None, cold.nondeterminism
        turn = cold.advance(self.now, events)
        if self.warm is not None:
            assert self.warm.advance(self.now, events) == turn
        self.warm, self.last = cold, turn
        begin = self.history[-1].sequence if self.history else 0
        self.history += [Recorded(number, turn.at, event) for number, event in enumerate(turn.events, begin + 1)]
        for message in events[len(events) - turn.undelivered :]:
            self.inbox.insert(0, Message(self.now, message))
        self.queued |= {event.task_id: event for event in (*turn.activities, *self.new_children(turn))}
        self.inbox += [Message(timer.fire_at, TimerFired(timer.task_id, timer.fire_at)) for timer in turn.timers]
        cancelled = set(turn.cancelled_timers)
        self.inbox = [each for each in self.inbox if not (isinstance(each.event, TimerFired) and each.event.task_id in cancelled)]

    def new_children(self, turn: Turn) -> list[SubOrchestrationCreated]:
        new = []
        for event in turn.children:
            before = self.children.get(event.instance_id)
            if before is not None and before.execution_id == event.execution_id and event.task_id == before.task_id:
                if event.task_id not in {**self.queued, **self.running}:
                    self.inbox.append(Message(self.now, self.ended[event.task_id]))
                self.tally["met again"] += 1
                continue
            self.children[event.instance_id] = event
            new.append(event)
        return new

    def fail(self) -> None:
        """The instance has failed: some calls end meanwhile, something is mended, and it is rewound."""
        assert self.last is not None
        self.tally["rewinds"] += 1
        ended = self.history[-1].event
        self.tally["own faults"] += not ended.blamed  # type: ignore[attr-defined]
        self.tally["unseen"] += bool(ended.unseen)  # type: ignore[attr-defined]
        self.queued = {number: event for number, event in self.queued.items() if not isinstance(event, TaskScheduled)}
        before = len(self.inbox)
        for _ in range(self.random.randint(0, 5)):
            self.work()
        late = [message.event for message in self.inbox[before:]]
        self.tally["late successes"] += sum(isinstance(event, TaskCompleted) for event in late)
        self.tally["late failures"] += sum(isinstance(event, TaskFailed) for event in late)
        for mended in (self.broken, self.bugs):
            for name in self.random.sample(sorted(mended), (len(mended) + 1) // 2):
                mended.remove(name)
        planned = plan(self.history, self.inbox)
        assert planned.has_started or not planned.activities
        self.history.append(Recorded(self.history[-1].sequence + 1, self.now, planned.event))
        self.inbox = [*planned.messages, *(Message(timer.fire_at, TimerFired(timer.task_id, timer.fire_at)) for timer in planned.timers)]
        wanted = {event.task_id: event for event in planned.activities}
        self.running = {number: event for number, event in self.running.items() if number in wanted or not isinstance(event, TaskScheduled)}
        self.queued |= {number: event for number, event in wanted.items() if number not in self.running}
        self.queued |= {child.task_id: child for child in planned.children if child.task_id not in {**self.queued, **self.running}}
        self.warm = None
        events: list[HistoryEvent] = [] if planned.has_started else [ExecutionStarted("main", "i", "e1", 0, _json(self.program))]
        self.turn(events)


def _json(value: Any) -> str:
    return json.dumps(value)


def names_in(program: Any) -> list[str]:
    if isinstance(program, str):
        return [program] if program[-1].isdigit() else []
    return [name for each in program for name in names_in(each)]


def test_rewound_programs_end_as_if_nothing_had_failed_and_repeat_no_success() -> None:  # REW-3, rule 45
    tally: Counter[str] = Counter()
    for seed in range(PROGRAMS):
        random = Random(seed)
        program = Author(random).program()
        names = names_in(program)
        calls = [name for name in names if not name.startswith("comp")]
        healthy = World(Random(seed), program).run()
        bugs = {name for name in calls if random.random() < 0.3}
        broken = {name for name in names if random.random() < 0.5}
        world = World(Random(seed + 1), program, broken=broken, bugs=bugs)
        try:
            assert world.run() == healthy
            assert {name: world.successes[name] for name in calls} == dict.fromkeys(calls, 1)
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {program}, broken {broken}, bugs {bugs}: {error}")
        tally += world.tally
        tally["children"] += sum(name.startswith("child") for name in calls)
        tally["retries"] += '"retry"' in _json(program)
        tally["comp"] += sum(count for name, count in world.successes.items() if name.startswith("comp"))
    assert {name: tally[name] for name, least in LEAST.items() if tally[name] < least} == {}


def test_timers_are_not_lost_by_a_plan() -> None:  # rule 45
    timer = TimerCreated(1, 5)
    history = [Recorded(1, 1, ExecutionStarted("main", "i", "e1")), Recorded(2, 1, timer)]
    assert plan(history).timers == (timer,)
    assert plan(history, [Message(5, TimerFired(1, 5))]).timers == ()
