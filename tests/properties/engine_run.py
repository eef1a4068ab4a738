"""Random programs on the real engine: many at once, workers that come and go, executions that are forgotten; then all of it is checked."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from flask_durable import FlaskDurable, InstanceFilter, InstanceFinishedError, InstanceNotFoundError, RuntimeStatus, current_activity
from flask_durable.core.events import (
    EventRaised,
    EventSent,
    HistoryEvent,
    Recorded,
    SubOrchestrationCompleted,
    SubOrchestrationCreated,
    SubOrchestrationFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from flask_durable.core.execution import Execution
from flask_durable.core.turn import Turn
from flask_durable.storage.interface import Batch, Committed, TurnCommit

from .interpreter import first_state, orchestrator, work
from .model import Model
from .programs import NAMES, Program
from .simulation import check_confluent, programs_of
from .verdict import check, same_end

LONGEST = 120.0
"""Seconds within which all instances of a run must have ended."""

LIVE = (RuntimeStatus.PENDING, RuntimeStatus.RUNNING, RuntimeStatus.SUSPENDED)


@dataclass
class Journal:
    """What was committed, as it was handed to the store; the store forgets earlier generations."""

    commits: list[TurnCommit] = field(default_factory=list)
    turns: dict[tuple[str, str], list[Turn]] = field(default_factory=lambda: defaultdict(list))
    executions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    calls: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, durable: FlaskDurable) -> None:
        """Note all commits of an app."""
        store = durable._state().store
        commit = store.commit

        def noting(batch: Batch) -> Committed:
            committed = commit(batch)
            with self.lock:
                self.commits += [each for index, each in enumerate(batch.turns) if index not in committed.conflicts]
            return committed

        store.commit = noting  # type: ignore[method-assign]

    def sort(self) -> None:
        """Put all in order; two workers may have noted theirs the wrong way round."""
        for each in sorted(self.commits, key=lambda each: (each.record.created_at, each.record.generation, each.sequence)):
            record = each.record
            if record.execution_id not in self.executions[record.instance_id]:
                self.executions[record.instance_id].append(record.execution_id)
            self.turns[record.instance_id, record.execution_id].append(each.turn)

    def history(self, instance_id: str, execution_id: str) -> list[Recorded]:
        pairs = [(turn.at, event) for turn in self.turns[instance_id, execution_id] for event in turn.events]
        return [Recorded(number, at, event) for number, (at, event) in enumerate(pairs, 1)]


class EngineRun:
    """One run: the programs of some seeds, on one or two apps with one database.

    Args:
        make: makes an app with some configuration.
    """

    def __init__(self, make: Callable[..., FlaskDurable], seeds: Sequence[int]) -> None:
        self.random = Random(seeds[0])
        self.seeds = seeds
        self.journal = Journal()
        self.hub = f"programs-{uuid.uuid4().hex[:16]}"
        self.apps = [self.app(make) for _ in range(self.random.choice([1, 1, 2]))]
        self.client = self.apps[0].client
        self.roots: dict[str, Program] = {}
        self.raised: dict[str, list[int]] = defaultdict(list)
        self.is_over = threading.Event()
        self.errors: list[BaseException] = []
        self.unread: dict[str, int] = {}

    def app(self, make: Callable[..., FlaskDurable]) -> FlaskDurable:
        durable = make(
            DURABLE_CACHE_SIZE=self.random.choice([0, 1, 2, 1000]),
            DURABLE_POLL_INTERVAL=0.05,
            DURABLE_SQLITE_SYNCHRONOUS="NORMAL",
            DURABLE_TASK_HUB=self.hub,
        )
        durable.orchestrator(name="program")(orchestrator)
        journal = self.journal

        @durable.activity(name="work")
        def work_activity(spec: list[Any]) -> list[Any]:
            execution_id = current_activity._item.execution_id
            with journal.lock:
                journal.calls[execution_id, current_activity.task_id, current_activity.delivery] += 1
            time.sleep(random.random() ** 4 * 0.01)  # so that they do not end in the order in which they began
            return work(spec, current_activity.attempt)

        self.journal.watch(durable)
        return durable

    def run(self) -> None:
        threads = [threading.Thread(target=self.guarded, args=(each,), daemon=True) for each in (self.replace, self.disturb)]
        for app in self.apps:
            app.start_worker()
        for thread in threads:
            thread.start()
        try:
            for seed in self.seeds:
                for number, program in enumerate(programs_of(seed)):
                    instance_id = f"p{seed}-{number}"
                    self.roots[instance_id] = program
                    self.client.start("program", first_state(program, f"p{seed}-{1 - number}"), instance_id=instance_id)
            self.wait_for_all()
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join()
            for app in self.apps:
                app.stop_worker()
        assert not self.errors, self.errors
        self.check()
        for app in self.apps:
            app.close()

    def guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - told when the run is over
            self.errors.append(error)

    def wait_for_all(self) -> None:
        deadline = time.monotonic() + LONGEST
        while self.client.count(InstanceFilter(statuses=LIVE)):
            assert time.monotonic() < deadline, f"these do not end: {self.client.list_ids(InstanceFilter(statuses=LIVE))[0]}"
            assert not self.errors, self.errors
            time.sleep(0.05)

    # -- meanwhile

    def replace(self) -> None:
        """Replace one worker after the other."""
        chance = Random(self.seeds[0] + 1)
        while not self.is_over.wait(chance.choice([0.05, 0.2, 0.5])):
            app = chance.choice(self.apps)
            app.stop_worker()
            app.start_worker()

    def disturb(self) -> None:
        """Raise events for whoever lives, and hold some for a moment."""
        chance = Random(self.seeds[0] + 2)
        number = 0
        while not self.is_over.is_set():
            live = self.client.list_ids(InstanceFilter(statuses=LIVE), page_size=1000)[0]
            for instance_id in chance.sample(live, min(len(live), 40)):
                number += 1
                self.act(chance, instance_id, number)
            time.sleep(0.01)

    def act(self, chance: Random, instance_id: str, number: int) -> None:
        try:
            if chance.random() < 0.03:
                self.client.suspend(instance_id)
                self.client.resume(instance_id)
                return
            self.client.raise_event(instance_id, chance.choice(NAMES), ["outside", number])
            self.raised[instance_id].append(number)
        except (InstanceFinishedError, InstanceNotFoundError):
            return

    # -- what must be true afterwards

    def check(self) -> None:
        self.journal.sort()
        for instance_id in list(self.journal.executions):
            try:
                self.check_instance(instance_id)
            except Exception as error:
                again = f"FLASK_DURABLE_TEST_SEED={self.seeds[0]} FLASK_DURABLE_TEST_PROGRAMS={2 * len(self.seeds)} pytest tests/properties"
                raise AssertionError(f"instance {instance_id} goes wrong (again: {again}): {error}") from error
        for instance_id, program in self.roots.items():
            status = self.client.get_status(instance_id)
            assert status is not None
            failure = status.failure_details
            check_confluent(program, ("Failed", failure.type_name.rpartition(".")[2], failure.message) if failure else ("Completed", status.output))
        self.check_calls()
        self.check_tables()

    def check_instance(self, instance_id: str) -> None:
        status = self.client.get_status(instance_id)
        assert status is not None
        custom_status = None
        for execution_id in self.journal.executions[instance_id]:
            history = self.journal.history(instance_id, execution_id)
            model = check(history).model
            last = self.journal.turns[instance_id, execution_id][-1]
            same_end(_end_of(last, model.end), model.end)
            self.unread[execution_id] = len(model.end[2]) if model.end is not None and model.end[0] == "continued" else 0
            self.check_once(history)
            custom_status = custom_status if model.custom_status is Model.NOTHING else model.custom_status
        assert status.runtime_status is last.status
        assert status.custom_status == custom_status or not self.is_one_line(instance_id)
        self.check_stored(instance_id, history)
        self.check_events(instance_id)
        self.check_children(instance_id)

    def check_once(self, history: Sequence[Recorded]) -> None:
        """At most one outcome of each call, and no timer before its time."""
        kinds = (TaskCompleted, TaskFailed, SubOrchestrationCompleted, SubOrchestrationFailed, TimerFired)
        outcomes = Counter(recorded.event.task_id for recorded in history if isinstance(recorded.event, kinds))
        assert all(count == 1 for count in outcomes.values()), f"more than one outcome: {outcomes}"
        for recorded in history:
            if isinstance(recorded.event, TimerFired):
                assert recorded.at >= recorded.event.fire_at, "a timer fired early"

    def check_stored(self, instance_id: str, history: Sequence[Recorded]) -> None:
        """What is stored is what was committed, and the same code decides the same once more."""
        stored = self.stored(instance_id)
        own = [each for each in stored if type(each.event).__name__ not in ("ExecutionSuspended", "ExecutionResumed")]
        assert [each.sequence for each in stored] == list(range(1, len(stored) + 1)), "the stored history has a gap"
        assert [(each.at, each.event) for each in own] == [(each.at, each.event) for each in history]
        execution = Execution(orchestrator)
        execution.replay(stored)
        assert execution.nondeterminism is None, str(execution.nondeterminism)
        assert execution.is_finished

    def stored(self, instance_id: str) -> list[Recorded]:
        found: list[Recorded] = []
        after: int | None = 0
        while after is not None:
            page = self.client.history(instance_id, after=after, page_size=1000)
            found.extend(page.events)
            after = page.next_sequence
        return found

    def check_events(self, instance_id: str) -> None:
        """Each event came once, in order of its sender's sending, and none was passed over."""
        senders: dict[str, list[Any]] = defaultdict(list)
        for sender, number in self.arrived(instance_id):
            senders[sender].append(number)
        for sender, numbers in senders.items():
            sent = self.raised[instance_id] if sender == "outside" else self.sent(sender, instance_id)
            first = sent.index(numbers[0])  # the sibling's first ones may have come before there was anybody
            assert sender != "outside" or first == 0 or not self.is_one_line(instance_id), f"lost: {sent[:first]}"
            if self.is_one_line(instance_id):
                assert numbers == sent[first : first + len(numbers)], f"from {sender} came {numbers}, sent were {sent}"
            else:  # what was sent between one child of that id and the next is lost
                assert sorted(set(numbers), key=sent.index) == numbers

    def arrived(self, instance_id: str) -> list[Any]:
        """The data of events in order of arrival; what is carried over is not counted again, and must come first."""
        found: list[Any] = []
        pending: list[EventRaised] = []
        for execution_id in self.journal.executions[instance_id]:
            turns = self.journal.turns[instance_id, execution_id]
            events = [event for turn in turns for event in turn.events if isinstance(event, EventRaised)]
            assert events[: len(pending)] == pending[: len(events)], "carried events were lost or came in another order"
            left, new = pending[len(events) :], events[len(pending) :]
            following = turns[-1].next_generation
            late = [] if following is None else list(following.carried[self.unread[execution_id] :])
            assert late[: len(left)] == left or following is None, "carried events were lost at the next boundary"
            found += [json.loads(event.data or "null") for event in (*new, *late[len(left) :])]
            pending = [] if following is None else list(following.carried)
        return found

    def sent(self, sender: str, instance_id: str) -> list[Any]:
        name, execution_id = sender.split(" ")
        events = [event for turn in self.journal.turns[name, execution_id] for event in turn.events]
        return [json.loads(each.data or "null")[1] for each in events if isinstance(each, EventSent) and each.instance_id == instance_id]

    def is_one_line(self, instance_id: str) -> bool:
        """Whether all executions of an id follow from the first one."""
        following = {turn.next_generation.execution_id for each in self.turns_of(instance_id) for turn in each if turn.next_generation is not None}
        return all(each in following for each in self.journal.executions[instance_id][1:])

    def turns_of(self, instance_id: str) -> list[list[Turn]]:
        return [self.journal.turns[instance_id, each] for each in self.journal.executions[instance_id]]

    def check_children(self, instance_id: str) -> None:
        """A parent got what its child's last generation gave."""
        for execution_id in self.journal.executions[instance_id]:
            events = [recorded.event for recorded in self.journal.history(instance_id, execution_id)]
            outcomes = {event.task_id: event for event in events if isinstance(event, SubOrchestrationCompleted | SubOrchestrationFailed)}
            for created in (event for event in events if isinstance(event, SubOrchestrationCreated)):
                outcome = outcomes.get(created.task_id)
                if outcome is not None:
                    self.check_child(created, outcome)

    def check_child(self, created: SubOrchestrationCreated, outcome: HistoryEvent) -> None:
        if (created.instance_id, created.execution_id) not in self.journal.turns:
            assert isinstance(outcome, SubOrchestrationFailed)
            assert "already exists" in outcome.failure.message
            return
        execution_id = created.execution_id
        while (following := self.journal.turns[created.instance_id, execution_id][-1].next_generation) is not None:
            execution_id = following.execution_id
        last = self.journal.turns[created.instance_id, execution_id][-1]
        if isinstance(outcome, SubOrchestrationFailed):
            assert outcome.failure == last.failure
        else:
            assert isinstance(outcome, SubOrchestrationCompleted)
            assert (last.status, outcome.result) == (RuntimeStatus.COMPLETED, last.output)

    def check_calls(self) -> None:
        """No worker died: each attempt was handed out once."""
        twice = {call: count for call, count in self.journal.calls.items() if count > 1 or call[2] > 1}
        assert not twice, f"run more than once: {twice}"
        uuids = [made for status in self.statuses() if isinstance(status.output, dict) for made in status.output.get("uuids", ())]
        assert len(set(uuids)) == len(uuids), "a uuid was made twice"

    def statuses(self) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.list(page_size=1000, token=token)
            found.extend(page.items)
            token = page.token
            if token is None:
                return found

    def check_tables(self) -> None:
        """Nothing is left of what has ended, except in the inboxes of failed instances, which may be rewound."""
        state = self.apps[0]._state()
        for table in ("durable_message", "durable_activity", "durable_worker"):
            text = f"SELECT * FROM {table} WHERE hub = ?"
            if table == "durable_message":
                failed = f"SELECT 1 FROM durable_instance i WHERE i.hub = {table}.hub AND i.instance_id = {table}.instance_id AND i.status = 'Failed'"
                text = f"{text} AND NOT EXISTS ({failed})"
            rows = state.store._sql.read(lambda text=text: state.store._sql.rows(text, (self.hub,)))
            assert rows == [], f"left in {table}: {rows[:3]}"
        for instance_id in self.roots:
            status = self.client.get_status(instance_id)
            assert status is not None
            assert status.is_finished
            assert status.parked_reason is None


def _end_of(turn: Turn, wanted: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """The end of a generation; events that came in its last turn are carried over too, and are not in its history."""
    following = turn.next_generation
    if following is not None:
        carried = [[event.name, json.loads(event.data or "null")] for event in following.carried]
        count = len(wanted[2]) if wanted is not None and wanted[0] == "continued" else 0
        return ("continued", json.loads(following.input or "null"), carried[:count])
    if turn.failure is not None:
        return ("Failed", turn.failure.type_name.rpartition(".")[2], turn.failure.message)
    return (turn.status.value, json.loads(turn.output or "null"))
