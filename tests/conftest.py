"""Fixtures for all tests: the databases they run on, apps on them, and a look for threads that were left behind."""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask import Flask

sys.path.insert(0, str(Path(__file__).parent))

from support import MakeDurable, until

from flask_durable import FlaskDurable

hypothesis.settings.register_profile("no deadline", deadline=None)  # how long one example takes is up to the machine
hypothesis.settings.load_profile("no deadline")

SERVERS = {"postgres": "FLASK_DURABLE_TEST_POSTGRES", "mysql": "FLASK_DURABLE_TEST_MYSQL"}
"""Environment variables with the URL of an empty database; tests run on these too when they are set."""

BACKENDS = ["sqlite", *(name for name, variable in SERVERS.items() if os.environ.get(variable))]


def durable_threads() -> list[str]:
    """Names of the threads of workers that live now."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("durable-"))


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield

    def left() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("durable-") and thread not in before]

    until(lambda: not left(), "the worker's threads were gone", 10)


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database for one test; a server's is shared, so every test uses a task hub of its own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/durable.db"
    return os.environ[SERVERS[request.param]]


@pytest.fixture
def hub() -> str:
    """Name of a task hub that nobody else uses."""
    return f"test-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def base_config() -> dict[str, Any]:
    """Configuration that every app of a test gets; packages override this. Setting up pages that nobody asks for would take most of the time of many tests."""
    return {"DURABLE_MANAGEMENT_API": False}


@pytest.fixture
def make_durable(tmp_path: Path, database_url: str, hub: str, base_config: dict[str, Any]) -> Iterator[MakeDurable]:
    """Makes apps on one database; a test starts their workers, and all are closed at its end."""
    made: list[FlaskDurable] = []

    def make(**config: Any) -> FlaskDurable:
        app = Flask("shop", instance_path=str(tmp_path))
        app.config.update({"TESTING": True, "DURABLE_DATABASE": database_url, "DURABLE_TASK_HUB": hub, **base_config, **config})
        made.append(FlaskDurable(app))
        return made[-1]

    yield make
    for durable in made:
        durable.close()


@pytest.fixture
def durable(make_durable: MakeDurable) -> FlaskDurable:
    """One app, without orchestrators; its worker is not running yet."""
    return make_durable()
