"""Durable orchestrations for Flask: ordinary Python functions that survive crashes, restarts and deploys."""

from flask_durable.client import DurableClient, OrchestrationStatus
from flask_durable.core.context import OrchestrationContext
from flask_durable.core.failure import FailureDetails, SubOrchestrationFailedError, TaskFailedError
from flask_durable.core.retry import RetryContext, RetryPolicy
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.tasks import Task, when_all, when_all_settled, when_any
from flask_durable.errors import (
    ConfigurationError,
    DurableError,
    EventTimeoutError,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    NonDeterminismError,
    NotRegisteredError,
    PayloadTooLargeError,
    StoreUnavailableError,
    TaskCancelledError,
    WaitTimeoutError,
)
from flask_durable.extension import DurableBlueprint, FlaskDurable, current_activity
from flask_durable.storage.interface import InstanceFilter, Order

__all__ = [
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
    "InstanceNotFinishedError",
    "InstanceNotFoundError",
    "InvalidArgumentError",
    "NonDeterminismError",
    "NotRegisteredError",
    "OrchestrationContext",
    "OrchestrationStatus",
    "Order",
    "PayloadTooLargeError",
    "RetryContext",
    "RetryPolicy",
    "RuntimeStatus",
    "StoreUnavailableError",
    "SubOrchestrationFailedError",
    "Task",
    "TaskCancelledError",
    "TaskFailedError",
    "WaitTimeoutError",
    "current_activity",
    "when_all",
    "when_all_settled",
    "when_any",
]
