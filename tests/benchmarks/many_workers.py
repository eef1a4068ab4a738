"""One worker process against two on a server's database; prints one JSON line for each round.

    python tests/benchmarks/many_workers.py --database postgresql://user@host/name [--activity-ms 20] [--n 300]

All orchestrations, of three activities in sequence, are there before the workers begin: ``flask durable worker``, each with DURABLE_MAX_ACTIVITIES
threads. The time runs from the first activity to the end of the last orchestration. The hub's instances are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from flask import Flask

from flask_durable import FlaskDurable, InstanceFilter, RuntimeStatus

APP = """
from many_workers import make_app

app, durable = make_app()
"""


def make_app() -> tuple[Flask, FlaskDurable]:
    """The app of the workers and of the one that looks on, as the environment says."""
    app = Flask("many", instance_path=os.environ["MANY_FOLDER"])
    app.config.update(DURABLE_DATABASE=os.environ["MANY_DATABASE"], DURABLE_TASK_HUB=os.environ["MANY_HUB"])
    app.config.update(DURABLE_MAX_ACTIVITIES=int(os.environ["MANY_THREADS"]), DURABLE_MANAGEMENT_API=False, DURABLE_WORKER=False)
    durable = FlaskDurable(app)
    pause = float(os.environ["MANY_PAUSE"])

    @durable.activity
    def hello(city: str) -> str:
        time.sleep(pause)
        return f"Hello {city}"

    @durable.orchestrator
    def hello_sequence(ctx: Any) -> Any:
        greetings = []
        for city in ("Tokyo", "Seattle", "London"):
            greetings.append((yield ctx.call_activity(hello, city)))
        return greetings

    return app, durable


def measure(args: argparse.Namespace, workers: int, threads: int) -> dict[str, Any]:
    folder = tempfile.mkdtemp(prefix="many-", dir=os.environ.get("BENCH_DIR"))
    Path(folder, "many_app.py").write_text(APP)
    here = Path(__file__).parent
    os.environ.update(MANY_FOLDER=folder, MANY_DATABASE=args.database, MANY_HUB=f"many-{uuid.uuid4().hex[:8]}", MANY_THREADS=str(threads))
    os.environ.update(MANY_PAUSE=str(args.activity_ms / 1e3), PYTHONPATH=os.pathsep.join([folder, str(here), str(here.parents[1])]))
    _, durable = make_app()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(args.n):
            durable.client.start("hello_sequence")
        command = [sys.executable, "-m", "flask", "--app", "many_app", "durable", "worker"]
        processes = [subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(workers)]
        while durable.client.count(InstanceFilter(statuses=(RuntimeStatus.PENDING,))) == args.n:
            time.sleep(0.002)
        began = time.perf_counter()
        while (left := durable.client.count(InstanceFilter(statuses=(RuntimeStatus.PENDING, RuntimeStatus.RUNNING)))) > 0:
            time.sleep(0.02 if left > 50 else 0.005)
        wall = time.perf_counter() - began
        line = {"peer": "flask_durable", "backend": args.database.partition(":")[0], "workers": workers, "threads": threads, "n": args.n}
        return {**line, "activity_ms": args.activity_ms, "wall_s": round(wall, 3), "workflows_per_s": round(args.n / wall, 1)}
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        durable.client.purge_by(InstanceFilter())
        durable.close()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--activity-ms", type=float, default=20.0)
    parser.add_argument("--threads", type=int, nargs="*", default=[16])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for _ in range(args.rounds):
        for threads in args.threads:
            for workers in (1, 2):
                sys.stdout.write(json.dumps(measure(args, workers, threads)) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
