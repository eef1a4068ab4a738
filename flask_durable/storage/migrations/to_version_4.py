"""Version 4: indexes for lists by name, by name and status, by parent, by version, by the beginning of the id, and of the parked; that of completion holds more.

The statements are spelled out: a migration must not change when the models do.
"""

from __future__ import annotations

from flask_durable.storage.database import Sql


def upgrade(sql: Sql) -> None:
    """Change the tables of version 3."""
    is_mysql = not (sql.is_sqlite or sql.is_postgresql)
    for columns in ("name, created_at, instance_id", "name, status, created_at, instance_id", "parent_instance_id, created_at, instance_id"):
        sql.run(f"CREATE INDEX durable_instance_hub_{columns.replace(', ', '_')} ON durable_instance (hub, {columns})")
    for name, columns, present in (
        ("completed", "hub, completed_at, instance_id, status, name, created_at", "completed_at"),
        ("version", "hub, version, created_at, instance_id", "version"),
        ("parked", "hub, parked_reason(1)" if is_mysql else "hub, created_at, instance_id", "parked_reason"),
    ):
        some = "" if is_mysql else f" WHERE {present} IS NOT NULL"
        sql.run(f"CREATE INDEX durable_instance_{name} ON durable_instance ({columns}){some}")
    if sql.is_postgresql:
        sql.run('CREATE INDEX durable_instance_prefix ON durable_instance (hub, instance_id COLLATE "C")')
    for former in ("hub_parent_instance_id", "hub_completed_at_instance_id"):
        sql.run(f"DROP INDEX durable_instance_{former}{' ON durable_instance' if is_mysql else ''}")
