"""Shops on every backend: apps whose own tables and durable state are in one database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from own_database import Shop, open_shop

from flask_durable import FlaskDurable


@pytest.fixture
def shop(database_url: str, hub: str, tmp_path: Path) -> Iterator[Shop]:
    """With a pooled database."""
    yield from open_shop(database_url, hub, tmp_path)


@pytest.fixture(params=["pooled", "plain"])
def any_shop(request: pytest.FixtureRequest, database_url: str, hub: str, tmp_path: Path) -> Iterator[Shop]:
    """With a pooled database, and with one that opens a connection for each thread."""
    yield from open_shop(database_url, hub, tmp_path, is_pooled=request.param == "pooled")


@pytest.fixture
def durable(shop: Shop) -> FlaskDurable:
    """The shop's app, with orchestrators that the tests share; its worker is not running yet."""
    return with_orchestrators(shop.app())


@pytest.fixture
def any_durable(any_shop: Shop) -> FlaskDurable:
    return with_orchestrators(any_shop.app())


def with_orchestrators(durable: FlaskDurable) -> FlaskDurable:
    @durable.orchestrator
    def echo(ctx, value):
        return value

    @durable.orchestrator
    def collect(ctx):
        """All notes until one says end."""
        notes = []
        while (note := (yield ctx.wait_for_external_event("Note"))) != "end":
            notes.append(note)
        return notes

    return durable
