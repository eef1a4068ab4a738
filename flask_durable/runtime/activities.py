"""Running one activity call: decode, call the function inside its context, encode; the outcome is an event."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from flask_durable.config import Settings
from flask_durable.core import codec
from flask_durable.core.events import HistoryEvent, TaskCompleted, TaskFailed
from flask_durable.core.failure import FailureDetails
from flask_durable.errors import NotRegisteredError
from flask_durable.registry import Function, Registry
from flask_durable.storage.interface import ActivityWorkItem
from flask_durable.telemetry import Telemetry

logger = logging.getLogger("flask_durable.activities")


class ActivityContext:
    """What an activity may know of the call it runs for (rule 54).

    Args:
        item: the call.
        is_current: asks the storage whether the result is still wanted.
    """

    def __init__(self, item: ActivityWorkItem, is_current: Callable[[], bool]) -> None:
        self._item = item
        self._is_current = is_current

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
    def is_cancelled(self) -> bool:
        """Whether the result is no longer wanted, because the instance has ended; asks the database."""
        return not self._is_current()


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
        self._takes_input: dict[Function, bool] = {}

    def run(self, item: ActivityWorkItem) -> HistoryEvent:
        """Run a call; whatever it does, the outcome is an event and nothing is raised."""
        token = present_activity.set(ActivityContext(item, lambda: self._is_current(item.execution_id, item.task_id)))
        try:
            return TaskCompleted(item.task_id, self._call(item))
        except NotRegisteredError as error:
            return TaskFailed(item.task_id, FailureDetails.from_exception(error, is_non_retriable=True))
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too; the orchestrator is told of it
            logger.info("Activity %s of instance %s failed: %s", item.name, item.instance_id, type(error).__name__)
            return TaskFailed(item.task_id, FailureDetails.from_exception(error))
        finally:
            present_activity.reset(token)

    def _call(self, item: ActivityWorkItem) -> str | None:
        function = self._registry.activity(item.name).function
        attributes: dict[str, str | int] = {"durable.instance_id": item.instance_id, "durable.task_id": item.task_id}
        with self._telemetry.activity_span(item.trace, item.name, attributes), self._context():
            value = function(codec.decode(item.input)) if self._wants_input(function) else function()
        return codec.encode(
            value,
            what=f"result of activity {item.name!r}",
            max_bytes=self._settings.max_payload_bytes,
            max_depth=self._settings.max_payload_depth,
        )

    def _wants_input(self, function: Function) -> bool:
        known = self._takes_input.get(function)
        if known is None:
            known = self._takes_input[function] = _has_positional(function)
        return known


def _has_positional(function: Function) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return any(parameter.kind in kinds for parameter in parameters)
