"""The store as one simulated process sees it, with what can go wrong at each call; and what really happened, for the checks."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flask_durable.errors import DurableError, OutcomeUnknownError, StoreUnavailableError
from flask_durable.storage.interface import Batch, Committed, RaiseEvent, Rewind, StartInstance, TurnCommit

from .options import AMBIGUOUS, BUSY, CRASH, DELAY, PAUSE
from .surroundings import CrashError

if TYPE_CHECKING:
    from .world import SimWorker, World

WRITES = {"commit", "register_worker", "renew_worker", "release_worker", "reap_workers", "begin_activity", "sweep"}
LONG_PAUSES = [0.0, 0.0, 0.001, 0.02, 0.3, 9.0]
"""Seconds; the longest is more than a lease."""


class Truth:
    """What the store has really carried out, in order."""

    def __init__(self, base: Any, clock: Any) -> None:
        self._base = base
        self._clock = clock
        self._digest = hashlib.sha256()
        self.lines: list[str] = []
        self.keeps_lines = False
        self.commits: list[TurnCommit] = []
        self.raised: dict[str, list[Any]] = defaultdict(list)
        self.started: set[str] = set()
        self.rewound_all: set[str] = set()
        self.gone: set[str] = set()
        self.counts: Counter[str] = Counter()

    @property
    def trace(self) -> str:
        return self._digest.hexdigest()

    def note(self, *what: object) -> None:
        line = f"{self._clock.now()} {' '.join(map(str, what))}"
        self._digest.update(line.encode())
        if self.keeps_lines:
            self.lines.append(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def commit(self, batch: Batch) -> Committed:
        committed = self._base.commit(batch)
        if batch.worker_id in self.gone:
            self._clock.world.fail(f"a commit of worker {batch.worker_id}, whose row is gone, was accepted (I7)")
        written = [each for index, each in enumerate(batch.turns) if index not in committed.conflicts]
        self.commits += written
        self.counts["commits"] += 1
        self.counts["conflicts"] += len(committed.conflicts)
        for command, outcome in zip(batch.commands, committed.outcomes, strict=True):
            self.carried_out(command, outcome)
        if any(isinstance(command, Rewind) for command in batch.commands):
            self.rewound_all.update(committed.taken)
        if batch.turns or batch.commands or batch.results or committed.orchestrations or committed.activities:
            self.note(
                "commit", batch.worker_id,
                [(each.record.instance_id, each.sequence, len(each.turn.events)) for each in written], committed.conflicts,
                [type(each).__name__ for each in batch.commands], [type(each).__name__ for each in committed.outcomes], len(batch.results),
                [(each.record.instance_id, len(each.messages)) for each in committed.orchestrations],
                [(each.instance_id, each.task_id) for each in committed.activities],
            )  # fmt: skip
        return committed  # type: ignore[no-any-return]

    def carried_out(self, command: Any, outcome: Any) -> None:
        if isinstance(outcome, DurableError):
            return
        self.counts[type(command).__name__] += 1
        if isinstance(command, RaiseEvent):
            self.raised[command.instance_id].append(command.data)
        elif isinstance(command, StartInstance):
            self.started.add(command.instance_id)

    def register_worker(self, worker_id: str, *arguments: Any) -> None:
        self._base.register_worker(worker_id, *arguments)
        self.note("register", worker_id)

    def release_worker(self, worker_id: str) -> None:
        self._base.release_worker(worker_id)
        self.gone.add(worker_id)
        self.note("release", worker_id)

    def reap_workers(self, own_id: str | None, max_deliveries: int) -> list[str]:
        reaped: list[str] = self._base.reap_workers(own_id, max_deliveries)
        self.gone.update(reaped)
        self.counts["reaped"] += len(reaped)
        if reaped:
            self.note("reap", *sorted(reaped))
        return reaped


class FaultyStore:
    """The store of one process; that of a client has no worker."""

    def __init__(self, world: World, worker: SimWorker | None) -> None:
        self._world = world
        self._worker = worker

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._world.truth, name)
        if not callable(call) or name in ("now", "connection"):
            return call  # type: ignore[no-any-return]

        def with_faults(*arguments: Any, **options: Any) -> Any:
            return self._with_faults(name, lambda: call(*arguments, **options))

        setattr(self, name, with_faults)
        return with_faults

    def change_mark(self) -> object | None:
        """The simulated processes share a connection, whose own commits are no signs."""
        return None

    def can_listen(self) -> bool:
        return False

    def commit(self, batch: Batch) -> Committed:
        committed: Committed = self._with_faults("commit", lambda: self._world.truth.commit(batch))
        if self._world.happens(DELAY, 3.0):
            self._hold_messages_back(committed)
        return committed

    def _hold_messages_back(self, committed: Committed) -> None:
        """A claim may bring only the first of the messages: the others come with the next one (F11)."""
        chance = self._world.random
        for index, work in enumerate(committed.orchestrations):
            if work.messages:
                committed.orchestrations[index] = replace(work, messages=work.messages[: chance.randrange(len(work.messages) + 1)])

    def _with_faults(self, name: str, call: Callable[[], Any]) -> Any:
        world, is_write = self._world, name in WRITES
        is_ambiguous = is_write and world.happens(AMBIGUOUS)
        self._look_alive()
        self._pause()
        self._perhaps_crash(name, "before")
        if world.happens(BUSY):
            world.note("busy", name)
            raise StoreUnavailableError(f"simulated: {name} was not carried out")
        if is_ambiguous and world.random.random() < 0.5:
            world.note("ambiguous, not carried out", name)
            raise OutcomeUnknownError
        answer = call()
        self._perhaps_crash(name, "after")
        if is_ambiguous:
            world.note("ambiguous, carried out", name)
            raise OutcomeUnknownError(answer)
        self._pause()
        return answer

    def _look_alive(self) -> None:
        if self._worker is not None and self._worker.is_dead:
            raise CrashError(self._worker)

    def _pause(self) -> None:
        """Others go on in the middle of the call (F6)."""
        if self._world.happens(PAUSE):
            seconds = self._world.random.choice(LONG_PAUSES)
            self._world.note("pause", seconds)
            self._world.elsewhere(seconds)
            self._look_alive()

    def _perhaps_crash(self, name: str, when: str) -> None:
        if self._worker is None:
            return
        self._world.boundaries += name in WRITES
        is_due = name in WRITES and self._world.boundaries in self._world.crash_at
        if is_due or self._world.happens(CRASH, 0.5):
            self._world.note("crash", when, name, self._worker.number)
            self._worker.die()
            raise CrashError(self._worker)
