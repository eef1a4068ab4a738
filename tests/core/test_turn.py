from __future__ import annotations

from flask_durable.core.events import EventSent, SubOrchestrationCreated, TaskScheduled, TimerCreated
from flask_durable.core.turn import Turn


def test_what_the_code_asks_for_goes_into_the_history_and_to_whoever_does_it() -> None:
    turn = Turn(5)
    activity, timer, child, sent = TaskScheduled(1, "a"), TimerCreated(2, 9), SubOrchestrationCreated(3, "c", "x", "e"), EventSent(4, "y", "Go")
    for event in (activity, timer, child, sent):
        turn.ask(event)
    assert turn == Turn(5, events=[activity, timer, child, sent], activities=[activity], timers=[timer], children=[child], sent_events=[sent])
    assert (turn.status, turn.next_generation, turn.custom_status_changed) == ("Running", None, False)
