"""Version 3: the number of each writer's last transaction, by which it finds out whether one whose COMMIT was not answered has landed.

The statements are spelled out: a migration must not change when the models do.
"""

from __future__ import annotations

from flask_durable.storage.database import Sql


def upgrade(sql: Sql) -> None:
    """Change the tables of version 2."""
    number = "INTEGER" if sql.is_sqlite else "BIGINT"
    text = "VARCHAR(40)"
    if not (sql.is_sqlite or sql.is_postgresql):
        collation = sql.database.durable_collation  # type: ignore[attr-defined]  # set when the database was opened
        text = f"VARCHAR(40) CHARACTER SET utf8mb4 COLLATE {collation}"
    sql.run(f"ALTER TABLE durable_worker ADD COLUMN commit_number {number} NOT NULL DEFAULT 0")
    sql.run(f"CREATE TABLE durable_client (client_id {text} NOT NULL PRIMARY KEY, commit_number {number} NOT NULL, at {number} NOT NULL)")
