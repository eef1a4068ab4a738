"""F1: kill -9 in a loop, with random programs: four gunicorn workers on SQLite, three worker processes on each backend.

FLASK_DURABLE_TEST_KILLS=1000 makes it the long run; FLASK_DURABLE_TEST_SEED chooses other programs and victims.
"""

from __future__ import annotations

import pytest
from backends import make_database
from chaos_harness import Chaos, wait_until
from kill_loop import KILLS, SEED, THREADS, KillLoop, slices
from promptness import in_time

RUN = 125
"""Kills on one database in the long run."""

pytestmark = pytest.mark.chaos


def kill_in_a_loop(chaos, seed, kills, victims, pauses, over_http=False):
    """One run; returns it with how long the rest took after the last kill."""
    loop = KillLoop(chaos, seed, over_http=over_http)
    took = loop.run(kills, victims, pauses)
    return loop, took


def settle(chaos, loop, took, scenario, kills):
    lease = chaos.config.get("DURABLE_LEASE_SECONDS", 30)
    remark = f"{loop.started} programs, seed {loop.seed}, all done {took:.2f} s after the last kill"
    chaos.settle(scenario, "F1 kill -9 loop", loop.started, loop.snapshots, repeats=kills * 2 * THREADS, remark=remark)
    return lease


@pytest.mark.parametrize("number", range(len(slices(KILLS, RUN)) if KILLS else 1))
def test_four_gunicorn_workers_on_sqlite(tmp_path, number):
    kills = slices(KILLS, RUN)[number] if KILLS else 25
    words = [["--worker-class", "gthread", "--threads", "4", "--preload"], ["--worker-class", "sync", "--preload"], ["--worker-class", "sync"]]
    words = words[2 if number == 7 else number % 2]
    chaos = Chaos(tmp_path, DURABLE_MAX_DELIVERIES=1000, DURABLE_LEASE_SECONDS=5)
    try:
        site = chaos.gunicorn(*words)
        wait_until(lambda: len(chaos.live_workers()) == 4, "four workers", 60)
        loop, took = kill_in_a_loop(chaos, SEED + number, kills, site, (0.3, 1.0) if KILLS else (0.2, 0.5), over_http=True)
        settle(chaos, loop, took, f"sqlite, 4 gunicorn {' '.join(words[1:])}", kills)
    finally:
        chaos.close()
    in_time(took, 2 * 5 + 10)


@pytest.mark.parametrize("number", range(len(slices(KILLS, RUN)) if KILLS else 1))
def test_three_worker_processes(tmp_path, backend, number):
    kills = slices(KILLS, RUN)[number] if KILLS else 6
    is_forked = number % 8 != 0  # a fork is there sooner, so that there is more to be killed
    with make_database(backend, tmp_path) as url:
        chaos = Chaos(tmp_path, url, DURABLE_MAX_DELIVERIES=1000, DURABLE_LEASE_SECONDS=3)
        try:
            victims = chaos.gunicorn("--preload", workers=3) if is_forked else [chaos.worker() for _ in range(3)]
            wait_until(lambda: len(chaos.live_workers()) == 3, "three workers", 60)
            loop, took = kill_in_a_loop(chaos, SEED + 1000 + number, kills, victims, (0.3, 1.0))
            settle(chaos, loop, took, f"{backend}, 3 {'gunicorn' if is_forked else 'flask durable'} workers", kills)
        finally:
            chaos.close()
    in_time(took, 2 * 3 + 10)
