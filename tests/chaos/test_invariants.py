"""The checker itself: it finds nothing in a sound database, on every backend, and each of many breaks made by hand."""

from __future__ import annotations

import json
import random
import shutil

import chaos_app
import invariants
import pytest
from invariants import Commit, check_accepted, check_effects, check_events, check_fencing, check_resources
from reading import Reader, check_rendering
from support import until


def fill(folder, url, monkeypatch):
    """A database with instances in all situations, and an app on it without a worker."""
    monkeypatch.setenv("CHAOS_FOLDER", str(folder))
    app, durable = chaos_app.make_app(str(folder), url, TESTING=True, DURABLE_POLL_INTERVAL=0.05)
    client = durable.client
    durable.start_worker()
    client.start("Chain", {"steps": 2, "seconds": 0}, instance_id="chain")
    client.start("Mixed", {"steps": [["work", 0], ["again"], ["work", 0], ["child", [["work", 0]]]]}, instance_id="ended")
    client.start("Mixed", {"steps": [["work", 0], ["event"], ["event"]]}, instance_id="waiting")
    client.start("Mixed", {"steps": [["timer", 3600]]}, instance_id="asleep")
    client.start("Mixed", {"steps": [["work", 0], ["child", [["event"]]]]}, instance_id="parent")
    client.start("Await", None, instance_id="held")
    client.start("Await", None, instance_id="stopped")
    client.start("Fan", {"steps": 3, "seconds": "x"}, instance_id="failed")
    for instance_id, status in (("chain", "Completed"), ("ended", "Completed"), ("failed", "Failed")):
        assert client.wait_for_completion(instance_id, timeout=30).runtime_status == status
    for number in range(2):
        client.raise_event("waiting", "Other", number)
    client.suspend("held")
    client.raise_event("held", "Go", "kept")
    client.terminate("stopped", "enough")
    reader = Reader(url)
    until(lambda: reader.rows("SELECT 1 FROM durable_history WHERE instance_id = 'waiting' AND payload = '1'"), "the events were read", 30)
    until(
        lambda: reader.rows("SELECT 1 FROM durable_history WHERE instance_id = 'parent' AND event_type = 'SubOrchestrationCreated'"), "all wait", 30
    )
    until(lambda: reader.rows("SELECT 1 FROM durable_message WHERE instance_id = 'asleep'"), "all wait", 30)
    until(lambda: not reader.rows("SELECT 1 FROM durable_instance WHERE status = 'Pending'"), "all have begun", 30)
    durable.stop_worker()
    client.start("Chain", {"steps": 1, "seconds": 0}, instance_id="pending")
    return app, durable, reader


def execution_of(record):
    from chaos_harness import Chaos

    return Chaos.execution_of(None, record)


def violations_of(reader):
    return invariants.check(reader.state(), execution_of)


def test_nothing_is_found_in_a_sound_database(tmp_path, backend_url, monkeypatch):
    app, durable, reader = fill(tmp_path, backend_url, monkeypatch)
    state = reader.state()
    assert set(state.instances) >= {"chain", "ended", "waiting", "asleep", "parent", "held", "stopped", "failed", "pending"}
    assert len(state.histories["waiting"]) == 5
    assert invariants.check(state, execution_of) == []
    assert check_rendering(app.test_client(), state) == []
    raised = {"waiting": [("Other", "0"), ("Other", "1")], "held": [("Go", '"kept"')]}
    assert check_events(state, raised) == []
    assert check_accepted(state, ["chain", "pending"]) == []
    durable.close()
    reader.close()


HISTORY = "INSERT INTO durable_history (hub, instance_id, generation, sequence, at, event_type, task_id, payload, extra) SELECT hub, instance_id, generation"
BREAKS = {
    "a history goes on after its end": ("I2", f"{HISTORY}, 99, at, 'EventRaised', NULL, '1', NULL FROM durable_history WHERE instance_id = 'chain' AND sequence = 1"),
    "an end is missing": ("I2", "DELETE FROM durable_history WHERE instance_id = 'chain' AND event_type = 'ExecutionCompleted'"),
    "an end twice": ("I2", f"{HISTORY}, 99, at, event_type, NULL, payload, extra FROM durable_history WHERE instance_id = 'chain' AND event_type = 'ExecutionCompleted'"),
    "an output that is not recorded": ("I2", "UPDATE durable_instance SET output = '[]' WHERE instance_id = 'chain'"),
    "an end that is due": ("I2", "UPDATE durable_instance SET ready_at = 1 WHERE instance_id = 'chain'"),
    "an end without its time": ("I2", "UPDATE durable_instance SET completed_at = NULL WHERE instance_id = 'chain'"),
    "a gap": ("I3", "DELETE FROM durable_history WHERE instance_id = 'chain' AND sequence = 3"),
    "a first event that is missing": ("I3", "DELETE FROM durable_history WHERE instance_id = 'waiting' AND sequence = 1"),
    "a tail that is missing": ("I3", "DELETE FROM durable_history WHERE instance_id = 'waiting' AND sequence = 5"),
    "a row that counts wrong": ("I3", "UPDATE durable_instance SET sequence = sequence + 1 WHERE instance_id = 'waiting'"),
    "two outcomes of a call": ("I4", f"{HISTORY}, 6, at + 1, event_type, task_id, payload, extra FROM durable_history WHERE instance_id = 'waiting' AND event_type = 'TaskCompleted'"),
    "an outcome of no call": ("I4", "UPDATE durable_history SET task_id = 77 WHERE instance_id = 'waiting' AND event_type = 'TaskCompleted'"),
    "an outcome of another kind": ("I4", "UPDATE durable_history SET event_type = 'SubOrchestrationCompleted' WHERE instance_id = 'waiting' AND event_type = 'TaskCompleted'"),
    "a call that is done and queued": (
        "I4",
        "INSERT INTO durable_activity (hub, execution_id, task_id, instance_id, name, attempt, first_task_id, queued_at, deliveries)"
        " SELECT hub, execution_id, 1, instance_id, 'work', 1, 1, 1, 0 FROM durable_instance WHERE instance_id = 'waiting'",
    ),
    "a second outcome in the inbox": (
        "I4",
        "INSERT INTO durable_message (hub, instance_id, execution_id, visible_at, event_type, task_id, payload)"
        " SELECT hub, instance_id, execution_id, 1, 'TaskCompleted', 1, '1' FROM durable_instance WHERE instance_id = 'waiting'",
    ),
    "a call of another name": ("I5", "UPDATE durable_history SET name = 'flaky' WHERE instance_id = 'waiting' AND event_type = 'TaskScheduled'"),
    "a result that leads elsewhere": ("I5", "UPDATE durable_history SET payload = '\"other\"' WHERE instance_id = 'chain' AND event_type = 'TaskCompleted' AND task_id = 1"),
    "an input that leads elsewhere": ("I5", "UPDATE durable_history SET payload = '{\"steps\": [[\"event\"]]}' WHERE instance_id = 'waiting' AND sequence = 1"),
    "a start that is never due": ("I6", "UPDATE durable_instance SET ready_at = NULL WHERE instance_id = 'pending'"),
    "a timer that is gone": ("I6", "DELETE FROM durable_message WHERE instance_id = 'asleep'"),
    "a message that wakes nobody": ("I6", "UPDATE durable_instance SET ready_at = NULL WHERE instance_id = 'asleep'"),
    "a child that is gone": ("I6", "DELETE FROM durable_instance WHERE parent_instance_id = 'parent'"),
    "a call that is gone": (
        "I6", f"{HISTORY}, 6, at + 1, 'TaskScheduled', 9, payload, NULL FROM durable_history WHERE instance_id = 'waiting' AND sequence = 1"
    ),
    "a message to nobody": ("I6", "UPDATE durable_message SET instance_id = 'nobody' WHERE instance_id = 'held'"),
    "a message to an ended one": ("I6", "UPDATE durable_message SET instance_id = 'chain' WHERE instance_id = 'held'"),
    "a generation that is over": ("I6", f"{HISTORY} + 1, 1, at, event_type, task_id, payload, extra FROM durable_history WHERE instance_id = 'chain' AND sequence = 1"),
    "an instance held by the dead": ("I7", "UPDATE durable_instance SET worker_id = 'dead' WHERE instance_id = 'waiting'"),
    "a child that its parent did not call": ("I11", "UPDATE durable_instance SET parent_task_id = 44 WHERE parent_instance_id = 'parent'"),
    "a child that has ended unnoticed": (
        "I11", "UPDATE durable_instance SET status = 'Completed', completed_at = 1, ready_at = NULL WHERE parent_instance_id = 'parent'"
    ),
    "a parent that was told something else": (
        "I11",
        "INSERT INTO durable_message (hub, instance_id, execution_id, visible_at, event_type, task_id, payload)"
        " SELECT hub, instance_id, execution_id, 1, 'SubOrchestrationCompleted', 2, '1' FROM durable_instance WHERE instance_id = 'parent'",
    ),
    "an event of no known kind": ("I13", "UPDATE durable_history SET event_type = 'Nonsense' WHERE instance_id = 'chain' AND sequence = 2"),
    "an instance of no known status": ("I13", "UPDATE durable_instance SET status = 'Nonsense' WHERE instance_id = 'chain'"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _, durable, reader = fill(folder, f"sqlite:///{folder}/durable.db", monkeypatch)
    durable.close()
    assert violations_of(reader) == []
    return folder / "durable.db"


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_found(sound, tmp_path, name):
    invariant, statement = BREAKS[name]
    shutil.copy(sound, tmp_path / "durable.db")
    reader = Reader(f"sqlite:///{tmp_path}/durable.db")
    reader.change(statement)
    found = violations_of(reader)
    assert invariant in {violation.invariant for violation in found}, found


def test_a_start_that_is_lost_is_found(sound):
    state = Reader(f"sqlite:///{sound}").state()
    assert [each.invariant for each in check_accepted(state, ["chain", "lost"])] == ["I1"]
    assert check_accepted(state, ["chain", "purged"], deleted=["purged"]) == []


@pytest.mark.parametrize(
    ("invariant", "raised"),
    [
        ("I1", [("Other", "0"), ("Other", "1"), ("Other", "2")]),
        ("I8", [("Other", "1"), ("Other", "0")]),
        ("I8", [("Other", "0")]),
    ],
    ids=["lost", "out of order", "never raised"],
)
def test_an_event_that_is_wrong_is_found(sound, invariant, raised):
    state = Reader(f"sqlite:///{sound}").state()
    assert {each.invariant for each in check_events(state, {"waiting": raised})} == {invariant}


def test_an_event_that_came_twice_is_found(sound):
    state = Reader(f"sqlite:///{sound}").state()
    state.messages["waiting"] = [invariants.InboxRow(None, 1, state.histories["waiting"][-1].event)]
    assert {each.invariant for each in check_events(state, {"waiting": [("Other", "0"), ("Other", "1")]})} == {"I8"}
    assert check_events(Reader(f"sqlite:///{sound}").state(), {"waiting": [("Other", "0")]}, maybe={"waiting": ["1"]}) == []


def test_a_late_commit_is_found():
    reaped = {"old": 5.0}
    assert check_fencing([Commit("old", 1, 2, "landed"), Commit("old", 6, 7, "refused"), Commit("new", 6, 7, "landed")], reaped) == []
    assert [each.invariant for each in check_fencing([Commit("old", 6, 7, "landed")], reaped)] == ["I7"]


@pytest.mark.parametrize(
    ("effects", "count"),
    [({("e", 1): 1}, 0), ({("e", 1): 2}, 1), ({}, 1), ({("e", 1): 1, ("e", 2): 1}, 1)],
    ids=["exact", "doubled", "lost", "orphan"],
)
def test_a_transactional_effect_that_is_wrong_is_found(effects, count):
    assert [each.invariant for each in check_effects(effects, [("e", 1)])] == ["I10"] * count


def test_a_leak_is_found():
    before = {"threads": 5, "descriptors": 20}
    assert check_resources(before, {"threads": 5, "descriptors": 19}) == []
    assert [each.instance_id for each in check_resources(before, {"threads": 6, "descriptors": 21}, {"descriptors": 1})] == ["threads"]


def test_what_the_api_cannot_show_is_found(sound, tmp_path):
    shutil.copy(sound, tmp_path / "durable.db")
    app, durable = chaos_app.make_app(str(tmp_path), TESTING=True)
    state = Reader(f"sqlite:///{tmp_path}/durable.db").state()
    assert check_rendering(app.test_client(), state) == []
    durable.client.purge("chain")
    assert {each.invariant for each in check_rendering(app.test_client(), state)} == {"I13"}
    durable.close()


def test_random_programs_say_how_many_effects_they_have():
    for seed in range(200):
        order = {"steps": chaos_app.random_steps(random.Random(seed), 0.0)}
        assert json.loads(json.dumps(order)) == order
        assert chaos_app.effects_of("Mixed", order) >= 0
