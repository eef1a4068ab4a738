"""An app with a few orchestrators, its commands run in this process, and a worker where a test wants one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_durable import FlaskDurable

Run = Callable[..., Result]


def make_app(folder: Path, **config: Any) -> tuple[Flask, FlaskDurable]:
    shop = Flask("shop", instance_path=str(folder))
    shop.config.update(TESTING=True, DURABLE_DATABASE=f"sqlite:///{folder}/durable.db", **config)
    durable = FlaskDurable(shop)

    @durable.activity
    def double(number):
        return number * 2

    @durable.activity
    def break_down(_):
        raise ValueError("no more paper")

    @durable.orchestrator(name="Double")
    def double_it(ctx, number):
        return (yield ctx.call_activity(double, number))

    @durable.orchestrator(name="Echo")
    def echo(ctx, value):
        return value

    @durable.orchestrator(name="Fail")
    def fail(ctx, _):
        yield ctx.call_activity(break_down)

    @durable.orchestrator(name="Wait")
    def wait(ctx, _):
        ctx.set_custom_status("waiting")
        return (yield ctx.wait_for_external_event("Go"))

    @durable.orchestrator(name="Parent")
    def parent(ctx, _):
        return (yield ctx.call_sub_orchestrator("Wait", instance_id="the-child"))

    return shop, durable


@pytest.fixture
def shop_and_durable(tmp_path: Path) -> Iterator[tuple[Flask, FlaskDurable]]:
    shop, durable = make_app(tmp_path)
    yield shop, durable
    durable.close()


@pytest.fixture
def shop(shop_and_durable: tuple[Flask, FlaskDurable]) -> Flask:
    return shop_and_durable[0]


@pytest.fixture
def durable(shop_and_durable: tuple[Flask, FlaskDurable]) -> FlaskDurable:
    return shop_and_durable[1]


@pytest.fixture
def run(shop: Flask) -> Run:
    """Runs `flask durable …`; the result has exit_code, stdout and stderr."""
    runner = shop.test_cli_runner()
    return lambda *words, **options: runner.invoke(args=["durable", *words], **options)


@pytest.fixture
def worker(durable: FlaskDurable) -> Iterator[None]:
    durable.start_worker()
    yield
    durable.stop_worker()
