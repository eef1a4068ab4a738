"""What tests of whole apps share: waiting for a condition, and short ways to look at an instance."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask_durable import FlaskDurable, OrchestrationStatus, RuntimeStatus

MakeDurable = Callable[..., FlaskDurable]
"""Makes an app on the test's database and returns its FlaskDurable; keyword arguments are configuration keys."""


def until(is_true: Callable[[], Any], what: str = "the condition came true", seconds: float = 20) -> Any:
    """Wait for a condition and return what it gave; never a fixed time."""
    deadline = time.monotonic() + seconds
    while True:
        found = is_true()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.003)


def finish(durable: FlaskDurable, instance_id: str, seconds: float = 20) -> OrchestrationStatus:
    """Wait until an instance has ended."""
    status = durable.client.wait_for_completion(instance_id, timeout=seconds)
    assert status is not None, f"there is no instance {instance_id}"
    return status


def run(durable: FlaskDurable, orchestrator: object, input: Any = None, **options: Any) -> OrchestrationStatus:
    """Start an instance and wait until it has ended."""
    return finish(durable, durable.client.start(orchestrator, input, **options))


def look(durable: FlaskDurable, instance_id: str) -> OrchestrationStatus:
    """The status of an instance that exists."""
    status = durable.client.get_status(instance_id)
    assert status is not None, f"there is no instance {instance_id}"
    return status


def has_status(durable: FlaskDurable, instance_id: str, wanted: RuntimeStatus) -> Callable[[], bool]:
    """A condition for :func:`until`."""

    def is_so() -> bool:
        found = durable.client.get_status(instance_id)
        return found is not None and found.runtime_status is wanted

    return is_so


def event_names(durable: FlaskDurable, instance_id: str) -> list[str]:
    """The kinds of the events in an instance's history, in order."""
    return [type(recorded.event).__name__ for recorded in durable.client.history(instance_id).events]
