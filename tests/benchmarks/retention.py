"""Retention on many ended instances: how many are deleted a second, the longest statement, and how long others wait for a commit.

    python tests/benchmarks/retention.py --n 100000 --keep 20000

Makes N instances that ended long ago, each with a history of five events, some more that stay (children of one that runs), and one with a
history of 50,000 events. Then makes one pass, while another thread commits a small transaction every 20 ms.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from typing import Any

from flask_durable.core.status import RuntimeStatus
from flask_durable.runtime.retention import Retention
from flask_durable.storage.interface import Batch, StartInstance
from flask_durable.storage.sql_store import SqlStore

EVENTS = 5
LONG = 50_000
_INSTANCE = (
    "INSERT INTO durable_instance (hub, instance_id, execution_id, generation, name, status, input, created_at, updated_at, completed_at,"
    " parent_instance_id, sequence, has_started, deliveries) VALUES (?, ?, ?, 0, 'orchestrator', ?, '1', ?, ?, ?, ?, ?, ?, 0)"
)
_EVENT = "INSERT INTO durable_history (hub, instance_id, generation, sequence, at, event_type, payload) VALUES (?, ?, 0, ?, 1, 'EventRaised', '\"some payload\"')"


def fill(store: SqlStore, hub: str, args: argparse.Namespace) -> None:
    """Make the instances."""
    old = store.now() - 86_400_000_000 * 10
    numbers = itertools.count()

    def instance(name: str, status: str, ended: int | None, parent: str | None, events: int) -> tuple[Any, ...]:
        return (hub, name, uuid.uuid4().hex, status, old, old, ended, parent, events, True)

    rows = [instance("parent", "Running", None, None, 0), instance("long", "Completed", old, None, LONG)]
    rows += [instance(uuid.uuid4().hex, "Completed", old + next(numbers), None, EVENTS) for _ in range(args.n)]
    rows += [instance(uuid.uuid4().hex, "Completed", old + next(numbers) * 5 % args.n, "parent", EVENTS) for _ in range(args.keep)]
    rows += [instance(uuid.uuid4().hex, "Failed", old + next(numbers) * 7 % args.n, None, EVENTS) for _ in range(args.keep)]
    events = [(hub, row[1], sequence) for row in rows for sequence in range(1, row[8] + 1)]
    for text, values in ((_INSTANCE, rows), (_EVENT, events)):
        for begin in range(0, len(values), 5000):
            some = values[begin : begin + 5000]
            store._sql.transaction(lambda text=text, some=some: store._sql.run_many(text, some))


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--keep", type=int, default=20_000)
    parser.add_argument("--database")
    args = parser.parse_args()
    hub = f"bench-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore(args.database or f"sqlite:///{folder}/bench.db", hub=hub, timeout=30)
        store.create_tables()
        fill(store, hub, args)
        statements: list[float] = []
        time_statements(store, statements)
        waits: list[float] = []
        is_over = threading.Event()
        other = SqlStore(args.database or f"sqlite:///{folder}/bench.db", hub=hub, timeout=30)
        thread = threading.Thread(target=commit_now_and_then, args=(other, waits, is_over))
        thread.start()
        began, cpu = time.perf_counter(), time.process_time()
        deleted = Retention(store, {RuntimeStatus.COMPLETED: 86_400_000_000}).sweep()
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu
        is_over.set()
        thread.join()
        assert deleted == args.n + 1, deleted
        idle = time.perf_counter()
        assert Retention(store, {RuntimeStatus.COMPLETED: 86_400_000_000}).sweep() == 0
        idle = time.perf_counter() - idle
        waits.sort()
        result = {
            "database": store._sql.database.__class__.__name__,
            "deleted": deleted,
            "seconds": round(seconds, 2),
            "per_second": round(deleted / seconds),
            "cpu_seconds": round(cpu, 2),
            "load": os.getloadavg()[0],
            "longest_statement_ms": round(max(statements) * 1e3, 1),
            "statements": len(statements),
            "other_commits": len(waits),
            "other_commit_p50_ms": round(waits[len(waits) // 2] * 1e3, 1),
            "other_commit_p99_ms": round(waits[int(len(waits) * 0.99)] * 1e3, 1),
            "next_pass_seconds": round(idle, 2),
        }
        sys.stdout.write(json.dumps(result) + "\n")
        if args.database:
            for table in ("durable_instance", "durable_history", "durable_message"):
                store._sql.transaction(lambda table=table: store._sql.run(f"DELETE FROM {table} WHERE hub = ?", (hub,)))
        store.close()
        other.close()


def time_statements(store: SqlStore, seconds: list[float]) -> None:
    """Measure each statement of that store."""
    execute = store._sql.database.execute_sql

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(*arguments, **options)
        finally:
            seconds.append(time.perf_counter() - began)

    store._sql.database.execute_sql = timed


def commit_now_and_then(store: SqlStore, seconds: list[float], is_over: threading.Event) -> None:
    """What the engine does meanwhile."""
    while not is_over.wait(0.02):
        began = time.perf_counter()
        store.commit(Batch(commands=[StartInstance(uuid.uuid4().hex, uuid.uuid4().hex, "orchestrator", is_id_generated=True)]))
        seconds.append(time.perf_counter() - began)


if __name__ == "__main__":
    main()
