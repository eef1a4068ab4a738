"""Rows that nobody could have written (F14): their instance is set aside with a reason, shown by everything, and can be ended; others go on."""

from __future__ import annotations

import pytest
from support import finish, look, until

pytestmark = pytest.mark.one_process("rows are damaged while no worker runs")
HISTORY = "UPDATE durable_history SET {} WHERE hub = ? AND instance_id = ? AND event_type = '{}'"
INSTANCE = "UPDATE durable_instance SET {} WHERE hub = ? AND instance_id = ?"
DAMAGES = {
    "a result that is cut off": HISTORY.format("payload = '{\"amount\": 1'", "TaskCompleted"),
    "an input that is cut off": HISTORY.format("payload = '[1, '", "ExecutionStarted"),
    "a property that is cut off": HISTORY.format("extra = '{\"instanceId\": '", "ExecutionStarted"),
    "properties of another kind": HISTORY.format("extra = '[1, 2, 3]'", "ExecutionStarted"),
    "an unknown kind of event": HISTORY.format("event_type = 'Frobnicated'", "TaskCompleted"),
    "no history": "DELETE FROM durable_history WHERE hub = ? AND instance_id = ?",
    "a history without its beginning": "DELETE FROM durable_history WHERE hub = ? AND instance_id = ? AND sequence = 1",
    "a history without its middle": "DELETE FROM durable_history WHERE hub = ? AND instance_id = ? AND sequence = 2",
    "a history without its end": "DELETE FROM durable_history WHERE hub = ? AND instance_id = ? AND event_type = 'TaskCompleted'",
    "a status that there is not": INSTANCE.format("status = 'Zombie'"),
    "tags that are cut off": INSTANCE.format("tags = '{\"a\": '"),
    "a trace of another kind": INSTANCE.format("trace = '[1'"),
    "an event that is cut off": "UPDATE durable_message SET payload = '{\"a' WHERE hub = ? AND instance_id = ?",
    "an unknown kind of message": "UPDATE durable_message SET event_type = 'Frobnicated' WHERE hub = ? AND instance_id = ?",
}
ON_SQLITE = {
    "a result with flipped bytes": HISTORY.format("payload = CAST(x'7b22ff80' AS TEXT)", "TaskCompleted"),
    "a name with flipped bytes": HISTORY.format("name = CAST(x'ff80fe' AS TEXT)", "TaskScheduled"),
    "an input with flipped bytes": INSTANCE.format("input = CAST(x'22ff8022' AS TEXT)"),
    "a custom status with flipped bytes": INSTANCE.format("custom_status = CAST(x'22ff8022' AS TEXT)"),
    "tags with flipped bytes": INSTANCE.format("tags = CAST(x'7bff7d' AS TEXT)"),
}


def register(durable):
    @durable.activity
    def charge(amount):
        return {"amount": amount}

    @durable.orchestrator
    def order(ctx, amount):
        receipt = yield ctx.call_activity(charge, amount)
        yield ctx.wait_for_external_event("Go")
        return receipt


@pytest.mark.parametrize("damage", [*DAMAGES, *ON_SQLITE])
def test_a_damaged_instance_is_set_aside_and_stops_no_others(make_durable, hub, damage):  # F14, I13
    first = make_durable(DURABLE_MANAGEMENT_API=True)
    if damage in ON_SQLITE and not first._only.store._sql.is_sqlite:
        pytest.skip("a server refuses such bytes")
    register(first)
    first.start_worker()
    broken, whole = (first.client.start("order", 1, instance_id=name) for name in ("broken", "whole"))
    until(lambda: all(len(first.client.history(each).events) == 3 and look(first, each).runtime_status == "Running" for each in (broken, whole)))
    first.stop_worker()
    first.client.raise_event(broken, "Go", {"a": 1})
    sql = first._only.store._sql
    assert sql.transaction(lambda: sql.run({**DAMAGES, **ON_SQLITE}[damage], (hub, broken)))

    second = make_durable(DURABLE_MANAGEMENT_API=True)
    register(second)
    second.start_worker()
    second.client.raise_event(whole, "Go")
    # Others go on, now and later
    assert finish(second, whole).output == {"amount": 1}

    def is_set_aside():
        found = look(second, broken)
        return found.parked_reason or (found.failure_details and found.failure_details.message) or found.is_finished

    reason = until(is_set_aside, "it was set aside with a reason, or is complete where nobody reads what was damaged any more")
    assert reason
    # Everything shows it
    visitor = second._only._app.test_client()
    prefix = "/runtime/orchestrations"
    for path in (
        f"{prefix}/{broken}",
        f"{prefix}/{broken}?showHistory=true&showHistoryOutput=true&showInput=true",
        prefix,
        f"{prefix}/{broken}/history",
    ):
        answer = visitor.get(path)
        assert answer.status_code == 200, (path, answer.get_data(as_text=True))
    runner = second._only._app.test_cli_runner()
    for words in (["status", broken], ["list"], ["history", broken]):
        result = runner.invoke(args=["durable", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.output)
    # It can be ended and deleted from the command line
    if not look(second, broken).is_finished:
        assert runner.invoke(args=["durable", "terminate", broken]).exit_code == 0
    assert look(second, broken).is_finished
    result = runner.invoke(args=["durable", "purge", broken, "--yes"])
    assert result.exit_code == 0, result.output
    assert second.client.get_status(broken) is None


def test_a_history_shows_what_can_be_read_and_marks_the_rest(make_durable, hub):  # F14
    durable = make_durable(DURABLE_MANAGEMENT_API=True)
    register(durable)
    durable.start_worker()
    durable.client.start("order", 1, instance_id="i")
    until(lambda: len(durable.client.history("i").events) == 3, "it waits for the event")
    durable.client.raise_event("i", "Go")
    assert finish(durable, "i").output == {"amount": 1}
    sql = durable._only.store._sql
    sql.transaction(lambda: sql.run(DAMAGES["an unknown kind of event"], (hub, "i")))
    shown = durable._only._app.test_client().get("/runtime/orchestrations/i/history").json
    assert [each["EventType"] for each in shown] == ["ExecutionStarted", "TaskScheduled", "Unreadable", "EventRaised", "ExecutionCompleted"]
    assert shown[2]["StoredType"] == "Frobnicated"
    assert "Frobnicated" in shown[2]["Problem"]
    printed = durable._only._app.test_cli_runner().invoke(args=["durable", "history", "i"])
    assert printed.exit_code == 0
    assert "Unreadable" in printed.output
    assert "ExecutionCompleted" in printed.output
