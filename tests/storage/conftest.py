"""Stores on every database, short ways to write batches, and damage done by hand."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_durable.core.events import ExecutionCompleted, ExecutionStarted, HistoryEvent, TaskScheduled
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.turn import Turn
from flask_durable.storage.interface import Batch, ClaimRequest, Command, Committed, InstanceRecord, Outcome, StartInstance, TurnCommit
from flask_durable.storage.sql_store import SqlStore

ALL = ClaimRequest(instances=100, activities=100)

HOLDER = textwrap.dedent(
    """
    import sys
    from flask_durable.storage.interface import Batch, ClaimRequest
    from flask_durable.storage.sql_store import SqlStore
    store = SqlStore(sys.argv[1])
    store.register_worker(sys.argv[2], 3600)
    claimed = store.commit(Batch(worker_id=sys.argv[2], claim=ClaimRequest(instances=10)))
    print(len(claimed.orchestrations), flush=True)
    sys.stdin.read()
    """
)


class FakeClock:
    """Time that stands still until a test moves it; only SQLite takes its time from here."""

    def __init__(self) -> None:
        self.micros = 1_700_000_000_000_000

    def now(self) -> int:
        self.micros += 1  # no two readings are the same
        return self.micros

    def monotonic(self) -> float:
        return self.micros / 1e6

    def forward(self, seconds: float) -> None:
        self.micros += round(seconds * 1e6)


class Desk:
    """A store with one registered worker, and what tests do with them."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.worker_id = self.register()
        self._numbers = itertools.count(1)

    def register(self, lease: float = 60.0) -> str:
        worker_id = uuid.uuid4().hex
        self.store.register_worker(worker_id, lease)
        return worker_id

    def do(self, command: Command, worker_id: str | None = None) -> Outcome:
        """Commit one command."""
        return self.store.commit(Batch(worker_id=worker_id, commands=[command])).outcomes[0]

    def start(self, instance_id: str | None = None, **options: Any) -> str:
        instance_id = instance_id or f"i-{next(self._numbers):03}"
        outcome = self.do(StartInstance(instance_id, uuid.uuid4().hex, options.pop("name", "orchestrator"), **options))
        assert outcome == instance_id
        return instance_id

    def claim(self, worker_id: str | None = None, request: ClaimRequest = ALL) -> Committed:
        return self.store.commit(Batch(worker_id=worker_id or self.worker_id, claim=request))

    def claim_one(self, instance_id: str, worker_id: str | None = None) -> InstanceRecord:
        found = [work.record for work in self.claim(worker_id).orchestrations if work.record.instance_id == instance_id]
        assert len(found) == 1
        return found[0]

    def turn(self, record: InstanceRecord, *events: HistoryEvent, worker_id: str | None = None, **options: Any) -> Committed:
        """Commit a turn with these events; keyword arguments of TurnCommit."""
        return self.store.commit(Batch(worker_id=worker_id or self.worker_id, turns=[self.commit_of(record, *events, **options)]))

    def commit_of(self, record: InstanceRecord, *events: HistoryEvent, **options: Any) -> TurnCommit:
        turn = Turn(self.store.now(), list(events))
        turn.activities = [event for event in events if isinstance(event, TaskScheduled)]
        turn.open_activities = len(turn.activities)
        for event in events:
            if isinstance(event, ExecutionCompleted):
                turn.status, turn.output, turn.failure = event.status, event.output, event.failure
        return TurnCommit(record, record.sequence, turn, **options)

    def begin(self, instance_id: str | None = None, *events: HistoryEvent, **options: Any) -> InstanceRecord:
        """An instance that has had its first turn; the record as it is then."""
        instance_id = self.start(instance_id)
        record = self.claim_one(instance_id)
        first = ExecutionStarted(record.name, record.instance_id, record.execution_id)
        committed = self.turn(record, first, *events, **options)
        assert committed.conflicts == []
        return self.get(instance_id)

    def end(self, instance_id: str, output: str | None = None) -> None:
        """Bring an instance that nobody runs to its end."""
        record = self.claim_one(instance_id)
        self.turn(record, ExecutionCompleted(RuntimeStatus.COMPLETED, output))

    def get(self, instance_id: str) -> InstanceRecord:
        record = self.store.get_instance(instance_id)
        assert record is not None
        return record

    def sql(self, text: str, *parameters: Any) -> int:
        """What the store would never write."""
        return self.store._sql.transaction(lambda: self.store._sql.run(text, parameters))

    def rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.store._sql.read(lambda: self.store._sql.rows(text, parameters))


@pytest.fixture(scope="session")
def make_desk() -> type[Desk]:
    """Makes desks at stores of a test's own."""
    return Desk


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_store(database_url: str, hub: str) -> Iterator[Callable[..., SqlStore]]:
    made: list[SqlStore] = []

    def make(**options: Any) -> SqlStore:
        made.append(SqlStore(database_url, hub=options.pop("hub", hub), **{"timeout": 5.0, **options}))
        made[-1].create_tables()
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: Callable[..., SqlStore]) -> SqlStore:
    return make_store()


@pytest.fixture
def desk(store: SqlStore) -> Desk:
    return Desk(store)


@pytest.fixture
def timed_desk(make_store: Callable[..., SqlStore], clock: FakeClock, database_url: str) -> Desk:
    """A desk whose time a test moves; on SQLite only."""
    if not database_url.startswith("sqlite"):
        pytest.skip("a server has its own clock")
    return Desk(make_store(clock=clock))


@pytest.fixture
def hold(database_url: str, hub: str) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process with a worker of that id, which claims the only instance."""
    processes: list[subprocess.Popen[str]] = []

    def start(worker_id: str) -> subprocess.Popen[str]:
        script = HOLDER.replace("SqlStore(sys.argv[1])", f"SqlStore(sys.argv[1], hub={hub!r})")
        process = subprocess.Popen([sys.executable, "-c", script, database_url, worker_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "1"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def plans(desk, database_url, monkeypatch):
    """Runs something and returns the plans of the statements that it ran."""
    if not database_url.startswith("sqlite"):
        pytest.skip("only SQLite tells its plan without statistics of a large table")
    sql = desk.store._sql
    seen = []
    for method in ("rows", "row"):
        original = getattr(sql, method)

        def spy(text, parameters=(), original=original):
            seen.append((text, parameters))
            return original(text, parameters)

        monkeypatch.setattr(sql, method, spy)

    def explain(call):
        seen.clear()
        call()
        statements = list(seen)
        assert statements
        return {
            text: [row[3] for row in desk.rows(f"EXPLAIN QUERY PLAN {text}", *parameters)]
            for text, parameters in statements
            if text.startswith("SELECT")
        }

    return explain


@pytest.fixture
def empty_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """URL of a database of its own; on a server it is made for the test and deleted afterwards."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/old.db"
        return
    name = f"durable_{uuid.uuid4().hex[:12]}"
    administer(database_url, f"CREATE DATABASE {name}")
    yield database_url.rpartition("/")[0] + f"/{name}"
    administer(database_url, f"DROP DATABASE {name}" + (" WITH (FORCE)" if database_url.startswith("postgres") else ""))


def administer(url: str, statement: str) -> None:
    """Run what no transaction may hold."""
    if url.startswith("postgres"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)
        return
    server = SqlStore(url)
    with server.connection():
        server._sql.database.execute_sql(statement)
    server.close()
