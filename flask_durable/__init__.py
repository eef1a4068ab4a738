"""Durable orchestrations for Flask: ordinary Python functions that survive crashes, restarts and deploys."""

from flask_durable.client import DurableClient
from flask_durable.core.context import OrchestrationContext
from flask_durable.core.failure import FailureDetails, NonRetriableError, SubOrchestrationFailedError, TaskFailedError
from flask_durable.core.options import ActivityOptions
from flask_durable.core.retry import RetryContext, RetryPolicy
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.tasks import Task, when_all, when_all_settled, when_any
from flask_durable.errors import (
    ActivityLostError,
    ActivityTimeoutError,
    ConfigurationError,
    DurableError,
    EventTimeoutError,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFailedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    NonDeterminismError,
    NotRegisteredError,
    OutcomeUnknownError,
    PayloadTooLargeError,
    StoreUnavailableError,
    TaskCancelledError,
    TypeMismatchError,
    WaitTimeoutError,
)
from flask_durable.extension import DurableBlueprint, FlaskDurable, current_activity
from flask_durable.statuses import OrchestrationStatus
from flask_durable.storage.interface import InstanceFilter, Order

__all__ = [
    "ActivityLostError",
    "ActivityOptions",
    "ActivityTimeoutError",
    "ConfigurationError",
    "DurableBlueprint",
    "DurableClient",
    "DurableError",
    "EventTimeoutError",
    "FailureDetails",
    "FlaskDurable",
    "InstanceExistsError",
    "InstanceFilter",
    "InstanceFinishedError",
    "InstanceNotFailedError",
    "InstanceNotFinishedError",
    "InstanceNotFoundError",
    "InvalidArgumentError",
    "NonDeterminismError",
    "NonRetriableError",
    "NotRegisteredError",
    "OrchestrationContext",
    "OrchestrationStatus",
    "Order",
    "OutcomeUnknownError",
    "PayloadTooLargeError",
    "RetryContext",
    "RetryPolicy",
    "RuntimeStatus",
    "StoreUnavailableError",
    "SubOrchestrationFailedError",
    "Task",
    "TaskCancelledError",
    "TaskFailedError",
    "TypeMismatchError",
    "WaitTimeoutError",
    "current_activity",
    "when_all",
    "when_all_settled",
    "when_any",
]
