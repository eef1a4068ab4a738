"""gunicorn with four workers on one SQLite file: nothing lost, nothing twice, no worker missing, and dead ones replaced at once."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from chaos_harness import PREFIX, wait_until
from promptness import bound, in_time

CASES = [("sync", False), ("sync", True), ("gthread", False), ("gthread", True), ("gevent", False)]
NAMES = [f"{kind}{'-preload' if is_preloaded else ''}" for kind, is_preloaded in CASES]

pytestmark = pytest.mark.chaos


@pytest.fixture(params=CASES, ids=NAMES)
def words(request):
    kind, is_preloaded = request.param
    return ["--worker-class", kind, *(["--threads", "4"] if kind == "gthread" else []), *(["--preload"] if is_preloaded else [])]


def test_gunicorn_loses_nothing_and_does_nothing_twice(chaos, words):
    name = " ".join(words[1:])
    site = chaos.gunicorn(*words)
    # Given: a worker in each process that serves, and none in the master, without any request
    wait_until(lambda: len(chaos.live_workers()) == 4, "four workers without a request")
    assert chaos.live_workers() == site.children()
    # When: five hundred starts over HTTP
    assert chaos.start_over_http(500) == {202: 500}
    # Then: all complete, each effect once
    wait_until(lambda: chaos.finished() == 500, "all are completed")
    assert len(chaos.ledger("began")) == 1000
    chaos.settle(f"gunicorn {name}", "none", 500, repeats=0)

    # When: all processes die with work in flight, and a new server starts
    assert chaos.start_over_http(100, steps=3, seconds=0.3, prefix="held-") == {202: 100}
    wait_until(lambda: len(chaos.holders()) == 4 and chaos.unfinished(), "each process holds work")
    dead = list(chaos.worker_rows())
    chaos.kill(site)
    before, held = chaos.snapshot(), chaos.held_by(dead)
    under_way = len(chaos.ledger("began")) - len(before.results)
    assert held > 8
    site = chaos.gunicorn(*words)
    # Then: within two seconds and without a request, work goes on, also what the killed ones held
    lines = len(chaos.ledger("began"))
    wait_until(lambda: not chaos.held_by(dead) and len(chaos.ledger("began")) > lines, "work goes on by itself")
    after_all = time.monotonic() - site.began
    wait_until(lambda: chaos.finished() == 600, "all are completed")

    # When: one of the new processes dies with work in flight
    wait_until(lambda: len(chaos.live_workers()) == 4, "four workers again")
    assert chaos.start_over_http(100, steps=3, seconds=0.3, prefix="one-") == {202: 100}
    rows = chaos.worker_rows()
    wait_until(lambda: len(chaos.holders()) == 4, "each process holds work")
    victim, began = next(iter(chaos.holders())), time.monotonic()
    chaos.kill_one(rows[victim])
    second = chaos.snapshot()
    # Then: its siblings take its work within two seconds
    wait_until(lambda: not chaos.held_by([victim]), "the others take its work")
    after_one = time.monotonic() - began
    wait_until(lambda: chaos.finished() == 700, "all are completed")
    wait_until(lambda: chaos.live_workers() == site.children() and len(site.children()) == 4, "the master has replaced it")
    chaos.settle(
        f"gunicorn {name}",
        "kill -9 of all, of one",
        700,
        [before, second],
        repeats=under_way + 64,
        remark=f"again after {after_all:.2f} s; one: {after_one:.2f} s",
    )
    assert chaos.request("GET", f"{PREFIX}/one-0")[1]["runtimeStatus"] == "Completed"
    in_time(after_all, bound(chaos.environment(), 4))
    in_time(after_one, bound(chaos.environment()))


@pytest.mark.parametrize(
    "words", [["--worker-class", "sync"], ["--worker-class", "gthread", "--threads", "4", "--preload"]], ids=["sync", "gthread-preload"]
)
def test_gunicorn_survives_the_death_of_one_worker_after_another(make_chaos, words):
    chaos = make_chaos(DURABLE_MAX_DELIVERIES=1000)
    site = chaos.gunicorn(*words)
    wait_until(lambda: len(chaos.live_workers()) == 4, "four workers")
    lots = random.Random(20260102)
    assert chaos.start_over_http(500, steps=4, seconds=0.1) == {202: 500}
    snapshots, repeats = [], 0
    while chaos.unfinished() and chaos.kills < 40:
        goal = chaos.completions() + lots.randrange(5, 60)
        wait_until(lambda goal=goal: chaos.completions() >= goal or not chaos.unfinished(), "the work goes on between kills")
        wait_until(lambda: len(site.children()) > 2, "the master has made new ones")
        chaos.kill_one(lots.choice(sorted(site.children())))
        repeats += 2 * 16
        snapshots.append(chaos.snapshot())
    wait_until(lambda: chaos.unfinished() == 0, "all are completed", 60)
    wait_until(lambda: chaos.live_workers() == site.children() and len(site.children()) == 4, "there are four workers")
    wait_until(lambda: len(chaos.worker_rows()) == 4, "the dead ones are gone")
    chaos.settle(f"gunicorn {' '.join(words[1:])}", "kill -9 loop", 500, snapshots, repeats=repeats)


def test_gunicorn_replaces_its_workers_at_hup_and_at_max_requests(chaos):
    """Each worker ends in order after 50 requests, and at SIGHUP all do: nothing is lost, and nothing happens twice."""
    site = chaos.gunicorn("--max-requests", "50", "--max-requests-jitter", "10")
    wait_until(lambda: len(chaos.live_workers()) == 4, "four workers")
    first = site.children()
    assert chaos.start_over_http(500, steps=2, seconds=0.1) == {202: 500}
    before = site.children()
    os.kill(site.pid, signal.SIGHUP)
    wait_until(lambda: not before & site.children() and len(chaos.live_workers()) == 4, "new workers")
    wait_until(lambda: chaos.unfinished() == 0, "all are completed")
    assert not first & site.children()
    chaos.settle("gunicorn --max-requests 50", "SIGHUP", 500, repeats=0)
