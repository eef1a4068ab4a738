"""Workloads W1 to W6 on this package, in one process; prints one JSON line.

    python tests/benchmarks/workloads.py --workload W1 --n 1000

W1 N orchestrations of three activities in sequence, started one by one · W2 one orchestration of one activity at a time · W3 one orchestration
that fans out to N activities · W4 one orchestration of N activities in sequence · W5 starts that are acknowledged and not run · W6 an idle
worker with N orchestrations that wait for an event.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from typing import Any

from flask import Flask

from flask_durable import FlaskDurable

CITIES = ("Tokyo", "Seattle", "London")
MARKS: list[float] = []


def make_app(folder: str, args: argparse.Namespace) -> tuple[Flask, FlaskDurable]:
    """An app with the orchestrators of all workloads."""
    app = Flask("bench", instance_path=folder)
    app.config.update(TESTING=True, DURABLE_DATABASE=args.database or f"sqlite:///{folder}/bench.db", DURABLE_SQLITE_SYNCHRONOUS=args.synchronous)
    app.config.update(DURABLE_MAX_ACTIVITIES=args.threads_activities, DURABLE_CACHE_SIZE=args.cache)
    durable = FlaskDurable(app)
    pause = args.activity_ms / 1e3

    @durable.activity
    def hello(city: Any) -> str:
        if pause:
            time.sleep(pause)
        return f"Hello {city}"

    @durable.orchestrator
    def hello_sequence(ctx: Any) -> Any:
        greetings = []
        for city in CITIES:
            greetings.append((yield ctx.call_activity(hello, city)))
        return greetings

    @durable.orchestrator
    def single(ctx: Any, value: Any) -> Any:
        return (yield ctx.call_activity(hello, value))

    @durable.orchestrator
    def fan_out(ctx: Any, count: int) -> Any:
        results = yield ctx.when_all([ctx.call_activity(hello, index) for index in range(count)])
        return len(results)

    @durable.orchestrator
    def long_sequence(ctx: Any, count: int) -> Any:
        for index in range(count):
            yield ctx.call_activity(hello, index)
            MARKS.append(time.perf_counter())
        return count

    @durable.orchestrator
    def sleeper(ctx: Any) -> Any:
        return (yield ctx.wait_for_external_event("Wake"))

    return app, durable


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def resident_mb() -> float:
    """Memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1048576


def w1(durable: FlaskDurable, n: int, _args: argparse.Namespace) -> dict[str, Any]:
    """Hello sequences, started one by one."""
    began = time.perf_counter()
    ids = [durable.client.start("hello_sequence") for _ in range(n)]
    started = time.perf_counter() - began
    for instance_id in ids:
        status = durable.client.wait_for_completion(instance_id, timeout=120)
        assert status is not None
        assert status.output == ["Hello Tokyo", "Hello Seattle", "Hello London"]
    wall = time.perf_counter() - began
    return {"start_phase_s": round(started, 3), "workflows_per_s": round(n / wall, 1), "activities_per_s": round(3 * n / wall, 1)}


def w2(durable: FlaskDurable, n: int, _args: argparse.Namespace) -> dict[str, Any]:
    """Latency of one at a time."""
    times = []
    for index in range(n):
        began = time.perf_counter()
        durable.client.wait_for_completion(durable.client.start("single", index), timeout=30)
        times.append((time.perf_counter() - began) * 1e3)
    return {"p50_ms": round(statistics.median(times), 3), "p99_ms": round(percentile(times, 0.99), 3)}


def w3(durable: FlaskDurable, n: int, _args: argparse.Namespace) -> dict[str, Any]:
    """Fan-out."""
    began = time.perf_counter()
    status = durable.client.wait_for_completion(durable.client.start("fan_out", n), timeout=300)
    wall = time.perf_counter() - began
    assert status is not None
    assert status.output == n
    return {"activities_per_s": round(n / wall, 1), "ms_per_activity": round(wall * 1e3 / n, 4)}


def w4(durable: FlaskDurable, n: int, _args: argparse.Namespace) -> dict[str, Any]:
    """A long sequence."""
    began = time.perf_counter()
    status = durable.client.wait_for_completion(durable.client.start("long_sequence", n), timeout=300)
    wall = time.perf_counter() - began
    assert status is not None
    assert status.output == n
    steps = [(after - before) * 1e3 for before, after in itertools.pairwise(MARKS)]
    fifth = max(1, len(steps) // 5)
    first, last = statistics.median(steps[:fifth]), statistics.median(steps[-fifth:])
    return {"ms_per_step": round(wall * 1e3 / n, 4), "first_fifth_ms": round(first, 4), "last_fifth_ms": round(last, 4)}


def w5(durable: FlaskDurable, n: int, args: argparse.Namespace) -> dict[str, Any]:
    """Acknowledged starts of instances that are not run: there is nobody who knows their orchestrator."""
    each = n // args.threads
    began = time.perf_counter()
    threads = [threading.Thread(target=lambda: [durable.client.start("nobody_knows_me") for _ in range(each)]) for _ in range(args.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"threads": args.threads, "starts_per_s": round(each * args.threads / (time.perf_counter() - began), 1)}


def w6(durable: FlaskDurable, n: int, args: argparse.Namespace) -> dict[str, Any]:
    """An idle worker with sleepers."""
    threads, memory = threading.active_count(), resident_mb()
    ids = [durable.client.start("sleeper") for _ in range(n)]
    for instance_id in ids[-300:]:
        durable.client.wait_for_start(instance_id, timeout=60)
    grown = resident_mb() - memory
    time.sleep(2)
    cpu = time.process_time()
    time.sleep(args.idle)
    share = 100 * (time.process_time() - cpu) / args.idle
    return {"cpu_percent": round(share, 3), "rss_growth_mb": round(grown, 1), "threads": threading.active_count() - threads}


def backend(args: argparse.Namespace) -> str:
    """Name of the database for the line that is printed."""
    return str(args.database).partition(":")[0] if args.database else f"sqlite-wal-{args.synchronous.lower()}"


WORKLOADS = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W6": w6}


def main() -> None:
    """Run one workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", required=True, choices=sorted(WORKLOADS))
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--threads-activities", type=int, default=16)
    parser.add_argument("--activity-ms", type=float, default=0.0)
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--cache", type=int, default=1000)
    parser.add_argument("--synchronous", default="FULL", choices=["FULL", "NORMAL"])
    parser.add_argument("--database", default=None)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="flask-durable-bench-", dir=os.environ.get("BENCH_DIR"))
    _, durable = make_app(folder, args)
    line: dict[str, Any] = {"peer": "flask_durable", "backend": backend(args), "workload": args.workload, "n": args.n}
    if args.activity_ms:
        line["activity_ms"] = args.activity_ms
    try:
        durable.start_worker()
        durable.client.wait_for_completion(durable.client.start("single", "warm"), timeout=10)
        MARKS.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        figures = WORKLOADS[args.workload](durable, args.n, args)
        line.update(wall_s=round(time.perf_counter() - wall, 3), cpu_s=round(time.process_time() - cpu, 3), **figures)
        line["max_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    finally:
        durable.close()
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
