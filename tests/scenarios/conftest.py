"""One app with some functions, for every scenario: with warm executions, and with a replay at every turn."""

from __future__ import annotations

import os
from typing import Any

import pytest

from flask_durable import FlaskDurable

CACHE_SIZES = [int(size) for size in os.environ.get("FLASK_DURABLE_TEST_CACHE_SIZE", "1000 0").split()]


@pytest.fixture(params=CACHE_SIZES, ids=lambda size: f"cache={size}")
def base_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"DURABLE_CACHE_SIZE": request.param}


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
