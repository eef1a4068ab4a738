"""What tests of whole apps share: waiting for a condition, short ways to look at an instance, and what all processes of a test can see."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
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


def before_its_time(attempt: Callable[[float], Any]) -> Any:
    """What an attempt gives that has to be quicker than a timer of so many seconds; one that was too slow for it gives nothing, and has another try."""
    for seconds in (0.4, 1.5, 5.0, 15.0):
        found = attempt(seconds)
        if found:
            return found
    raise AssertionError("15 s were not enough")


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


class Ledger:
    """What the functions of a test have done, in whichever process they ran; a list in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def write(self, entry: Any) -> None:
        """Add an entry, any JSON value."""
        with self._path.open("a") as file:  # so short a line is appended in one piece
            file.write(json.dumps(entry) + "\n")

    def read(self) -> list[Any]:
        """All entries, in order."""
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def __len__(self) -> int:
        return len(self.read())


class Gate:
    """Closed until somebody opens it, for all processes of a test."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> None:
        """Let everybody pass."""
        self._path.touch()

    @property
    def is_open(self) -> bool:
        """Whether it has been opened."""
        return self._path.exists()

    def wait(self, seconds: float = 15) -> None:
        """Wait until it is open."""
        until(self._path.exists, "the gate was opened", seconds)
