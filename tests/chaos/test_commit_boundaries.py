"""F2: a process that dies at each of its commits, before or after it is executed, some of them again while they recover: all work is done.

The commits are those of the schema, of the worker's row, of turns, of request threads and of the orderly end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import traceback
import warnings

import chaos_app
import peewee
import pytest
from backends import make_database
from chaos_harness import Chaos, Findings
from support import until
from table import note

pytestmark = pytest.mark.chaos

DIED = 77
STEPS = [
    ["work", 0],
    ["fan", 2, 0],
    ["timer", 0.01],
    ["event", 0],
    ["child", [["work", 0], ["timer", 0.01]]],
    ["again", 0],
    ["race", 0],
    ["retry", 0],
]
MOST = 60
"""More commits than the workload has."""


def die_at(number: int, kind: str) -> None:
    """Let the process end like one that is killed, at one of its commits."""
    commit, numbers = peewee.Database.commit, itertools.count(1)

    def dying(self):
        is_it = next(numbers) == number
        if is_it and kind == "before":
            os._exit(DIED)
        commit(self)
        if is_it:
            os._exit(DIED)

    peewee.Database.commit = dying


def live(folder, url, number, kind):
    """What a process does that may have to take up the work of one that has died; it never returns."""
    code = 1
    try:
        die_at(number, kind)
        os.environ["CHAOS_FOLDER"] = str(folder)
        _, durable = chaos_app.make_app(str(folder), url, TESTING=True, DURABLE_POLL_INTERVAL=0.02, DURABLE_LEASE_SECONDS=1)
        durable.start_worker()
        client = durable.client
        for instance_id, name, order in (("mixed", "Mixed", {"steps": STEPS}), ("fan", "Fan", {"steps": 3, "seconds": 0})):
            client.start(name, order, instance_id=instance_id, if_exists="return")
            chaos_app.write_line("accepted", instance_id)
        client.raise_event("mixed", "Go", "once", dedup_key="once")
        for instance_id in ("mixed", "fan"):
            client.wait_for_completion(instance_id, timeout=30)
        durable.close()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent sees the exit code
        traceback.print_exc()
    finally:
        os._exit(code)


def in_a_process(folder, url, number=0, kind="before"):
    """Run it in a process of its own; whether it has died at its point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # none of this process's threads holds a lock of ours
        pid = os.fork()
    if pid == 0:
        live(folder, url, number, kind)
    codes = []

    def has_ended():
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            codes.append(os.waitstatus_to_exitcode(status))
        return found

    until(has_ended, "the process ended", 60)
    assert codes[0] in (0, DIED), f"commit {number}, {kind}: it ended with {codes[0]}"
    return codes[0] == DIED


class Points:
    """The points of one backend, each on a database of its own."""

    def __init__(self, backend, folder):
        self.backend, self.folder = backend, folder
        self.began, self.runs, self.deaths, self.found = time.monotonic(), 0, 0, Findings()

    def die(self, *points):
        """Die at each of these points, one after the other, and recover; how many of them there are."""
        name = "-".join(f"{number}{kind}" for number, kind in points)
        folder = self.folder / name
        folder.mkdir()
        with make_database(self.backend, folder) as url:
            deaths = sum([in_a_process(folder, url, number, kind) for number, kind in points])
            in_a_process(folder, url)
            chaos = Chaos(folder, url)
            chaos.accepted = {line[0] for line in chaos.ledger_lines("accepted")}
            chaos.effects["mixed"] = chaos_app.effects_of("Mixed", {"steps": STEPS})
            chaos.raised["mixed"] = [("Go", '"once"')]
            with contextlib.closing(chaos):
                found = chaos.check(2)
        assert not found.broken, (name, found.broken)
        assert (found.lost, found.doubled) == (0, 0), (name, found)
        for figure in ("expected", "counted", "repeated"):
            setattr(self.found, figure, getattr(self.found, figure) + getattr(found, figure))
        self.runs += 1
        self.deaths += deaths
        return deaths

    def report(self, remark):
        figures = {name: getattr(self.found, name) for name in ("expected", "counted", "repeated", "lost", "doubled")}
        seconds = time.monotonic() - self.began
        note(f"{self.backend}, one process", "F2 commit boundary", runs=self.runs, kills=self.deaths, remark=f"{remark} [{seconds:.1f} s]", **figures)


def test_death_at_each_commit(tmp_path, backend):
    points = Points(backend, tmp_path)
    step = 1 if backend == "sqlite" else 6
    numbers = iter(range(1, MOST, step))
    last = next(number for number in numbers if not points.die((number, "before")) or not points.die((number, "after")))
    points.report(f"each of {last - 1} commits, before and after" if step == 1 else f"every {step}th of {last - 1} commits, before and after")
    assert points.deaths >= 2 * (last - 1) // step - 1
    assert last > 15


def test_death_at_a_commit_and_again_in_the_recovery(tmp_path, backend):
    points = Points(backend, tmp_path)
    pairs = [(first, second) for first in (2, 5, 8, 11, 14) for second in (1, 2, 3, 5)] if backend == "sqlite" else [(8, 3)]
    kinds = itertools.cycle(itertools.product(("before", "after"), repeat=2))
    for (first, second), (one, other) in zip(pairs, kinds, strict=False):
        points.die((first, one), (second, other))
    points.report("pairs: once more during the recovery")
    assert points.deaths == 2 * points.runs
