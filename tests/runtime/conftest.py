"""What tests of the engine need beside an app: a way into its worker and its tables."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_durable import FlaskDurable


class Inside:
    """The parts of one app that its users do not see."""

    def __init__(self, durable: FlaskDurable) -> None:
        self.state = durable._only
        self.store = self.state.store

    @property
    def worker(self) -> Any:
        return self.state.worker

    @property
    def engine(self) -> Any:
        return self.state.worker.engine

    def sql(self, text: str, *parameters: Any) -> int:
        """What the store would never write."""
        return self.store._sql.transaction(lambda: self.store._sql.run(text, parameters))

    def rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.store._sql.read(lambda: self.store._sql.rows(text, parameters))


@pytest.fixture
def inside() -> type[Inside]:
    return Inside


@pytest.fixture
def make_app(tmp_path: Any) -> Any:
    """Makes Flask apps, each with a folder of its own."""

    def make(name: str = "shop", **config: Any) -> Flask:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        app = Flask(name, instance_path=str(folder))
        app.config.update({"TESTING": True, **config})
        return app

    return make
