"""DurableOrchestrationContext: the context of an orchestrator as Azure's SDK has it, a thin face of the native one."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

from flask_durable.azure.values import NotSupportedError, RetryOptions
from flask_durable.core.context import OrchestrationContext
from flask_durable.core.retry import RetryPolicy
from flask_durable.core.tasks import Task, TimerTask
from flask_durable.errors import InvalidArgumentError


class DurableOrchestrationContext:
    """The one argument of an orchestrator that was written for Azure.

    Args:
        native: the context it stands for; it can do more, and is there as ``context.native``.
    """

    def __init__(self, native: OrchestrationContext) -> None:
        self.native = native
        self._will_continue_as_new = False

    # -- what is known

    @property
    def instance_id(self) -> str:
        """Id of this instance."""
        return self.native.instance_id

    @property
    def parent_instance_id(self) -> str | None:
        """Id of the instance that called this one, or None (SUB-1)."""
        return self.native.parent_instance_id

    @property
    def is_replaying(self) -> bool:
        """Whether recorded history is being delivered (rule 5)."""
        return self.native.is_replaying

    @property
    def version(self) -> str | None:
        """Version the instance was started with (VER-1)."""
        return self.native.version

    @property
    def custom_status(self) -> Any:
        """The custom status that was set."""
        return self.native.custom_status

    @property
    def current_utc_datetime(self) -> datetime:
        """Time at which the present turn began, aware (rule 3)."""
        return self.native.current_utc_datetime

    @property
    def will_continue_as_new(self) -> bool:
        """Whether continue_as_new was called."""
        return self._will_continue_as_new

    @property
    def histories(self) -> NoReturn:
        """Not supported."""
        raise NotSupportedError("histories")

    @property
    def function_context(self) -> NoReturn:
        """Not supported."""
        raise NotSupportedError("function_context")

    def get_input(self) -> Any:
        """The instance's input as a value, whether it was started from Python or over HTTP."""
        return self.native.get_input()

    # -- calls

    def call_activity(self, name: object, input_: Any = None, expected_type: Any = None) -> Task:
        """Call an activity, by name or function; its result has the expected type, if one is given (rule 55)."""
        return self.native.call_activity(name, input_, return_type=expected_type)

    def call_activity_with_retry(self, name: object, retry_options: RetryOptions | RetryPolicy, input_: Any = None) -> Task:
        """Call an activity, and again when it fails (rules 25 to 29)."""
        return self.native.call_activity(name, input_, retry_policy=_policy(retry_options))

    def call_sub_orchestrator(self, name: object, input_: Any = None, instance_id: str | None = None, version: str | None = None) -> Task:
        """Run another orchestrator as a child (SUB-2)."""
        return self.native.call_sub_orchestrator(name, input_, instance_id=instance_id, version=version)

    def call_sub_orchestrator_with_retry(
        self,
        name: object,
        retry_options: RetryOptions | RetryPolicy,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
    ) -> Task:
        """Run another orchestrator as a child, and anew when it fails (RTY-5)."""
        return self.native.call_sub_orchestrator(name, input_, instance_id=instance_id, version=version, retry_policy=_policy(retry_options))

    def create_timer(self, fire_at: datetime) -> TimerTask:
        """A durable timer that fires at that moment, which must be aware (rule 16).

        Raises:
            InvalidArgumentError: for a delay or a naive datetime, as Azure's SDK refuses them.
        """
        return self.native.create_timer(_aware(fire_at))

    def wait_for_external_event(self, name: str, expected_type: Any = None) -> Task:
        """Wait for an external event; its data has the expected type, if one is given (rules 20, 21, 55)."""
        return self.native.wait_for_external_event(name, data_type=expected_type)

    def task_all(self, activities: Iterable[Task]) -> Task:
        """All of these: their results in order, or the first failure at once (rules 11, 12)."""
        return self.native.when_all(activities)

    def task_any(self, activities: Iterable[Task]) -> Task:
        """The first of these: the task itself (rule 14)."""
        return self.native.when_any(activities)

    def call_http(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Not supported."""
        raise NotSupportedError("call_http")

    def call_entity(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Not supported."""
        raise NotSupportedError("entities")

    def signal_entity(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Not supported."""
        raise NotSupportedError("entities")

    # -- the instance itself

    def continue_as_new(self, input_: Any) -> None:
        """Begin anew with this input; external events nobody has read yet are kept (rule 32)."""
        self.native.continue_as_new(input_)
        self._will_continue_as_new = True

    def set_custom_status(self, status: Any) -> None:
        """Set the status that clients see (rule 48)."""
        self.native.set_custom_status(status)

    def new_uuid(self) -> str:
        """A UUID as text, the same in each replay (rule 4)."""
        return str(self.native.new_uuid())

    def new_guid(self) -> uuid.UUID:
        """A UUID, the same in each replay (rule 4)."""
        return self.native.new_uuid()


def _aware(moment: object) -> datetime:
    if isinstance(moment, datetime) and moment.utcoffset() is not None:
        return moment
    raise InvalidArgumentError(f"create_timer takes an aware datetime, such as context.current_utc_datetime + timedelta(…), not {moment!r}")


def _policy(options: object) -> RetryPolicy:
    if isinstance(options, RetryOptions):
        return options.to_policy()
    if isinstance(options, RetryPolicy):
        return options
    raise InvalidArgumentError(f"retry_options is a RetryOptions or a RetryPolicy, not {type(options).__name__}; it comes before the input")
