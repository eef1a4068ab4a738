"""Which wait gets which event (rule 21), on the mailbox alone; test_execution.py has the same through orchestrators."""

from __future__ import annotations

import time
from typing import Any

import pytest

from flask_durable.core.mailbox import NOT_GIVEN, EventTask, Mailbox, TimedEventTask
from flask_durable.core.tasks import CallTask, Completions, TimerTask, when_all, when_all_settled, when_any
from flask_durable.errors import EventTimeoutError, TaskCancelledError

from .driver import event


class Box:
    def __init__(self) -> None:
        self.order = Completions()
        self.mailbox = Mailbox()
        self.cancelled: list[int] = []

    def wait(self, name: str = "go") -> EventTask:
        task = EventTask(self.order, name)
        task._on_cancel = lambda: self.mailbox.forget(task)
        self.mailbox.wait(task)
        return task

    def timed(self, name: str = "go", default: Any = NOT_GIVEN) -> TimedEventTask:
        timer = TimerTask(self.order, 1, 0, lambda: self.cancelled.append(1))
        return TimedEventTask(self.order, self.wait(name), timer, default)

    def call(self) -> CallTask:
        return CallTask(self.order, 1)

    def raised(self, *data: Any, name: str = "go") -> None:
        for each in data:
            self.mailbox.deliver(event(name, each))

    @property
    def kept(self) -> list[str | None]:
        return [each.data for each in self.mailbox.unread()]


@pytest.fixture
def box() -> Box:
    return Box()


def test_events_are_kept_until_somebody_waits_and_served_in_order(box: Box) -> None:  # rule 20, EVT-3
    box.raised(1, 2, 3)
    assert [box.wait().result, box.wait().result, box.kept] == [1, 2, ["3"]]


def test_names_ignore_case_as_unicode_does(box: Box) -> None:  # rule 20, EVT-2
    box.raised(1, name="STRASSE")
    assert box.wait("straße").result == 1
    waiting = box.wait("ΣΊΣΥΦΟΣ")
    box.raised(2, name="σίσυφος")
    assert waiting.result == 2


def test_events_of_other_names_do_not_disturb(box: Box) -> None:
    waiting = box.wait("go")
    box.raised(1, name="stop")
    box.raised(2, name="go")
    assert (waiting.result, box.kept) == (2, ["1"])


def test_the_same_event_twice_is_two_events(box: Box) -> None:  # rule 23
    box.raised(1, 1)
    assert [box.wait().result, box.wait().result, box.wait().is_complete] == [1, 1, False]


@pytest.mark.parametrize("data", [None, 0, False, "", []])
def test_falsy_data_and_none_is_data(box: Box, data: Any) -> None:  # rule 24, EVT-1
    waiting = box.wait()
    box.raised(data)
    assert (waiting.is_complete, waiting.result) == (True, data)


def test_several_waits_in_a_group_are_served_in_the_order_they_were_made(box: Box) -> None:  # rule 21, EVT-4
    waits = [box.wait() for _ in range(3)]
    box.mailbox.yielded(when_all(reversed(waits)))
    box.raised("a", "b", "c", "d")
    assert [wait.result for wait in waits] == ["a", "b", "c"]
    assert box.kept == ['"d"']


def test_a_wait_in_what_is_yielded_now_comes_before_an_older_one_that_was_not_yielded(box: Box) -> None:  # rule 21 (a)
    older, newer = box.wait(), box.wait()
    box.mailbox.yielded(newer)
    box.raised("a", "b")
    assert (newer.result, older.result) == ("a", "b")


def test_a_wait_made_early_gets_its_event_while_something_else_is_yielded(box: Box) -> None:  # rule 21 (b)
    older, newer = box.wait(), box.wait()
    box.mailbox.yielded(box.call())
    box.raised("a", "b", "c")
    assert (older.result, newer.result, box.kept) == ("a", "b", ['"c"'])


def test_a_wait_that_lost_a_race_takes_nothing_until_it_is_yielded_again(box: Box) -> None:  # rule 21
    waiting, other = box.wait(), box.call()
    box.mailbox.yielded(when_any([waiting, other]))
    other.complete(None)
    box.mailbox.yielded(box.call())
    box.raised("a")
    assert (waiting.is_complete, box.kept) == (False, ['"a"'])
    assert box.wait().result == "a"
    box.raised("b")
    box.mailbox.yielded(waiting)
    assert (waiting.result, box.kept) == ("b", [])


def test_a_wait_in_a_race_that_was_over_before_it_was_yielded_has_lost_it_too(box: Box) -> None:  # rule 21
    done = box.call()
    done.complete(None)
    waiting = box.wait()
    box.mailbox.yielded(when_any([done, waiting]))
    box.mailbox.yielded(box.call())
    box.raised("a")
    assert (waiting.is_complete, box.kept) == (False, ['"a"'])


def test_a_wait_that_lost_an_inner_race_lies_dormant_while_the_outer_group_is_yielded(box: Box) -> None:  # rule 21
    waiting, other, last = box.wait(), box.call(), box.call()
    box.mailbox.yielded(when_all([when_any([waiting, other]), last]))
    other.complete(None)
    box.raised("a")
    assert (waiting.is_complete, box.kept) == (False, ['"a"'])


def test_a_wait_in_a_group_that_failed_lies_dormant(box: Box) -> None:  # rule 21
    waiting, other = box.wait(), box.call()
    box.mailbox.yielded(when_all([waiting, other]))
    other.fail(ValueError())
    box.mailbox.yielded(box.call())
    box.raised("a")
    assert (waiting.is_complete, box.kept) == (False, ['"a"'])


def test_a_dormant_wait_leaves_the_event_to_one_never_yielded(box: Box) -> None:  # rule 21
    dormant, other = box.wait(), box.call()
    box.mailbox.yielded(when_any([dormant, other]))
    other.complete(None)
    fresh = box.wait()
    box.mailbox.yielded(box.call())
    box.raised("a")
    assert (dormant.is_complete, fresh.result) == (False, "a")


def test_a_loop_of_event_or_timer_loses_no_event_to_abandoned_waits(box: Box) -> None:  # rule 21
    got = []
    for number in range(50):
        waiting, other = box.wait(), box.call()
        race = when_any([waiting, other])
        box.mailbox.yielded(race)
        if number % 3 == 0:
            box.raised(number)
        else:
            other.complete(None)
            box.mailbox.yielded(box.call())
            if number % 3 == 1:
                box.raised(number)
        if race.result is waiting:
            got.append(waiting.result)
    assert got + [int(each or 0) for each in box.kept] == [number for number in range(50) if number % 3 != 2]


def test_a_group_yielded_again_takes_for_its_open_waits_what_was_kept(box: Box) -> None:  # rule 21
    waits, other = [box.wait(), box.wait()], box.call()
    everything = when_all(waits)
    box.mailbox.yielded(when_any([everything, other]))
    other.complete(None)
    box.mailbox.yielded(box.call())
    box.raised("a")
    box.mailbox.yielded(everything)
    box.raised("b")
    assert everything.result == ["a", "b"]


def test_a_race_yielded_again_takes_one_kept_event_only(box: Box) -> None:  # rule 21
    one, two, other = box.wait("one"), box.wait("two"), box.call()
    box.mailbox.yielded(when_any([one, two, other]))
    other.complete(None)
    box.mailbox.yielded(box.call())
    box.raised("b", name="two")
    box.raised("a", name="one")
    race = when_any([one, two])
    box.mailbox.yielded(race)
    assert (race.result, two.is_complete, box.kept) == (one, False, ['"b"'])


def test_a_cancelled_wait_takes_nothing(box: Box) -> None:  # EVT-4
    fresh, awake, dormant, other = box.wait(), box.wait(), box.wait(), box.call()
    assert fresh.cancel() is True
    box.mailbox.yielded(when_any([dormant, other]))
    other.complete(None)
    assert dormant.cancel() is True
    box.mailbox.yielded(when_any([awake, box.call()]))
    assert awake.cancel() is True
    box.raised("a")
    assert box.kept == ['"a"']
    assert (fresh.is_cancelled, fresh.cancel()) == (True, False)
    with pytest.raises(TaskCancelledError):
        fresh.get_result()


def test_what_nobody_read_is_listed_in_order_of_arrival_whatever_the_name(box: Box) -> None:  # rule 32, CAN-2
    for number, name in enumerate(["b", "a", "B", "c", "a"]):
        box.raised(number, name=name)
    assert box.wait("a").result == 1
    assert [(each.name, each.data) for each in box.mailbox.unread()] == [("b", "0"), ("B", "2"), ("c", "3"), ("a", "4")]


def test_waits_are_found_in_groups_of_all_kinds_at_any_depth(box: Box) -> None:  # rule 21
    waits = [box.wait() for _ in range(3)]
    timed = box.timed()
    box.mailbox.yielded(when_all_settled([when_any([timed, box.call()]), when_all([when_all([waits[2]]), waits[1]]), waits[1]]))
    box.raised("a", "b", "c", "d")
    assert [waits[1].result, waits[2].result, timed.result, waits[0].result] == ["a", "b", "c", "d"]


def test_a_timed_wait_gives_the_event_and_calls_its_timer_off(box: Box) -> None:  # rule 22
    timed = box.timed()
    box.raised({"a": 1})
    assert (timed.result, timed._timer.is_cancelled, box.cancelled) == ({"a": 1}, True, [1])


def test_a_timed_wait_whose_event_is_there_already_calls_its_timer_off_at_once(box: Box) -> None:  # rule 22
    box.raised("a")
    timed = box.timed()
    assert (timed.result, box.cancelled) == ("a", [1])


@pytest.mark.parametrize("default", [None, 0, "late"])
def test_a_timed_wait_gives_its_default_when_the_time_is_over(box: Box, default: Any) -> None:  # rule 22
    timed = box.timed(default=default)
    timed._timer.complete(None)
    box.raised("a")
    assert (timed.is_failed, timed.result, timed._event.is_cancelled, box.kept) == (False, default, True, ['"a"'])


def test_a_timed_wait_without_a_default_raises_when_the_time_is_over(box: Box) -> None:  # rule 22
    timed = box.timed("Go")
    timed._timer.complete(None)
    with pytest.raises(EventTimeoutError, match="^The external event 'Go' did not come in time$") as caught:
        timed.get_result()
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.name == "Go"


def test_a_cancelled_timed_wait_calls_both_off(box: Box) -> None:  # EVT-4, TIM-3
    timed = box.timed()
    assert timed.cancel() is True
    box.raised("a")
    assert (timed.is_cancelled, timed._event.is_cancelled, timed.cancel(), box.cancelled, box.kept) == (True, True, False, [1], ['"a"'])


def test_a_complete_timed_wait_cannot_be_cancelled(box: Box) -> None:  # TIM-3
    timed = box.timed()
    box.raised("a")
    assert (timed.cancel(), timed.is_cancelled, timed.result) == (False, False, "a")


def test_thousands_of_abandoned_waits_cost_nothing(box: Box) -> None:  # rule 21
    started = time.perf_counter()
    for _ in range(20_000):
        waiting, other = box.wait(), box.call()
        box.mailbox.yielded(when_any([waiting, other]))
        other.complete(None)
    box.mailbox.yielded(box.wait())
    box.raised("a")
    assert time.perf_counter() - started < 2
    assert box.kept == []
