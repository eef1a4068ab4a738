"""Running one turn of an instance: the right execution, warm or rebuilt, and the events it gets, in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from flask_durable.config import Settings
from flask_durable.core.context import Limits
from flask_durable.core.events import ExecutionStarted, HistoryEvent
from flask_durable.core.execution import Execution
from flask_durable.errors import DurableError
from flask_durable.registry import Registry
from flask_durable.runtime.executions import ExecutionCache
from flask_durable.storage.interface import ActivityResult, InboxMessage, InstanceRecord, Store, TurnCommit

logger = logging.getLogger("flask_durable.turns")


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
        is_abandoned: nobody waits for its present turn any more.
        thread_id: the thread that its present turn keeps busy, once the loop has gone on without it.
    """

    record: InstanceRecord
    sequence: int
    has_started: bool
    messages: list[InboxMessage] = field(default_factory=list)
    results: list[ActivityResult] = field(default_factory=list)
    is_abandoned: bool = False
    thread_id: int = 0

    @property
    def has_work(self) -> bool:
        """Whether it is due for a turn."""
        return not self.has_started or bool(self.messages) or bool(self.results)


class TurnRunner:
    """Runs turns; nothing of it is written here."""

    def __init__(self, store: Store, registry: Registry, settings: Settings, cache: ExecutionCache) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._cache = cache
        self._limits = Limits(
            payload_bytes=settings.max_payload_bytes,
            payload_depth=settings.max_payload_depth,
            custom_status_bytes=settings.max_custom_status_bytes,
            actions_per_turn=settings.max_actions_per_turn,
            history_events=settings.max_history_events,
        )

    def prepare(self, held: Held) -> Execution:
        """The execution of an instance, as its committed history leaves it.

        Raises:
            CorruptHistoryError: the history cannot be read.
            TurnImpossibleError: the code does not fit the history, and such instances are parked.
        """
        record = held.record
        execution = self._cache.take(record.instance_id, record.execution_id, held.sequence)
        if execution is None:
            function = self._registry.orchestrator(record.name).function
            execution = Execution(function, limits=self._limits, name_of=self._registry.name_of)
            if held.sequence:
                execution.replay(self._store.load_history(record.instance_id, record.generation))
        if execution.nondeterminism is not None and self._settings.nondeterminism == "park":
            execution.close()
            raise TurnImpossibleError(str(execution.nondeterminism))
        return execution

    def advance(self, held: Held, execution: Execution, messages: Sequence[InboxMessage], results: Sequence[ActivityResult]) -> TurnCommit:
        """Let the instance have what has come for it."""
        record = held.record
        events: list[HistoryEvent] = []
        if not held.has_started:
            events.append(_started(record))
            events.extend(record.carried)
        events.extend(message.event for message in messages)
        events.extend(result.event for result in results)
        turn = execution.advance(self._store.now(), events)
        return TurnCommit(
            record=record,
            sequence=held.sequence,
            turn=turn,
            messages=[message.message_id for message in messages],
            results=results,
        )


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
