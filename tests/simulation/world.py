"""A world of simulated workers around the real engine: one thread, virtual time, and a seed that decides what happens next.

While a worker is in the middle of a call of the store, or waits, the scheduler lets the others go on from inside that call. So a worker can be
overtaken, taken for dead or killed at any call, as real ones can.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Container
from random import Random
from typing import Any

from flask_durable.config import load_settings
from flask_durable.core.status import RuntimeStatus
from flask_durable.errors import DurableError, InstanceNotFoundError, StoreUnavailableError
from flask_durable.registry import Registry
from flask_durable.runtime.activities import present_activity
from flask_durable.runtime.steps import Submission
from flask_durable.runtime.surroundings import Surroundings
from flask_durable.runtime.worker import Worker
from flask_durable.storage.interface import (
    Batch,
    Command,
    InstanceFilter,
    Order,
    Purge,
    RaiseEvent,
    Resume,
    Rewind,
    StartInstance,
    Suspend,
    Terminate,
)
from flask_durable.telemetry import Telemetry
from flask_durable.watchers import Watchers
from tests.properties.interpreter import first_state, orchestrator, work
from tests.properties.programs import NAMES, Program
from tests.properties.simulation import programs_of

from .checks import check_state
from .faults import FaultyStore, Truth
from .options import DELAY, FREEZE, KILL, NO_WAKE, STOP, WILD, Options
from .stores import make_store, state_of
from .surroundings import SECOND, CrashError, NoThread, SimCloser, SimEvent, SimPool, SimTicker, VirtualClock, WrongError

LEASE = 6.0
POISON = "anded out"
"""The one reason for which instances may be parked here: too many workers died with them."""

CHECK_EVERY = 100
"""Ticks after which the stored rows are looked at, in the middle of everything."""

MOST_DEPTH = 4
MOST_NESTED = 300
"""Ticks from inside of one tick; beyond, whoever waits does so alone."""

MOST_TICKS = 30_000
BOUND = 120.0
"""Virtual seconds within which all has to end once the faults have stopped: many leases, since what was handed out in vain is looked at singly."""

LIVE = (RuntimeStatus.PENDING, RuntimeStatus.RUNNING, RuntimeStatus.SUSPENDED)


class SimSurroundings(Surroundings):
    """Those of a simulated worker; while it waits, the others go on."""

    __slots__ = ()

    def wait_until(self, is_true: Callable[[], bool], seconds: float | None) -> bool:
        return self.clock.world.wait_until(is_true, seconds)  # type: ignore[attr-defined, no-any-return]


class SimWorker:
    """A process with one worker."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.is_dead = False
        self.is_in_step = False
        self.has_begun = False
        self.is_stopping = False
        self.frozen_until = 0
        self.pool: Any = None
        self.ticker: Any = None
        surroundings = SimSurroundings(
            clock=world.clock,
            sleep=self.sleep,
            new_id=world.new_id,
            make_event=lambda: SimEvent(self),  # type: ignore[arg-type, return-value]
            make_thread=NoThread,  # type: ignore[arg-type]
            make_closer=SimCloser,  # type: ignore[arg-type]
            make_pool=self.make_pool,
            make_ticker=self.make_ticker,
        )
        store: Any = FaultyStore(world, self)
        self.worker = Worker(
            store, world.registry, world.settings, watchers=Watchers(), telemetry=Telemetry(is_enabled=False), surroundings=surroundings
        )
        self.engine = self.worker.engine

    def make_pool(self, *arguments: Any, **options: Any) -> Any:
        self.pool = SimPool(*arguments, **options)
        return self.pool

    def make_ticker(self) -> Any:
        self.ticker = SimTicker(self.world)
        return self.ticker

    def sleep(self, seconds: float) -> None:
        self.world.elsewhere(seconds)
        if self.is_dead:
            raise CrashError(self)

    def die(self) -> None:
        """All that is in memory is gone; the row stays until the lease is over (F1)."""
        if not self.is_dead:
            self.is_dead = True
            self.world.died(self)

    def guarded(self, action: Callable[[], object]) -> None:
        """Let the process do something that it may not survive."""
        try:
            action()
        except CrashError as crash:
            if crash.worker is not self:
                raise

    def start(self) -> None:
        try:
            self.guarded(self.worker.start)
            self.has_begun = True
        except DurableError as error:
            self.world.note("start failed", self.number, type(error).__name__)
            self.die()

    def step(self) -> None:
        self.is_in_step = True
        try:
            self.engine.step(0, waits=False)
        finally:
            self.is_in_step = False

    def stop(self) -> None:
        """An orderly end under load (F18): afterwards nothing is held by it."""
        self.is_stopping = True
        is_clean = self.worker.stop(self.world.random.choice([0.05, 2.0, 30.0]))
        self.world.note("stopped", self.number, is_clean)
        self.die()

    # -- what it could do now

    @property
    def is_awake(self) -> bool:
        return self.has_begun and not self.is_dead and self.frozen_until <= self.world.clock.now()

    @property
    def is_due(self) -> bool:
        engine = self.engine
        if self.is_in_step or engine._finished.is_set():
            return False
        is_busy = engine._holdings.has_work or engine._planner.wants_claim or engine._refusals.commands or engine._is_stopped
        return bool(is_busy) or not engine._inbox.is_empty() or engine._polling.seconds_left() == 0.0

    def next_moment(self) -> int | None:
        """When it has something to do that it has not now."""
        if self.is_dead or not self.has_begun:
            return None
        if self.frozen_until > self.world.clock.now():
            return self.frozen_until
        moments = [self.ticker.next_moment()]
        if not self.is_in_step:
            moments.append(self.world.clock.now() + max(1, round(self.engine._polling.seconds_left() * SECOND)))
        return min((each for each in moments if each is not None), default=None)


class World:
    """One seed.

    Args:
        options: what the run is made of.
        programs: instead of those of the seed.
        crash_at: numbers of boundaries, before and after the writing calls of workers, at which the process ends.
    """

    def __init__(self, seed: int, options: Options, programs: Any = None, crash_at: Container[int] = ()) -> None:
        self.seed = seed
        self.options = options
        self.random = Random(f"world {seed}")
        self.clock = VirtualClock(self)
        self.truth = Truth(make_store(options.store, self.clock), self.clock)
        self.client_store: Any = FaultyStore(self, None)
        self.has_faults = True
        self.crash_at = crash_at
        self.boundaries = 0
        self.nested = 0
        self.failure: WrongError | None = None
        self.is_over = False
        self.depth = 0
        self.ticks = 0
        self.numbers = itertools.count(1)
        self.events = 0
        self.workers: list[SimWorker] = []
        self.rebirths: list[int] = []
        self.waiting: list[tuple[Submission, Command]] = []
        self.acknowledged: list[Command] = []
        self.roots: dict[str, Program] = {}
        self.to_start = [(f"p{number}", program) for number, program in enumerate(programs or programs_of(seed))]
        self.registry = Registry()
        self.registry.add_orchestrator(orchestrator, "program")
        self.registry.add_activity(self.work, "work")
        self.settings = load_settings(
            {
                "DURABLE_CACHE_SIZE": options.cache_size,
                "DURABLE_MAX_ACTIVITIES": options.max_activities,
                "DURABLE_POLL_INTERVAL": options.poll_interval,
                "DURABLE_LEASE_SECONDS": LEASE,
            }
        )

    def work(self, spec: list[Any]) -> list[Any]:
        """The activity; others go on meanwhile."""
        attempt = present_activity.get().attempt
        if self.depth < MOST_DEPTH and self.random.random() < 0.2:
            self.elsewhere(self.random.choice([0.001, 0.01, 0.1, 8.0 if self.has_faults else 0.2]))
        return work(spec, attempt)

    def fail(self, text: str) -> None:
        """Something does not hold; whatever code of workers catches, the run ends with this."""
        self.failure = self.failure or WrongError(text)
        raise self.failure

    # -- chance

    def happens(self, fault: str, weight: float = 1.0) -> bool:
        return self.has_faults and fault in self.options.faults and self.random.random() < self.options.rate * weight

    def note(self, *what: object) -> None:
        self.truth.note(*what)

    def new_id(self) -> str:
        return f"w{next(self.numbers)}"

    # -- the run

    def run(self) -> None:
        for _ in range(self.options.workers):
            self.begin_worker()
        for _ in range(self.options.steps):
            self.tick()
        self.has_faults = False
        self.note("no more faults")
        self.live_on()
        while self.live():  # a worker that ends still carries out what it was given: a rewind that came last is for the next one
            self.is_over = False
            self.live_on()
        self.clock.forward(round(2 * LEASE * SECOND))
        self.truth.reap_workers(None, self.settings.max_deliveries)

    def live_on(self) -> None:
        """No more faults: all instances have to end, and then the workers do."""
        deadline, feed_at = self.clock.now() + round(BOUND * SECOND), 0
        while self.to_start or (live := self.live()):
            assert self.clock.now() < deadline, f"these do not end: {live}"
            if self.clock.now() >= feed_at:
                feed_at = self.clock.now() + round(self.random.choice([0.05, 0.5]) * SECOND)
                self.feed()
            self.tick(feed_at)
        self.is_over = True
        for worker in self.workers:
            worker.frozen_until = 0
        while self.workers:
            self.workers[0].guarded(self.workers[0].stop)
        self.hear()

    def live(self) -> list[str]:
        return [each.instance_id for each in self.truth.list_instances(
            InstanceFilter(statuses=LIVE), limit=1000, after=None, order=Order.OLDEST_FIRST, with_output=False).records]  # fmt: skip

    def feed(self) -> None:
        """Give all that wait what they wait for."""
        while self.to_start:
            self.start_root()
        for instance_id in self.live():
            record = self.truth.get_instance(instance_id)
            if record.status is RuntimeStatus.SUSPENDED or record.parked_reason is not None:
                self.note("resume", instance_id, record.parked_reason)
                assert record.parked_reason is None or POISON in record.parked_reason, f"{instance_id} is parked: {record.parked_reason}"
                self.send(Resume(instance_id))
            for name in NAMES:
                self.raise_event(instance_id, name)

    # -- the scheduler

    def tick(self, until: int | None = None) -> None:
        """One thing happens."""
        self.ticks += 1
        self.nested = self.nested + 1 if self.depth else 0
        if self.ticks > MOST_TICKS:
            self.fail("too much happens")
        if self.failure is not None:
            raise self.failure
        self.look()
        random = self.random
        self.clock.forward(random.randrange(300))
        self.be_born()
        if self.has_faults and random.random() < 0.12:
            self.disturb()
            return
        awake = [each for each in self.workers if each.is_awake]
        actions: list[tuple[SimWorker, Callable[[], object]]] = []
        for worker in awake:
            if worker.is_due:
                actions.append((worker, worker.step))
            # A call that waits for its worker's lease must not stand in the way of the engine that renews it
            if worker.pool.can_begin and not (worker.is_in_step and worker.worker.lease.is_over):
                actions.append((worker, lambda worker=worker: worker.pool.begin(random.random())))  # type: ignore[misc]
            tick = worker.ticker.due()
            if tick is not None:
                actions.append((worker, lambda worker=worker, tick=tick: worker.ticker.run(tick)))  # type: ignore[misc]
        if actions:
            worker, action = random.choice(actions)
            worker.guarded(action)
            return
        self.advance(until)

    def look(self) -> None:
        """Now and then, in the middle of everything, look at what is stored."""
        if self.ticks % CHECK_EVERY == 0:
            try:
                check_state(state_of(self.truth._base), self.truth.rewound_all, is_quick=True)
            except AssertionError as error:
                self.fail(str(error))

    def advance(self, until: int | None) -> None:
        """Nothing can happen now: go to the next moment at which something can."""
        moments = [each.next_moment() for each in self.workers]
        moments += [*([] if self.is_over else self.rebirths), until if until is not None else self.clock.now() + SECOND // 2]
        moment = min(each for each in moments if each is not None)
        self.clock.forward(max(1, moment - self.clock.now()))

    def elsewhere(self, seconds: float) -> None:
        """The caller is held up for so long; the others go on."""
        end = self.clock.now() + round(seconds * SECOND)
        if self.depth < MOST_DEPTH and self.nested < MOST_NESTED:
            self.depth += 1
            try:
                for _ in range(60 if seconds > 1 else 15):
                    if self.clock.now() >= end:
                        break
                    self.tick(end)
            finally:
                self.depth -= 1
        self.clock.forward(max(0, end - self.clock.now()))

    def wait_until(self, is_true: Callable[[], bool], seconds: float | None) -> bool:
        end = self.clock.now() + round((60.0 if seconds is None else seconds) * SECOND)
        self.depth += 1
        try:
            while not is_true() and self.clock.now() < end:
                self.tick(end)
        finally:
            self.depth -= 1
        return is_true()

    # -- workers come and go

    def begin_worker(self) -> None:
        worker = SimWorker(self, next(self.numbers))
        self.workers.append(worker)
        worker.start()

    def died(self, worker: SimWorker) -> None:
        self.workers.remove(worker)
        self.rebirths.append(self.clock.now() + round(self.random.choice([0.0, 0.1, 1.0, 10.0 if self.has_faults else 0.5]) * SECOND))

    def be_born(self) -> None:
        while not self.is_over:
            due = [each for each in self.rebirths if each <= self.clock.now() or (not self.has_faults and not self.workers)]
            if not due:
                return
            self.rebirths.remove(due[0])
            self.begin_worker()

    # -- what else happens

    def disturb(self) -> None:
        random, workers = self.random, [each for each in self.workers if each.has_begun and not each.is_dead]
        draw = random.random()
        if workers and draw < 0.3:
            worker = random.choice(workers)
            if self.happens(KILL, 3.0):
                self.note("kill", worker.number)
                worker.die()
            elif self.happens(FREEZE, 3.0):
                self.note("freeze", worker.number)
                worker.frozen_until = self.clock.now() + round(random.choice([0.5, LEASE, 2 * LEASE]) * SECOND)
            elif not worker.is_in_step and not worker.is_stopping and worker.is_awake and self.depth < 2 and self.happens(STOP, 2.0):
                self.note("stop", worker.number)
                worker.guarded(worker.stop)
            elif self.happens(DELAY, 5.0):
                self.repeat(worker)
        elif self.to_start and draw < 0.7:
            self.start_root()
        else:
            self.act()
        self.hear()

    def repeat(self, worker: SimWorker) -> None:
        """What has been told to the loop is told again, or in another order (F11)."""
        items = worker.engine._inbox.take(100, 0.0)
        self.random.shuffle(items)
        for item in items:
            worker.engine._inbox.put(item)
            if not isinstance(item, Submission) and self.random.random() < 0.5:
                worker.engine._inbox.put(item)

    def start_root(self) -> None:
        instance_id, program = self.to_start.pop(0)
        sibling = f"p{1 - int(instance_id[1:])}"
        self.roots[instance_id] = program
        self.send(StartInstance(instance_id, f"e-{instance_id}", "program", json.dumps(first_state(program, sibling))), is_safe=True)

    def act(self) -> None:
        """A client does something to an instance, or to one that is not there (F20)."""
        random = self.random
        known = [each.instance_id for each in self.truth.list_instances(
            InstanceFilter(), limit=1000, after=None, order=Order.OLDEST_FIRST, with_output=False).records]  # fmt: skip
        instance_id = random.choice([*known, *known, "nobody", *(each for each, _ in self.to_start)])
        draw = random.random()
        if draw < 0.6:
            self.raise_event(instance_id, random.choice(NAMES))
        elif draw < 0.7:
            self.send(Suspend(instance_id, None, random.random() < 0.5))
        elif draw < 0.8:
            self.send(Resume(instance_id, None, random.random() < 0.5))
        elif WILD in self.options.faults:
            wild: list[Command] = [
                Terminate(instance_id, None, random.random() < 0.7),
                Rewind(instance_id),
                Purge(instance_id, random.random() < 0.5),
            ]
            self.send(random.choice(wild))

    def raise_event(self, instance_id: str, name: str) -> None:
        self.events += 1
        self.send(RaiseEvent(instance_id, name, json.dumps(["outside", self.events])))

    def send(self, command: Command, *, is_safe: bool = False) -> None:
        """Hand a command to a worker, or commit it as a process without one does.

        Args:
            is_safe: make it again until it is acknowledged.
        """
        workers = [each for each in self.workers if each.is_awake and not each.is_stopping]
        if workers and not is_safe and self.random.random() < 0.6:
            self.waiting.append((self.random.choice(workers).engine.submit(command), command))
            return
        while True:
            try:
                [outcome] = self.client_store.commit(Batch(commands=[command])).outcomes
                break
            except DurableError:
                if not is_safe:
                    return
        self.heard(command, outcome)
        if workers and not (NO_WAKE in self.options.faults and self.has_faults) and self.random.random() < 0.5:
            self.random.choice(workers).worker.wake()

    def hear(self) -> None:
        """Take the answers that have come."""
        left = []
        for submission, command in self.waiting:
            if submission._done.locked():
                left.append((submission, command))
            else:
                submission._done.acquire()
                self.heard(command, submission.outcome)
        self.waiting = left

    def heard(self, command: Command, outcome: Any) -> None:
        if not isinstance(outcome, DurableError):
            self.acknowledged.append(command)
        elif isinstance(command, RaiseEvent) and command.instance_id == "nobody":
            assert isinstance(outcome, InstanceNotFoundError | StoreUnavailableError), outcome
