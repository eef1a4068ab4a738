"""Version 2: sortable versions, priorities, limits over the whole hub, event keys, what each worker can run.

The statements are spelled out: a migration must not change when the models do.
"""

from __future__ import annotations

from collections.abc import Callable

from flask_durable.core.versions import version_key
from flask_durable.storage.database import Sql


def upgrade(sql: Sql) -> None:
    """Change the tables of version 1."""
    text, payload, sorted_text = _types(sql)
    run = sql.run
    run(f"ALTER TABLE durable_instance ADD COLUMN version_key {sorted_text} NOT NULL DEFAULT ''")
    run("CREATE INDEX durable_instance_hub_completed_at_instance_id ON durable_instance (hub, completed_at, instance_id)")
    run("ALTER TABLE durable_activity ADD COLUMN precedence INTEGER NOT NULL DEFAULT 0")
    run(f"ALTER TABLE durable_activity ADD COLUMN timeout {'INTEGER' if sql.is_sqlite else 'BIGINT'}")
    run(f"ALTER TABLE durable_activity ADD COLUMN begun_at {'INTEGER' if sql.is_sqlite else 'BIGINT'}")
    run("DROP INDEX durable_activity_hub_worker_id_queued_at" + ("" if sql.is_sqlite or sql.is_postgresql else " ON durable_activity"))
    run("CREATE INDEX durable_activity_hub_worker_id_precedence_queued_at ON durable_activity (hub, worker_id, precedence, queued_at)")
    run(f"ALTER TABLE durable_worker ADD COLUMN capabilities {payload}")
    run(f"CREATE TABLE durable_limit (hub {text(64)} NOT NULL, name {text(200)} NOT NULL, PRIMARY KEY (hub, name))")
    run(
        f"CREATE TABLE durable_event_key (hub {text(64)} NOT NULL, instance_id {text(100)} NOT NULL, dedup_key {text(200)} NOT NULL,"
        f" at {'INTEGER' if sql.is_sqlite else 'BIGINT'} NOT NULL, PRIMARY KEY (hub, instance_id, dedup_key))"
    )
    for (version,) in sql.rows("SELECT DISTINCT version FROM durable_instance WHERE version IS NOT NULL"):
        sql.run("UPDATE durable_instance SET version_key = ? WHERE version = ?", (version_key(version), version))


def _types(sql: Sql) -> tuple[Callable[[int], str], str, str]:
    if sql.is_sqlite or sql.is_postgresql:
        return (lambda length: f"VARCHAR({length})"), "TEXT", 'VARCHAR(500) COLLATE "C"' if sql.is_postgresql else "VARCHAR(500)"
    collation = sql.database.durable_collation  # type: ignore[attr-defined]  # set when the database was opened
    binary = f"CHARACTER SET utf8mb4 COLLATE {collation}"
    return (lambda length: f"VARCHAR({length}) {binary}"), f"LONGTEXT {binary}", f"VARCHAR(500) {binary}"
