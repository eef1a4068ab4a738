"""Work that one process makes is told to the workers of others, and found all the same when that is not told."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import finish, run, until

from flask_durable import RuntimeStatus
from flask_durable.errors import StoreUnavailableError
from flask_durable.runtime import wakeups
from flask_durable.runtime.polling import TOLD_SECONDS
from flask_durable.storage.interface import Batch, StartInstance
from flask_durable.storage.wakes import channel_of


@pytest.fixture
def postgres(database_url: str) -> str:
    if not database_url.startswith("postgres"):
        pytest.skip("only PostgreSQL tells of commits")
    return database_url


class Ear:
    """Hears what is told to a hub."""

    def __init__(self, store: Any) -> None:
        self.listening = store.listen()

    def heard(self, until_text: str) -> list[str]:
        """What was told before that text."""
        told: list[str] = []
        deadline = time.monotonic() + 20
        while until_text not in told:
            assert time.monotonic() < deadline
            told += self.listening.wait(1.0)
        return [text for text in told[: told.index(until_text)] if not text.startswith("probe ")]


@pytest.fixture
def ear(durable, postgres) -> Iterator[Callable[[], list[str]]]:
    store = durable._state().store
    own = Ear(store)

    def heard() -> list[str]:
        mark = uuid.uuid4().hex
        store.tell(mark)
        return own.heard(mark)

    yield heard
    own.listening.close()


def waits_long(durable) -> None:
    """Bring the engine's next look by itself as far away as it gets when all has been quiet for a while."""
    worker = durable._state().worker
    until(lambda: worker._sightings.is_told, "the database told of work")
    polling = worker.engine._polling

    def is_far() -> bool:
        polling._pause, polling._next = TOLD_SECONDS, time.monotonic() + TOLD_SECONDS
        time.sleep(0.05)  # a look that was under way would have set another time
        return polling.seconds_left() > 4

    until(is_far, "the next look was far away", 30)


def nothing(durable) -> None:
    durable.orchestrator(lambda ctx: "done", name="nothing")


def test_work_of_another_process_is_told(make_durable, postgres):  # F19
    client, worker = make_durable(), make_durable()
    nothing(client)
    nothing(worker)
    worker.start_worker()
    took = []
    for _ in range(3):
        waits_long(worker)
        began = time.monotonic()
        finish(client, client.client.start("nothing"))
        took.append(time.monotonic() - began)
    assert min(took) < 1.5  # the next look by itself was more than 4 s away, every time


def test_a_message_for_what_another_worker_has_is_told(make_durable, postgres):
    apps = [make_durable(), make_durable()]
    for app in apps:

        @app.orchestrator
        def waits(ctx):
            return (yield ctx.wait_for_external_event("Go"))

        app.start_worker()
    first, second = apps
    took = []
    for _ in range(3):
        instance_id = first.client.start("waits")
        first.client.wait_for_start(instance_id, timeout=20)
        for app in apps:
            waits_long(app)
        began = time.monotonic()
        second.client.raise_event(instance_id, "Go", 7)
        assert finish(second, instance_id).output == 7
        took.append(time.monotonic() - began)
    assert min(took) < 1.5


def test_what_a_stopping_worker_gives_back_is_told(make_durable, postgres, ear):
    durable = make_durable()
    durable.start_worker()
    worker_id = durable._state().worker.worker_id
    durable.stop_worker()
    assert worker_id in ear()


def test_one_worker_alone_tells_nobody_of_its_own_work(durable, ear):
    @durable.activity
    def double(value):
        return value * 2

    @durable.orchestrator
    def child(ctx, value):
        return (yield ctx.call_activity(double, value))

    @durable.orchestrator
    def parent(ctx):
        yield ctx.create_timer(ctx.current_utc_datetime)
        results = yield ctx.when_all([ctx.call_sub_orchestrator(child, number) for number in range(5)])
        return sum(results)

    durable.start_worker()
    assert run(durable, "parent").output == 20
    assert ear() == []


def test_a_commit_tells_once_whatever_it_leaves(durable, ear):
    store = durable._state().store
    store.commit(Batch(commands=[StartInstance(f"i{number}", uuid.uuid4().hex, "nothing") for number in range(20)]))
    assert ear() == [""]
    with store._sql.database.connection_context(), store._sql.database.atomic() as transaction:
        store._channel.tell("undone")
        transaction.rollback()
    assert ear() == []


def test_calls_beyond_the_threads_of_a_worker_are_told(make_durable, ear):
    durable = make_durable(DURABLE_MAX_ACTIVITIES=1)
    gate = threading.Event()
    durable.activity(name="slow")(lambda _number: gate.wait(20))

    @durable.orchestrator
    def main(ctx):
        yield ctx.when_all([ctx.call_activity("slow", number) for number in range(5)])

    durable.start_worker()
    instance_id = durable.client.start(main)
    until(lambda: durable._state().worker.worker_id in ear(), "it told the others")
    gate.set()
    finish(durable, instance_id)


def test_a_place_under_a_limit_of_the_hub_is_told(make_durable, postgres):  # rule 56
    gates = {"first": threading.Event(), "second": threading.Event()}
    apps = [make_durable(DURABLE_WORKER_ACTIVITIES=[name]) for name in ("first", "second")]
    for app in apps:
        for name in gates:
            app.activity(name=name, hub_concurrency=1)(lambda name: gates[name].wait(20))
    store = apps[0]._state().store
    own = Ear(store)
    apps[0].orchestrator(name="main")(lambda ctx, name: (yield ctx.call_activity(name, name)))
    apps[0].start_worker()
    instance_id = apps[0].client.start("main", "first")
    gates["first"].set()
    finish(apps[0], instance_id)
    worker_id = apps[0]._state().worker.worker_id
    store.tell("mark")
    assert worker_id in own.heard("mark")
    own.listening.close()


def test_another_hub_is_not_woken(make_durable, postgres):
    here, there = make_durable(), make_durable(DURABLE_TASK_HUB=f"another-{uuid.uuid4().hex}")
    here.start_worker()
    there.start_worker()
    engines = [app._state().worker.engine for app in (here, there)]
    signs: list[list[float]] = [[], []]
    for engine, seen in zip(engines, signs, strict=True):
        engine._polling.sign = lambda seen=seen: seen.append(time.monotonic())
    until(lambda: all(app._state().worker._sightings.is_told for app in (here, there)))
    for seen in signs:
        seen.clear()
    there._state().store.tell("")
    until(lambda: signs[1])
    assert not signs[0]


def test_a_channel_is_an_identifier_whatever_the_hub_is_called():
    names = {channel_of(hub) for hub in ('it\'s "one"', "it's", "☃" * 500, "", "a", "A")}
    assert len(names) == 6
    assert all(re.fullmatch("[a-z_0-9]{1,62}", name) for name in names)


def test_a_connection_that_is_ended_is_made_anew_and_nothing_is_lost(make_durable, postgres):  # F19
    client, worker = make_durable(), make_durable()
    nothing(worker)
    nothing(client)
    worker.start_worker()
    waits_long(worker)
    heard = worker._state().worker._wakeups
    before = heard.connection_count
    pid = heard._listening._connection.info.backend_pid
    client._state().store._sql.read(lambda: client._state().store._sql.value("SELECT pg_terminate_backend(?)", (pid,)))
    began = time.monotonic()
    finish(client, client.client.start("nothing"))
    assert time.monotonic() - began < TOLD_SECONDS + 5
    until(lambda: heard.connection_count > before and worker._state().worker._sightings.is_told, "it listened again")
    waits_long(worker)
    finish(client, client.client.start("nothing"))


class Deaf:
    """A connection that looks alive and hears nothing."""

    def __init__(self) -> None:
        self.is_interrupted = threading.Event()

    def wait(self, seconds: float) -> list[str]:
        self.is_interrupted.wait(seconds)
        return []

    def interrupt(self) -> None:
        self.is_interrupted.set()

    def close(self) -> None:
        pass


def test_when_every_notification_is_dropped_work_is_found_within_five_seconds(make_durable, postgres):  # F19
    client, worker = make_durable(), make_durable()
    nothing(client)
    nothing(worker)
    worker.start_worker()
    waits_long(worker)
    worker._state().worker._wakeups._hand_on = lambda _told: None  # nothing arrives any more, and nobody knows
    began = time.monotonic()
    status = finish(client, client.client.start("nothing"))
    assert status.runtime_status is RuntimeStatus.COMPLETED
    took = time.monotonic() - began
    assert 1 < took < 7  # the look after 5 s at the latest, on a machine that may be slow


def test_a_connection_that_hears_nothing_is_noticed_and_polling_goes_on(make_durable, postgres, monkeypatch, caplog):  # F19
    monkeypatch.setattr(wakeups, "ANSWER_SECONDS", 0.1)
    durable = make_durable()
    nothing(durable)
    made: list[Deaf] = []

    def deaf() -> Deaf:
        made.append(Deaf())
        return made[-1]

    monkeypatch.setattr(durable._state().store, "listen", deaf)
    durable.start_worker()
    until(lambda: len(made) >= 3, "it tried again and again")
    worker = durable._state().worker
    assert not worker._sightings.is_told
    polling = worker.engine._polling
    until(lambda: polling._pause == 1.0, "it was quiet", 30)
    assert sum("PgBouncer" in record.message for record in caplog.records) == 1
    assert run(durable, "nothing").output == "done"


def test_a_connection_that_falls_silent_is_replaced(make_durable, postgres, monkeypatch):  # F19
    monkeypatch.setattr(wakeups, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(wakeups, "ANSWER_SECONDS", 0.5)
    durable = make_durable()
    durable.start_worker()
    worker = durable._state().worker
    until(lambda: worker._sightings.is_told)
    before = worker._wakeups.connection_count
    worker._wakeups._listening.wait = lambda seconds: Deaf.wait(Deaf(), seconds)
    until(lambda: worker._wakeups.connection_count > before and worker._sightings.is_told, "another one heard")


def test_a_database_that_refuses_to_be_listened_to_is_polled(make_durable, postgres, monkeypatch, caplog):
    durable = make_durable()
    nothing(durable)

    def refuse() -> None:
        raise StoreUnavailableError("no more connections")

    monkeypatch.setattr(durable._state().store, "listen", refuse)
    durable.start_worker()
    until(lambda: "no more connections" in caplog.text)
    assert run(durable, "nothing").output == "done"


def backends_that_listen(store: Any, channel: str) -> int:
    text = "SELECT COUNT(*) FROM pg_stat_activity WHERE query = ?"
    return int(store._sql.read(lambda: store._sql.value(text, (f'LISTEN "{channel}"',))))


def test_a_worker_that_stops_closes_its_connection(make_durable, postgres):
    durable = make_durable()
    durable.start_worker()
    state = durable._state()
    until(lambda: state.worker._sightings.is_told)
    assert backends_that_listen(state.store, state.store._channel.name) == 1
    durable.stop_worker()
    until(lambda: backends_that_listen(state.store, state.store._channel.name) == 0, "it was closed")
    assert not any(thread.name == "durable-listener" for thread in threading.enumerate())


def test_a_child_process_does_not_close_the_connection_of_its_parent(make_durable, postgres):
    durable = make_durable()
    nothing(durable)
    durable.start_worker()
    waits_long(durable)
    pid = os.fork()
    if pid == 0:
        gc.collect()
        os._exit(0 if durable._state().worker is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    worker = durable._state().worker
    before = worker._wakeups.connection_count
    client = make_durable()
    nothing(client)
    waits_long(durable)
    finish(client, client.client.start("nothing"))
    assert worker._wakeups.connection_count == before


def test_only_postgresql_has_a_thread_that_listens(make_durable, database_url):
    durable = make_durable()
    durable.start_worker()
    names = [thread.name for thread in threading.enumerate()]
    assert ("durable-listener" in names) == database_url.startswith("postgres")
