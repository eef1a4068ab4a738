"""kill -9 in the middle of the work."""

from __future__ import annotations

import random

import pytest
from chaos_harness import wait_until

THREADS = 16


def test_two_hundred_running_orchestrations_survive_kill_9(chaos):
    for number in range(200):
        chaos.client.start("Chain", {"steps": 3, "seconds": 0.1}, instance_id=f"order-{number}")
    first = chaos.worker()
    wait_until(lambda: chaos.completions() >= 250, "the work is in its middle")
    chaos.kill(first)
    before = chaos.snapshot()
    under_way = len(chaos.ledger("began")) - len(before.results)
    assert 0 < len(before.finished) < 200 or len(before.results) < 600
    chaos.worker()
    wait_until(lambda: chaos.unfinished() == 0, "all are completed")
    chaos.settle("200 chains, one worker", "kill -9", 200, [before], repeats=under_way)


@pytest.mark.chaos
def test_kill_9_again_and_again_among_three_workers(make_chaos):
    chaos = make_chaos(DURABLE_MAX_DELIVERIES=1000)
    lots = random.Random(20260101)
    count = 400
    for number in range(count):
        chaos.client.start("Chain" if number % 2 else "Fan", {"steps": 4, "seconds": 0.05}, instance_id=f"order-{number}")
    groups = [chaos.worker() for _ in range(3)]
    snapshots, repeats = [], 0
    while chaos.unfinished() and chaos.kills < 40:
        goal = chaos.completions() + lots.randrange(5, 60)
        wait_until(lambda goal=goal: chaos.completions() >= goal or not chaos.unfinished(), "the work goes on between kills")
        victim = lots.choice(groups)
        chaos.kill(victim)
        repeats += 2 * THREADS
        snapshots.append(chaos.snapshot())
        groups[groups.index(victim)] = chaos.worker()
    wait_until(lambda: chaos.unfinished() == 0, "all are completed", 60)
    chaos.settle("400 chains and fans, 3 workers", "kill -9 loop", count, snapshots, repeats=repeats)
