"""The database goes away and comes back (F4): work pauses and goes on by itself, callers are told so in time, nothing is lost or done twice."""

from __future__ import annotations

import contextlib
import random
import time

import pytest
from backends import BACKENDS
from chaos_harness import wait_until
from fault_harness import LENGTH, Callers, execute, settle_calls
from promptness import in_time
from reading import Reader

pytestmark = pytest.mark.chaos
GUNICORN = ["--worker-class", "gthread", "--threads", "8"]
TIMEOUT = 2
LONGEST = TIMEOUT + 10 + 4
"""A request waits for DURABLE_DATABASE_TIMEOUT and DURABLE_TURN_TIMEOUT at most; and for a busy machine."""


def serve(site):
    site.gunicorn(*GUNICORN, workers=2)
    site.worker()
    wait_until(lambda: len(site.live_workers()) == 3 and site.answers(), "three workers that serve")


def again_after(site, since):
    """How long after that moment an activity was begun again."""
    wait_until(lambda: any(effect.at > since for effect in site.ledger("began")), "work goes on")
    return min(effect.at for effect in site.ledger("began") if effect.at > since) - since


def test_postgresql_stopped_and_restarted_under_load(make_site_on, make_postgres):
    server = make_postgres()
    site = make_site_on(server.url, DURABLE_DATABASE_TIMEOUT=TIMEOUT, DURABLE_MAX_DELIVERIES=1000)
    serve(site)
    pauses = []
    with Callers(site) as callers:
        for _ in range(round(3 * LENGTH)):
            goal = site.completions() + 30
            wait_until(lambda goal=goal: site.completions() >= goal, "work is being done")
            server.stop()
            asked = len(callers.answers)
            wait_until(lambda asked=asked: len(callers.answers) > asked + 4, "callers are answered meanwhile")
            server.start()
            pauses.append(again_after(site, time.monotonic()))
    remark = f"work again {max(pauses):.1f} s after its return"
    settle_calls(site, callers, "gunicorn and a worker", "PostgreSQL stopped", repeats=200 * len(pauses), remark=remark, deadline=LONGEST)
    assert callers.statuses()[503]
    in_time(max(pauses), 5)


def test_postgresql_that_is_away_for_longer_than_a_lease(make_site_on, make_postgres):
    server = make_postgres()
    site = make_site_on(server.url, DURABLE_DATABASE_TIMEOUT=TIMEOUT, DURABLE_LEASE_SECONDS=2, DURABLE_MAX_DELIVERIES=1000)
    serve(site)
    with Callers(site) as callers:
        wait_until(lambda: site.completions() > 30, "work is being done")
        server.stop()
        since = time.monotonic()
        wait_until(lambda: time.monotonic() - since > 4, "the leases are over")
        server.start()
        pause = again_after(site, time.monotonic())
    remark = f"work again {pause:.1f} s after its return"
    settle_calls(site, callers, "gunicorn and a worker", "PostgreSQL away > lease", repeats=200, remark=remark, deadline=LONGEST)
    in_time(pause, 5)


def test_storms_of_terminated_backends(make_site_on, make_postgres):
    server = make_postgres()
    site = make_site_on(server.url, DURABLE_DATABASE_TIMEOUT=TIMEOUT, DURABLE_MAX_DELIVERIES=1000)
    serve(site)
    lots = random.Random(20261125)
    ours = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    killed = 0
    with Callers(site) as callers:
        for _ in range(round(40 * LENGTH)):
            found = [row[0] for row in execute(server.url, ours)]
            for pid in lots.sample(found, min(len(found), lots.choice([1, 3, 30]))):
                killed += 1
                execute(server.url, "SELECT pg_terminate_backend(?)", pid)
            goal, began = site.completions() + 2, time.monotonic()
            wait_until(lambda goal=goal: site.completions() >= goal, "work goes on", 10)
            in_time(time.monotonic() - began, 5)
    settle_calls(site, callers, "gunicorn and a worker", "pg_terminate_backend", repeats=200, remark=f"{killed} connections ended", deadline=LONGEST)


def test_a_server_whose_connections_others_have_taken(make_site_on, make_postgres):
    server = make_postgres(max_connections=24, superuser_reserved_connections=3)
    execute(server.url, "CREATE ROLE shop LOGIN")
    execute(server.url, "GRANT ALL ON SCHEMA public TO shop")
    shop = server.url.replace("chaos@", "shop@")
    site = make_site_on(server.url, served_url=shop, DURABLE_DATABASE_TIMEOUT=TIMEOUT, DURABLE_MAX_DELIVERIES=1000)
    serve(site)
    with Callers(site, threads=8, pause=0.01) as callers:
        wait_until(lambda: site.completions() > 30, "work is being done")
        for _ in range(round(2 * LENGTH)):
            with contextlib.ExitStack() as outsiders:
                taken = 0
                with contextlib.suppress(Exception):
                    while True:
                        outsiders.enter_context(contextlib.closing(Reader(shop)._connect()))
                        taken += 1
                assert taken
                # connections that are ended now cannot be replaced
                execute(
                    server.url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop' AND query LIKE '%durable%' AND pid <> pg_backend_pid()",
                )
                with contextlib.suppress(Exception):
                    while True:
                        outsiders.enter_context(contextlib.closing(Reader(shop)._connect()))
                asked = len(callers.answers)
                wait_until(lambda asked=asked: len(callers.answers) > asked + 4, "callers are answered meanwhile")
            pause = again_after(site, time.monotonic())
            in_time(pause, 5)
    settle_calls(site, callers, "gunicorn and a worker", "max_connections", repeats=200, remark=f"work again after {pause:.1f} s", deadline=LONGEST)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name == "mysql"], indirect=True)
def test_storms_of_killed_connections_of_mysql(make_site_on, backend_url):
    site = make_site_on(backend_url, DURABLE_DATABASE_TIMEOUT=TIMEOUT, DURABLE_MAX_DELIVERIES=1000)
    serve(site)
    lots = random.Random(20261125)
    ours = "SELECT id FROM information_schema.processlist WHERE db = ? AND id <> CONNECTION_ID()"
    killed = 0
    with Callers(site) as callers:
        for _ in range(round(30 * LENGTH)):
            found = [row[0] for row in execute(backend_url, ours, backend_url.rpartition("/")[2])]
            for number in lots.sample(found, min(len(found), lots.choice([1, 3, 30]))):
                killed += 1
                with contextlib.suppress(Exception):  # it may have ended by itself
                    execute(backend_url, f"KILL {int(number)}")
            goal = site.completions() + 2
            wait_until(lambda goal=goal: site.completions() >= goal, "work goes on", 10)
    settle_calls(site, callers, "gunicorn and a worker", "KILL of connections", repeats=200, remark=f"{killed} connections ended", deadline=LONGEST)
