from __future__ import annotations

import pytest

from flask_durable.core.actions import describe, is_same, mismatch, open_activities
from flask_durable.core.events import (
    EventRaised,
    EventSent,
    HistoryEvent,
    Recorded,
    SubOrchestrationCreated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
)

from .driver import BOOM

CALLS = [
    TaskScheduled(2, "pay", "1", 1, 2),
    SubOrchestrationCreated(2, "pay", "child", "e2"),
    TimerCreated(2, 5),
    EventSent(2, "other", "pay", "1"),
]


def test_calls_are_described_as_their_author_wrote_them() -> None:  # DET-5, DET-6
    assert [describe(call) for call in [*CALLS, EventRaised("x")]] == [
        "call_activity('pay')", "call_sub_orchestrator('pay', instance_id='child')", "create_timer", "send_event('pay' to 'other')", "EventRaised",
    ]  # fmt: skip


@pytest.mark.parametrize("asked", CALLS)
@pytest.mark.parametrize("recorded", CALLS)
def test_calls_of_different_kinds_are_not_the_same(asked: HistoryEvent, recorded: HistoryEvent) -> None:  # rule 2, DET-5
    assert is_same(asked, recorded) is (asked is recorded)


@pytest.mark.parametrize(
    ("asked", "recorded", "same"),
    [
        (TaskScheduled(2, "pay", "1"), TaskScheduled(2, "pay", "2"), True),
        (TaskScheduled(2, "pay"), TaskScheduled(3, "pay"), False),
        (TaskScheduled(2, "pay"), TaskScheduled(2, "Pay"), False),
        (TimerCreated(2, 5), TimerCreated(2, 6), True),
        (TimerCreated(2, 5), TimerCreated(3, 5), False),
        (SubOrchestrationCreated(2, "a", "x", "e"), SubOrchestrationCreated(2, "a", "x", "e", "1"), True),
        (SubOrchestrationCreated(2, "a", "x", "e"), SubOrchestrationCreated(2, "b", "x", "e"), False),
        (SubOrchestrationCreated(2, "a", "x", "e"), SubOrchestrationCreated(2, "a", "y", "e"), False),
        (EventSent(2, "x", "Go", "1"), EventSent(2, "x", "gO", "2"), True),
        (EventSent(2, "x", "Go"), EventSent(2, "x", "Stop"), False),
        (EventSent(2, "x", "Go"), EventSent(2, "y", "Go"), False),
        (EventSent(2, "x", "Go"), EventSent(1, "x", "Go"), False),
        (EventRaised("x"), EventRaised("x"), False),
    ],
)
def test_calls_are_the_same_by_number_name_and_target(asked: HistoryEvent, recorded: HistoryEvent, same: bool) -> None:  # rule 2, DET-6
    assert is_same(asked, recorded) is same


def test_a_mismatch_says_the_step_both_sides_and_the_likely_causes() -> None:  # rule 2
    error = mismatch(TaskScheduled(4, "pay"), TimerCreated(4, 5))
    assert str(error) == (
        "Non-deterministic orchestrator at step 4: the history says call_activity('pay'), the code asked for create_timer. "
        "Likely causes: the orchestrator's code was changed while this instance was running; it depends on the clock, a random value, "
        "an environment variable or a database; it iterates over a set; the retry policy of a call, or of the activity it calls, was changed. Put back the code that this instance was started with, or branch on ctx.version"
    )
    assert (error.step, error.recorded, error.asked) == (4, "call_activity('pay')", "create_timer")
    removed, added = mismatch(TaskScheduled(4, "pay"), None), mismatch(None, TimerCreated(4, 5))
    assert (removed.step, removed.recorded, removed.asked) == (4, "call_activity('pay')", None)
    assert (added.step, added.recorded, added.asked) == (4, None, "create_timer")


def test_activities_are_open_until_their_outcome_is_recorded() -> None:
    events = [TaskScheduled(1, "a"), TaskScheduled(2, "a"), TaskScheduled(3, "a"), TimerCreated(4, 0), TaskCompleted(1), TaskFailed(3, BOOM)]
    assert open_activities([Recorded(1, 1, event) for event in events]) == {2}
