"""Engine: the one loop of a worker.

It collects what is ready, advances the instances concerned, commits all of it in one transaction, then answers the waiting threads and hands
out the new activities.

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
from collections.abc import Callable, Iterable, Sequence

from flask_durable.config import Settings
from flask_durable.core.events import HistoryEvent
from flask_durable.core.execution import Execution
from flask_durable.core.failure import FailureDetails
from flask_durable.errors import DurableError, InvalidArgumentError, StoreUnavailableError, WorkerLostError
from flask_durable.registry import Registry
from flask_durable.runtime.batches import BATCH, BatchPlanner
from flask_durable.runtime.capacity import Capacity
from flask_durable.runtime.executions import ExecutionCache
from flask_durable.runtime.holdings import Holdings
from flask_durable.runtime.interruption import interrupt
from flask_durable.runtime.polling import Polling
from flask_durable.runtime.steps import ActivityDone, LateTurn, Overdue, Step, Submission
from flask_durable.runtime.turns import Held, TurnRunner
from flask_durable.storage.interface import (
    ActivityWorkItem,
    Batch,
    Command,
    Committed,
    FailInstance,
    Outcome,
    Park,
    PurgeBy,
    RaiseEvent,
    StartInstance,
    Store,
    TurnCommit,
    record_of_start,
)
from flask_durable.watchers import Watchers

logger = logging.getLogger("flask_durable.engine")

SLOW_TURN = 1.0
"""Seconds after which the loop goes on without an orchestrator that does not yield."""

_WAKE = object()


class Engine:
    """The loop of one worker.

    Args:
        worker_id: the worker's present row; changes when the row is lost.
        hand_out: gives a claimed activity to the threads.
        on_lost: called with the id when that worker's row is lost; registers anew and returns the new id.
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
        on_lost: Callable[[str], str],
    ) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._watchers = watchers
        self._on_lost = on_lost
        self.worker_id = worker_id
        self._cache = ExecutionCache(settings.cache_size)
        self._runner = TurnRunner(store, registry, settings, self._cache)
        self._capacity = Capacity(settings.max_activities)
        self._holdings = Holdings(self._capacity, hand_out)
        self._polling = Polling(store, settings.poll_interval)
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._internal: list[Command] = []
        self._planner = BatchPlanner(settings, registry, self._capacity, store.now)
        self._is_stopped = False
        self._guard = threading.Lock()
        self._epoch = 0
        self._step: Step | None = None
        self._running: tuple[Held, float, int] | None = None
        self._threads: list[threading.Thread] = []
        self._finished = threading.Event()
        self.lost_count = 0
        self.commit_count = 0

    # -- called from other threads

    def execute(self, command: Command) -> Outcome:
        """Hand a command to the loop and wait until it is committed.

        Raises:
            StoreUnavailableError: the loop did not get to it within the deadline; it will not be carried out then.
        """
        if threading.current_thread() in self._threads:
            return InvalidArgumentError("The client cannot be used inside an orchestrator: it would act again at every replay. Do it in an activity")
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
        self._planner.wants_claim = True
        self.wake()

    def drain(self) -> None:
        """Claim nothing more; commands and results go on being committed."""
        self._planner.is_draining = True
        self.wake()

    def release(self, items: Sequence[ActivityWorkItem]) -> None:
        """Give back claimed activities that were not begun."""
        for item in items:
            self._holdings.not_begun(item)
        if items:
            self._store.commit(Batch(worker_id=self.worker_id, released_activities=items))

    @property
    def busy_count(self) -> int:
        """Activities handed out whose results are not committed yet."""
        return self._holdings.busy_count

    def stop(self, timeout: float | None) -> bool:
        """End the loop; False when it is still inside orchestrator code after ``timeout`` seconds."""
        self._is_stopped = True
        self.wake()
        is_over = self._finished.wait(timeout)
        self._refuse_left_over()
        return is_over and self._interrupt_slow()

    def _interrupt_slow(self) -> bool:
        """End the turns that the loop went on without: they were never committed, and whoever is next runs them from their history."""
        for held in list(self._holdings.slow.values()):
            held.is_abandoned = True
            interrupt(held.thread_id)
        for thread in self._threads:
            thread.join(1.0)
        return not any(thread.is_alive() for thread in self._threads)

    # -- the loop

    def start(self) -> None:
        """Start the loop's thread; also when it takes over from one that orchestrator code keeps busy."""
        thread = threading.Thread(target=self._run, args=(self._epoch,), name=f"durable-engine-{self._epoch}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, epoch: int) -> None:
        with self._store.connection():
            while epoch == self._epoch:
                try:
                    if not self._round(epoch):
                        return
                except Exception:
                    logger.exception("The engine failed; it gives its work back and begins anew")
                    self._step = None
                    self._begin_anew()

    def _round(self, epoch: int) -> bool:
        """Collect, advance, commit; False when this thread's part is over."""
        if self._step is None:
            if self._is_stopped and not (self._holdings.has_work or self._internal) and self._inbox.empty():
                self._cache.clear()
                self._finished.set()
                return False
            self._step = self._collect()
        if not self._advance(self._step, epoch):
            return False
        step, self._step = self._step, None
        self._settle(step)
        return True

    def _collect(self) -> Step:
        holdings = self._holdings
        step = Step()
        while True:
            if self._polling.seconds_left() == 0.0 and not self._is_stopped:
                is_ready = self._polling.look(self.worker_id, self._planner.claim())
                if is_ready:
                    self._planner.work_was_seen()
            for item in self._take_inbox():
                self._sort_in(item, step)
            step.internal, self._internal = self._internal, []
            step.foreign, holdings.foreign = holdings.foreign, []
            holdings.take_ready(step, BATCH, {_controlled(each.command) for each in step.submissions})
            if step.has_work or self._planner.wants_claim or self._is_stopped:
                return step

    def _take_inbox(self) -> Iterable[object]:
        is_busy = self._holdings.has_work or self._planner.wants_claim or self._is_stopped or bool(self._internal)
        timeout = 0.0 if is_busy else self._polling.seconds_left()
        taken: list[object] = []
        try:
            taken.append(self._inbox.get(timeout=timeout) if timeout else self._inbox.get_nowait())
            while len(taken) < 2 * BATCH:
                taken.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return taken

    def _sort_in(self, item: object, step: Step) -> None:
        if isinstance(item, ActivityDone):
            self._holdings.ended(item)
        elif isinstance(item, Submission):
            if not item.is_withdrawn:
                step.submissions.append(item)
                self._begin_start(item.command, step)
        elif isinstance(item, LateTurn):
            self._sort_in_late(item, step)
        elif isinstance(item, Overdue):
            self._give_up(item)
        elif item is _WAKE:
            self._polling.now()

    def _begin_start(self, command: Command, step: Step) -> None:
        # An id of our own making cannot be in use, so the first turn can share the commit of the start. Should the process die
        # in that turn, the start was never acknowledged.
        if not isinstance(command, StartInstance) or not command.is_id_generated or command.start_at is not None:
            return
        if self._registry.has_orchestrator(command.name) and not self._planner.is_draining:
            step.todo.append(self._holdings.starting(record_of_start(command, self._store.now(), self.worker_id)))
            step.fresh.add(command.instance_id)

    def _sort_in_late(self, item: LateTurn, step: Step) -> None:
        if item.held.is_abandoned:
            item.execution.close()
            return
        self._holdings.slow.pop(item.held.record.instance_id, None)
        step.turns.append((item.held, item.execution, item.commit))

    # -- turns

    def _advance(self, step: Step, epoch: int) -> bool:
        """Run the turns of a step; False when another thread has taken the step over meanwhile."""
        while step.todo:
            held = step.todo.popleft()
            execution = self._prepare(held)
            if execution is None:
                continue
            with self._guard:
                self._running = (held, time.monotonic(), threading.get_ident())
            messages, results = held.messages, held.results
            held.messages, held.results = [], []
            commit = self._runner.advance(held, execution, messages, results)
            with self._guard:
                self._running = None if self._epoch == epoch else self._running
                is_mine = self._epoch == epoch
            if not is_mine:
                self._inbox.put(LateTurn(held, execution, commit))
                return False
            step.turns.append((held, execution, commit))
        return True

    def _prepare(self, held: Held) -> Execution | None:
        instance_id = held.record.instance_id
        try:
            return self._runner.prepare(held)
        except StoreUnavailableError as error:
            logger.warning("The history of instance %s cannot be read now: %s", instance_id, error)
            self._holdings.ready[instance_id] = held
            self._back_off()
        except DurableError as error:
            self._park(held, str(error))
        except Exception as error:
            logger.exception("Instance %s cannot be brought back from its history", instance_id)
            self._park(held, f"It cannot be brought back from its history: {type(error).__name__}: {error}")
        return None

    def watch(self) -> None:
        """Let another thread take the loop over when orchestrator code does not yield, and end what never will (called periodically)."""
        with self._guard:
            running = self._running
            if running is None or time.monotonic() - running[1] <= SLOW_TURN:
                return
            held, _, thread_id = running
            record = held.record
            logger.warning("Orchestrator %s of instance %s has not yielded for %g s; the others go on", record.name, record.instance_id, SLOW_TURN)
            self._running = None
            self._epoch += 1
            held.thread_id = thread_id
            self._holdings.slow[record.instance_id] = held
            left = max(0.0, self._settings.turn_timeout - SLOW_TURN)
            overdue = threading.Timer(left, self._inbox.put, (Overdue(held, thread_id),))
            overdue.daemon = True
            overdue.start()
            self.start()

    def _give_up(self, overdue: Overdue) -> None:
        held = overdue.held
        instance_id = held.record.instance_id
        if self._holdings.slow.get(instance_id) is not held:
            return
        held.is_abandoned = True
        message = f"The orchestrator ran for more than {self._settings.turn_timeout:g} s without a yield (DURABLE_TURN_TIMEOUT)"
        self._internal.append(FailInstance(instance_id, FailureDetails("flask_durable.TurnTimeout", message)))
        self._holdings.drop(held)
        interrupt(overdue.thread_id)

    def _park(self, held: Held, reason: str) -> None:
        logger.error("Instance %s is parked: %s", held.record.instance_id, reason)
        self._holdings.foreign.extend(held.results)
        self._holdings.drop(held)
        self._internal.append(Park(held.record.instance_id, reason))

    # -- the commit

    def _settle(self, step: Step) -> None:
        batch = self._planner.make_batch(step, self.worker_id)
        try:
            committed = self._store.commit(batch)
        except WorkerLostError:
            self._lost(step)
            return
        except StoreUnavailableError as error:
            self._undo(step, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever one row makes the database raise must not end the loop
            self._isolate(step, error)
            return
        self.commit_count += 1
        self._apply(step, batch, committed)

    def _apply(self, step: Step, batch: Batch, committed: Committed) -> None:
        conflicts = set(committed.conflicts)
        for index, (held, execution, commit) in enumerate(step.turns):
            if index in conflicts:
                self._conflicted(held, execution, commit)
            else:
                self._committed(held, execution, commit)
        self._let_go(batch, committed)
        for submission, outcome in zip(step.submissions, committed.outcomes, strict=False):
            submission.answer(outcome)
        self._take(step, committed)
        self._planner.committed(batch, committed)
        if batch.claim is None and committed.has_new_work:
            self._polling.now()
        if batch.turns or batch.commands or batch.results:
            self._polling.work_was_done()
        self._watchers.notify(committed.ended)

    def _let_go(self, batch: Batch, committed: Committed) -> None:
        for command, outcome in zip(batch.commands, committed.outcomes, strict=True):
            taken = _controlled(command)
            if taken is not None and not isinstance(outcome, DurableError):
                self._holdings.let_go(taken)
        for instance_id in committed.ended:
            self._holdings.let_go(instance_id)

    def _take(self, step: Step, committed: Committed) -> None:
        for record in committed.started:
            if record.instance_id not in step.fresh:
                self._holdings.started(record)
        for work in committed.orchestrations:
            self._holdings.claimed(work, self.worker_id)
        for item in committed.activities:
            self._capacity.force(1)
            self._holdings.launch(item)

    def _committed(self, held: Held, execution: Execution, commit: TurnCommit) -> None:
        record, turn = held.record, commit.turn
        if turn.status.is_final or turn.next_generation is not None:
            execution.close()
        else:
            self._cache.put(record.instance_id, execution)
        if not held.has_started:
            self._watchers.notify((record.instance_id,))
        for timer in turn.timers:
            self._polling.at(timer.fire_at)
        for event in turn.activities[: commit.claimed_activities]:
            self._holdings.launch(
                ActivityWorkItem(
                    record.instance_id, record.execution_id, record.generation, event.task_id, event.name, event.input, event.attempt,
                    event.first_task_id or event.task_id, 1, record.trace,
                )
            )  # fmt: skip
        self._holdings.committed(held, commit, execution.sequence)

    def _conflicted(self, held: Held, execution: Execution, commit: TurnCommit) -> None:
        logger.info("Instance %s was changed from outside during a turn; the turn is dropped", held.record.instance_id)
        execution.close()
        self._holdings.conflicted(held, commit)

    # -- when a commit fails

    def _undo(self, step: Step, error: StoreUnavailableError) -> None:
        """Nothing was written (or it is not known): the turns run again from their history, and callers are told."""
        logger.warning("A commit failed and is tried again: %s", error)
        for held, execution, commit in step.turns:
            execution.close()
            if held.record.instance_id in step.fresh:
                self._capacity.give_back(commit.claimed_activities)
                self._holdings.drop(held)
            else:
                self._holdings.undone(held, commit)
        self._holdings.foreign.extend(step.foreign)
        self._internal.extend(step.internal)
        for submission in step.submissions:
            submission.answer(error)
        self._planner.wants_claim = True
        self._back_off()

    def _back_off(self) -> None:
        time.sleep(min(0.1, self._settings.poll_interval))

    def _isolate(self, step: Step, error: Exception) -> None:
        """Something in the batch cannot be written: find out what, and go on without it."""
        parts = step.parts()
        if len(parts) > 1:
            logger.warning("A commit was refused (%s: %s); its parts are tried one by one", type(error).__name__, error)
            for _, _, commit in step.turns:
                self._capacity.give_back(commit.claimed_activities)
            for part in parts:
                self._settle(part)
            return
        logger.error("A commit was refused and is given up", exc_info=error)
        reason = f"The database refused what this turn has to write ({type(error).__name__}: {error})"
        for held, execution, commit in step.turns:
            execution.close()
            self._capacity.give_back(commit.claimed_activities)
            held.results = [*commit.results, *held.results]
            self._park(held, reason)
        for submission in step.submissions:
            submission.answer(StoreUnavailableError(reason))

    def _lost(self, step: Step) -> None:
        """Another worker took everything over: forget it all and begin as a new worker (fencing)."""
        logger.warning("Worker %s was taken for dead and its work given away; it goes on as a new worker", self.worker_id)
        self.lost_count += 1
        for _, execution, _ in step.turns:
            execution.close()
        for submission in step.submissions:
            self._inbox.put(submission)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._cache.clear()
        self._holdings.forget()
        while True:
            try:
                self.worker_id = self._on_lost(self.worker_id)
                break
            except DurableError as error:
                logger.warning("A new worker cannot be registered yet: %s", error)
                time.sleep(self._settings.poll_interval)
        self._planner.wants_claim = True

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
