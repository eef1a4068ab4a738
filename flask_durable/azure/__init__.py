"""Names of Azure's Durable Functions SDK for Python: ``import flask_durable.azure as df`` in place of ``import azure.durable_functions as df``.

Orchestrators and activities written for that SDK run unchanged; docs/azure.md has the table of members and of what differs.
"""

from __future__ import annotations

from typing import NoReturn

from flask_durable.azure.client import DurableOrchestrationClient, DurableOrchestrationStatus, PurgeHistoryResult
from flask_durable.azure.context import DurableOrchestrationContext
from flask_durable.azure.functions import Blueprint, DFApp, Orchestrator
from flask_durable.azure.values import NotSupportedError, OrchestrationRuntimeStatus, RetryOptions

__all__ = [
    "Blueprint",
    "DFApp",
    "DurableOrchestrationClient",
    "DurableOrchestrationContext",
    "DurableOrchestrationStatus",
    "NotSupportedError",
    "OrchestrationRuntimeStatus",
    "Orchestrator",
    "PurgeHistoryResult",
    "RetryOptions",
]

_MISSING = {
    "DurableEntityContext": "entities",
    "Entity": "entities",
    "EntityId": "entities",
    "EntityStateResponse": "entities",
    "ManagedIdentityTokenSource": "call_http",
    "TokenSource": "call_http",
}


def __getattr__(name: str) -> NoReturn:
    if name in _MISSING:
        raise NotSupportedError(_MISSING[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
