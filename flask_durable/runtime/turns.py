"""Running one turn of an instance: the right execution, warm or rebuilt, and the events it gets, in order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flask_durable.config import Settings
from flask_durable.core.context import Limits
from flask_durable.core.events import EventRaised, ExecutionStarted, HistoryEvent, Recorded, TaskScheduled
from flask_durable.core.execution import Execution
from flask_durable.core.status import RuntimeStatus
from flask_durable.errors import CorruptHistoryError, DurableError, VersionMismatchError
from flask_durable.logs import get_logger
from flask_durable.registry import Registry
from flask_durable.runtime.abilities import Abilities
from flask_durable.runtime.executions import ExecutionCache
from flask_durable.storage.interface import ActivityResult, ActivityWorkItem, InboxMessage, InstanceRecord, Store, TurnCommit

logger = get_logger("flask_durable.turns")

Item = TypeVar("Item")


class TurnImpossibleError(DurableError):
    """An instance cannot have its turn; it is parked with this reason."""

    code = "turn_impossible"


@dataclass(slots=True)
class Held:
    """An instance this worker holds.

    Args:
        record: the instance as it was claimed.
        sequence: number of events in its committed history.
        has_started: whether a turn of this generation has been committed.
        messages: stored messages it has not had yet.
        results: outcomes of activities that ran here, which it has not had yet.
        in_turn: the results that its present turn has.
        is_abandoned: nobody waits for its present turn any more.
        thread: the thread that its present turn keeps busy, once the loop has gone on without it.
        is_replaying: its present turn is still at bringing the code back to where its history ends.
        taken: the results that its present turn has.
    """

    record: InstanceRecord
    sequence: int
    has_started: bool
    messages: list[InboxMessage] = field(default_factory=list)
    results: list[ActivityResult] = field(default_factory=list)
    in_turn: Sequence[ActivityResult] = ()
    is_abandoned: bool = False
    thread: threading.Thread | None = None
    is_replaying: bool = False
    taken: Sequence[ActivityResult] = ()

    @property
    def has_work(self) -> bool:
        """Whether it is due for a turn."""
        return not self.has_started or bool(self.messages) or bool(self.results)


@dataclass(slots=True)
class RanTurn:
    """What came of running a turn: something to commit, or the reason why there is nothing.

    Args:
        messages: the stored messages that it took.
    """

    held: Held
    messages: list[InboxMessage]
    execution: Execution | None = None
    commit: TurnCommit | None = None
    error: Exception | None = None

    def give_back(self) -> None:
        """The turn was not to be: its instance has again what the turn took."""
        self.held.messages = self.held.messages or self.messages
        self.held.results = [*self.held.taken, *self.held.results]


class TurnRunner:
    """Runs turns; nothing of it is written here."""

    def __init__(self, store: Store, registry: Registry, settings: Settings, cache: ExecutionCache, abilities: Abilities) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._cache = cache
        self._abilities = abilities
        self._limits = Limits(
            payload_bytes=settings.max_payload_bytes,
            payload_depth=settings.max_payload_depth,
            custom_status_bytes=settings.max_custom_status_bytes,
            actions_per_turn=settings.max_actions_per_turn,
            history_events=settings.max_history_events,
            timer_interval=None if settings.max_timer_interval is None else round(settings.max_timer_interval * 1e6),
        )

    def run(self, held: Held) -> RanTurn:
        """Run the turn that is due; whatever goes wrong is part of what comes back."""
        messages, held.taken = held.messages, held.results
        held.messages, held.results = [], []
        held.is_replaying = True
        execution: Execution | None = None
        try:
            execution = self.prepare(held)
            held.is_replaying = False
            return RanTurn(held, messages, execution, self.advance(held, execution, messages, held.taken))
        except Exception as error:  # noqa: BLE001 - the loop decides what becomes of the instance
            if execution is not None:
                self._cache.close(execution)
            return RanTurn(held, messages, error=error)

    def prepare(self, held: Held) -> Execution:
        """The execution of an instance, as its committed history leaves it.

        Raises:
            CorruptHistoryError: the history cannot be read.
            TurnImpossibleError: the code does not fit the history, and such instances are parked.
            VersionMismatchError: its version is not one of this worker's, and such instances fail.
        """
        record = held.record
        refusal = self._abilities.refusal(record.version)
        if refusal is not None:
            raise VersionMismatchError(refusal)
        execution = self._cache.take(record.instance_id, record.execution_id, held.sequence)
        if execution is None:
            function = self._registry.orchestrator(record.name, record.version).function
            registry = self._registry
            execution = Execution(
                function,
                limits=self._limits,
                name_of=registry.name_of,
                options_of=registry.options_of,
                version_of=self._version_of_child,
                function_of=registry.function_of,
                exceptions=registry.exceptions,
            )
            if held.sequence:
                history = self._store.load_history(record.instance_id, record.generation)
                _check_complete(record.instance_id, history, held.sequence)
                try:
                    execution.replay(history)
                except BaseException:
                    self._cache.close(execution)
                    raise
        if execution.nondeterminism is not None and self._settings.nondeterminism == "park":
            self._cache.close(execution)
            raise TurnImpossibleError(str(execution.nondeterminism))
        return execution

    def _version_of_child(self, orchestrator: object) -> str | None:
        return self._registry.default_version(orchestrator, self._settings.version)

    def advance(self, held: Held, execution: Execution, messages: Sequence[InboxMessage], results: Sequence[ActivityResult]) -> TurnCommit:
        """Let the instance have what has come for it; what comes after its failure stays where it was, for a rewind."""
        record = held.record
        held.in_turn = results
        events: list[HistoryEvent] = []
        if not held.has_started:
            events.append(_started(record))
            events.extend(record.carried)
        events.extend(message.event for message in messages)
        events.extend(result.event for result in results)
        turn = execution.advance(self._store.now(), events)
        held.in_turn = ()
        carried: Sequence[EventRaised] = ()
        if turn.undelivered and turn.status is RuntimeStatus.FAILED:
            left = turn.undelivered
            results, late = _split(results, left)
            held.results[:0] = late
            messages, unread = _split(messages, left - len(late))
            carried = _split(record.carried, left - len(late) - len(unread))[1]
        return TurnCommit(
            record=record,
            sequence=held.sequence,
            turn=turn,
            messages=[message.message_id for message in messages],
            results=results,
            carried=carried,
        )


def _check_complete(instance_id: str, history: Sequence[Recorded], sequence: int) -> None:
    last = history[-1].sequence if history else 0
    if len(history) != last or last < sequence:
        raise CorruptHistoryError(instance_id, f"{max(last, sequence)} events were written, and {len(history)} are there")


def _split(items: Sequence[Item], last: int) -> tuple[Sequence[Item], Sequence[Item]]:
    """All but the last ones, and at most so many of the last ones."""
    at = max(0, len(items) - last)
    return items[:at], items[at:]


def _started(record: InstanceRecord) -> ExecutionStarted:
    return ExecutionStarted(
        name=record.name,
        instance_id=record.instance_id,
        execution_id=record.execution_id,
        generation=record.generation,
        input=record.input,
        version=record.version,
        parent_instance_id=record.parent_instance_id,
        tags=record.tags,
        scheduled_start=record.start_at,
    )


def call_of(record: InstanceRecord, event: TaskScheduled, worker_id: str) -> ActivityWorkItem:
    """The call that a turn made, as its worker claims it in the same commit."""
    return ActivityWorkItem(
        record.instance_id, record.execution_id, record.generation, event.task_id, event.name, event.input, event.attempt,
        event.first_task_id or event.task_id, 1, record.trace, event.priority, event.timeout, worker_id,
    )  # fmt: skip
