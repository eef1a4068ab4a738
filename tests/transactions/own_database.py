"""A Peewee database of the app's own on each backend, and an app whose durable state is kept in it."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peewee
from flask import Flask
from playhouse.pool import PooledMySQLDatabase, PooledPostgresqlDatabase, PooledSqliteDatabase

from flask_durable import FlaskDurable

FOUND_ROWS = 2


def open_own(url: str, folder: Path, *, is_pooled: bool = True, **options: Any) -> peewee.Database:
    """A database as an app would make it."""
    pool = {"max_connections": 40, "timeout": 20} if is_pooled else {}
    if url.startswith("sqlite"):
        kind = PooledSqliteDatabase if is_pooled else peewee.SqliteDatabase
        pragmas = {"journal_mode": "wal", "synchronous": "normal", "busy_timeout": 20_000}
        return kind(str(folder / "own.db"), pragmas=pragmas, check_same_thread=not is_pooled, **pool, **options)
    if url.startswith("postgres"):
        kind = PooledPostgresqlDatabase if is_pooled else peewee.PostgresqlDatabase
        return kind(url, prefer_psycopg3=True, **pool, **options)
    parts = urllib.parse.urlsplit(url)
    kind = PooledMySQLDatabase if is_pooled else peewee.MySQLDatabase
    return kind(
        parts.path.removeprefix("/"), host=parts.hostname, port=parts.port or 3306, user=parts.username, password=parts.password,
        charset="utf8mb4", init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", **{"client_flag": FOUND_ROWS, **pool, **options},
    )  # fmt: skip


@dataclass
class Shop:
    """An app with a table of its own, ``Order``, in the database that also has the durable state."""

    database: peewee.Database
    Order: Any
    make_app: Callable[..., FlaskDurable]
    made: list[FlaskDurable] = field(default_factory=list)

    def app(self, **config: Any) -> FlaskDurable:
        self.made.append(self.make_app(**config))
        return self.made[-1]

    def orders(self) -> list[int]:
        """The numbers in the app's table, in order."""
        with self.database.connection_context():
            return [row.number for row in self.Order.select().order_by(self.Order.number)]


def open_shop(url: str, hub: str, folder: Path, **options: Any) -> Iterator[Shop]:
    """A shop for a fixture; all that it made is taken away at the end."""
    database = open_own(url, folder, **options)

    class Order(peewee.Model):
        number = peewee.IntegerField()
        note = peewee.CharField(default="")

        class Meta:
            table_name = f"shop_{hub.replace('-', '_')}"

    Order._meta.set_database(database)

    def make_app(**config: Any) -> FlaskDurable:
        app = Flask("shop", instance_path=str(folder))
        app.config.update({"TESTING": True, "DURABLE_DATABASE": database, "DURABLE_TASK_HUB": hub, **config})
        return FlaskDurable(app)

    shop = Shop(database, Order, make_app)
    try:
        with database.connection_context():
            database.create_tables([Order])
        yield shop
    finally:
        for durable in shop.made:
            durable.close()
        with database.connection_context():
            database.drop_tables([Order])
        if hasattr(database, "close_all"):
            database.close_all()
