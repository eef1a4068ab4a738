"""F11: what calls came to is delivered again, up to five times, in another order and late, while workers in other processes run the programs."""

from __future__ import annotations

import random
import threading
import time

import chaos_app
import pytest
from chaos_harness import wait_until
from fault_harness import LENGTH
from kill_loop import SEED

pytestmark = pytest.mark.chaos
PROGRAMS = int(60 * LENGTH)
OUTCOMES = "('TaskCompleted', 'TaskFailed', 'SubOrchestrationCompleted', 'SubOrchestrationFailed', 'TimerFired')"
LIVE = "status = 'Running' AND parked_reason IS NULL"
LONGEST_DELAY = 500_000
"""Microseconds."""


class Postman(threading.Thread):
    """Delivers again what an instance has already got, and puts off what waits for it, as a careless queue would."""

    def __init__(self, durable, seed):
        super().__init__(daemon=True)
        self._sql = durable._state().store._sql
        self._lots = random.Random(seed)
        self._is_over = threading.Event()
        self.repeated = self.delayed = 0
        self.error = None

    def run(self):
        try:
            while not self._is_over.is_set():
                found = self._sql.read(
                    lambda: self._sql.rows(f"SELECT hub, instance_id, execution_id FROM durable_instance WHERE {LIVE} LIMIT 200", ())
                )
                for instance in self._lots.sample(found, min(len(found), 8)):
                    self._sql.transaction(lambda: self._trouble(*instance))  # noqa: B023 - called at once
                self._is_over.wait(0.005)
        except BaseException as error:  # noqa: BLE001 - told in the thread of the test
            self.error = error

    def end(self):
        self._is_over.set()
        self.join(20)
        assert self.error is None, self.error

    def _trouble(self, hub, instance_id, execution_id):
        at = int(time.time() * 1e6) + self._lots.choice([0, 0, self._lots.randint(0, LONGEST_DELAY)])
        wake = f"UPDATE durable_instance SET ready_at = CASE WHEN ready_at IS NULL OR ready_at > ? THEN ? ELSE ready_at END WHERE hub = ? AND instance_id = ? AND execution_id = ? AND {LIVE}"
        if not self._sql.run(wake, (at, at, hub, instance_id, execution_id)):
            return
        if self._lots.random() < 0.3:
            self._put_off(hub, instance_id, at)
            return
        events = self._sql.rows(
            "SELECT h.event_type, h.task_id, h.name, h.payload, h.extra FROM durable_history h JOIN durable_instance i ON i.hub = h.hub AND i.instance_id = h.instance_id"
            f" AND i.generation = h.generation WHERE h.hub = ? AND h.instance_id = ? AND i.execution_id = ? AND h.event_type IN {OUTCOMES}",
            (hub, instance_id, execution_id),
        )
        for event in self._lots.sample(events, min(len(events), 3)):
            for _ in range(self._lots.randint(1, 4)):
                self._insert(hub, instance_id, execution_id, at, event)
                self.repeated += 1

    def _put_off(self, hub, instance_id, at):
        """What has not been taken yet comes after all that is there by then, and after some time."""
        where = f"hub = ? AND instance_id = ? AND event_type IN {OUTCOMES} AND visible_at <= ?"
        waiting = self._sql.rows(
            f"SELECT message_id, execution_id, event_type, task_id, name, payload, extra FROM durable_message WHERE {where}", (hub, instance_id, at)
        )
        for message_id, execution_id, *event in self._lots.sample(waiting, len(waiting)):
            if self._sql.run("DELETE FROM durable_message WHERE message_id = ?", (message_id,)):
                self._insert(hub, instance_id, execution_id, at, event)
                self.delayed += 1

    def _insert(self, hub, instance_id, execution_id, at, event):
        text = "INSERT INTO durable_message (hub, instance_id, execution_id, visible_at, event_type, task_id, name, payload, extra) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._sql.run(text, (hub, instance_id, execution_id, at, *event))


def test_messages_that_come_again_late_and_in_another_order(make_site):
    site = make_site(DURABLE_POLL_INTERVAL=0.05, DURABLE_CACHE_SIZE=2)
    lots = random.Random(SEED)
    workers = [site.flask("durable", "worker") for _ in range(2)]
    wait_until(lambda: len(site.live_workers()) == len(workers), "both work")
    assert site.client
    postman = Postman(site._durable, SEED)
    postman.start()
    try:
        for number in range(PROGRAMS):
            wait_until(lambda: site.unfinished() < 30, "there is room for more", 120)
            name, instance_id = lots.choice(["Mixed", "Mixed", "Mixed", "Chain", "Fan"]), f"p{number}"
            order = {"steps": chaos_app.random_steps(lots, 0.01)} if name == "Mixed" else {"steps": lots.randint(1, 5), "seconds": 0.01}
            site.client.start(name, order, instance_id=instance_id)
            site.effects[instance_id] = chaos_app.effects_of(name, order)
            for event in range(chaos_app.events_of(order) if name == "Mixed" else 0):
                site.raise_event(instance_id, "Go", [instance_id, event])
        wait_until(lambda: site.unfinished() == 0, "all are completed", 120)
    finally:
        postman.end()
    site.kills = postman.repeated + postman.delayed
    remark = f"{postman.repeated} outcomes delivered again, {postman.delayed} put off; seed {SEED}"
    site.settle(f"2 workers, {site.backend}", "F11 messages repeated, late, shuffled", PROGRAMS, repeats=0, remark=remark)
    assert postman.repeated > PROGRAMS
