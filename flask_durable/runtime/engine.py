"""Engine: the one loop of a worker.

It collects what is ready, advances the instances concerned, commits all of it in one transaction, then answers the waiting threads and hands
out the new activities.

Laws:

1. Nothing leaves a turn before its commit; a turn that was not committed never happened.
2. What came meanwhile is the next batch; the loop never waits for company. It only lets those run first whom it has answered.
3. One bad instance costs itself: it is failed or parked, and the batch goes on without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from flask_durable.config import Settings
from flask_durable.core.events import HistoryEvent
from flask_durable.core.execution import Execution
from flask_durable.errors import DurableError, InvalidArgumentError, OutcomeUnknownError, StoreUnavailableError, WorkerLostError
from flask_durable.logs import get_logger
from flask_durable.registry import Registry
from flask_durable.runtime.abilities import Abilities
from flask_durable.runtime.batches import BATCH, BatchPlanner
from flask_durable.runtime.capacity import Capacity
from flask_durable.runtime.executions import ExecutionCache
from flask_durable.runtime.holdings import Holdings
from flask_durable.runtime.in_flight import InFlight
from flask_durable.runtime.inbox import Inbox
from flask_durable.runtime.interruption import TurnTimeoutError, hog_gone, interrupt_all, settle
from flask_durable.runtime.outcomes import find_out
from flask_durable.runtime.polling import Polling
from flask_durable.runtime.refusals import Refusals
from flask_durable.runtime.slow_turns import Overtaking, RunningTurn
from flask_durable.runtime.steps import ActivityDone, LateTurn, Overdue, Step, Submission, controlled_by, let_go_on
from flask_durable.runtime.surroundings import REAL, Surroundings
from flask_durable.runtime.suspects import Suspects
from flask_durable.runtime.turns import Held, RanTurn, TurnRunner, call_of
from flask_durable.storage.interface import (
    ActivityWorkItem,
    Batch,
    Command,
    Committed,
    Outcome,
    StartInstance,
    Store,
    TurnCommit,
    record_of_start,
)
from flask_durable.watchers import Watchers

logger = get_logger("flask_durable.engine")

STOP_SECONDS = 1.0
"""So long code that does not yield is interrupted when the worker stops; what waits in C is left behind."""


class Engine:
    """The loop of one worker.

    Args:
        worker_id: the worker's present row; changes when the row is lost.
        hand_out: gives a claimed activity to the threads.
        on_lost: called with the id when that worker's row is lost; registers anew and returns the new id.
        stuck: how many activity threads are of no use now.
        went_round: called at the beginning of every round.
        surroundings: where it takes time and threads from.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: Settings,
        watchers: Watchers,
        abilities: Abilities,
        polling: Polling,
        *,
        worker_id: str,
        hand_out: Callable[[ActivityWorkItem], None],
        on_lost: Callable[[str], str],
        stuck: Callable[[], int] = lambda: 0,
        went_round: Callable[[], None] = lambda: None,
        surroundings: Surroundings = REAL,
    ) -> None:
        self._store = store
        self._surroundings = surroundings
        self._abilities = abilities
        self._settings = settings
        self._watchers = watchers
        self._on_lost = on_lost
        self._went_round = went_round
        self.worker_id = worker_id
        self._closer = surroundings.make_closer()
        self._cache = ExecutionCache(settings.cache_size, self._closer.close)
        self._runner = TurnRunner(store, registry, settings, self._cache, abilities)
        self._capacity = Capacity(settings.max_activities, stuck)
        self._in_flight = InFlight(registry.limited_activities)
        self._holdings = Holdings(self._capacity, self._in_flight, hand_out)
        self._polling = polling
        self._inbox = Inbox()
        self._refusals = Refusals(self._holdings, settings.turn_timeout)
        suspects = Suspects(surroundings.clock.monotonic)
        self._planner = BatchPlanner(settings, abilities, self._capacity, self._in_flight, suspects, lambda: polling.has_neighbours)
        self._is_stopped = False
        self._is_settling = False
        self._turn = RunningTurn()
        self._overtaking = Overtaking(self._turn, settings.turn_timeout, self._go_on_without, self._inbox.put, surroundings.make_thread)
        self._step: Step | None = None
        self._threads: list[threading.Thread] = []
        self._finished = surroundings.make_event()
        self.lost_count = 0
        self.commit_count = 0

    # -- called from other threads

    def execute(self, command: Command) -> Outcome:
        """Hand a command to the loop and wait until it is committed.

        Raises:
            StoreUnavailableError: the loop did not get to it within the deadline; it will not be carried out then.
            OutcomeUnknownError: it has got to it, and is not through with it.
        """
        if threading.current_thread() in self._threads or self._closer.has(threading.current_thread()):
            return InvalidArgumentError("The client cannot be used inside an orchestrator: it would act again at every replay. Do it in an activity")
        submission = self.submit(command)
        if self._is_stopped:
            self._inbox.carry_out_the_rest(self._execute_alone)
        if not submission.wait(self._settings.database_timeout + self._settings.turn_timeout):
            return submission.withdraw()
        return submission.outcome

    def submit(self, command: Command) -> Submission:
        """Hand a command to the loop without waiting for it."""
        submission = Submission(command)
        self._inbox.put(submission)
        return submission

    def activity_done(self, item: ActivityWorkItem, event: HistoryEvent | None, seconds: float, is_recorded: bool = False) -> None:
        """An activity that was handed out has ended; without an event it was not begun here, or its outcome is recorded already."""
        self._inbox.put(ActivityDone(item, event, seconds, is_recorded))

    def wake(self, *, by_sign: bool = False) -> None:
        """Look for work now; by a sign of others, which may be of no use here, soon."""
        self._inbox.put(self._polling.sign if by_sign else self._polling.now)

    def check_fence(self) -> None:
        """Commit something soon, so that a lost worker row is noticed."""
        self._planner.wants_claim = True
        self.wake()

    def fail_activities(self, names: tuple[str, ...]) -> None:
        """Claim the calls of these activities, which nobody knows, so that they fail."""
        if self._planner.stray_activities != names:
            self._planner.stray_activities = names
            self.check_fence()

    def drain(self) -> None:
        """Claim nothing more; commands and results go on being committed."""
        self._planner.is_draining = True
        self.wake()

    def release(self, items: Sequence[ActivityWorkItem]) -> None:
        """Give back claimed activities that were not begun."""
        for item in items:
            self.activity_done(item, None, 0.0)
        if items:
            self._store.commit(Batch(worker_id=self.worker_id, released_activities=items))

    @property
    def busy_count(self) -> int:
        """Activities handed out whose results have not come back; one more while a commit may still hand out some.

        A worker that drains would otherwise take itself for idle while the activities of its last claim are on their way.
        """
        return len(self._in_flight) + self._is_settling

    def stop(self, timeout: float | None) -> bool:
        """End the loop; False when it is still inside orchestrator code after ``timeout`` seconds."""
        self._is_stopped = True
        self.wake()
        is_over = self._finished.wait(timeout)
        self._inbox.carry_out_the_rest(self._execute_alone)
        self._overtaking.stop()
        # The turns that the loop went on without were never committed; whoever is next runs them from their history.
        for held in list(self._holdings.slow.values()):
            held.is_abandoned = True
        is_closed = self._closer.stop(STOP_SECONDS)
        return interrupt_all(self._threads[: self._turn.epoch], STOP_SECONDS) and is_closed and is_over

    # -- the loop

    def start(self) -> None:
        """Start the loop's thread; also when it takes over from one that orchestrator code keeps busy."""
        epoch = self._turn.epoch
        thread = self._surroundings.make_thread(target=self._run, args=(epoch,), name=f"durable-engine-{epoch}", daemon=True)
        self._threads.append(thread)
        if epoch == 0:
            self._overtaking.start()
        thread.start()

    def _run(self, epoch: int) -> None:
        while epoch == self._turn.epoch and not self._finished.is_set():
            try:
                with self._store.connection():
                    self._rounds(epoch)
                break
            except TurnTimeoutError:  # it came when the code had just ended
                break
            except Exception as error:  # noqa: BLE001 - a loop that ends for want of a connection would leave everybody waiting
                logger.warning("The engine has no connection; it tries again: %s: %s", type(error).__name__, error)
                self._without_connection()
        if epoch != self._turn.epoch:
            hog_gone(threading.current_thread())

    def _rounds(self, epoch: int) -> None:
        while epoch == self._turn.epoch and self.step(epoch):
            pass

    def step(self, epoch: int, *, waits: bool = True) -> bool:
        """Take one round, whatever goes wrong in it; False when this thread's part is over.

        Args:
            epoch: which of the loop's threads this is; 0 for the first.
            waits: whether to wait for something to do.
        """
        self._went_round()
        try:
            return self._round(epoch, waits)
        except Exception:
            logger.exception("The engine failed; it gives its work back and begins anew")
            failed, self._step = self._step, None
            for _, execution, _ in failed.turns if failed is not None else ():
                self._closer.close(execution)
            self._begin_anew()
            return True

    def _without_connection(self) -> None:
        if self._is_stopped:
            self._finished.set()
        else:
            self._surroundings.sleep(self._settings.poll_interval)

    def _round(self, epoch: int, waits: bool) -> bool:
        """Collect, advance, commit; False when this thread's part is over."""
        if self._step is None:
            if self._is_stopped and not (self._holdings.has_work or self._refusals.commands) and self._inbox.is_empty():
                self._cache.clear()
                self._finished.set()
                return False
            self._step = self._collect(waits)
            if self._step is None:
                return True
        if not self._advance(self._step, epoch):
            return False
        self._is_settling = True
        try:
            self._settle(self._step)
        finally:
            self._is_settling = False
        self._step = None
        return True

    def _collect(self, waits: bool) -> Step | None:
        holdings = self._holdings
        step = Step()
        while True:
            if self._polling.seconds_left() == 0.0 and not self._is_stopped:
                is_ready = self._polling.look(self.worker_id, self._planner.claim)
                if is_ready:
                    self._planner.work_was_seen()
            for item in self._take_inbox(waits):
                self._sort_in(item, step)
            step.internal, self._refusals.commands = self._refusals.commands, []
            step.foreign, holdings.foreign = holdings.foreign, []
            holdings.take_ready(step, BATCH, {controlled_by(each.command) for each in step.submissions})
            if step.has_work or self._planner.wants_claim or self._is_stopped:
                return step
            if not waits:
                return None

    def _take_inbox(self, waits: bool) -> Iterable[object]:
        is_busy = not waits or self._holdings.has_work or self._planner.wants_claim or self._is_stopped or bool(self._refusals.commands)
        return self._inbox.take(2 * BATCH, 0.0 if is_busy else self._polling.seconds_left())

    def _sort_in(self, item: object, step: Step) -> None:
        if isinstance(item, ActivityDone):
            self._holdings.ended(item)
            self._planner.call_ended(item.item, item.is_recorded)
        elif isinstance(item, Submission):
            if item.take():
                step.submissions.append(item)
                self._begin_start(item.command, step)
        elif isinstance(item, LateTurn):
            self._sort_in_late(item.ran, step)
        elif isinstance(item, Overdue):
            if self._refusals.is_too_slow(item.held):
                self._overtaking.interrupt(item)
        elif callable(item):
            item()

    def _begin_start(self, command: Command, step: Step) -> None:
        # An id of our own making is not in use, so the first turn can share the start's commit; before that nothing is acknowledged.
        if not isinstance(command, StartInstance) or not command.is_id_generated or command.start_at is not None:
            return
        if self._abilities.runs(command.name, command.version) and not self._planner.is_draining:
            step.todo.append(self._holdings.starting(record_of_start(command, self._store.now(), self.worker_id)))
            step.fresh.add(command.instance_id)

    def _sort_in_late(self, ran: RanTurn, step: Step) -> None:
        if not ran.held.is_abandoned:
            self._holdings.slow.pop(ran.held.record.instance_id, None)
            self._sort_in_turn(ran, step)
        elif ran.execution is not None:
            self._closer.close(ran.execution)

    def _sort_in_turn(self, ran: RanTurn, step: Step) -> None:
        if ran.execution is not None and ran.commit is not None:
            step.turns.append((ran.held, ran.execution, ran.commit))
        elif ran.error is not None:
            ran.give_back()
            if self._refusals.has_no_turn(ran.held, ran.error):
                self._back_off()

    # -- turns

    def _advance(self, step: Step, epoch: int) -> bool:
        """Run the turns of a step; False when another thread has taken the step over meanwhile."""
        self._overtaking.turns_begin()
        while step.todo:
            held = step.todo.popleft()
            self._turn.begin(held)
            ran = self._runner.run(held)
            if not self._turn.end(epoch):
                settle()
                self._inbox.put(LateTurn(ran))
                return False
            self._sort_in_turn(ran, step)
        return True

    def _go_on_without(self, held: Held) -> None:
        self._holdings.slow[held.record.instance_id] = held
        self.start()

    # -- the commit

    def _settle(self, step: Step) -> None:
        batch = self._planner.make_batch(step, self.worker_id)
        try:
            committed = self._store.commit(batch)
        except WorkerLostError:
            self._lost(step)
            return
        except OutcomeUnknownError as error:
            self._find_out(step, batch, error)
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
        step.answer(committed.outcomes)
        self._take(step, committed)
        self._planner.committed(batch, committed)
        if batch.claim is None and committed.has_new_work:
            self._polling.now()
        if batch.turns or batch.commands or batch.results:
            self._polling.work_was_done()
        self._watchers.notify((*committed.ended, *committed.taken))
        let_go_on(step.submissions, self._surroundings.clock.monotonic)

    def _let_go(self, batch: Batch, committed: Committed) -> None:
        for command, outcome in zip(batch.commands, committed.outcomes, strict=True):
            taken = controlled_by(command)
            if taken is not None and not isinstance(outcome, DurableError):
                self._holdings.let_go(taken)
        for instance_id in (*committed.ended, *committed.taken):
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
            self._closer.close(execution)
        else:
            self._cache.put(record.instance_id, execution)
        if not held.has_started:
            self._watchers.notify((record.instance_id,))
        for timer in turn.timers:
            self._polling.at(timer.fire_at)
        for event in turn.activities[: commit.claimed_activities]:
            self._holdings.launch(call_of(record, event, self.worker_id))
        self._holdings.committed(held, commit, execution.sequence)

    def _conflicted(self, held: Held, execution: Execution, commit: TurnCommit) -> None:
        logger.info("Instance %s was changed from outside during a turn; the turn is dropped", held.record.instance_id)
        self._closer.close(execution)
        self._holdings.conflicted(held, commit)

    # -- when a commit fails

    def _undo(self, step: Step, error: StoreUnavailableError) -> None:
        """Nothing was written: the turns run again from their history, and callers are told."""
        logger.warning("A commit failed and is tried again: %s", error)
        for held, execution, commit in step.turns:
            self._closer.close(execution)
            if held.record.instance_id in step.fresh:
                self._capacity.give_back(commit.claimed_activities)
                self._holdings.drop(held)
            else:
                self._holdings.undone(held, commit)
        self._holdings.foreign.extend(step.foreign)
        self._refusals.commands.extend(step.internal)
        for submission in step.submissions:
            submission.answer(error)
        self._planner.wants_claim = True
        self._back_off()

    def _find_out(self, step: Step, batch: Batch, error: OutcomeUnknownError) -> None:
        try:
            committed = find_out(self._store, step, batch, error, self._inbox, self._back_off)
        except WorkerLostError:
            self._lost(step)
            return
        if committed is None:
            self._undo(step, error)
        else:
            self._apply(step, batch, committed)

    def _back_off(self) -> bool:
        self._surroundings.sleep(min(0.1, self._settings.poll_interval))
        return not (self._is_stopped or self._planner.is_draining)

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
            self._closer.close(execution)
            self._capacity.give_back(commit.claimed_activities)
            held.results = [*commit.results, *held.results]
            self._refusals.park(held, reason)
        for submission in step.submissions:
            submission.answer(StoreUnavailableError(reason))

    def _lost(self, step: Step) -> None:
        """Another worker took everything over: forget it all and begin as a new worker (fencing)."""
        logger.warning("Worker %s was taken for dead and its work given away; it goes on as a new worker", self.worker_id)
        self.lost_count += 1
        for _, execution, _ in step.turns:
            self._closer.close(execution)
        for submission in step.submissions:
            self._inbox.put(submission)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._cache.clear()
        self._holdings.forget()
        self._planner.wants_claim = True
        while True:
            try:
                self.worker_id = self._on_lost(self.worker_id)
                return
            except DurableError as error:
                logger.warning("A new worker cannot be registered yet: %s", error)
                self._inbox.refuse(error)
                self._surroundings.sleep(self._settings.poll_interval)

    def _execute_alone(self, command: Command) -> Outcome:
        return self._store.commit(Batch(commands=[command])).outcomes[0]
