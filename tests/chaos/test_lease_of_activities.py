"""Activities that take longer than a lease (F12): the heartbeat keeps them with their worker; where it cannot, others run them, and one result counts."""

from __future__ import annotations

import pytest
from chaos_harness import wait_until

pytestmark = pytest.mark.chaos
LEASE = 1.5


def overlaps(site):
    """How many executions of a call began while another one of it was running."""
    ended = {effect.token: effect.at for effect in site.ledger("ended")}
    latest, count = {}, 0
    for effect in sorted(site.ledger("began"), key=lambda effect: effect.at):
        count += effect.at < latest.get(effect.call, 0.0)
        latest[effect.call] = max(latest.get(effect.call, 0.0), ended.get(effect.token, float("inf")))
    return count


def serve(site, **environment):
    first, second = site.flask("durable", "worker", **environment), site.flask("durable", "worker")
    wait_until(lambda: len(site.holders()) == 2, "both hold work")
    return first, second


def test_activities_longer_than_the_lease_are_run_once(make_site):
    site = make_site(DURABLE_LEASE_SECONDS=LEASE, DURABLE_MAX_ACTIVITIES=4)
    site.start(8, steps=1, seconds=4 * LEASE)
    serve(site)
    rows = site.worker_rows()
    site.wait_for_all(8)
    site.settle(f"2 workers, {site.backend}", "F12 activities of 4 leases", 8, repeats=0, remark=f"lease {LEASE} s, {overlaps(site)} overlaps")
    assert site.worker_rows() == rows
    assert overlaps(site) == 0


def test_a_heartbeat_that_is_blocked_costs_the_lease_and_no_result(make_site):
    """While its thread hangs the worker begins nothing more; others take over, and what it comes back with is refused."""
    site = make_site(DURABLE_LEASE_SECONDS=LEASE, DURABLE_MAX_ACTIVITIES=4, DURABLE_MAX_DELIVERIES=100)
    site.start(40, steps=2, seconds=0.4)
    blocked, other = serve(site, CHAOS_BLOCKED_HEARTBEAT=str(3 * LEASE), CHAOS_WATCH="1")
    old = next(worker_id for worker_id, pid in site.worker_rows().items() if pid == blocked.pid)
    wait_until(lambda: old not in site.worker_rows(), "it is taken for dead")
    before = site.snapshot()
    site.kills = 1
    wait_until(lambda: blocked.pid in site.worker_rows().values(), "it goes on as a new worker")
    site.wait_for_all(40)
    site.settle(f"2 workers, {site.backend}", "F12 heartbeat blocked", 40, [before], repeats=4, remark=f"{overlaps(site)} overlaps")
    assert other.pid in site.worker_rows().values()
    assert old not in site.worker_rows()
