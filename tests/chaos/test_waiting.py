"""Ten thousand instances that wait for an event are rows, not threads, memory or processor time."""

from __future__ import annotations

import time

import pytest
from chaos_harness import PREFIX, cpu_seconds, resident_bytes, threads_of, wait_until
from table import note

COUNT = 10_000
SECONDS = 10
ALL_THREADS = 16 + 3 + 4
"""Activities, ticks; main thread, loop, the watch over slow turns, scheduler: made when they are first needed, and no more."""


@pytest.mark.chaos
def test_ten_thousand_waiting_instances_cost_next_to_nothing(chaos):
    group = chaos.flask_run()
    wait_until(lambda: chaos.live_workers() and chaos.answers(), "it serves")
    assert chaos.start_over_http(64, seconds=0.1) == {202: 64}
    wait_until(lambda: chaos.unfinished() == 0, "the work is done")
    threads, resident = threads_of(group.pid), resident_bytes(group.pid)

    def is_quiet():
        waiting = chaos.value("SELECT COUNT(*) FROM durable_instance WHERE name = 'Await' AND status = 'Running' AND worker_id IS NULL")
        return waiting == COUNT and threads_of(group.pid) <= ALL_THREADS

    began = time.monotonic()
    assert chaos.start_over_http(COUNT, name="Await") == {202: COUNT}
    wait_until(is_quiet, "all are waiting")
    took = time.monotonic() - began
    grown = (resident_bytes(group.pid) - resident) / 2**20
    before = cpu_seconds(group.pid)
    time.sleep(SECONDS)  # what is measured is the processor time of these seconds
    share = (cpu_seconds(group.pid) - before) / SECONDS
    figures = f"threads {threads} -> {threads_of(group.pid)}, RSS +{grown:.1f} MB, idle {share:.2%} of a core, started in {took:.1f} s"
    number, at = chaos.value("SELECT instance_id FROM durable_instance WHERE name = 'Await' ORDER BY created_at LIMIT 1"), time.monotonic()
    assert chaos.request("POST", f"{PREFIX}/{number}/raiseEvent/Go", 1)[0] == 202
    wait_until(lambda: chaos.value("SELECT status FROM durable_instance WHERE instance_id = ?", number) == "Completed", "one of them goes on")
    note(f"{COUNT} waiting", "none", remark=f"{figures}, an event after {time.monotonic() - at:.3f} s")
    assert threads_of(group.pid) <= ALL_THREADS
    assert grown < 60
    assert share < 0.02
