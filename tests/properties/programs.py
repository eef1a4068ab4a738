"""Random orchestrator programs: a small language of frozen dataclasses, its JSON, and the author that writes in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from random import Random
from typing import Any

NAMES = ["go", "Go", "stop"]
"""Names of events; two of them are the same but for their case."""

DELAYS = [0, 5, 20]
"""Milliseconds."""

ALWAYS = 99
"""An activity that fails in so many attempts fails in all of them."""


# ---------------------------------------------------------------- what can be awaited


@dataclass(frozen=True)
class Activity:
    """Fails in its first ``fails`` attempts; ``attempts`` of 1 is a call without a retry policy."""

    key: str
    fails: int
    attempts: int = 1
    interval: int = 5
    timeout: int | None = None


@dataclass(frozen=True)
class Timer:
    delay: int


@dataclass(frozen=True)
class Event:
    name: str
    timeout: int | None = None
    has_default: bool = False


@dataclass(frozen=True)
class Child:
    program: Program
    given_id: str | None = None
    attempts: int = 1


@dataclass(frozen=True)
class All:
    tasks: tuple[Any, ...]


@dataclass(frozen=True)
class Settled:
    tasks: tuple[Any, ...]


@dataclass(frozen=True)
class First:
    tasks: tuple[Any, ...]


@dataclass(frozen=True)
class Kept:
    """A task made before."""

    which: float


# ---------------------------------------------------------------- what can be done


@dataclass(frozen=True)
class Await:
    task: Any


@dataclass(frozen=True)
class Begin:
    """Make a task and go on without it."""

    task: Any


@dataclass(frozen=True)
class Cancel:
    which: float


@dataclass(frozen=True)
class Try:
    body: tuple[Any, ...]
    handler: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Repeat:
    count: int
    body: tuple[Any, ...]


@dataclass(frozen=True)
class Raise:
    text: str


@dataclass(frozen=True)
class Status:
    pass


@dataclass(frozen=True)
class Send:
    to_itself: bool
    name: str


@dataclass(frozen=True)
class Uuid:
    pass


@dataclass(frozen=True)
class Clock:
    pass


@dataclass(frozen=True)
class Program:
    """A body that is run in each of ``generations`` further generations too."""

    body: tuple[Any, ...]
    generations: int = 0
    saves_events: bool = True


KINDS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind
    for kind in (
        Activity, Timer, Event, Child, All, Settled, First, Kept,
        Await, Begin, Cancel, Try, Repeat, Raise, Status, Send, Uuid, Clock, Program,
    )
}  # fmt: skip


def dump(node: Any) -> Any:
    """A program as JSON: an orchestrator gets it as its input."""
    if is_dataclass(node):
        return [type(node).__name__, *(dump(getattr(node, field.name)) for field in fields(node))]
    return [dump(each) for each in node] if isinstance(node, tuple) else node


def load(value: Any) -> Any:
    """The program that :func:`dump` wrote."""
    if not isinstance(value, list):
        return value
    if value and isinstance(value[0], str) and value[0] in KINDS:
        return KINDS[value[0]](*map(load, value[1:]))
    return tuple(map(load, value))


def nodes(node: Any) -> Iterator[Any]:
    """A program and all its parts."""
    if isinstance(node, tuple):
        for each in node:
            yield from nodes(each)
    elif is_dataclass(node):
        yield node
        for field in fields(node):
            yield from nodes(getattr(node, field.name))


def is_confluent(program: Program) -> bool:
    """Whether the order of what happens makes no difference to what the program sees."""
    ordered = (Event, First, Cancel, Send, Kept)
    groups_that_fail = [node for node in nodes(program) if isinstance(node, All) and any(_can_fail(task) for task in node.tasks)]
    retries_in_time = [node for node in nodes(program) if isinstance(node, Activity) and node.timeout is not None]
    clocks_shown = (
        [node for node in nodes(program) if isinstance(node, Clock | Uuid)] if any(isinstance(node, Child) for node in nodes(program)) else []
    )
    shared_ids = [node for node in nodes(program) if isinstance(node, Child) and node.given_id is not None]
    return not (groups_that_fail or retries_in_time or clocks_shown or shared_ids) and not any(isinstance(node, ordered) for node in nodes(program))


def _can_fail(task: Any) -> bool:
    return any(isinstance(node, Activity | Child | Event) for node in nodes(task))


def smaller(node: Any) -> Iterator[Any]:
    """Programs with one thing less, the boldest cuts first."""
    if isinstance(node, tuple):
        for index, each in enumerate(node):
            yield node[:index] + node[index + 1 :]
            for cut in (getattr(each, "body", None), getattr(each, "handler", None)):
                if cut and not isinstance(each, Program):
                    yield node[:index] + cut + node[index + 1 :]
            for less in smaller(each):
                yield (*node[:index], less, *node[index + 1 :])
    elif isinstance(node, Await | Begin) and isinstance(node.task, All | Settled | First) and node.task.tasks:
        yield replace(node, task=node.task.tasks[0])
        yield from _with_smaller_fields(node)
    elif is_dataclass(node):
        yield from _with_smaller_fields(node)


def _with_smaller_fields(node: Any) -> Iterator[Any]:
    for field in fields(node):
        value = getattr(node, field.name)
        if field.name in ("generations", "attempts", "count", "fails") and value:
            yield replace(node, **{field.name: value - 1})
        for less in smaller(value):
            if not (isinstance(node, First) and less == ()):
                yield replace(node, **{field.name: less})


# ---------------------------------------------------------------- who writes them


class Author:
    """Writes programs; the same ones from the same random numbers."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.keys = 0

    def program(self, depth: int = 0) -> Program:
        body = self.body(depth, longest=6 if depth == 0 else 3)
        if self.chance(0.6):
            body = tuple(Try((each,)) if self.chance(0.7) else each for each in body)
        return Program(body, self.random.choice([0, 0, 0, 0, 1, 2] if depth == 0 else [0, 0, 0, 1]), self.chance(0.8))

    def body(self, depth: int, longest: int) -> tuple[Any, ...]:
        return tuple(self.step(depth) for _ in range(self.random.randint(1, longest)))

    def step(self, depth: int) -> Any:
        random, kind = self.random, self.random.random()
        if kind < 0.45:
            return Await(self.task(depth))
        if kind < 0.58:
            return Begin(self.task(depth))
        if kind < 0.66:
            return Await(Kept(random.random()))
        if kind < 0.71:
            return Cancel(random.random())
        if kind < 0.83 and depth < 3:
            return Try(self.body(depth + 1, 3), self.body(depth + 1, 2) if self.chance(0.4) else ())
        if kind < 0.87 and depth < 2:
            return Repeat(random.randint(1, 3), self.body(depth + 1, 2))
        small: list[Any] = [Status(), Uuid(), Clock(), Send(True, random.choice(NAMES)), Send(False, random.choice(NAMES))]
        return Raise(f"raised {self.key()}") if self.chance(0.12) else random.choice(small)

    def task(self, depth: int, group: int = 0) -> Any:
        random, kind = self.random, self.random.random()
        if kind < 0.34 or (group >= 2 and kind > 0.8):
            return self.activity()
        if kind < 0.42:
            return Timer(random.choice(DELAYS))
        if kind < 0.58:
            return Event(random.choice(NAMES), random.choice([None, None, *DELAYS]), self.chance(0.6))
        if kind < 0.66 and depth < 2:
            given = f"c{random.randint(0, 2)}" if self.chance(0.3) else None
            return Child(self.program(depth + 2), given, random.choice([1, 1, 2]))
        if kind < 0.72:
            return Kept(random.random())
        members = tuple(self.task(depth + 1, group + 1) for _ in range(random.randint(0 if kind < 0.75 else 1, 3)))
        if kind < 0.82:
            return All(members)
        if kind < 0.88:
            return Settled(members)
        return First(members) if members else All(())

    def activity(self) -> Activity:
        random = self.random
        fails = random.choice([0, 0, 0, 0, 1, 1, 2, ALWAYS])
        return Activity(self.key(), fails, random.choice([1, 1, 2, 3]), random.choice(DELAYS), random.choice([None, None, None, 10]))

    def key(self) -> str:
        self.keys += 1
        return f"k{self.keys}"

    def chance(self, share: float) -> bool:
        return self.random.random() < share
