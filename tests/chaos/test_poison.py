"""Code that kills its process, again and again, or never returns (F13): it is parked with a reason, and the others go on."""

from __future__ import annotations

import pytest
from chaos_harness import wait_until

pytestmark = pytest.mark.chaos
DELIVERIES = 5  # three kinds of poison at once: with fewer, an innocent call can by chance die with one of them each time


def test_work_that_kills_its_process_is_parked_and_stops_no_others(make_site):
    site = make_site(DURABLE_MAX_DELIVERIES=DELIVERIES, DURABLE_LEASE_SECONDS=2)
    site.gunicorn("--worker-class", "gthread", "--threads", "4", workers=2)
    wait_until(lambda: len(site.live_workers()) == 2 and site.answers(), "two workers that serve")
    site.client.start("Poison", "leave", instance_id="leave")
    site.client.start("Poison", "crash", instance_id="crash")
    site.client.start("PoisonTurn", None, instance_id="turn")
    site.start(20, steps=3, seconds=0.05)
    wait_until(lambda: site.finished() == 20, "the others are completed", 90)

    def reasons():
        return dict(site.rows("SELECT instance_id, parked_reason FROM durable_instance WHERE parked_reason IS NOT NULL"))

    wait_until(lambda: len(reasons()) == 3, "all three are parked", 90)
    site.kills = len(site.ledger_lines("poison"))
    times = [line[0] for line in site.ledger_lines("poison")]
    assert all(times.count(name) <= DELIVERIES for name in ("leave", "crash", "turn")), times
    assert all("died with it" in reason for reason in reasons().values()), reasons()
    site.start(20, steps=3, seconds=0.05, prefix="later-")
    wait_until(lambda: site.finished() == 40, "later ones are completed too")
    wait_until(site.answers, "it serves")
    for name in reasons():
        status, found = site.request("GET", f"/runtime/orchestrations/{name}")
        assert (status, bool(found["parkedReason"])) == (200, True)
    site.settle_but(f"gunicorn, {site.backend}", "os._exit, segfault", 43, others=3, remark=f"{len(times)} processes died with them")


def test_activities_that_never_return_leave_the_other_threads_to_the_others(make_site):
    site = make_site(DURABLE_MAX_ACTIVITIES=4, DURABLE_SHUTDOWN_GRACE=0.5)
    worker = site.worker()
    for number in range(3):
        site.client.start("Poison", "hang", instance_id=f"hang-{number}")
    wait_until(lambda: len(site.ledger_lines("poison")) == 3, "three threads hang")
    site.start(20, steps=3, seconds=0.01)
    took = site.wait_for_all(20)
    worker.terminate()
    wait_until(lambda: not worker.pids(), "the worker ends nevertheless")
    site.settle_but(f"worker, {site.backend}", "never returns", 23, others=3, remark=f"the others took {took:.1f} s")
