"""kill -9 again and again while random programs are started and their events raised; then everything has to come to its end, once."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import threading
import time
from dataclasses import dataclass, field

import chaos_app
from chaos_harness import PREFIX, Chaos, Group, Snapshot, wait_until

THREADS = 16
"""Activities that run at the same time in one process."""

SNAPSHOT_EVERY = 25
"""Kills between two looks at all that is recorded."""


@dataclass
class KillLoop:
    """One run.

    Args:
        chaos: has the processes.
        seed: of the programs and of the victims.
        at_once: at most so many programs are under way.
        over_http: whether programs are started through the server, which may die meanwhile, or by this process.
    """

    chaos: Chaos
    seed: int
    at_once: int = 40
    over_http: bool = False
    started: int = 0
    snapshots: list[Snapshot] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    waiting: list[tuple[str, int]] = field(default_factory=list)
    is_fed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.lots = random.Random(self.seed)

    # -- the workload

    def feed(self) -> None:
        """Start programs and raise their events until told to stop."""
        lots = random.Random(self.seed + 1)
        try:
            while not self.is_fed.is_set():
                if self.chaos.unfinished() < self.at_once:
                    for _ in range(8):
                        self.start_one(lots)
                else:
                    time.sleep(0.02)  # there is enough to do
                self.raise_some(lots)
            while self.waiting:
                self.raise_some(lots)
        except BaseException as error:  # noqa: BLE001 - told in the thread of the test
            self.errors.append(error)

    def start_one(self, lots: random.Random) -> None:
        chaos, instance_id = self.chaos, f"p{self.seed}-{self.started}"
        self.started += 1
        name = lots.choice(["Mixed", "Mixed", "Mixed", "Mixed", "Chain", "Fan"])
        seconds = lots.choice([0.0, 0.0, 0.01, 0.05])
        order = {"steps": chaos_app.random_steps(lots, seconds)} if name == "Mixed" else {"steps": lots.randint(1, 5), "seconds": seconds}
        chaos.effects[instance_id] = chaos_app.effects_of(name, order)
        if self.over_http:
            self.start_over_http(instance_id, name, order)
        else:
            chaos.client.start(name, order, instance_id=instance_id)
        if name == "Mixed":
            self.waiting += [(instance_id, number) for number in range(chaos_app.events_of(order))]

    def start_over_http(self, instance_id: str, name: str, order: object) -> None:
        """Until it is acknowledged: a server that dies answers nothing, and nobody knows whether it had started it."""

        def is_acknowledged() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                body = {"input": order, "instanceId": instance_id, "ifExists": "return"}
                return bool(self.chaos.request("POST", f"{PREFIX}/start/{name}", body)[0] in (200, 202))
            return False

        wait_until(is_acknowledged, "a server accepts a start", 60)
        self.chaos.accepted.add(instance_id)

    def raise_some(self, lots: random.Random) -> None:
        for _ in range(min(len(self.waiting), 8)):
            instance_id, number = self.waiting.pop(0)
            self.chaos.raise_event(instance_id, "Go", [instance_id, number])

    # -- the faults

    def run(self, kills: int, victims: list[Group] | Group, pauses: tuple[float, float]) -> float:
        """Kill so often; returns how long the last instance took to end after the last kill.

        Args:
            kills: how many processes.
            victims: a gunicorn master, of which children are killed, or groups that are killed and begun anew.
            pauses: seconds between two kills, at least and at most.
        """
        feeder = threading.Thread(target=self.feed, daemon=True)
        feeder.start()
        try:
            while self.chaos.kills < kills and not self.errors:
                time.sleep(self.lots.uniform(*pauses))  # the time between two kills is what the fault is about
                self.kill_one(victims)
                if self.chaos.kills % SNAPSHOT_EVERY == 0:
                    self.snapshots.append(self.chaos.snapshot())
        finally:
            last = time.monotonic()
            self.is_fed.set()
            feeder.join(120)
        assert not self.errors, self.errors
        wait_until(lambda: self.chaos.unfinished() == 0, "all are completed", 180)
        return time.monotonic() - last

    def kill_one(self, victims: list[Group] | Group) -> None:
        """Kill a process that has a worker."""
        chaos = self.chaos

        def candidates() -> list[int]:
            own = victims.children() if isinstance(victims, Group) else set().union(*(group.pids() for group in victims))
            return sorted(chaos.live_workers() & own)

        wait_until(lambda: candidates() or self.errors, "there is a worker to be killed", 120)
        if self.errors:
            return
        pid = self.lots.choice(candidates())
        if isinstance(victims, Group):
            with contextlib.suppress(ProcessLookupError):
                chaos.kill_one(pid)
            return
        victim = next(group for group in victims if pid in group.pids())
        chaos.kill(victim)
        victims[victims.index(victim)] = chaos.worker()


def slices(total: int, size: int) -> list[int]:
    """So many kills, in runs of about the same size."""
    runs = max(1, round(total / size))
    return [total // runs + (number < total % runs) for number in range(runs)]


KILLS = int(os.environ.get("FLASK_DURABLE_TEST_KILLS", "0"))
SEED = int(os.environ.get("FLASK_DURABLE_TEST_SEED", "20260301"))
