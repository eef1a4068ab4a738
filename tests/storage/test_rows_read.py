"""What the hot statements read beside 100,000 instances, waiting and ended: counted by the server itself, before and after it has statistics."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest

from flask_durable.core.capabilities import Runnable
from flask_durable.core.events import EventRaised, ExecutionStarted, TaskCompleted, TaskScheduled
from flask_durable.core.status import RuntimeStatus
from flask_durable.storage.interface import (
    ActivityResult,
    Batch,
    ClaimRequest,
    InstanceFilter,
    Order,
    PagePosition,
    Purge,
    RaiseEvent,
    SweepPosition,
    Terminate,
)
from flask_durable.storage.sql_store import SqlStore

SERVERS = [os.environ[name] for name in ("FLASK_DURABLE_TEST_POSTGRES", "FLASK_DURABLE_TEST_MYSQL") if os.environ.get(name)]
COUNT = 100_000
HELD = 20_000
MOST = 1500
"""Rows and index entries that one call may read; a look through a large table reads tens of thousands."""

AFTER_STATISTICS = {*(f"page, {order.value}" for order in Order), "next page", "retention"}
"""PostgreSQL without statistics takes the whole hub for smaller than a page, and sorts it; it makes statistics by itself, within a minute or so."""

TABLES = ("durable_instance", "durable_history", "durable_message", "durable_activity")
DIGITS = "(SELECT 0 AS n " + " ".join(f"UNION ALL SELECT {number}" for number in range(1, 10)) + ")"
NUMBERS = (
    f"(SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n AS n FROM {DIGITS} a, {DIGITS} b, {DIGITS} c, {DIGITS} d, {DIGITS} e) numbers"
)


class Crowd:
    """A database of its own on a server, with many instances, and a worker that looks for something to do."""

    def __init__(self, url: str, make_desk: Any) -> None:
        self.store = SqlStore(url, timeout=60.0)
        self.store.create_tables()
        self.sql = self.store._sql
        self.desk = make_desk(self.store)
        self.other = self.desk.register(lease=3600)
        self.store.renew_worker(self.desk.worker_id, 3600)
        self.load()

    def change(self, text: str) -> None:
        self.sql.transaction(lambda: self.sql.run(text), is_slow=True)

    def load(self) -> None:
        """Half of them wait: for a timer or an event, or for calls of another worker; half have ended."""
        desk = self.desk
        desk.begin("model")
        if self.sql.is_postgresql:
            for table in TABLES:
                self.change(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        now = self.store.now()
        is_waiting, day = f"n < {COUNT // 2}", 86_400_000_000
        name = "CONCAT('i-', LPAD(CAST(n AS CHAR(6)), 6, '0'))"
        self._copy(
            "durable_instance",
            NUMBERS,
            instance_id=name,
            execution_id="CONCAT('e-', CAST(n AS CHAR(6)))",
            status=f"CASE WHEN {is_waiting} THEN 'Running' ELSE 'Completed' END",
            ready_at=f"CASE WHEN n < {COUNT // 4} THEN {now + day} + n ELSE NULL END",
            completed_at=f"CASE WHEN {is_waiting} THEN NULL ELSE {now - day} + n END",
            created_at=f"{now - 2 * day} + n",
            worker_id="NULL",
            name=f"CASE WHEN {is_waiting} THEN m.name ELSE 'ended' END",
        )
        # What is rare is where a page is looked for last, whichever end it begins at
        for column, number in (("name", 1), ("status", 2), ("parked_reason", 3), ("version", 4), ("parent_instance_id", 5)):
            for each in (COUNT // 2 - number, COUNT // 2 + number):
                self.change(f"UPDATE durable_instance SET {column} = 'Failed' WHERE hub = 'default' AND instance_id = 'i-{each:06}'")
        self._copy("durable_history", NUMBERS, where="m.sequence = 1", instance_id=name)
        columns = "hub, instance_id, execution_id, visible_at, event_type, task_id"
        self.change(
            f"INSERT INTO durable_message ({columns}) SELECT 'default', {name}, CONCAT('e-', CAST(n AS CHAR(6))), {now + day} + n, 'TimerFired', 1"
            f" FROM {NUMBERS} WHERE n < {COUNT // 4}"
        )
        self.change(
            "INSERT INTO durable_activity (hub, execution_id, task_id, instance_id, name, attempt, first_task_id, precedence, queued_at, worker_id, deliveries)"
            f" SELECT 'default', CONCAT('e-', CAST(n AS CHAR(6))), 1, {name}, 'step', 1, 1, 0, {now}, '{self.other}', 1"
            f" FROM {NUMBERS} WHERE n >= {COUNT // 4} AND n < {COUNT // 4 + HELD}"
        )

    def _copy(self, table: str, source: str, where: str = "1 = 1", **values: str) -> None:
        rows = self.sql.read(lambda: self.sql.database.get_columns(table))
        names = [column.name for column in rows]
        chosen = ", ".join(values.get(name, f"m.{name}") for name in names)
        self.change(f"INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM {table} m, {source} WHERE m.instance_id = 'model' AND {where}")

    def analyze(self) -> None:
        if self.sql.is_postgresql:
            self.change("ANALYZE")
        else:
            self.sql.read(lambda: self.sql.rows(f"ANALYZE TABLE {', '.join(TABLES)}"))

    def read(self) -> int:
        """Rows and index entries that have been read so far."""
        if self.sql.is_postgresql:
            self.sql.read(lambda: self.sql.value("SELECT 1 FROM pg_stat_force_next_flush()"))
            text = (
                f"SELECT (SELECT SUM(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN {TABLES}) + (SELECT SUM(idx_tup_read) FROM pg_stat_user_indexes"
                f" WHERE relname IN {TABLES})"
            )
            return int(self.sql.read(lambda: self.sql.value(text)))
        names = "('Handler_read_rnd_next', 'Handler_read_next', 'Handler_read_prev', 'Handler_read_key')"
        return sum(int(row[1]) for row in self.sql.read(lambda: self.sql.rows(f"SHOW SESSION STATUS WHERE Variable_name IN {names}")))

    def cost(self, call) -> int:
        """How much a call reads."""
        before = self.read()
        call()
        return self.read() - before


@pytest.fixture(scope="module", params=SERVERS or [None], ids=lambda url: str(url).partition(":")[0])
def crowd(request, make_desk):
    url = request.param
    if url is None:
        pytest.skip("a server counts the rows that it reads; SQLite tells its plans: test_plans.py")
    name = f"crowd_{uuid.uuid4().hex[:12]}"
    server = SqlStore(url)._sql
    server.read(lambda: server.run(f"CREATE DATABASE {name}"))
    made = Crowd(f"{url.rpartition('/')[0]}/{name}", make_desk)
    yield made
    made.store.close()
    with contextlib.suppress(Exception):
        server.read(lambda: server.run(f"DROP DATABASE {name}" + (" WITH (FORCE)" if server.is_postgresql else "")))
    server.database.close_all()


RUNNABLE = Runnable(("another", "orchestrator"), {"another": "10011"}, ("", "10012"))
CLAIM = ClaimRequest(instances=10, activities=10, runnable=RUNNABLE, activity_names=("step",))


def calls(crowd):
    """The hot calls of a worker and of clients, by name."""
    store, desk = crowd.store, crowd.desk
    worker_id, now = desk.worker_id, store.now()
    middle = f"i-{COUNT // 3:06}"

    def whole_life():
        instance_id = desk.start()
        record = desk.claim_one(instance_id)
        desk.turn(record, ExecutionStarted(record.name, instance_id, record.execution_id), TaskScheduled(1, "step"))
        item = desk.claim(request=CLAIM).activities[0]
        store.is_activity_current(item.execution_id, item.task_id)
        store.commit(Batch(worker_id=worker_id, results=[ActivityResult(item, TaskCompleted(1, "1"))]))
        desk.end(instance_id)
        assert desk.get(instance_id).status is RuntimeStatus.COMPLETED
        desk.do(Purge(instance_id))

    def many_turns():
        for count in (8, 24):
            started = {desk.start() for _ in range(count)}
            found = desk.claim(request=replace(CLAIM, instances=2 * count)).orchestrations
            claimed = [work for work in found if work.record.instance_id in started]
            commits = [
                desk.commit_of(
                    work.record, ExecutionStarted("x", work.record.instance_id, work.record.execution_id), TaskScheduled(1, "step"), keep=True
                )
                for work in claimed
            ]
            assert len(claimed) == count
            assert store.commit(Batch(worker_id=worker_id, turns=commits)).conflicts == []
            for work in claimed:
                desk.do(Terminate(work.record.instance_id))

    def event():
        desk.do(RaiseEvent(middle, "Go", "1"))
        assert store.peek(worker_id, CLAIM).is_ready
        record = desk.claim_one(middle)
        desk.turn(record, EventRaised("Go", "1"))

    def timer():
        desk.sql("UPDATE durable_instance SET ready_at = 1 WHERE hub = 'default' AND instance_id = 'i-000007'")
        desk.sql("UPDATE durable_message SET visible_at = 1 WHERE hub = 'default' AND instance_id = 'i-000007'")
        assert store.peek(worker_id, CLAIM).is_ready
        desk.turn(desk.claim_one("i-000007"), EventRaised("Go", "1"))

    page, position = InstanceFilter(), PagePosition(now - 86_400_000_000, middle)
    return {
        "peek": lambda: store.peek(worker_id, CLAIM),
        "claim": lambda: store.commit(Batch(worker_id=worker_id, claim=CLAIM)),
        "whole life": whole_life,
        "many turns": many_turns,
        "event": event,
        "timer": timer,
        "status": lambda: (store.get_instance(middle), store.load_history(middle, 0), store.history_page(middle, 0, after=0, limit=10)),
        "terminate": lambda: desk.do(Terminate(f"i-{COUNT // 8:06}")),
        **{f"page, {order.value}": lambda order=order: store.list_instances(page, limit=50, after=None, order=order) for order in Order},
        "next page": lambda: store.list_instances(page, limit=50, after=position, order=Order.NEWEST_FIRST),
        "page of a status": lambda: store.list_ids(
            InstanceFilter(statuses=(RuntimeStatus.FAILED,)), limit=50, after=position, order=Order.NEWEST_FIRST
        ),
        "heartbeat": lambda: store.renew_worker(worker_id, 3600),
        "reap": lambda: store.reap_workers(worker_id, 5),
        "strays": lambda: store.unclaimable([RUNNABLE, RUNNABLE], ("", "10012"), now, 10),
        "stray calls": lambda: store.unclaimable_activities(["step"], now),
        "retention": lambda: store.sweep({RuntimeStatus.COMPLETED: now - 86_400_000_000 + COUNT // 2 + 20}, after=None, limit=100),
        "retention goes on": lambda: store.sweep({RuntimeStatus.FAILED: now}, after=SweepPosition(now - 86_400_000_000 + COUNT // 2, "x"), limit=100),
    }


HALF = COUNT // 2
FILTERS = {
    "name": {"name": "ended"},
    "rare name": {"name": "Failed"},
    "no such name": {"name": "nobody"},
    "status": {"statuses": (RuntimeStatus.RUNNING,)},
    "rare status": {"statuses": (RuntimeStatus.FAILED,)},
    "statuses": {"statuses": (RuntimeStatus.RUNNING, RuntimeStatus.COMPLETED, RuntimeStatus.FAILED)},
    "live statuses": {"statuses": (RuntimeStatus.RUNNING, RuntimeStatus.PENDING)},
    "name and status": {"name": "ended", "statuses": (RuntimeStatus.COMPLETED,)},
    "name and status that do not meet": {"name": "ended", "statuses": (RuntimeStatus.RUNNING, RuntimeStatus.TERMINATED)},
    "name and rare status": {"name": "ended", "statuses": (RuntimeStatus.FAILED,)},
    "parked": {"is_parked": True},
    "version": {"version": "Failed"},
    "version and name": {"version": "Failed", "name": "ended"},
    "any version": {"has_version": True},
    "parent": {"parent_instance_id": "Failed"},
    "no such parent": {"parent_instance_id": "nobody"},
    "roots": {"is_root": True},
    "children": {"is_root": False},
    "rare prefix": {"id_prefix": f"i-{HALF // 100:04}"},
    "no such prefix": {"id_prefix": "zz"},
    "prefix and name": {"id_prefix": "zz", "name": "ended"},
}
MOST_OF_A_PAGE = 5000
"""A page looks first whether few fulfil some part of its filter, and then reads those or walks."""


def test_no_page_looks_through_the_hub(crowd):
    crowd.analyze()
    store, now = crowd.store, crowd.store.now()
    positions = {order: PagePosition(now - (1 if order.is_by_completion else 2) * 86_400_000_000 + COUNT * 3 // 4, "x") for order in Order}
    dear = {}
    for (name, values), order, position in itertools.product(FILTERS.items(), Order, (None, positions)):
        if name == "roots" and order.is_by_completion:
            continue  # found at once, as nearly all are; how far that is depends on the others
        after = None if position is None else position[order]
        cost = crowd.cost(
            lambda values=values, after=after, order=order: store.list_instances(InstanceFilter(**values), limit=50, after=after, order=order)
        )
        if cost > MOST_OF_A_PAGE:
            dear[name, order.value, "first" if after is None else "later"] = cost
    assert not dear


def test_no_hot_call_looks_through_what_waits_or_has_ended(crowd):
    began = time.monotonic()
    for with_statistics in (False, True):
        if with_statistics:
            crowd.analyze()
        costs = {name: crowd.cost(call) for name, call in calls(crowd).items()}
        dear = {name: cost for name, cost in costs.items() if cost > MOST and (with_statistics or name not in AFTER_STATISTICS)}
        assert not dear, f"{'with' if with_statistics else 'without'} statistics: {dear} of {costs}"
    assert time.monotonic() - began < 60
    # The count sees what it should
    assert crowd.cost(lambda: crowd.store.count_instances(InstanceFilter(is_parked=False))) > COUNT / 2
