"""One app with some functions, for every scenario: with warm executions, and with a replay at every turn; with workers as chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Gate, Ledger
from worker_modes import MODE, workers_as_chosen

from flask_durable import FlaskDurable

CACHE_SIZES = [int(size) for size in os.environ.get("FLASK_DURABLE_TEST_CACHE_SIZE", "1000 0").split()]

LEFT_OUT = {("postgres", 0), ("mysql", 1000)}
"""What is replayed does not depend on the database: SQLite has both sizes, a server one of them, unless one is asked for."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "FLASK_DURABLE_TEST_CACHE_SIZE" in os.environ:
        return
    of_items = [getattr(getattr(item, "callspec", None), "params", {}) for item in items]
    is_left_out = [(params.get("database_url"), params.get("base_config")) in LEFT_OUT for params in of_items]
    config.hook.pytest_deselected(items=[item for item, is_out in zip(items, is_left_out, strict=True) if is_out])
    items[:] = [item for item, is_out in zip(items, is_left_out, strict=True) if not is_out]


@pytest.fixture(params=CACHE_SIZES, ids=lambda size: f"cache={size}")
def base_config(request: pytest.FixtureRequest, base_config: dict[str, Any]) -> dict[str, Any]:
    return {**base_config, "DURABLE_CACHE_SIZE": request.param}


@pytest.fixture(autouse=True)
def _workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    one_worker, one_process, lasting = map(request.node.get_closest_marker, ("one_worker", "one_process", "lasting_worker"))
    if one_worker is not None and MODE != "one":
        pytest.skip(f"one worker in this process: {one_worker.args[0]}")
    if one_process is not None and MODE == "processes":
        pytest.skip(f"in this process: {one_process.args[0]}")
    if lasting is not None and MODE == "replaced":
        pytest.skip(f"a worker that lasts: {lasting.args[0]}")
    with workers_as_chosen(monkeypatch):
        yield


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What the test's functions write down, in whichever process they run."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Makes gates that are seen in all processes of the test; at its end they are open, whatever happened."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path / f"gate{len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture
def gate(make_gate: Callable[[], Gate]) -> Gate:
    """One gate."""
    return make_gate()


@pytest.fixture
def durable(durable: FlaskDurable) -> FlaskDurable:
    """The app of a scenario, with functions that several of them use."""

    @durable.activity
    def double(value):
        return value * 2

    @durable.activity
    def fail(text):
        raise ValueError(text)

    @durable.orchestrator
    def wait_for_go(ctx):
        return (yield ctx.wait_for_external_event("Go"))

    return durable
