"""The tables of one task hub as Peewee models, bound to a given database; definitions only, the hot paths use SQL text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import peewee

SCHEMA_VERSION = 1
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
    schema: type[peewee.Model]

    def all(self) -> list[type[peewee.Model]]:
        """Every model, in order of creation."""
        return [self.schema, self.worker, self.instance, self.history, self.message, self.activity]


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
                (("hub", "parent_instance_id"), False),
            )

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
        queued_at = MicrosField()
        worker_id = KeyField(40, null=True)
        deliveries = peewee.IntegerField()

        class Meta:
            table_name = "durable_activity"
            primary_key = peewee.CompositeKey("hub", "execution_id", "task_id")
            indexes = ((("hub", "worker_id", "queued_at"), False),)
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

        class Meta:
            table_name = "durable_worker"
            indexes = ((("hub", "expires_at"), False),)

    class Schema(Base):
        version = peewee.IntegerField(primary_key=True)
        applied_at = MicrosField()

        class Meta:
            table_name = "durable_schema"

    return Tables(Instance, History, Message, Activity, Worker, Schema)
