"""A large hub over HTTP: pages of the list, starts and statuses while the worker runs, beside many finished and waiting instances; one JSON line.

    python tests/benchmarks/large.py --finished 100000 --waiting 100000 [--database postgresql://…]

The database must have no durable tables, or those of a hub that may be thrown away: all its instances are deleted at the end.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from workloads import percentile

from flask_durable import FlaskDurable
from flask_durable.core.status import RuntimeStatus

PREFIX = "/runtime/orchestrations"
APP = """
from flask import Flask
from large import make_app

app, durable = make_app({database!r}, {hub!r}, {folder!r})
"""
STEP = 1000
DIGITS = " UNION ALL ".join(f"SELECT {number} AS d" for number in range(10))


def make_app(database: str, hub: str, folder: str) -> tuple[Flask, FlaskDurable]:
    """The app that the server runs and that fills the database."""
    app = Flask("large", instance_path=folder)
    app.config.update(DURABLE_DATABASE=database, DURABLE_TASK_HUB=hub)
    durable = FlaskDurable(app)

    @durable.activity
    def hello(city: str) -> str:
        return f"Hello {city}"

    @durable.orchestrator
    def hello_sequence(ctx: Any) -> Any:
        greetings = []
        for city in ("Tokyo", "Seattle", "London"):
            greetings.append((yield ctx.call_activity(hello, city)))
        return greetings

    @durable.orchestrator
    def waiting(ctx: Any) -> Any:
        return (yield ctx.wait_for_external_event("Wake", timeout=timedelta(days=30), default=None))

    return app, durable


class Filler:
    """Copies the rows of an instance that the engine has made, many times, inside the database."""

    def __init__(self, durable: FlaskDurable, hub: str) -> None:
        self._sql = durable._state().store._sql  # type: ignore[attr-defined]  # a benchmark looks inside
        self._hub = hub
        tables = {"durable_instance", "durable_history", "durable_message"}
        with self._sql.connection():
            self._columns = {table: [column.name for column in self._sql.database.get_columns(table)] for table in tables}

    def copy(self, instance_id: str, count: int) -> None:
        """Make so many more of that instance, under other ids, each a little older."""
        for begin in range(0, count, STEP):
            self._sql.transaction(lambda begin=begin: self._copy(instance_id, begin, min(STEP, count - begin)))

    def _copy(self, instance_id: str, begin: int, count: int) -> None:
        digits = " CROSS JOIN ".join(f"({DIGITS}) AS t{place}" for place in range(3))
        number = " + ".join(f"t{place}.d * {10**place}" for place in range(3))
        series = f"(SELECT n + {begin} AS n FROM (SELECT {number} AS n FROM {digits}) AS every WHERE n < {count}) AS series"
        for table, columns in self._columns.items():
            names = [name for name in columns if name != "message_id"]
            shown = ", ".join(self._changed(name) for name in names)
            text = f"INSERT INTO {table} ({', '.join(names)}) SELECT {shown} FROM {table}, {series} WHERE hub = ? AND instance_id = ?"
            self._sql.run(text, (self._hub, instance_id))

    def _changed(self, name: str) -> str:
        if name in ("instance_id", "execution_id"):
            return f"n || '-' || {name}" if self._sql.is_sqlite else f"CONCAT(n, '-', {name})"
        return f"{name} - n" if name in ("created_at", "updated_at", "completed_at") else name

    def analyse(self) -> None:
        """Let the database look at what it has."""
        with self._sql.connection():
            for table in self._columns:
                self._sql.database.execute_sql(f"ANALYZE {'' if self._sql.is_postgresql or self._sql.is_sqlite else 'TABLE '}{table}")


def fill(durable: FlaskDurable, hub: str, finished: int, waiting: int) -> float:
    """Make the instances; returns the seconds it took."""
    began = time.perf_counter()
    durable.start_worker()
    done = durable.client.start("hello_sequence", instance_id="done")
    durable.client.wait_for_completion(done, timeout=30)
    asleep = durable.client.start("waiting", instance_id="asleep")
    durable.client.wait_for_start(asleep, timeout=30)
    durable.stop_worker()
    found = [durable.client.get_status(each).runtime_status for each in (done, asleep)]
    assert found == [RuntimeStatus.COMPLETED, RuntimeStatus.RUNNING], found
    filler = Filler(durable, hub)
    filler.copy(done, finished)
    filler.copy(asleep, waiting)
    filler.analyse()
    return time.perf_counter() - began


class Server:
    """The app under gunicorn: one process, eight threads, the worker inside."""

    def __init__(self, folder: str, database: str, hub: str) -> None:
        Path(folder, "served.py").write_text(APP.format(database=database, hub=hub, folder=folder))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = ["-m", "gunicorn", "-w", "1", "--threads", "8", "-b", f"127.0.0.1:{self.port}", "--log-level", "error", "served:app"]
        path = os.pathsep.join([folder, str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen([sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": path})
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.ask("GET", PREFIX)
                return
            except OSError:
                self.connection.close()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any, float]:
        """One request; returns the status, the document and the milliseconds."""
        began = time.perf_counter()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        document = json.loads(answer.read() or "null")
        return answer.status, document, (time.perf_counter() - began) * 1e3

    def close(self) -> None:
        """End it in order."""
        self.connection.close()
        self.process.terminate()
        self.process.wait(timeout=30)


FIRST_PAGES = (
    "",
    "?runtimeStatus=Running",
    "?runtimeStatus=Completed",
    "?runtimeStatus=Failed",
    "?runtimeStatus=Running,Completed",
    "?name=waiting",
    "?name=nobody",
    "?name=waiting&runtimeStatus=Running",
    "?name=waiting&runtimeStatus=Completed",
    "?sort=lastCompleted",
    "?sort=lastCompleted&runtimeStatus=Completed",
    "?sort=lastCompleted&name=hello_sequence",
    "?instanceIdPrefix=99",
    "?rootsOnly=true",
    "?parked=true",
)


def measure(server: Server, requests: int, known: list[str], seed: int) -> dict[str, list[float]]:
    """A random mixture of requests; returns the milliseconds of each kind."""
    lots = random.Random(seed)
    times: dict[str, list[float]] = {"start": [], "status": [], "page": []}
    following: str | None = None
    for _ in range(requests):
        kind = lots.choices(("start", "status", "page"), (4, 4, 2))[0]
        if kind == "start":
            status, document, took = server.ask("POST", f"{PREFIX}/start/hello_sequence", {})
            known.append(document["id"])
        elif kind == "status":
            status, document, took = server.ask("GET", f"{PREFIX}/{lots.choice(known)}")
        else:
            status, document, took = server.ask("GET", following or PREFIX + lots.choice(FIRST_PAGES))
            url = document.get("nextLink") if isinstance(document, dict) else None
            following = "{0.path}?{0.query}".format(urlsplit(url)) if url and lots.random() < 0.9 else None
        assert status < 300, (status, document)
        times[kind].append(took)
    return times


def main() -> None:
    """Fill, serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, default=100_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--database", default=None)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="flask-durable-bench-")
    database = args.database or f"sqlite:///{folder}/large.db"
    hub = f"large-{uuid.uuid4().hex[:12]}"
    os.environ["FLASK_RUN_FROM_CLI"] = "false"
    _, durable = make_app(database, hub, folder)
    line: dict[str, Any] = {"benchmark": "large", "backend": database.partition(":")[0], "finished": args.finished, "waiting": args.waiting}
    try:
        line["fill_s"] = round(fill(durable, hub, args.finished, args.waiting), 1)
        server = Server(folder, database, hub)
        try:
            measure(server, 100, ["done", "asleep"], args.seed + 1)
            times = measure(server, args.requests, ["done", "asleep"], args.seed)
        finally:
            server.close()
        for kind, each in times.items():
            line[kind] = {"count": len(each), "p50_ms": round(percentile(each, 0.5), 2), "p99_ms": round(percentile(each, 0.99), 2)}
    finally:
        sql = durable._state().store._sql  # type: ignore[attr-defined]
        for table in ("durable_instance", "durable_history", "durable_message", "durable_activity"):
            sql.transaction(lambda table=table: sql.run(f"DELETE FROM {table} WHERE hub = ?", (hub,)), is_slow=True)
        durable.close()
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
