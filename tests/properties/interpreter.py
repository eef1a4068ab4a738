"""Carries a program out: one generator of a context and an input, for the real contexts and for the model's."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask_durable import RetryPolicy

from .programs import (
    Activity,
    All,
    Await,
    Begin,
    Cancel,
    Child,
    Clock,
    Event,
    First,
    Kept,
    Program,
    Raise,
    Repeat,
    Send,
    Settled,
    Status,
    Timer,
    Try,
    Uuid,
    dump,
    load,
)

Steps = Generator[Any, Any, None]


def first_state(program: Program, sibling: str) -> dict[str, Any]:
    """The input of an instance that runs a program; its sibling gets the events that it sends."""
    return {"program": dump(program), "left": program.generations, "sibling": sibling, "seen": [], "uuids": [], "clock": []}


def work(spec: list[Any], attempt: int) -> list[Any]:
    """What the activity does, from nothing but its input and the attempt's number."""
    key, fails, _ = spec
    if attempt <= fails:
        raise ValueError(f"{key} fails at attempt {attempt}")
    return [key, attempt]


def orchestrator(ctx: Any, state: dict[str, Any]) -> Generator[Any, Any, Any]:
    """Run a program; what it has seen is its output, or its next generation's input."""
    program = load(state["program"])
    run = Run(ctx, state)
    yield from run.block(program.body)
    if state["left"] > 0:
        ctx.continue_as_new({**state, **run.seen_so_far(), "left": state["left"] - 1}, save_events=program.saves_events)
        return "not this"
    return run.seen_so_far()


@dataclass(eq=False)
class Held:
    """A task that the program holds.

    ``leaves`` are the numbers of the single tasks in it; a race is never made of tasks that share one, since they would tie.
    """

    task: Any
    spec: Any
    members: tuple[Held, ...]
    leaves: frozenset[int]


class Run:
    """A program on its way."""

    def __init__(self, ctx: Any, state: dict[str, Any]) -> None:
        self.ctx = ctx
        self.state = state
        self.held: list[Held] = []
        self.leaves = 0
        self.sent = 0
        self.seen: list[Any] = list(state["seen"])
        self.uuids: list[str] = list(state["uuids"])
        self.clock: list[str] = list(state["clock"])

    def seen_so_far(self) -> dict[str, Any]:
        return {"seen": self.seen, "uuids": self.uuids, "clock": self.clock}

    def block(self, body: tuple[Any, ...]) -> Steps:
        for step in body:
            yield from STEPS[type(step)](self, step)

    # -- steps

    def do_await(self, step: Await) -> Steps:
        held = self.make(step.task)
        if held is not None:
            value = yield held.task
            self.seen.append(self.shown(held, value))

    def do_try(self, step: Try) -> Steps:
        try:
            yield from self.block(step.body)
        except Exception as error:  # noqa: BLE001 - whatever it is, the program has seen it
            self.seen.append(told(error))
            yield from self.block(step.handler)

    def do_repeat(self, step: Repeat) -> Steps:
        for _ in range(step.count):
            yield from self.block(step.body)

    def do_begin(self, step: Begin) -> Steps:
        self.make(step.task)
        return
        yield

    def do_cancel(self, step: Cancel) -> Steps:
        can = [each for each in self.held if isinstance(each.spec, Timer | Event)]
        if can:
            self.seen.append(can[int(step.which * len(can))].task.cancel())
        return
        yield

    def do_raise(self, step: Raise) -> Steps:
        raise KeyError(step.text)
        yield

    def do_status(self, _: Status) -> Steps:
        self.ctx.set_custom_status(len(self.seen))
        return
        yield

    def do_send(self, step: Send) -> Steps:
        target = self.ctx.instance_id if step.to_itself else self.state["sibling"]
        self.sent += 1
        self.ctx.send_event(target, step.name, [f"{self.ctx.instance_id} {self.ctx.execution_id}", self.sent])
        return
        yield

    def do_uuid(self, _: Uuid) -> Steps:
        self.uuids.append(str(self.ctx.new_uuid()))
        return
        yield

    def do_clock(self, _: Clock) -> Steps:
        self.clock.append(self.ctx.current_utc_datetime.isoformat())
        return
        yield

    # -- tasks

    def make(self, spec: Any) -> Held | None:
        """The task of a specification; None for one of those made before, if there are none."""
        if isinstance(spec, Kept):
            return self.held[int(spec.which * len(self.held))] if self.held else None
        held = self.group(spec) if isinstance(spec, All | Settled | First) else self.single(spec)
        if held is not None:
            self.held.append(held)
        return held

    def single(self, spec: Any) -> Held:
        self.leaves += 1
        return Held(MAKERS[type(spec)](self, spec), spec, (), frozenset({self.leaves}))

    def group(self, spec: All | Settled | First) -> Held | None:
        members = [each for each in map(self.make, spec.tasks) if each is not None]
        leaves: frozenset[int] = frozenset()
        chosen = []
        for each in members:
            if not isinstance(spec, First) or not (leaves & each.leaves):
                chosen.append(each)
                leaves |= each.leaves
        if isinstance(spec, First) and not chosen:
            return None
        make = {All: self.ctx.when_all, Settled: self.ctx.when_all_settled, First: self.ctx.when_any}[type(spec)]
        return Held(make([each.task for each in chosen]), spec, tuple(chosen), leaves)

    def activity(self, spec: Activity) -> Any:
        policy = None
        if spec.attempts > 1:
            timeout = None if spec.timeout is None else milliseconds(spec.timeout)
            policy = RetryPolicy(milliseconds(spec.interval), spec.attempts, 2, retry_timeout=timeout)
        return self.ctx.call_activity("work", [spec.key, spec.fails, len(self.seen)], retry_policy=policy)

    def timer(self, spec: Timer) -> Any:
        return self.ctx.create_timer(milliseconds(spec.delay))

    def event(self, spec: Event) -> Any:
        if spec.timeout is None:
            return self.ctx.wait_for_external_event(spec.name)
        if spec.has_default:
            return self.ctx.wait_for_external_event(spec.name, timeout=milliseconds(spec.timeout), default="default")
        return self.ctx.wait_for_external_event(spec.name, timeout=milliseconds(spec.timeout))

    def child(self, spec: Child) -> Any:
        given = None if spec.given_id is None else f"{self.ctx.instance_id[:60]}-{spec.given_id}"
        policy = RetryPolicy(milliseconds(5), spec.attempts) if spec.attempts > 1 else None
        return self.ctx.call_sub_orchestrator("program", first_state(spec.program, self.state["sibling"]), instance_id=given, retry_policy=policy)

    # -- results

    def shown(self, held: Held, value: Any) -> Any:
        """What a yield gave, as JSON."""
        if isinstance(held.spec, All):
            assert len(value) == len(held.members)
            return [self.shown(member, each) for member, each in zip(held.members, value, strict=True)]
        if isinstance(held.spec, First):
            places = [place for place, member in enumerate(held.members) if member.task is value]
            return ["first", places[0], self.outcome(held.members[places[0]])]
        if isinstance(held.spec, Settled):
            assert [each is member.task for each, member in zip(value, held.members, strict=True)].count(False) == 0
            return ["settled", *map(self.outcome, held.members)]
        return value

    def outcome(self, held: Held) -> Any:
        task = held.task
        assert task.is_complete
        return told(task.get_exception()) if task.is_failed else self.shown(held, task.result)


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def milliseconds(count: int) -> timedelta:
    return timedelta(milliseconds=count)


STEPS: dict[type, Any] = {
    Await: Run.do_await, Begin: Run.do_begin, Cancel: Run.do_cancel, Try: Run.do_try, Repeat: Run.do_repeat, Raise: Run.do_raise,
    Status: Run.do_status, Send: Run.do_send, Uuid: Run.do_uuid, Clock: Run.do_clock,
}  # fmt: skip
MAKERS: dict[type, Any] = {Activity: Run.activity, Timer: Run.timer, Event: Run.event, Child: Run.child}
