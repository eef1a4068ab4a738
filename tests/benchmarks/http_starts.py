"""Starts over HTTP through gunicorn with four workers, on DBOS Transact and on this package; prints one JSON line for each round.

    python tests/benchmarks/http_starts.py --dbos-python /path/to/dbos-env/bin/python

See dbos_under_gunicorn.py for that environment. Clients send one start after the other, each on a connection of its own, while the workers run what
was started: one step that writes two lines. The rounds of the two are taken in turn.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dbos_under_gunicorn import HOW_TO_INSTALL, Site, database, environment_of, is_importable, wait_until
from workloads import percentile


def answers_of(site: Site, name: str, count: int) -> list[tuple[int, float]]:
    """Status (0: none) and seconds of starts that one client sends one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    found = []
    for number in range(count):
        began = time.perf_counter()
        try:
            connection.request("POST", f"/orders/{name}-{number}?steps=1&seconds=0")
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        found.append((status, time.perf_counter() - began))
    connection.close()
    return found


def exercise(site: Site, args: argparse.Namespace) -> dict[str, Any]:
    """Send the starts and wait until all has been run."""
    if not wait_until(lambda: len(site.children()) == args.workers and site.request("GET", "/", 2), 60):
        return {"error": f"gunicorn did not serve: {(site.folder / 'log').read_text()[-500:]}"}
    for number in range(4 * args.workers):  # each process has opened its database before it counts
        site.request("POST", f"/orders/warm-{number}?steps=1&seconds=0", 60)
    answers: list[tuple[int, float]] = []
    clients = [
        threading.Thread(target=lambda client=client: answers.extend(answers_of(site, f"order-{client}", args.starts // args.clients)))
        for client in range(args.clients)
    ]
    began = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    wall = time.perf_counter() - began
    wanted = sum(status == 202 for status, _ in answers)
    is_over = wait_until(lambda: sum(step.startswith("order-") for step in dict(site.ledger("ended"))) >= wanted, 120)
    times = [seconds * 1e3 for _, seconds in answers]
    return {
        "statuses": dict(collections.Counter(str(status) for status, _ in answers)),
        "starts_per_s": round(len(answers) / wall, 1),
        "p50_ms": round(percentile(times, 0.5), 2),
        "p99_ms": round(percentile(times, 0.99), 2),
        "max_ms": round(max(times), 2),
        "all_run_after_s": round(time.perf_counter() - began, 2) if is_over else None,
    }


def run(peer: str, python: str, args: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="compare-", dir=os.environ.get("BENCH_DIR")))
    with database(args.backend, args.pg_url, peer, folder) as url:
        site = Site(python, folder, [], environment_of(peer, folder, url), workers=args.workers)
        try:
            return {"peer": peer, "backend": args.backend, "workers": args.workers, "clients": args.clients, **exercise(site, args)}
        finally:
            site.close()
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dbos-python", default=os.environ.get("DBOS_PYTHON", "dbos-env/bin/python"))
    parser.add_argument("--peer", choices=["both", "dbos", "flask-durable"], default="both")
    parser.add_argument("--backend", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--pg-url", default=os.environ.get("PG_URL"))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--starts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    peers = {"dbos": args.dbos_python, "flask-durable": sys.executable}
    peers = {peer: python for peer, python in peers.items() if args.peer in ("both", peer)}
    if "dbos" in peers and not is_importable(args.dbos_python, "dbos"):
        sys.stderr.write(HOW_TO_INSTALL.format(python=args.dbos_python))
        sys.exit(2)
    for _ in range(args.rounds):
        for peer, python in peers.items():
            sys.stdout.write(json.dumps(run(peer, python, args)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
