"""The tables of one task hub as Peewee models, bound to a given database; definitions only, the hot paths use SQL text.

``durable_instance.version_key`` is the version as a text that sorts (core/versions.py). ``durable_activity.precedence`` is the priority with its
sign turned, so that the queue is read in ascending order; its ``timeout`` is the call's own, in microseconds, and ``begun_at`` is set only for calls
that must not be begun twice. ``durable_limit`` has a row for each activity whose concurrency is limited in the whole
hub: whoever claims such calls locks it. ``durable_event_key`` remembers the de-duplication keys of an instance's external events.
``commit_number`` of a worker, and of a client that writes without one, is the number of its last transaction (storage/outcomes.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import peewee

from flask_durable.core.versions import MAX_KEY_LENGTH

SCHEMA_VERSION = 4
"""Version of the tables below; migrations/ leads from each to the next."""


class KeyField(peewee.CharField):
    """A text that is compared byte for byte on every backend: MySQL would fold case and trailing blanks."""

    def __init__(self, max_length: int = 100, **options: Any) -> None:
        super().__init__(max_length=max_length, **options)

    def ddl_datatype(self, ctx: Any) -> Any:
        """The column's type in this dialect."""
        collation = getattr(self.model._meta.database, "durable_collation", None)
        if collation is None:
            return super().ddl_datatype(ctx)
        return peewee.SQL(f"VARCHAR({self.max_length}) CHARACTER SET utf8mb4 COLLATE {collation}")


class PayloadField(peewee.TextField):
    """A text of any length: MySQL's own TEXT ends at 64 KiB."""

    def ddl_datatype(self, ctx: Any) -> Any:
        """The column's type in this dialect."""
        collation = getattr(self.model._meta.database, "durable_collation", None)
        if collation is None:
            return super().ddl_datatype(ctx)
        return peewee.SQL(f"LONGTEXT CHARACTER SET utf8mb4 COLLATE {collation}")


class SortKeyField(KeyField):
    """A text that also sorts byte for byte: PostgreSQL would sort by the rules of a language."""

    def ddl_datatype(self, ctx: Any) -> Any:
        """The column's type in this dialect."""
        if isinstance(self.model._meta.database, peewee.PostgresqlDatabase):
            return peewee.SQL(f'VARCHAR({self.max_length}) COLLATE "C"')
        return super().ddl_datatype(ctx)


class MicrosField(peewee.BigIntegerField):
    """An instant in microseconds since the epoch, UTC: date columns lose fractions or zones on some backends."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The models of one database."""

    instance: type[peewee.Model]
    history: type[peewee.Model]
    message: type[peewee.Model]
    activity: type[peewee.Model]
    worker: type[peewee.Model]
    limit: type[peewee.Model]
    event_key: type[peewee.Model]
    client: type[peewee.Model]
    schema: type[peewee.Model]

    def all(self) -> list[type[peewee.Model]]:
        """Every model, in order of creation."""
        return [self.schema, self.worker, self.instance, self.history, self.message, self.activity, self.limit, self.event_key, self.client]


def make_tables(database: peewee.Database) -> Tables:
    """Define the models for one database; several apps have several databases."""
    is_sqlite = isinstance(database, peewee.SqliteDatabase)

    class Base(peewee.Model):
        class Meta:
            legacy_table_names = False

    Base._meta.set_database(database)

    class Instance(Base):
        hub = KeyField(64)
        instance_id = KeyField(100)
        execution_id = KeyField(40)
        generation = peewee.IntegerField()
        name = KeyField(200)
        version = KeyField(100, null=True)
        version_key = SortKeyField(MAX_KEY_LENGTH, constraints=[peewee.SQL("DEFAULT ''")])
        status = KeyField(16)
        input = PayloadField(null=True)
        output = PayloadField(null=True)
        custom_status = PayloadField(null=True)
        failure = PayloadField(null=True)
        created_at = MicrosField()
        updated_at = MicrosField()
        completed_at = MicrosField(null=True)
        start_at = MicrosField(null=True)
        parent_instance_id = KeyField(100, null=True)
        parent_execution_id = KeyField(40, null=True)
        parent_task_id = peewee.IntegerField(null=True)
        tags = PayloadField(null=True)
        trace = PayloadField(null=True)
        restarted_from = KeyField(100, null=True)
        sequence = peewee.IntegerField()
        has_started = peewee.BooleanField()
        ready_at = MicrosField(null=True)
        worker_id = KeyField(40, null=True)
        deliveries = peewee.IntegerField()
        parked_reason = PayloadField(null=True)
        carried = PayloadField(null=True)

        class Meta:
            table_name = "durable_instance"
            primary_key = peewee.CompositeKey("hub", "instance_id")
            indexes = (
                (("hub", "worker_id", "ready_at"), False),
                (("hub", "created_at", "instance_id"), False),
                (("hub", "status", "created_at", "instance_id"), False),
                (("hub", "name", "created_at", "instance_id"), False),
                (("hub", "name", "status", "created_at", "instance_id"), False),
                (("hub", "parent_instance_id", "created_at", "instance_id"), False),
            )

    for index in _other_indexes(database):
        Instance.add_index(index)

    class History(Base):
        hub = KeyField(64)
        instance_id = KeyField(100)
        generation = peewee.IntegerField()
        sequence = peewee.IntegerField()
        at = MicrosField()
        event_type = KeyField(40)
        task_id = peewee.IntegerField(null=True)
        name = KeyField(200, null=True)
        payload = PayloadField(null=True)
        extra = PayloadField(null=True)

        class Meta:
            table_name = "durable_history"
            primary_key = peewee.CompositeKey("hub", "instance_id", "generation", "sequence")
            without_rowid = is_sqlite

    class Message(Base):
        message_id = peewee.BigAutoField() if not is_sqlite else peewee.AutoField()
        hub = KeyField(64)
        instance_id = KeyField(100)
        execution_id = KeyField(40, null=True)
        visible_at = MicrosField()
        event_type = KeyField(40)
        task_id = peewee.IntegerField(null=True)
        name = KeyField(200, null=True)
        payload = PayloadField(null=True)
        extra = PayloadField(null=True)

        class Meta:
            table_name = "durable_message"
            indexes = ((("hub", "instance_id", "visible_at"), False),)

    class Activity(Base):
        hub = KeyField(64)
        execution_id = KeyField(40)
        task_id = peewee.IntegerField()
        instance_id = KeyField(100)
        name = KeyField(200)
        input = PayloadField(null=True)
        attempt = peewee.IntegerField()
        first_task_id = peewee.IntegerField()
        precedence = peewee.IntegerField(constraints=[peewee.SQL("DEFAULT 0")])
        queued_at = MicrosField()
        worker_id = KeyField(40, null=True)
        deliveries = peewee.IntegerField()
        timeout = peewee.BigIntegerField(null=True)
        begun_at = MicrosField(null=True)

        class Meta:
            table_name = "durable_activity"
            primary_key = peewee.CompositeKey("hub", "execution_id", "task_id")
            indexes = ((("hub", "worker_id", "precedence", "queued_at"), False),)
            without_rowid = is_sqlite

    class Worker(Base):
        worker_id = KeyField(40, primary_key=True)
        hub = KeyField(64)
        host = KeyField(255)
        pid = peewee.IntegerField()
        lock_slot = peewee.BigIntegerField(null=True)
        started_at = MicrosField()
        heartbeat_at = MicrosField()
        expires_at = MicrosField()
        capabilities = PayloadField(null=True)
        commit_number = peewee.BigIntegerField(constraints=[peewee.SQL("DEFAULT 0")])

        class Meta:
            table_name = "durable_worker"
            indexes = ((("hub", "expires_at"), False),)

    class Limit(Base):
        hub = KeyField(64)
        name = KeyField(200)

        class Meta:
            table_name = "durable_limit"
            primary_key = peewee.CompositeKey("hub", "name")

    class EventKey(Base):
        hub = KeyField(64)
        instance_id = KeyField(100)
        dedup_key = KeyField(200)
        at = MicrosField()

        class Meta:
            table_name = "durable_event_key"
            primary_key = peewee.CompositeKey("hub", "instance_id", "dedup_key")

    class Client(Base):
        client_id = KeyField(40, primary_key=True)
        commit_number = peewee.BigIntegerField()
        at = MicrosField()

        class Meta:
            table_name = "durable_client"

    class Schema(Base):
        version = peewee.IntegerField(primary_key=True)
        applied_at = MicrosField()

        class Meta:
            table_name = "durable_schema"

    return Tables(Instance, History, Message, Activity, Worker, Limit, EventKey, Client, Schema)


def _other_indexes(database: peewee.Database) -> list[peewee.SQL]:
    """Indexes of some of the rows: of the ended, the parked, and those with a version. On MySQL, which has no such ones, the others are in them as NULL."""
    indexes = (
        ("completed", "(hub, completed_at, instance_id, status, name, created_at)", "completed_at"),
        ("version", "(hub, version, created_at, instance_id)", "version"),
    )
    if isinstance(database, peewee.MySQLDatabase):
        parked = peewee.SQL("CREATE INDEX durable_instance_parked ON durable_instance (hub, parked_reason(1))")
        return [peewee.SQL(f"CREATE INDEX durable_instance_{name} ON durable_instance {columns}") for name, columns, _ in indexes] + [parked]
    partial = (*indexes, ("parked", "(hub, created_at, instance_id)", "parked_reason"))
    create = "CREATE INDEX IF NOT EXISTS durable_instance"
    found = [peewee.SQL(f"{create}_{name} ON durable_instance {columns} WHERE {present} IS NOT NULL") for name, columns, present in partial]
    if isinstance(database, peewee.PostgresqlDatabase):
        # Prefixes of ids: the key is sorted by the rules of a language
        found.append(peewee.SQL(f'{create}_prefix ON durable_instance (hub, instance_id COLLATE "C")'))
    return found
