"""A network that drops between a worker and its server (F5): the worker knows in time that its work is no longer its own."""

from __future__ import annotations

import time

import pytest
from backends import BACKENDS
from chaos_harness import wait_until
from fault_harness import LENGTH

pytestmark = [pytest.mark.chaos, pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "sqlite"], indirect=True)]
LEASE = 6 * LENGTH
CASES = {"both ways": {}, "what it sends": {"down": False}, "what it is told": {"up": False}}


@pytest.mark.parametrize("case", CASES)
def test_a_worker_behind_a_partition_stops_before_others_take_its_work(make_site_on, backend_url, make_proxy, case):
    proxy = make_proxy(backend_url)
    site = make_site_on(backend_url, DURABLE_LEASE_SECONDS=LEASE, DURABLE_DATABASE_TIMEOUT=2, DURABLE_MAX_ACTIVITIES=4)
    site.start(60, steps=4, seconds=0.2)
    cut_off = site.begin("-m", "flask", "--app", "fault_app", "durable", "worker", CHAOS_DATABASE=proxy.url, CHAOS_WATCH="1")
    other = site.flask("durable", "worker", CHAOS_WATCH="1")
    wait_until(lambda: len(site.holders()) == 2 and site.completions() > 20, "both hold work")
    old = next(worker_id for worker_id, pid in site.worker_rows().items() if pid == cut_off.pid)
    proxy.cut(**CASES[case])
    cut = time.monotonic()
    before = site.snapshot()
    wait_until(lambda: old not in site.worker_rows(), "it is taken for dead", 2 * LEASE + 10)
    taken = time.monotonic()
    held = site.snapshot()
    since = time.monotonic()
    wait_until(lambda: time.monotonic() - since > 2, "the partition outlasts the lease")
    proxy.heal()
    wait_until(lambda: cut_off.pid in site.worker_rows().values(), "it goes on as a new worker", 40)
    back = time.monotonic() - since - 2
    wait_until(lambda: site.unfinished() == 0, "all are completed", 60)
    last = max((effect.at for effect in site.ledger("began") if effect.pid == cut_off.pid and effect.at < taken + 2), default=cut)
    site.settle(
        f"2 workers, {site.backend}", f"partition, {case}", 60, [before, held], repeats=16,
        remark=f"last begin {taken - last:.1f} s before the takeover at {taken - cut:.1f} s; back after {back:.1f} s",
    )  # fmt: skip
    assert other.pid in site.live_workers()
    assert taken - last > 2, "it began activities although its lease was nearly over"
