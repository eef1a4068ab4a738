"""DBOS Transact and this package under gunicorn, in three set-ups; prints one JSON line for each.

    python tests/benchmarks/dbos_under_gunicorn.py --dbos-python /path/to/dbos-env/bin/python --pg-url postgresql://user@host/name

DBOS is no dependency of this project. Install it into an environment of its own, and name that environment's Python:

    python -m venv dbos-env && dbos-env/bin/pip install dbos flask gunicorn 'psycopg[binary]'

The set-ups, each with two gunicorn workers and orders of three steps:

sibling-killed  a worker that does nothing is killed while its sibling is in the middle of steps; gunicorn replaces it
owner-killed    the worker that has the orders is killed; gunicorn replaces it. DBOS: an executor id for each process, without which a start
                of one process recovers what its siblings are doing
preload         --preload, nobody is killed

A line says how many steps were ``expected``, how many were ``counted`` (ended at least once), ``doubled`` (begun again although the process that
had begun them was never killed), ``stranded`` (not ended when nothing had happened for --patience seconds), and how many requests were ``hung``
(no answer within 10 s).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SET_UPS = ("sibling-killed", "owner-killed", "preload")
STEPS = 3
ORDERS = 6
HOW_TO_INSTALL = (
    "DBOS Transact cannot be imported by {python}. It is no dependency of flask-durable: install it into an environment of its own with\n"
    "    python -m venv dbos-env && dbos-env/bin/pip install dbos flask gunicorn 'psycopg[binary]'\n"
    "and give --dbos-python dbos-env/bin/python; or give --peer flask-durable to run without it.\n"
)


class Site:
    """gunicorn with some workers on an app of one peer, in a folder of its own."""

    def __init__(self, python: str, folder: Path, words: list[str], environment: dict[str, str], workers: int = 2) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [python, "-m", "gunicorn", "--workers", str(workers), "--worker-class", "gthread", "--threads", "4", "--timeout", "60"]
        command += ["--bind", f"127.0.0.1:{self.port}", "--chdir", str(HERE), *words, "gunicorn_apps:app"]
        self.log = (folder / "log").open("ab")
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def children(self) -> set[int]:
        """The workers that gunicorn has now."""
        with contextlib.suppress(OSError):
            return {int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()}
        return set()

    def request(self, method: str, path: str, seconds: float = 10) -> str | None:
        """The text of an answer; None when there was none in time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            text = answer.read().decode()
            return text if answer.status < 300 else None
        except OSError:
            return None
        finally:
            connection.close()

    def ledger(self, word: str) -> list[tuple[str, int]]:
        """(step, process) of the lines with that word."""
        path = self.folder / "ledger"
        parts = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(f"{order} {number}", int(pid)) for verb, order, number, pid in parts if verb == word]

    def close(self) -> None:
        """Kill all processes of the site."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def wait_until(is_true: Callable[[], Any], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_true():
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def database(backend: str, pg_url: str | None, peer: str, folder: Path) -> Iterator[str]:
    """URL of a database that nobody else uses; dropped at the end."""
    if backend == "sqlite":
        yield f"sqlite:///{folder}/compare.db"
        return
    import psycopg

    assert pg_url is not None
    name = f"compare_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{pg_url.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(pg_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def environment_of(peer: str, folder: Path, url: str) -> dict[str, str]:
    """What the processes of a site are to find."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "DBOS_"))}
    environment.update(COMPARE_PEER=peer, COMPARE_FOLDER=str(folder), COMPARE_DATABASE=url, COMPARE_HUB="compare", PYTHONUNBUFFERED="1")
    if peer == "flask-durable":
        environment["PYTHONPATH"] = str(HERE.parents[1])
    return environment


def run(peer: str, python: str, set_up: str, backend: str, args: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="compare-", dir=os.environ.get("BENCH_DIR")))
    with database(backend, args.pg_url, peer, folder) as url:
        environment = environment_of(peer, folder, url)
        if set_up == "owner-killed":
            environment["COMPARE_OWN_EXECUTORS"] = "1"
        site = Site(python, folder, ["--preload"] if set_up == "preload" else [], environment)
        try:
            return {"peer": peer, "set_up": set_up, "backend": backend, **exercise(site, set_up, args.patience)}
        finally:
            site.close()
            if args.keep:
                sys.stderr.write(f"{peer} {set_up} {backend}: {folder}\n")
            else:
                shutil.rmtree(folder, ignore_errors=True)


def exercise(site: Site, set_up: str, patience: float) -> dict[str, Any]:
    """Start the orders, do to the site what the set-up says, and count when all is quiet."""
    if not wait_until(lambda: len(site.children()) == 2 and site.request("GET", "/", 2), 60):
        return {"error": f"gunicorn did not serve: {(site.folder / 'log').read_text()[-500:]}"}
    orders = [f"order-{number}" for number in range(1 if set_up == "sibling-killed" else ORDERS)]
    seconds = 2.0 if set_up == "sibling-killed" else 0.5
    with ThreadPoolExecutor(len(orders)) as pool:
        answers = list(pool.map(lambda order: site.request("POST", f"/orders/{order}?steps={STEPS}&seconds={seconds}"), orders))
    killed: set[int] = set()
    awaited = "ended" if set_up == "owner-killed" else "began"
    if set_up != "preload" and wait_until(lambda: site.ledger(awaited), 10):
        owner = site.ledger(awaited)[0][1]
        victim = owner if set_up == "owner-killed" else next(iter(site.children() - {owner}))
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
    return {"steps_expected": STEPS * len(orders), **count(site, STEPS * len(orders), patience, killed), "hung": answers.count(None)}


def count(site: Site, expected: int, patience: float, killed: set[int]) -> dict[str, int]:
    """Wait until all steps have ended or nothing happens any more, and a moment longer; then count."""
    lines, since = 0, time.monotonic()
    while time.monotonic() - since < patience:
        now = len(site.ledger("began")) + len(site.ledger("ended"))
        if now != lines:
            lines, since = now, time.monotonic()
        if len(dict(site.ledger("ended"))) == expected and time.monotonic() - since > 4:
            break
        time.sleep(0.2)
    ended = dict(site.ledger("ended"))
    beginnings = collections.Counter(step for step, pid in site.ledger("began") if pid not in killed)
    return {"counted": len(ended), "doubled": sum(number - 1 for number in beginnings.values()), "stranded": expected - len(ended)}


def is_importable(python: str, module: str) -> bool:
    return shutil.which(python) is not None and subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dbos-python", default=os.environ.get("DBOS_PYTHON", "dbos-env/bin/python"))
    parser.add_argument("--peer", choices=["both", "dbos", "flask-durable"], default="both")
    parser.add_argument("--set-up", choices=[*SET_UPS, "all"], default="all")
    parser.add_argument("--backend", choices=["both", "sqlite", "postgres"], default="both")
    parser.add_argument("--pg-url", default=os.environ.get("PG_URL"), help="a server on which this role may create databases; none: SQLite only")
    parser.add_argument("--patience", type=float, default=45.0, help="seconds without any step after which what is left is stranded")
    parser.add_argument("--keep", action="store_true", help="leave the folders with the logs")
    args = parser.parse_args()
    peers = {"dbos": args.dbos_python, "flask-durable": sys.executable}
    peers = {peer: python for peer, python in peers.items() if args.peer in ("both", peer)}
    if "dbos" in peers and not is_importable(args.dbos_python, "dbos"):
        sys.stderr.write(HOW_TO_INSTALL.format(python=args.dbos_python))
        sys.exit(2)
    backends = [backend for backend in ("sqlite", "postgres") if args.backend in ("both", backend) and (backend == "sqlite" or args.pg_url)]
    for set_up in SET_UPS if args.set_up == "all" else (args.set_up,):
        for backend in backends:
            for peer, python in peers.items():
                sys.stdout.write(json.dumps(run(peer, python, set_up, backend, args)) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
