"""An app with the management API on a database of its own."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_durable import FlaskDurable

PREFIX = "/runtime/orchestrations"
KEY = "a-key-of-many-letters"


@dataclass
class Site:
    """An app, a client of its pages, and the extension."""

    app: Flask
    http: FlaskClient
    durable: Any

    def get(self, path: str = "", **options: Any) -> TestResponse:
        return self.http.get(PREFIX + path, buffered=True, **options)

    def post(self, path: str = "", **options: Any) -> TestResponse:
        return self.http.post(PREFIX + path, buffered=True, **options)

    def delete(self, path: str = "", **options: Any) -> TestResponse:
        return self.http.delete(PREFIX + path, buffered=True, **options)

    def start(self, name: str = "waiter", **body: Any) -> str:
        """Start an instance over HTTP and return its id."""
        response = self.post(f"/start/{name}", json=body)
        assert response.status_code == 202, response.get_data(as_text=True)
        return str(response.get_json()["id"])

    def ended(self, name: str = "waiter", **body: Any) -> str:
        """An instance that was terminated."""
        instance_id = self.start(name, **body)
        assert self.post(f"/{instance_id}/terminate").status_code == 202
        return instance_id

    def run(self, name: str, **body: Any) -> str:
        """An instance that a worker has run to its end."""
        instance_id = self.start(name, **body)
        self.durable.start_worker()
        try:
            self.durable.client.wait_for_completion(instance_id, timeout=20)
        finally:
            self.durable.stop_worker()
        return instance_id


def register_functions(durable: Any) -> None:
    """What every app here has; none of these fails."""

    @durable.orchestrator
    def waiter(ctx: Any, value: Any) -> Any:
        return (yield ctx.wait_for_external_event("Go"))

    @durable.orchestrator
    def echo(ctx: Any, value: Any) -> Any:
        ctx.set_custom_status({"step": 1})
        return (yield ctx.call_activity("same", value))

    @durable.activity
    def same(value: Any) -> Any:
        return value


def register_more_functions(durable: Any) -> None:
    """One that fails, and one with a child."""

    @durable.orchestrator
    def failing(ctx: Any, value: Any) -> Any:
        yield ctx.call_activity("broken", value)

    @durable.orchestrator
    def parent(ctx: Any, value: Any) -> Any:
        return (yield ctx.call_sub_orchestrator("echo", value, instance_id="the-child"))

    @durable.activity
    def broken(value: Any) -> Any:
        raise ValueError("boom")


SiteMaker = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[SiteMaker]:
    numbers, made = itertools.count(), []

    def make(app: Flask | None = None, **config: Any) -> Site:
        app = app or Flask("shop", instance_path=str(tmp_path))
        app.config.update({"TESTING": True, "DURABLE_DATABASE": f"sqlite:///{tmp_path}/durable-{next(numbers)}.db", **config})
        durable = FlaskDurable(app)
        register_functions(durable)
        register_more_functions(durable)
        durable.create_tables()
        made.append((app, durable))
        return Site(app, app.test_client(), durable)

    yield make
    for app, durable in made:
        with app.app_context():
            durable.close()


@pytest.fixture
def site(make_site: SiteMaker) -> Site:
    return make_site()


class ServerMaker(Protocol):
    """Starts a server process and returns its address."""

    def __call__(self, *keys: str) -> str:
        """Args: the API keys that it wants."""


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[ServerMaker]:
    processes: list[subprocess.Popen[str]] = []

    def start(*keys: str) -> str:
        database = tmp_path / f"server-{len(processes)}.db"
        command = [sys.executable, str(Path(__file__).with_name("server.py")), str(database), *keys]
        log = (tmp_path / "server.log").open("a")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        processes.append(process)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, (tmp_path / "server.log").read_text()
        return f"http://127.0.0.1:{port}"

    yield start
    for process in processes:
        try:
            process.communicate(timeout=20)  # closes its standard input, at which it ends
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
