"""Running one activity call: decode, call the function inside its context, encode; the outcome is an event."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

from flask_durable.config import Settings
from flask_durable.core.events import HistoryEvent, TaskCompleted, TaskFailed
from flask_durable.core.failure import FailureDetails
from flask_durable.core.signature import activity_signature
from flask_durable.errors import NotRegisteredError, TypeMismatchError
from flask_durable.logs import get_logger
from flask_durable.registry import Registry
from flask_durable.storage.interface import ActivityWorkItem
from flask_durable.telemetry import Telemetry

logger = get_logger("flask_durable.activities")

Enclose = Callable[[Callable[[], str | None]], str | None]
"""Calls what it is given, which gives the JSON text of a result."""


class ActivityContext:
    """What an activity may know of the call it runs for (rule 54).

    Args:
        item: the call.
        is_current: asks the storage whether the result is still wanted.
        timeout: how long the attempt may run, in seconds from now.
    """

    def __init__(self, item: ActivityWorkItem, is_current: Callable[[], bool], timeout: float | None = None) -> None:
        self._item = item
        self._is_current = is_current
        self._timeout = timeout
        self._deadline = None if timeout is None else datetime.now(UTC) + timedelta(seconds=timeout)
        self._is_expired = False

    @property
    def item(self) -> ActivityWorkItem:
        """The call as it was claimed."""
        return self._item

    @property
    def instance_id(self) -> str:
        """Id of the instance that made the call."""
        return self._item.instance_id

    @property
    def name(self) -> str:
        """Name of the activity."""
        return self._item.name

    @property
    def task_id(self) -> int:
        """Number of the call in its instance (ACT-1)."""
        return self._item.task_id

    @property
    def attempt(self) -> int:
        """Attempt under the call's retry policy, 1 for the first."""
        return self._item.attempt

    @property
    def delivery(self) -> int:
        """How often this attempt was handed out: more than 1 when a worker died with it."""
        return self._item.deliveries

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and delivery of this call, and of no other call."""
        return self._item.idempotency_key

    @property
    def timeout(self) -> float | None:
        """How long this attempt may run, in seconds; None for as long as it takes (rule 56)."""
        return self._timeout

    @property
    def deadline(self) -> datetime | None:
        """When the time of this attempt is over, aware, by the clock of this host."""
        return self._deadline

    @property
    def is_cancelled(self) -> bool:
        """Whether the result is no longer wanted, because the time is over or the instance has ended; may ask the database."""
        return self._is_expired or not self._is_current()

    @property
    def is_expired(self) -> bool:
        """Whether the time of this attempt is over."""
        return self._is_expired

    def expire(self) -> None:
        """The time is over: nobody waits for the result any more."""
        self._is_expired = True


present_activity: contextvars.ContextVar[ActivityContext] = contextvars.ContextVar("flask_durable.activity")


class ActivityRunner:
    """Runs activity calls; it may be called from many threads.

    Args:
        context: makes the context each call runs in (the Flask app context).
        is_current: whether the result of (execution id, task id) is still wanted.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        telemetry: Telemetry,
        *,
        context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        is_current: Callable[[str, int], bool],
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._telemetry = telemetry
        self._context = context
        self._is_current = is_current

    def context_of(self, item: ActivityWorkItem, timeout: float | None = None) -> ActivityContext:
        """What a call that begins now may know of itself."""
        return ActivityContext(item, lambda: self._is_current(item.execution_id, item.task_id), timeout)

    def run(self, context: ActivityContext, enclose: Enclose | None = None) -> HistoryEvent:
        """Run a call; whatever it does, the outcome is an event and nothing is raised.

        Args:
            context: made for the call by ``context_of``.
            enclose: runs the function together with the encoding of its result, inside the call's context; it fails the call by raising.
        """
        item = context.item
        token = present_activity.set(context)
        try:
            return TaskCompleted(item.task_id, self._call(item, enclose))
        except (NotRegisteredError, TypeMismatchError) as error:  # trying again would not help
            return TaskFailed(item.task_id, FailureDetails.from_exception(error, is_non_retriable=True))
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too; the orchestrator is told of it
            logger.info("Activity %s of instance %s failed: %s", item.name, item.instance_id, type(error).__name__)
            registry = self._registry
            is_final = registry.options_of(item.name).is_non_retriable(error)
            return TaskFailed(item.task_id, FailureDetails.from_exception(error, is_non_retriable=is_final, data_of=registry.exceptions.data_of))
        finally:
            present_activity.reset(token)

    def _call(self, item: ActivityWorkItem, enclose: Enclose | None) -> str | None:
        function = self._registry.activity(item.name).function
        signature = activity_signature(function)
        attributes: dict[str, str | int] = {"durable.instance_id": item.instance_id, "durable.task_id": item.task_id}

        def work() -> str | None:
            value = function(*signature.arguments(item.input, what=f"input of activity {item.name!r}"))
            what, settings = f"result of activity {item.name!r}", self._settings
            text = signature.result.encode(value, what=what, max_bytes=settings.max_payload_bytes, max_depth=settings.max_payload_depth)
            signature.result.check(text, what=what)
            return text

        with self._telemetry.activity_span(item.trace, item.name, attributes), self._context():
            return work() if enclose is None else enclose(work)
