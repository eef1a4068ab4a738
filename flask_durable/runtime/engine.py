"""Engine: the one loop of a worker. It collects what is ready, advances the instances concerned, commits all of it in one transaction, then
answers the waiting threads and hands out the new activities.

Laws:

1. Nothing leaves a turn before its commit; a turn that was not committed never happened.
2. What came meanwhile is the next batch; the loop never waits for company.
3. One bad instance costs itself: it is failed or parked, and the batch goes on without it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from flask_durable.config import Settings
from flask_durable.core.events import HistoryEvent
from flask_durable.core.execution import Execution
from flask_durable.core.failure import FailureDetails
from flask_durable.errors import DurableError, StoreUnavailableError, WorkerLostError
from flask_durable.registry import Registry
from flask_durable.runtime.capacity import Capacity
from flask_durable.runtime.executions import ExecutionCache
from flask_durable.runtime.turns import Held, TurnRunner
from flask_durable.storage.interface import (
    ActivityResult,
    ActivityWorkItem,
    Batch,
    ClaimRequest,
    Command,
    Committed,
    FailInstance,
    OrchestrationWorkItem,
    Outcome,
    Park,
    PurgeBy,
    RaiseEvent,
    StartInstance,
    Store,
    TurnCommit,
)
from flask_durable.watchers import Watchers

logger = logging.getLogger("flask_durable.engine")

BATCH = 256
"""At most so many turns in one commit, so that no caller waits long for its turn."""

SLOW_TURN = 1.0
"""Seconds after which the loop goes on without an orchestrator that does not yield."""

_WAKE = object()


class TurnTimeoutError(BaseException):
    """Raised inside orchestrator code that ran for too long; not an Exception, so that it is not caught by accident."""


class Submission:
    """A command on its way through the loop, and the thread that waits for it."""

    __slots__ = ("_done", "command", "is_withdrawn", "outcome")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.outcome: Outcome = None
        self.is_withdrawn = False
        self._done = threading.Lock()
        self._done.acquire()

    def answer(self, outcome: Outcome) -> None:
        """Let the waiting thread go on."""
        self.outcome = outcome
        self._done.release()

    def wait(self, seconds: float) -> bool:
        """Wait for the answer."""
        return self._done.acquire(timeout=seconds)


@dataclass(slots=True)
class ActivityDone:
    """An activity ran here."""

    item: ActivityWorkItem
    event: HistoryEvent
    seconds: float


@dataclass(slots=True)
class LateTurn:
    """A turn that took so long that the loop went on without it."""

    held: Held
    execution: Execution
    commit: TurnCommit


@dataclass(slots=True)
class Overdue:
    """A turn has had all the time there is."""

    held: Held
    thread_id: int


@dataclass(slots=True)
class Step:
    """One round of the loop; it is an object so that another thread can take it over in the middle."""

    submissions: list[Submission] = field(default_factory=list)
    internal: list[Command] = field(default_factory=list)
    foreign: list[ActivityResult] = field(default_factory=list)
    todo: deque[Held] = field(default_factory=deque)
    turns: list[tuple[Held, Execution, TurnCommit]] = field(default_factory=list)


class Engine:
    """The loop of one worker.

    Args:
        worker_id: the worker's present row; changes when the row is lost.
        hand_out: gives a claimed activity to the threads.
        on_lost: called when the worker's row is gone; registers anew and returns the new id.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: Settings,
        watchers: Watchers,
        *,
        worker_id: str,
        hand_out: Callable[[ActivityWorkItem], None],
        on_lost: Callable[[], str],
    ) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._watchers = watchers
        self._hand_out = hand_out
        self._on_lost = on_lost
        self.worker_id = worker_id
        self._cache = ExecutionCache(settings.cache_size)
        self._runner = TurnRunner(store, registry, settings, self._cache)
        self._capacity = Capacity(settings.max_activities)
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._held: dict[str, Held] = {}
        self._ready: dict[str, Held] = {}
        self._slow: dict[str, Held] = {}
        self._in_flight: dict[tuple[str, int], ActivityWorkItem] = {}
        self._internal: list[Command] = []
        self._foreign: list[ActivityResult] = []
        self._wants_claim = True
        self._is_starved = True
        self._next_poll = 0.0
        self._pause = 0.02
        self._is_draining = False
        self._is_stopped = False
        self._guard = threading.Lock()
        self._epoch = 0
        self._step: Step | None = None
        self._running: tuple[Held, Execution | None, float, int] | None = None
        self._threads: list[threading.Thread] = []
        self._finished = threading.Event()
        self.lost_count = 0
        self.commit_count = 0

    # -- called from other threads

    def start(self) -> None:
        """Start the loop's thread."""
        self._spawn()

    def execute(self, command: Command) -> Outcome:
        """Hand a command to the loop and wait until it is committed.

        Raises:
            StoreUnavailableError: the loop did not get to it within the deadline; it will not be carried out then.
        """
        if threading.current_thread() in self._threads:
            return StoreUnavailableError("The client cannot be used inside an orchestrator: it would act again at every replay. Do it in an activity")
        submission = Submission(command)
        self._inbox.put(submission)
        if self._is_stopped:
            self._refuse_left_over()
        if not submission.wait(self._settings.database_timeout + self._settings.turn_timeout):
            submission.is_withdrawn = True
            return StoreUnavailableError("The worker did not get to this command in time")
        return submission.outcome

    def activity_done(self, item: ActivityWorkItem, event: HistoryEvent, seconds: float) -> None:
        """An activity that was handed out has ended."""
        self._inbox.put(ActivityDone(item, event, seconds))

    def wake(self) -> None:
        """Look for work now."""
        self._inbox.put(_WAKE)

    def check_fence(self) -> None:
        """Commit something soon, so that a lost worker row is noticed."""
        self._wants_claim = True
        self.wake()

    def drain(self) -> None:
        """Claim nothing more; commands and results go on being committed."""
        self._is_draining = True
        self.wake()

    def release(self, items: Sequence[ActivityWorkItem]) -> None:
        """Give back claimed activities that were not begun."""
        for item in items:
            self._in_flight.pop((item.execution_id, item.task_id), None)
        if items:
            self._store.commit(Batch(worker_id=self.worker_id, released_activities=items))

    @property
    def busy_count(self) -> int:
        """Activities handed out whose results are not committed yet."""
        return len(self._in_flight)

    def stop(self, timeout: float | None) -> bool:
        """End the loop; False when it is still inside orchestrator code after ``timeout`` seconds."""
        self._is_stopped = True
        self.wake()
        is_over = self._finished.wait(timeout)
        self._refuse_left_over()
        return is_over

    # -- the loop

    def _spawn(self) -> None:
        thread = threading.Thread(target=self._run, args=(self._epoch,), name=f"durable-engine-{self._epoch}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, epoch: int) -> None:
        with self._store.connection():
            while epoch == self._epoch:
                if self._step is None:
                    if self._is_stopped and not (self._ready or self._foreign or self._internal) and self._inbox.empty():
                        self._cache.clear()
                        self._finished.set()
                        return
                    self._step = self._collect()
                if not self._advance(self._step, epoch):
                    return
                step, self._step = self._step, None
                self._settle(step)

    def _collect(self) -> Step:
        step = Step()
        while True:
            self._poll_if_due()
            step.internal, self._internal = self._internal, []
            step.foreign, self._foreign = self._foreign, []
            for item in self._take_inbox():
                self._sort_in(item, step)
            self._take_ready(step)
            if step.submissions or step.internal or step.foreign or step.todo or step.turns or self._wants_claim or self._is_stopped:
                return step

    def _take_inbox(self) -> Iterable[object]:
        is_busy = bool(self._ready) or self._wants_claim or self._is_stopped or bool(self._internal) or bool(self._foreign)
        taken: list[object] = []
        try:
            timeout = max(0.0, self._next_poll - time.monotonic())
            taken.append(self._inbox.get_nowait() if is_busy or timeout == 0.0 else self._inbox.get(timeout=timeout))
            while len(taken) < 2 * BATCH:
                taken.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return taken

    def _sort_in(self, item: object, step: Step) -> None:
        if isinstance(item, ActivityDone):
            self._sort_in_result(item)
        elif isinstance(item, Submission):
            if not item.is_withdrawn:
                step.submissions.append(item)
        elif isinstance(item, LateTurn):
            self._slow.pop(item.held.record.instance_id, None)
            if item.held.is_abandoned:
                item.execution.close()
            else:
                step.turns.append((item.held, item.execution, item.commit))
        elif isinstance(item, Overdue):
            self._give_up(item)
        elif item is _WAKE:
            self._next_poll = 0.0

    def _sort_in_result(self, done: ActivityDone) -> None:
        item = done.item
        self._capacity.ended(done.seconds)
        if self._in_flight.get((item.execution_id, item.task_id)) is not item:
            return
        del self._in_flight[item.execution_id, item.task_id]
        held = self._held.get(item.instance_id)
        result = ActivityResult(item, done.event)
        if held is None or held.record.execution_id != item.execution_id:
            self._foreign.append(result)
            return
        held.results.append(result)
        if item.instance_id not in self._slow:
            self._ready[item.instance_id] = held

    def _take_ready(self, step: Step) -> None:
        controlled = {_controlled(each.command) for each in step.submissions}
        for instance_id in list(self._ready):
            if len(step.todo) >= BATCH:
                return
            if instance_id not in controlled:
                step.todo.append(self._ready.pop(instance_id))

    def _poll_if_due(self) -> None:
        now = time.monotonic()
        if now < self._next_poll or self._is_stopped:
            return
        self._next_poll = now + self._pause
        try:
            ready = self._store.peek(self.worker_id, self._claim())
        except StoreUnavailableError as error:
            logger.warning("The database does not answer; looking again in %.1f s: %s", self._settings.poll_interval, error)
            self._pause = self._settings.poll_interval
            self._next_poll = now + self._pause
            return
        if ready.is_ready and not self._is_draining:
            self._wants_claim = self._is_starved = True
            self._pause = min(0.02, self._settings.poll_interval)
            return
        self._pause = min(self._pause * 2, self._settings.poll_interval)
        if ready.next_due is not None:
            left = (ready.next_due - self._store.now()) / 1e6
            self._next_poll = min(self._next_poll, now + max(left, 0.001))

    # -- turns

    def _advance(self, step: Step, epoch: int) -> bool:
        """Run the turns of a step; False when another thread has taken the step over meanwhile."""
        while step.todo:
            held = step.todo.popleft()
            try:
                execution = self._runner.prepare(held)
            except StoreUnavailableError as error:
                logger.warning("The history of instance %s cannot be read now: %s", held.record.instance_id, error)
                self._ready[held.record.instance_id] = held
                self._back_off()
                continue
            except DurableError as error:
                self._park(held, str(error))
                continue
            with self._guard:
                self._running = (held, execution, time.monotonic(), threading.get_ident())
            commit = self._runner.advance(held, execution)
            with self._guard:
                self._running = None
                is_mine = self._epoch == epoch
            if not is_mine:
                self._inbox.put(LateTurn(held, execution, commit))
                return False
            held.messages, held.results = [], []
            step.turns.append((held, execution, commit))
        return True

    def watch(self) -> None:
        """Let another thread take the loop over when orchestrator code does not yield, and end what never will (called periodically)."""
        with self._guard:
            running = self._running
            if running is not None and time.monotonic() - running[2] > SLOW_TURN:
                held = running[0]
                logger.warning("The orchestrator %s of instance %s has not yielded for %.0f s; the others go on", held.record.name, held.record.instance_id, SLOW_TURN)
                self._running = None
                self._epoch += 1
                self._slow[held.record.instance_id] = held
                left = max(0.0, self._settings.turn_timeout - SLOW_TURN)
                overdue = threading.Timer(left, self._inbox.put, (Overdue(held, running[3]),))
                overdue.daemon = True
                overdue.start()
                self._spawn()

    def _give_up(self, overdue: Overdue) -> None:
        held = overdue.held
        instance_id = held.record.instance_id
        if self._slow.get(instance_id) is not held:
            return
        held.is_abandoned = True
        message = f"The orchestrator ran for more than {self._settings.turn_timeout:g} s without a yield (DURABLE_TURN_TIMEOUT)"
        self._internal.append(FailInstance(instance_id, FailureDetails("flask_durable.TurnTimeout", message)))
        self._held.pop(instance_id, None)
        self._slow.pop(instance_id, None)
        interrupt(overdue.thread_id)

    def _park(self, held: Held, reason: str) -> None:
        logger.error("Instance %s is parked: %s", held.record.instance_id, reason)
        self._held.pop(held.record.instance_id, None)
        self._internal.append(Park(held.record.instance_id, reason))

    # -- the commit

    def _settle(self, step: Step) -> None:
        batch = self._make_batch(step)
        try:
            committed = self._store.commit(batch)
        except WorkerLostError:
            self._lost(step)
            return
        except StoreUnavailableError as error:
            self._undo(step, error)
            return
        except Exception as error:
            self._isolate(step, error)
            return
        self.commit_count += 1
        self._apply(step, batch, committed)

    def _make_batch(self, step: Step) -> Batch:
        for held, _, commit in step.turns:
            turn = commit.turn
            goes_on = not turn.status.is_final and turn.next_generation is None
            commit.keep = goes_on and turn.open_activities > 0 and not self._is_draining
            commit.claimed_activities = 0 if self._is_draining else self._capacity.take(len(turn.activities))
            if commit.claimed_activities < len(turn.activities):
                self._is_starved = True
            self._wants_claim |= bool(turn.children or turn.sent_events or turn.next_generation) or (
                turn.status.is_final and held.record.parent_instance_id is not None
            )
        commands: list[Command] = [each.command for each in step.submissions]
        self._wants_claim |= any(not isinstance(command, StartInstance) for command in commands)
        commands += step.internal
        names = frozenset() if self._is_draining else frozenset(self._registry.orchestrator_names())
        wants_claim, self._wants_claim = self._wants_claim, False
        claims_activities = self._is_starved and self._capacity.is_roomy
        return Batch(
            worker_id=self.worker_id,
            commands=commands,
            turns=[commit for _, _, commit in step.turns],
            results=step.foreign,
            claim=self._claim() if (wants_claim or claims_activities) and not self._is_draining else None,
            claim_starts=names,
            default_version=self._settings.version,
        )

    def _claim(self) -> ClaimRequest:
        return ClaimRequest(
            instances=BATCH,
            activities=self._capacity.free,
            orchestrators=self._registry.orchestrator_names(),
            activity_names=None,
            max_deliveries=self._settings.max_deliveries,
        )

    def _apply(self, step: Step, batch: Batch, committed: Committed) -> None:
        conflicts = set(committed.conflicts)
        for index, (held, execution, commit) in enumerate(step.turns):
            if index in conflicts:
                self._conflicted(held, execution, commit)
            else:
                self._committed(held, execution, commit)
        for submission, outcome in zip(step.submissions, committed.outcomes, strict=False):
            submission.answer(outcome)
        for record in committed.started:
            self._hold(Held(record, record.sequence, record.has_started))
        for work in committed.orchestrations:
            self._take_over(work)
        for item in committed.activities:
            self._capacity.force(1)
            self._launch(item)
        if batch.claim is not None:
            self._is_starved = len(committed.activities) >= max(1, batch.claim.activities) if batch.claim.activities else self._is_starved
            self._wants_claim = self._wants_claim or committed.has_more
        elif committed.has_new_work:
            self._next_poll = 0.0
        if committed.ended:
            self._watchers.notify(committed.ended)
        if batch.turns or batch.commands or batch.results:
            self._pause = min(0.02, self._settings.poll_interval)

    def _committed(self, held: Held, execution: Execution, commit: TurnCommit) -> None:
        record, turn = held.record, commit.turn
        instance_id = record.instance_id
        held.sequence = execution.sequence
        is_first, held.has_started = not held.has_started, True
        if turn.status.is_final or turn.next_generation is not None:
            execution.close()
        else:
            self._cache.put(instance_id, execution)
        if not commit.keep:
            self._held.pop(instance_id, None)
        if is_first and not turn.status.is_final:
            self._watchers.notify((instance_id,))
        for timer in turn.timers:
            self._due_at(timer.fire_at)
        for event in turn.activities[: commit.claimed_activities]:
            self._launch(
                ActivityWorkItem(
                    instance_id, record.execution_id, record.generation, event.task_id, event.name, event.input, event.attempt,
                    event.first_task_id or event.task_id, 1, record.trace,
                )
            )  # fmt: skip
        if held.results and not commit.keep:
            self._foreign.extend(held.results)
        elif held.has_work and commit.keep:
            self._ready[instance_id] = held

    def _conflicted(self, held: Held, execution: Execution, commit: TurnCommit) -> None:
        """The instance was changed from outside: what this turn consumed goes back to its inbox, or nowhere when it has ended."""
        logger.info("Instance %s was changed from outside during a turn; the turn is dropped", held.record.instance_id)
        execution.close()
        self._capacity.give_back(commit.claimed_activities)
        if self._held.get(held.record.instance_id) is held:
            del self._held[held.record.instance_id]
        self._foreign.extend(commit.results)
        self._foreign.extend(held.results)

    def _hold(self, held: Held) -> None:
        # Also without a message: a turn with nothing in it gives the instance back with its true due time.
        self._held[held.record.instance_id] = self._ready[held.record.instance_id] = held

    def _take_over(self, work: OrchestrationWorkItem) -> None:
        record = work.record
        instance_id = record.instance_id
        if instance_id in self._slow:
            return
        known = self._held.get(instance_id)
        if known is not None and known.record.execution_id == record.execution_id and record.worker_id == self.worker_id:
            known.messages = list(work.messages)
            self._ready[instance_id] = known
            return
        self._hold(Held(record, record.sequence, record.has_started, list(work.messages)))

    def _launch(self, item: ActivityWorkItem) -> None:
        self._in_flight[item.execution_id, item.task_id] = item
        self._hand_out(item)

    def _due_at(self, moment: int) -> None:
        left = (moment - self._store.now()) / 1e6
        self._next_poll = min(self._next_poll, time.monotonic() + max(left, 0.0))

    # -- when a commit fails

    def _undo(self, step: Step, error: StoreUnavailableError) -> None:
        """Nothing was written (or it is not known): the turns run again from their history, and callers are told."""
        logger.warning("A commit failed and is tried again: %s", error)
        for held, execution, commit in step.turns:
            execution.close()
            self._capacity.give_back(commit.claimed_activities)
            self._requeue(held, commit)
        self._foreign.extend(step.foreign)
        self._internal.extend(step.internal)
        for submission in step.submissions:
            submission.answer(error)
        self._wants_claim = True
        self._back_off()

    def _requeue(self, held: Held, commit: TurnCommit) -> None:
        # Its messages are still in the tables; the claim that follows brings them again.
        instance_id = held.record.instance_id
        held.results = [*commit.results, *held.results]
        held.messages = []
        if self._held.get(instance_id) is held and held.has_work:
            self._ready[instance_id] = held

    def _back_off(self) -> None:
        time.sleep(min(0.1, self._settings.poll_interval))

    def _isolate(self, step: Step, error: Exception) -> None:
        """Something in the batch cannot be written: find out what, and go on without it."""
        parts = len(step.turns) + len(step.submissions) + len(step.internal) + len(step.foreign)
        if parts > 1:
            logger.warning("A commit was refused (%s: %s); its parts are tried one by one", type(error).__name__, error)
            for turn in step.turns:
                self._capacity.give_back(turn[2].claimed_activities)
                self._settle(Step(turns=[turn]))
            for submission in step.submissions:
                self._settle(Step(submissions=[submission]))
            for command in step.internal:
                self._settle(Step(internal=[command]))
            for result in step.foreign:
                self._settle(Step(foreign=[result]))
            return
        logger.error("A commit was refused and is given up", exc_info=error)
        reason = f"The database refused what this turn has to write ({type(error).__name__}: {error})"
        for held, execution, commit in step.turns:
            execution.close()
            self._capacity.give_back(commit.claimed_activities)
            self._park(held, reason)
        for submission in step.submissions:
            submission.answer(StoreUnavailableError(reason))

    def _lost(self, step: Step) -> None:
        """Another worker took everything over: forget it all and begin as a new worker (fencing)."""
        logger.warning("Worker %s was taken for dead and its work given away; it goes on as a new worker", self.worker_id)
        self.lost_count += 1
        for _, execution, _ in step.turns:
            execution.close()
        self._cache.clear()
        self._held.clear()
        self._ready.clear()
        self._in_flight.clear()
        self._capacity.reset()
        for held in self._slow.values():
            held.is_abandoned = True
        self.worker_id = self._on_lost()
        for submission in step.submissions:
            self._inbox.put(submission)
        self._wants_claim = True

    def _refuse_left_over(self) -> None:
        while True:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, Submission) and not item.is_withdrawn:
                try:
                    item.answer(self._store.commit(Batch(commands=[item.command])).outcomes[0])
                except DurableError as error:
                    item.answer(error)


def _controlled(command: Command) -> str | None:
    """The instance whose turn has to wait, because the command changes its row."""
    return None if isinstance(command, StartInstance | RaiseEvent | PurgeBy) else command.instance_id


def interrupt(thread_id: int) -> None:
    """Raise TurnTimeoutError in another thread, at its next byte code."""
    import ctypes  # noqa: PLC0415 - needed for runaway orchestrators only

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(TurnTimeoutError))
