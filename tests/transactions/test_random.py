"""Random transactions in several threads: what was rolled back leaves nothing, what was committed always runs.

``FLASK_DURABLE_TEST_TRANSACTIONS`` is the number of cases on each backend, ``FLASK_DURABLE_TEST_SEED`` the seed, which is printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
from own_database import Shop
from support import finish

from flask_durable import FlaskDurable, RuntimeStatus
from flask_durable.errors import InstanceExistsError, InstanceFinishedError, InstanceNotFoundError

CASES = int(os.environ.get("FLASK_DURABLE_TEST_TRANSACTIONS", "150"))
SEED = int(os.environ.get("FLASK_DURABLE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
THREADS = 6


class RollBackError(Exception):
    pass


@dataclass
class Expected:
    """What must be there if the transaction ended now."""

    started: dict[str, int] = field(default_factory=dict)
    notes: list[int] = field(default_factory=list)
    is_ended: bool = False
    is_suspended: bool = False
    orders: list[int] = field(default_factory=list)


class Case:
    """One transaction of one thread, beside an instance of its own that was there before."""

    def __init__(self, shop: Shop, durable: FlaskDurable, lots: random.Random, number: int) -> None:
        self.shop = shop
        self.client = durable.client
        self.lots = lots
        self.number = number
        self.waiting = durable.client.start("collect", instance_id=f"waiting-{number}" if lots.random() < 0.5 else None)
        self.mentioned: list[str] = []
        self.expected = Expected()
        self.story: list[str] = []

    def run(self) -> None:
        """Carry the case out, keeping account of what must come of it."""
        with self.shop.database.connection_context():
            self._block(self._outermost(), 0)

    # -- blocks

    def _outermost(self) -> Callable[[], Any]:
        database = self.shop.database
        return self.lots.choice([database.atomic, database.transaction, self._manual, self._raw])

    @contextlib.contextmanager
    def _manual(self) -> Iterator[Any]:
        database = self.shop.database
        with database.manual_commit():
            database.begin()
            try:
                yield None
            except BaseException:
                database.rollback()
                raise
            database.commit()

    @contextlib.contextmanager
    def _raw(self) -> Iterator[Any]:
        database = self.shop.database
        database.execute_sql("BEGIN IMMEDIATE" if "Sqlite" in type(database).__name__ else "BEGIN")
        try:
            yield None
        except BaseException:
            database.execute_sql("ROLLBACK")
            raise
        database.execute_sql("COMMIT")

    def _block(self, open_block: Callable[[], Any], depth: int) -> None:
        before = deepcopy(self.expected)
        ending = self.lots.choice(["end", "end", "end", "raise", "rollback", "commit and raise"])
        self.story.append(f"{'  ' * depth}{getattr(open_block, '__name__', open_block)} … {ending}")
        try:
            with open_block() as block:
                for _ in range(self.lots.randrange(1, 5)):
                    self._act(depth + 1)
                if ending == "rollback" and hasattr(block, "rollback"):
                    block.rollback()
                    self.expected = deepcopy(before)
                    self._act(depth + 1)
                elif ending == "commit and raise" and hasattr(block, "commit"):
                    block.commit()
                    before = deepcopy(self.expected)
                    self._act(depth + 1)
                    raise RollBackError
                elif ending in ("raise", "commit and raise"):
                    raise RollBackError
        except RollBackError:
            self.expected = before

    # -- actions, each with what must come of it

    def _act(self, depth: int) -> None:
        actions = [self._start, self._start, self._start_again, self._note, self._note, self._terminate, self._hold, self._order, self._ask]
        if depth < 4:
            actions += [lambda: self._block(self._inner(), depth)] * 3
        action = self.lots.choice(actions)
        self.story.append(f"{'  ' * depth}{getattr(action, '__name__', 'block')}")
        action()

    def _inner(self) -> Callable[[], Any]:
        database = self.shop.database
        return database.savepoint if not database.in_transaction() or not hasattr(database.top_transaction(), "rollback") else database.atomic

    def _start(self) -> None:
        wanted = f"case-{self.number}-{uuid.UUID(int=self.lots.getrandbits(128)).hex[:8]}" if self.lots.random() < 0.6 else None
        value = self.lots.randrange(1000)
        instance_id = self.client.start("echo", value, instance_id=wanted)
        self.mentioned.append(instance_id)
        self.expected.started[instance_id] = value

    def _start_again(self) -> None:
        if not self.mentioned:
            return
        instance_id, value = self.lots.choice(self.mentioned), self.lots.randrange(1000)
        if instance_id not in self.expected.started:  # rolled back: the id is free
            self.client.start("echo", value, instance_id=instance_id)
            self.expected.started[instance_id] = value
        elif self.lots.random() < 0.5:
            with pytest.raises(InstanceExistsError):
                self.client.start("echo", value, instance_id=instance_id)
        else:
            assert self.client.start("echo", value, instance_id=instance_id, if_exists="return") == instance_id

    def _note(self) -> None:
        note = self.lots.randrange(1000)
        if self.expected.is_ended:
            with pytest.raises(InstanceFinishedError):
                self.client.raise_event(self.waiting, "Note", note)
        else:
            self.client.raise_event(self.waiting, "Note", note)
            self.expected.notes.append(note)

    def _terminate(self) -> None:
        if self.lots.random() < 0.3:
            if self.expected.is_ended:
                with pytest.raises(InstanceFinishedError):
                    self.client.terminate(self.waiting)
            else:
                self.client.terminate(self.waiting)
                self.expected.is_ended = True
        else:
            with pytest.raises(InstanceNotFoundError):
                self.client.terminate(f"never-{self.number}")

    def _hold(self) -> None:
        if self.expected.is_ended:
            return
        self.expected.is_suspended = not self.expected.is_suspended
        (self.client.suspend if self.expected.is_suspended else self.client.resume)(self.waiting)

    def _order(self) -> None:
        number = self.number * 1000 + len(self.story)
        self.shop.Order.create(number=number)
        self.expected.orders.append(number)

    def _ask(self) -> None:
        for instance_id in self.mentioned:
            status = self.client.get_status(instance_id)
            assert (status is not None) == (instance_id in self.expected.started)
        status = self.client.get_status(self.waiting)
        assert (status.runtime_status is RuntimeStatus.TERMINATED) == self.expected.is_ended
        assert (status.runtime_status is RuntimeStatus.SUSPENDED) == (self.expected.is_suspended and not self.expected.is_ended)

    # -- afterwards

    def end(self) -> None:
        """Let what waits come to its end."""
        if not self.expected.is_ended:
            self.client.raise_event(self.waiting, "Note", "end")
            if self.expected.is_suspended:
                self.client.resume(self.waiting)

    def check(self, durable: FlaskDurable, orders: set[int]) -> None:
        """Nothing of what was rolled back is there, and all that was committed has run."""
        for instance_id in self.mentioned:
            if instance_id in self.expected.started:
                assert finish(durable, instance_id, 60).output == self.expected.started[instance_id], self.told()
            else:
                assert durable.client.get_status(instance_id) is None, self.told()
        ended = finish(durable, self.waiting, 60)
        if self.expected.is_ended:
            assert ended.runtime_status is RuntimeStatus.TERMINATED, self.told()
        else:
            assert ended.output == self.expected.notes, self.told()
        mine = {number for number in orders if number // 1000 == self.number}
        assert mine == set(self.expected.orders), self.told()

    def told(self) -> str:
        return f"FLASK_DURABLE_TEST_SEED={SEED}, case {self.number}:\n" + "\n".join(self.story)


def test_random_transactions_leave_all_or_nothing(database_url, hub, tmp_path):  # I1
    from own_database import open_shop

    # On SQLite a block that reads first could not write later, when another one has written meanwhile: such an app begins its blocks as writers
    options = {"lock_type": "IMMEDIATE"} if database_url.startswith("sqlite") else {}
    for shop in open_shop(database_url, hub, tmp_path, **options):
        durable = shop.app(DURABLE_DATABASE_TIMEOUT=60.0)
        with_orchestrators(durable)
        durable.start_worker()
        cases = carry_out(shop, durable)
        for case in cases:
            case.end()
        orders = set(shop.orders())
        for case in cases:
            case.check(durable, orders)
        known = sum(len(case.expected.started) + 1 for case in cases)
        assert durable.client.count() == known
        starts = sum(len(case.mentioned) for case in cases)
        print(f"{len(cases)} cases: {starts} starts, {known - len(cases)} of them committed")  # noqa: T201


def carry_out(shop: Shop, durable: FlaskDurable) -> list[Case]:
    print(f"FLASK_DURABLE_TEST_SEED={SEED}")  # noqa: T201
    done: list[Case] = []
    errors: list[BaseException] = []
    numbers = iter(range(1, CASES + 1))
    lock = threading.Lock()

    def work() -> None:
        while not errors:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            case = Case(shop, durable, random.Random(SEED * 1_000_003 + number), number)
            try:
                case.run()
            except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
                error.add_note(case.told())
                errors.append(error)
            done.append(case)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return done


def with_orchestrators(durable: FlaskDurable) -> None:
    @durable.orchestrator
    def echo(ctx, value):
        return value

    @durable.orchestrator
    def collect(ctx):
        notes = []
        while (note := (yield ctx.wait_for_external_event("Note"))) != "end":
            notes.append(note)
        return notes
