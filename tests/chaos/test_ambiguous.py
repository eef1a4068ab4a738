"""F3: 5 % of all COMMITs get no answer, half of them after they were executed, and 10 % are refused for a moment: nothing is lost or doubled.

FLASK_DURABLE_TEST_AMBIGUOUS=10000 is the number of programs of the long run.
"""

from __future__ import annotations

import os
import random

import chaos_app
import pytest
from chaos_harness import Chaos, wait_until
from commit_faults import CommitFaults
from kill_loop import SEED

PROGRAMS = int(os.environ.get("FLASK_DURABLE_TEST_AMBIGUOUS", "150"))
AT_ONCE = 60

pytestmark = pytest.mark.chaos


def start_some(chaos, clients, lots, number):
    """Start a program and raise its events, without keys, by whichever client."""
    name = lots.choice(["Mixed", "Mixed", "Mixed", "Chain", "Fan"])
    order = {"steps": chaos_app.random_steps(lots, 0.0)} if name == "Mixed" else {"steps": lots.randint(1, 5), "seconds": 0}
    named = {"instance_id": f"p{number}"} if lots.random() < 0.5 else {}
    instance_id = lots.choice(clients).start(name, order, **named)
    chaos.accepted.add(instance_id)
    chaos.effects[instance_id] = chaos_app.effects_of(name, order)
    for event in range(chaos_app.events_of(order) if name == "Mixed" else 0):
        data = [instance_id, event]
        lots.choice(clients).raise_event(instance_id, "Go", data)
        chaos.raised.setdefault(instance_id, []).append(("Go", f'["{instance_id}", {event}]'))


def test_answers_to_commits_that_are_lost(tmp_path, backend, backend_url, monkeypatch):
    monkeypatch.setenv("CHAOS_FOLDER", str(tmp_path))
    chaos = Chaos(tmp_path, backend_url)
    lots = random.Random(SEED)
    config = {"TESTING": True, "DURABLE_POLL_INTERVAL": 0.05}
    workers = [chaos_app.make_app(str(tmp_path), backend_url, DURABLE_CACHE_SIZE=size, **config)[1] for size in (1000, 0)]
    clients = [chaos.client, *(durable.client for durable in workers)]
    faults = [CommitFaults(each._state().store, SEED + number, 0.05, 0.10) for number, each in enumerate([chaos._durable, *workers])]
    for durable in workers:
        durable.start_worker()
    try:
        for number in range(PROGRAMS):
            wait_until(lambda: number % 16 or chaos.unfinished() < AT_ONCE, "there is room for more", 120)  # noqa: B023 - called at once
            start_some(chaos, clients, lots, number)
        wait_until(lambda: chaos.unfinished() == 0, "all are completed", 120)
    finally:
        for fault in faults:
            fault.ambiguous = fault.busy = 0.0
        for durable in workers:
            durable.close()
    counts = sum((fault.counts for fault in faults), start=type(faults[0].counts)())
    chaos.kills = counts["before"] + counts["after"] + counts["busy"]
    commits = sum(counts.values())
    remark = f"{PROGRAMS} programs, {commits} commits: {counts['before']} lost before, {counts['after']} after they were executed, {counts['busy']} busy; seed {SEED}"
    try:
        chaos.settle(f"{backend}, 2 workers and a client", "F3 ambiguous commit", PROGRAMS, repeats=0, remark=remark)
    finally:
        chaos.close()
    assert counts["after"] > 5
