"""Stretches of code, groups and races, however the same events are cut into turns and replayed."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from flask_durable.core.context import OrchestrationContext
from flask_durable.core.events import HistoryEvent, TaskCompleted, TaskFailed, TimerFired
from flask_durable.core.tasks import Task

from .driver import BOOM, T0, Driver, event

Ctx = OrchestrationContext
Code = Generator[Any, Any, Any]


class Stretches:
    """Counts how often each stretch between two yields was passed while replaying and while not."""

    def __init__(self) -> None:
        self.new: Counter[str] = Counter()
        self.old: Counter[str] = Counter()

    def passed(self, ctx: Ctx, name: str) -> None:
        (self.old if ctx.is_replaying else self.new)[name] += 1


def deliver(main: Callable[..., Any], events: Sequence[HistoryEvent], cuts: Sequence[int], *, is_cold: bool) -> Driver:
    """Give the events, cut into turns at these places."""
    driver = Driver(main, is_cold=is_cold)
    for begin, end in itertools.pairwise([0, *cuts, len(events)]):
        if end > begin and driver.turns[-1].status == "Running":
            driver.give(*events[begin:end])
    return driver


def all_cuts(count: int) -> list[tuple[int, ...]]:
    return [cuts for size in range(count) for cuts in itertools.combinations(range(1, count), size)]


def many_waits(seen: Stretches) -> Callable[[Ctx], Code]:
    def main(ctx: Ctx) -> Code:
        seen.passed(ctx, "begin")
        pair = [ctx.call_activity("a"), ctx.call_activity("b")]
        third, timer, wait = ctx.call_activity("c"), ctx.create_timer(timedelta(seconds=1)), ctx.wait_for_external_event("E")
        first = yield ctx.when_any(pair)
        seen.passed(ctx, "race")
        settled = yield ctx.when_all_settled(pair)
        seen.passed(ctx, "settled")
        yield ctx.when_all([third, ctx.when_any([timer, wait])])
        seen.passed(ctx, "group")
        got = yield wait
        seen.passed(ctx, "event")
        yield third
        seen.passed(ctx, "again")
        last = yield ctx.call_activity("d")
        seen.passed(ctx, "end")
        return [first is pair[0], [task.is_failed for task in settled], got, last]

    return main


@pytest.mark.parametrize("is_cold", [False, True])
def test_each_stretch_is_new_once_however_the_events_are_cut_into_turns(is_cold: bool) -> None:  # rule 5, DET-2
    events = [TaskCompleted(1, "1"), TaskFailed(2, BOOM), TaskCompleted(3, "3"), TimerFired(4, T0 + 10**12), event("E", 5), TaskCompleted(5, "6")]
    for cuts in all_cuts(len(events)):
        seen = Stretches()
        driver = deliver(many_waits(seen), events, cuts, is_cold=is_cold)
        assert driver.output == [True, [False, True], 5, 6]
        assert seen.new == Counter(dict.fromkeys(["begin", "race", "settled", "group", "event", "again", "end"], 1)), cuts
        assert not seen.old or is_cold


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_replay_safe_logger_writes_each_line_once_however_events_are_cut(is_cold: bool, caplog: pytest.LogCaptureFixture) -> None:  # rule 5, DET-11
    def main(ctx: Ctx) -> Code:
        log = ctx.create_replay_safe_logger(logging.getLogger("orchestration"))
        log.info("begin")
        for number in range(3):
            yield ctx.call_activity("a")
            log.info("after %d", number)

    for cuts in ((), (1,), (2,), (1, 2)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "orchestration"):
            deliver(main, [TaskCompleted(number) for number in (1, 2, 3)], cuts, is_cold=is_cold)
        assert [record.message for record in caplog.records] == ["begin", "after 0", "after 1", "after 2"]


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_the_first_recorded_wins_however_the_events_are_cut(order: tuple[int, ...], is_cold: bool) -> None:  # rule 14, TSK-3
    def main(ctx: Ctx) -> Code:
        tasks = [ctx.call_activity(name) for name in "abc"]
        winner = yield ctx.when_any(tasks)
        again = yield ctx.when_any(list(reversed(tasks)))
        yield ctx.when_all(tasks)
        late = yield ctx.when_any(tasks[::-1])
        return [tasks.index(each) for each in (winner, again, late)]

    for cuts in all_cuts(3):
        driver = deliver(main, [TaskCompleted(number) for number in order], cuts, is_cold=is_cold)
        assert driver.output == [order[0] - 1] * 3, cuts
        assert driver.replayed().nondeterminism is None


@pytest.mark.parametrize("is_cold", [False, True])
def test_groups_in_groups_shared_tasks_and_duplicates(is_cold: bool) -> None:  # rule 13, TSK-4
    def main(ctx: Ctx) -> Code:
        a, b, c = (ctx.call_activity(name) for name in "abc")
        done = yield a
        inner = ctx.when_all([a, b])
        outer = ctx.when_all([inner, ctx.when_any([c, b]), b, b, ctx.when_all([])])
        other = ctx.when_any([inner, outer])
        first = yield other
        results = yield outer
        nested = yield ctx.when_all([ctx.when_all([ctx.when_all([a]), b]), a])
        return [done, first is inner, results[0], results[1] is b, results[2:], nested]

    for cuts in all_cuts(3):
        driver = deliver(main, [TaskCompleted(1, "1"), TaskCompleted(2, "2"), TaskCompleted(3, "3")], cuts, is_cold=is_cold)
        assert driver.output == [1, True, [1, 2], True, [2, 2, []], [[[1], 2], 1]], cuts


@pytest.mark.parametrize("is_cold", [False, True])
def test_one_failing_task_in_two_groups_fails_both_and_the_rest_goes_on(is_cold: bool) -> None:  # rules 12, 13
    def main(ctx: Ctx) -> Code:
        bad, good = ctx.call_activity("bad"), ctx.call_activity("good")
        groups = [ctx.when_all([bad, good]), ctx.when_all([good, bad, bad]), ctx.when_all_settled([bad, good, good])]
        said = []
        for group in groups[:2]:
            try:
                yield group
            except Exception as error:  # noqa: BLE001 - whatever it is is compared below
                said.append(str(error))
        settled = yield groups[2]
        return [said, [task.is_failed for task in settled], good.result]

    for cuts in all_cuts(2):
        driver = deliver(main, [TaskFailed(1, BOOM), TaskCompleted(2, "2")], cuts, is_cold=is_cold)
        assert driver.output == [["Activity task #1 failed: boom"] * 2, [True, False, False], 2], cuts


def random_group(ctx: Ctx, random_: random.Random, tasks: list[Task], depth: int) -> Task:
    if depth == 0 or random_.random() < 0.3:
        return random_.choice(tasks)
    members = [random_group(ctx, random_, tasks, depth - 1) for _ in range(random_.randint(1, 4))]
    return random_.choice([ctx.when_all, ctx.when_any, ctx.when_all_settled])(members)


def outcome_of(task: Task) -> Any:
    """A result in which tasks stand for themselves."""
    if task.is_failed:
        return "failed"
    result = task.get_result()
    if isinstance(result, Task):
        return ["winner", outcome_of(result)]
    if isinstance(result, list):
        return [outcome_of(each) if isinstance(each, Task) else "group" if isinstance(each, list) else each for each in result]
    return result


@pytest.mark.parametrize("seed", range(60))
def test_random_groups_end_alike_however_the_events_are_cut(seed: int) -> None:  # rules 12, 13, 14
    random_ = random.Random(seed)
    events = [TaskFailed(number, BOOM) if random_.random() < 0.2 else TaskCompleted(number, str(number)) for number in range(1, 6)]
    random_.shuffle(events)

    def main(ctx: Ctx) -> Code:
        shape = random.Random(seed)
        tasks: list[Task] = [ctx.call_activity("a") for _ in range(5)]
        ended = []
        for _ in range(3):
            group = random_group(ctx, shape, tasks, 3)
            try:
                yield group
            except Exception:  # noqa: BLE001 - that it failed is part of the outcome
                pass
            ended.append(outcome_of(group))
        yield ctx.when_all_settled(tasks)
        return ended

    outcomes = {str(deliver(main, events, cuts, is_cold=is_cold).output) for cuts in all_cuts(5) for is_cold in (False, True)}
    assert len(outcomes) == 1
