"""kill -9 of workers that run transactional activities: effects are the recorded completions, exactly (G3, I10)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chaos_harness import TABLE, Group, wait_until
from transactional_app import Shop

import flask_durable
from flask_durable.core.events import TaskCompleted

HERE = Path(__file__).parent
SEED = int(os.environ.get("FLASK_DURABLE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
CONFIG = {"DURABLE_LEASE_SECONDS": 2.0, "DURABLE_MAX_DELIVERIES": 1000}


class Fleet:
    """Worker processes on one database, and the test's own process, which has none."""

    def __init__(self, url: str, hub: str, folder: Path) -> None:
        self.url = url if not url.startswith("sqlite") else f"sqlite:///{folder}/own.db"
        self.folder = folder
        self.hub = hub
        self.shop = Shop(self.url, hub, str(folder), TESTING=True, **CONFIG)
        self.groups: list[Group] = []
        self.kills = 0
        self.freezes = 0
        shutil.copy(HERE / "transactional_app.py", folder / "transactional_app.py")

    def worker(self) -> Group:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "WERKZEUG_", "OTEL_"))}
        options = {"url": self.url, "hub": self.hub, "folder": str(self.folder), **CONFIG}
        environment.update(TRANSACTIONAL_APP=json.dumps(options), PYTHONUNBUFFERED="1")
        environment["PYTHONPATH"] = os.pathsep.join([str(self.folder), str(Path(flask_durable.__file__).parents[1])])
        words = [sys.executable, "-m", "flask", "--app", "transactional_app", "durable", "worker"]
        self.groups.append(Group(words, environment, self.folder / f"log-{len(self.groups)}"))
        return self.groups[-1]

    def kill(self, group: Group) -> None:
        group.kill()
        self.kills += 1

    def effects(self) -> int:
        with self.shop.database.connection_context():
            return int(self.shop.Effect.select().count())

    def unfinished(self) -> int:
        return sum(1 for status in self.shop.durable.client.list(page_size=1000).items if not status.runtime_status.is_final)

    def check(self) -> dict[str, int]:
        """Effects and recorded completions, one by one."""
        client = self.shop.durable.client
        recorded: Counter[tuple[str, int, str]] = Counter()
        for status in client.list(page_size=1000).items:
            assert status.runtime_status.value == "Completed", status
            for each in client.history(status.instance_id, page_size=1000).events:
                if isinstance(each.event, TaskCompleted):
                    recorded[status.instance_id, each.event.task_id, json.loads(each.event.result)] += 1
        with self.shop.database.connection_context():
            rows = list(self.shop.Effect.select())
        effects = Counter((row.instance_id, row.task_id, row.token) for row in rows)
        assert effects == recorded
        assert set(effects.values()) == {1}
        return {
            "effects": len(rows),
            "retried": sum(1 for row in rows if row.attempt > 1),
            "taken over": sum(1 for row in rows if row.delivery > 1),
        }

    def close(self) -> None:
        for group in self.groups:
            group.kill()
        with self.shop.database.connection_context():
            self.shop.database.drop_tables([self.shop.Effect])
        self.shop.close()


@pytest.fixture
def fleet(database_url: str, hub: str, tmp_path: Path) -> Any:
    made = Fleet(database_url, hub, tmp_path)
    yield made
    made.close()


def start_all(fleet: Fleet, count: int, lots: random.Random, **order: Any) -> None:
    """Start instances in transactions of the app's, of which every other one is rolled back."""
    database, client = fleet.shop.database, fleet.shop.durable.client
    with database.connection_context():
        for number in range(count):
            with database.atomic() as transaction:
                client.start("Work", order, instance_id=f"lost-{number}")
                transaction.rollback()
            with database.atomic():
                client.start("Work", order, instance_id=f"order-{number}")


def kill_again_and_again(fleet: Fleet, lots: random.Random, *, workers: int, kills: int, most: int, freezes: bool = False) -> None:
    groups = [fleet.worker() for _ in range(workers)]
    while fleet.kills < kills and fleet.unfinished():
        goal = fleet.effects() + lots.randrange(1, most)
        wait_until(lambda goal=goal: fleet.effects() >= goal or not fleet.unfinished(), "the work goes on between kills", 90)
        time.sleep(lots.random() * 0.03)  # anywhere, not where the count was just read
        place = lots.randrange(workers)
        if freezes and lots.random() < 0.3:  # a zombie: it comes back when its calls belong to others
            os.kill(groups[place].pid, signal.SIGSTOP)
            time.sleep(CONFIG["DURABLE_LEASE_SECONDS"] + 1.5)
            os.kill(groups[place].pid, signal.SIGCONT)
            fleet.freezes += 1
            continue
        fleet.kill(groups[place])
        groups[place] = fleet.worker()
    wait_until(lambda: not fleet.unfinished(), "all have ended", 120)


def settle(fleet: Fleet, scenario: str, expected: int, began: float) -> None:
    found = fleet.check()
    remark = f"{found['retried']} retried, {found['taken over']} taken over, {fleet.freezes} frozen, seed {SEED} [{time.monotonic() - began:.1f} s]"
    TABLE.append((scenario, "kill -9", 1, fleet.kills, expected, found["effects"], 0, expected - found["effects"], 0, 0, remark))
    assert found["effects"] == expected, remark


@pytest.mark.parametrize("kills", [3])
def test_effects_are_the_recorded_completions_after_kills(fleet, database_url, kills):
    began, lots = time.monotonic(), random.Random(SEED)
    start_all(fleet, 6, lots, steps=2, seconds=0.03)
    kill_again_and_again(fleet, lots, workers=2, kills=kills, most=4)
    settle(fleet, f"transactional, {database_url.partition(':')[0]}", 24, began)


@pytest.mark.chaos
def test_effects_are_the_recorded_completions_after_many_kills(fleet, database_url):
    began, lots = time.monotonic(), random.Random(SEED)
    start_all(fleet, 60, lots, steps=4, seconds=0.06)
    # On SQLite a frozen process keeps the right to write: nobody can take its calls over
    kill_again_and_again(fleet, lots, workers=3, kills=40, most=8, freezes=not database_url.startswith("sqlite"))
    settle(fleet, f"transactional, {database_url.partition(':')[0]}", 480, began)
