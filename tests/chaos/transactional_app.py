"""The app of the kill tests for transactional activities: each effect is a row of the app's own table, in the database of the durable state.

A worker process imports ``transactional_app:app``, which reads TRANSACTIONAL_APP; the tests call ``make_shop``.
"""

from __future__ import annotations

import json
import os
import random
import time
import urllib.parse
import uuid
from typing import Any

import peewee
from flask import Flask
from playhouse.pool import PooledMySQLDatabase, PooledPostgresqlDatabase, PooledSqliteDatabase

from flask_durable import FlaskDurable, RetryPolicy, current_activity

FOUND_ROWS = 2


def open_database(url: str) -> peewee.Database:
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        pragmas = {"journal_mode": "wal", "synchronous": "full", "busy_timeout": 10_000}
        return PooledSqliteDatabase(path, max_connections=40, timeout=10, check_same_thread=False, pragmas=pragmas)
    if url.startswith("postgres"):
        return PooledPostgresqlDatabase(url, prefer_psycopg3=True, max_connections=40, timeout=10)
    parts = urllib.parse.urlsplit(url)
    return PooledMySQLDatabase(
        parts.path.removeprefix("/"), host=parts.hostname, port=parts.port or 3306, user=parts.username, password=parts.password, charset="utf8mb4",
        init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", client_flag=FOUND_ROWS, max_connections=40, timeout=10,
    )  # fmt: skip


class Shop:
    """An app with a table of effects."""

    def __init__(self, url: str, hub: str, folder: str, **config: Any) -> None:
        self.database = open_database(url)

        class Effect(peewee.Model):
            instance_id = peewee.CharField(100)
            task_id = peewee.IntegerField()
            attempt = peewee.IntegerField()
            delivery = peewee.IntegerField()
            token = peewee.CharField(40)

            class Meta:
                table_name = f"effect_{hub.replace('-', '_')}"

        Effect._meta.set_database(self.database)
        self.Effect: Any = Effect
        with self.database.connection_context():
            self.database.create_tables([Effect], safe=True)
        self.app = Flask("transactional", instance_path=folder)
        self.app.config.update(DURABLE_DATABASE=self.database, DURABLE_TASK_HUB=hub, **config)
        self.durable = FlaskDurable(self.app)
        self._register()

    def _register(self) -> None:
        database, effect = self.database, self.Effect

        @self.durable.activity(transactional=True)
        def work(seconds):
            lots = random.SystemRandom()
            token = uuid.uuid4().hex
            call = current_activity
            time.sleep(lots.random() * seconds)
            effect.create(instance_id=call.instance_id, task_id=call.task_id, attempt=call.attempt, delivery=call.delivery, token=token)
            time.sleep(lots.random() * seconds)
            with database.atomic() as part:
                effect.create(instance_id=call.instance_id, task_id=call.task_id, attempt=call.attempt, delivery=call.delivery, token="never")
                part.rollback()
            if call.attempt == 1 and lots.random() < 0.2:
                raise ValueError("this attempt leaves nothing")
            return token

        policy = RetryPolicy(first_retry_interval=0.01, max_number_of_attempts=3)

        @self.durable.orchestrator(name="Work")
        def orchestrate(ctx, order):
            tokens = []
            for _ in range(order["steps"]):
                tokens.append((yield ctx.call_activity(work, order["seconds"], retry_policy=policy)))
            return tokens + (yield ctx.when_all([ctx.call_activity(work, order["seconds"], retry_policy=policy) for _ in range(order["steps"])]))

    def close(self) -> None:
        self.durable.close()
        self.database.close_all()


if "TRANSACTIONAL_APP" in os.environ:
    shop = Shop(**json.loads(os.environ["TRANSACTIONAL_APP"]))
    app = shop.app
