"""A process that is short of descriptors, memory, threads or connections (F21): it does less at a time, and all is done."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from backends import BACKENDS
from chaos_harness import threads_of, wait_until

pytestmark = pytest.mark.chaos
MEGABYTE = 2**20
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def address_space(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmSize"))


def begin(site):
    worker = site.flask("durable", "worker", CHAOS_KEEP_LEDGER="1")
    wait_until(lambda: "Worker started" in worker.text(), "there is a worker, with all the threads that it always has")
    return worker


def test_a_process_without_descriptors_goes_on_when_there_are_some(make_site):
    site = make_site(DURABLE_MAX_ACTIVITIES=4)
    site.client.start("Scarce", ["hoard", 3], instance_id="scarce")
    worker = begin(site)
    wait_until(lambda: site.ledger_lines("hoard"), "every descriptor is taken")
    site.kills = 1
    site.start(30, steps=3, seconds=0.05)
    site.wait_for_all(31)
    assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)[0] < 200
    before = len(site.ledger_lines("hoard"))
    site.settle(f"flask durable worker, {site.backend}", "F21 no descriptors for 3 s", 31, repeats=0)
    assert before == 1
    assert site.live_workers() == {worker.pid}


def test_a_process_that_gets_no_more_threads_or_memory_does_all_with_those_it_has(make_site):
    site = make_site(DURABLE_MAX_ACTIVITIES=16)
    worker = begin(site)
    few = threads_of(worker.pid)
    limit = address_space(worker.pid) + 30 * MEGABYTE
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    site.kills = 1
    site.start(40, steps=3, seconds=0.05)
    site.client.start("Scarce", ["gorge", 2**30], instance_id="scarce")
    site.wait_for_all(41)
    least = threads_of(worker.pid) - few
    resource.prlimit(worker.pid, resource.RLIMIT_AS, UNLIMITED)
    site.start(16, name="Fan", steps=4, seconds=0.3, prefix="later-")
    wait_until(lambda: threads_of(worker.pid) - few >= 16, "it makes threads again")
    site.wait_for_all(57)
    site.settle(
        f"flask durable worker, {site.backend}", "F21 no threads, no memory", 57, repeats=0, remark=f"{least} of 16 threads while they were short"
    )
    assert least < 16
    assert "No thread can be made" in worker.text()
    assert "Traceback" not in worker.text()


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "sqlite"], indirect=True)
def test_more_activities_that_use_the_database_than_connections(make_site):
    site = make_site(DURABLE_MAX_CONNECTIONS=5, DURABLE_MAX_ACTIVITIES=32)
    worker = begin(site)
    site.kills = 1
    site.client.start("UseDatabase", {"steps": 100, "seconds": 0.02}, instance_id="users")
    wait_until(lambda: site.finished() == 101, "all are completed", 60)
    site.settle(f"32 threads, 1 connection for them, {site.backend}", "F21 few connections", 101, repeats=0)
    assert "Traceback" not in worker.text()
