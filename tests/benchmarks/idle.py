"""What an idle worker costs, and how soon work of another process is taken up; prints one JSON line.

    python tests/benchmarks/idle.py --database sqlite:////tmp/bench.db --seconds 60 --rounds 200

Two processes: this one only starts and looks, the other one has the worker. Statements are counted where they go to the driver, those of
transactions (BEGIN, COMMIT) too, in the process of the worker, over some seconds in which nothing happens and N instances wait for an event.
The latency is the time from the start of an instance to the end of its one turn, as its row says, with random pauses between them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from typing import Any

from flask import Flask

from flask_durable import FlaskDurable


def make(args: argparse.Namespace) -> FlaskDurable:
    """The same app in both processes."""
    app = Flask("bench", instance_path=tempfile.gettempdir())
    app.config.update(TESTING=True, DURABLE_DATABASE=args.database, DURABLE_TASK_HUB=args.hub)
    durable = FlaskDurable(app)
    durable.orchestrator(lambda ctx: None, name="nothing")

    @durable.orchestrator(name="waits")
    def waits(ctx: Any) -> Any:
        return (yield ctx.wait_for_external_event("Go"))

    return durable


class CountingCursor:
    """A cursor that counts what it executes."""

    count = 0

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Any:
        return iter(self._cursor)

    def execute(self, *words: Any) -> Any:
        CountingCursor.count += 1
        return self._cursor.execute(*words)


def tell(line: str) -> None:
    """Say that to whoever has started this process."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def work(args: argparse.Namespace) -> None:
    """The process of the worker: counts between two lines that it is sent."""
    durable = make(args)
    state = durable._state()
    database = state.store._sql.database
    cursor = database.cursor
    database.cursor = lambda *words, **options: CountingCursor(cursor(*words, **options))
    if not args.notify:
        state.store.can_listen = lambda: False  # type: ignore[method-assign]
    durable.start_worker()
    tell("ready")
    for _ in sys.stdin:
        tell(json.dumps([CountingCursor.count, time.process_time(), time.monotonic()]))
    durable.close()


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Both figures."""
    durable = make(args)
    words = [sys.executable, __file__, "--worker", "--database", args.database, "--hub", args.hub, *([] if args.notify else ["--no-notify"])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        latencies = []
        for _ in range(args.rounds):
            time.sleep(random.random() * args.pause)
            instance_id = durable.client.start("nothing")
            status = durable.client.wait_for_completion(instance_id, timeout=60)
            assert status
            assert status.completed_time
            latencies.append((status.completed_time - status.created_time).total_seconds() * 1000)
        for _ in range(args.waiting):
            durable.client.start("waits")
        time.sleep(20)

        def read() -> list[float]:
            process.stdin.write("\n")
            process.stdin.flush()
            return list(json.loads(process.stdout.readline()))

        before = read()
        time.sleep(args.seconds)
        after = read()
        process.stdin.close()
    took = after[2] - before[2]
    result = {
        "database": args.database.partition(":")[0],
        "notify": args.notify,
        "waiting": args.waiting,
        "idle_statements_per_s": round((after[0] - before[0]) / took, 3),
        "idle_cpu_percent": round((after[1] - before[1]) / took * 100, 3),
    }
    if latencies:
        result.update(latency_p50_ms=round(percentile(latencies, 0.5), 1), latency_p99_ms=round(percentile(latencies, 0.99), 1))
    durable.close()
    return result


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", default=f"sqlite:///{tempfile.gettempdir()}/durable-idle-{os.getpid()}.db")
    parser.add_argument("--hub", default=f"idle-{uuid.uuid4().hex[:12]}")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.5, help="longest pause between two starts, in seconds")
    parser.add_argument("--waiting", type=int, default=1000)
    parser.add_argument("--no-notify", dest="notify", action="store_false", help="do as on a database that does not tell of commits")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
    else:
        tell(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
