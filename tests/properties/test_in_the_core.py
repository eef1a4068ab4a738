"""Random programs against the model, in virtual time: any order of what arrives, executions forgotten at random points."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_durable.core import context, execution, tasks
from flask_durable.core.events import TaskFailed
from flask_durable.core.mailbox import EventTask, Mailbox
from flask_durable.core.retry import RetryPolicy

from .interpreter import first_state
from .programs import Author, Program, dump, load
from .simulation import World, live, play, programs_of, shrink

BAD_SEEDS: list[int] = [813]
"""Seeds that went wrong once, in the package or in the model."""

MUTANT_SEEDS = 1_000
LEAST = {"Completed": 1_500, "Failed": 300, "turns": 10_000}
"""How often these must have happened in a thousand seeds that are worth their time."""


def try_seed(seed: int) -> World:
    try:
        return live(seed)
    except Exception as error:
        programs = shrink(programs_of(seed), seed)
        raise AssertionError(f"tests.properties.simulation.live({seed}) goes wrong: {error}\nshrunk: play({programs!r}, {seed})") from error


def test_random_programs_do_what_the_model_says(seeds: range) -> None:  # rules 1 to 6, 11 to 16, 20 to 22, 25, 27, 31, 32, 40, 48
    for seed in seeds:
        try_seed(seed)


@pytest.mark.parametrize("seed", BAD_SEEDS)
def test_seeds_that_went_wrong_once_go_right(seed: int) -> None:
    try_seed(seed)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.randoms(use_true_random=False))
def test_programs_and_orders_that_hypothesis_looks_for(author: Random, order: Random) -> None:  # rules 1 to 5, 14, 21
    World([Author(author).program(), Author(author).program()], order).run()


def test_the_random_programs_go_everywhere() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1_000):
        world = live(seed)
        seen["turns"] += world.turns
        for end in world.ends:
            seen[end[0]] += 1
    assert {name for name, count in LEAST.items() if seen[name] < count} == set(), seen


def test_a_program_survives_its_way_through_json() -> None:
    for seed in range(200):
        for program in programs_of(seed):
            assert load(dump(program)) == program
            assert isinstance(load(first_state(program, "")["program"]), Program)


# ---------------------------------------------------------------- would it find anything?


def newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept events are delivered last in, first out."""
    monkeypatch.setattr(Mailbox, "_take", lambda self, task, kept: task.complete_with_text(kept.pop()[1].data))


def youngest_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several waits, the newest one is served."""
    monkeypatch.setattr(Mailbox, "_oldest_fresh", lambda self, folded: self._fresh.get(folded, {}).popitem()[0] if self._fresh.get(folded) else None)


def lost_waits_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that lost a race still takes events."""
    real = Mailbox._oldest_awake

    def oldest(self: Mailbox, folded: str) -> EventTask | None:
        return real(self, folded) or next(
            (each for each in made if each.folded == folded and not each.is_complete and each.order is made[-1].order), None
        )

    made: deque[EventTask] = deque(maxlen=20)
    wait = Mailbox.wait
    monkeypatch.setattr(Mailbox, "wait", lambda self, task: (made.append(task), wait(self, task))[1])
    monkeypatch.setattr(Mailbox, "_oldest_awake", oldest)


def case_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event names are compared as they are written."""

    class CaseSensitive(str):
        __slots__ = ()

        def casefold(self) -> str:
            return str(self)

    real = EventTask.__init__
    monkeypatch.setattr(EventTask, "__init__", lambda self, order, name, on_cancel=None: real(self, order, CaseSensitive(name), on_cancel))


def winner_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among what is done already, the first in the list wins a race."""
    monkeypatch.setattr(tasks, "_completion", lambda task: 0)


def uuids_without_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each generation makes the same uuids."""
    real = context.derived_uuid
    monkeypatch.setattr(context, "derived_uuid", lambda execution_id, counter: real("same", counter))


def events_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread events do not reach the next generation."""
    monkeypatch.setattr(Mailbox, "unread", lambda self: [])


def order_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread events are carried over name by name."""
    monkeypatch.setattr(Mailbox, "unread", lambda self: [event for _, kept in sorted(self._kept.items()) for _, event in kept])


def one_attempt_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of attempts does not include the first."""
    real = RetryPolicy.next_attempt_at
    monkeypatch.setattr(RetryPolicy, "next_attempt_at", lambda self, *, attempt, **rest: real(self, attempt=attempt - 1 or 1, **rest))


def group_waits_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group fails only when all of it has ended."""
    monkeypatch.setattr(tasks.WhenAll, "child_completed", lambda self, child: (setattr(self, "_open", self._open - 1), _late_failure(self))[0])


def _late_failure(group: tasks.WhenAll) -> None:
    if group._open == 0 and group.completion is None:
        failed = [member for member in group.members() if member.is_failed]
        if failed:
            group._fail_like(failed[0])
        else:
            group._check()


def failure_taken_for_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed activity completes its call."""
    monkeypatch.setitem(execution._HANDLERS, TaskFailed, lambda self, event: _complete(self, event))


def _complete(self: execution.Execution, event: TaskFailed) -> None:
    task = self._take(event.task_id, tasks.ActivityTask)
    if task is not None:
        self._open_activities.discard(event.task_id)
        task.complete(None)
        self._go_on()


def clock_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on between two turns that are replayed."""
    real = execution.Execution._set_time
    monkeypatch.setattr(execution.Execution, "_set_time", lambda self, at, *, is_replaying: real(self, at + is_replaying, is_replaying=is_replaying))


MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    newest_first, youngest_wait, lost_waits_take, case_counts, winner_by_place, uuids_without_generation, events_dropped, order_lost,
    one_attempt_more, group_waits_for_all, failure_taken_for_result, clock_of_the_moment,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_core_that_is_wrong_is_caught(mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    for seed in range(MUTANT_SEEDS):
        try:
            play(programs_of(seed), seed)
        except Exception:  # noqa: BLE001 - that is what is wanted
            return
    pytest.fail(f"{MUTANT_SEEDS} seeds passed with this wrong")
