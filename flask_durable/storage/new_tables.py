"""New tables of PostgreSQL: what its planner believes of them until autovacuum has looked at what they hold, and the room on their pages.

Of a table that was never analyzed it knows nothing, and takes it for nearly empty: every index that begins with the hub seems to find one row, and
a row is then looked for by its key among all rows of its hub. So a few rows as they will be are shown to it, and deleted again. Where an index and
the primary key still seem to cost the same, it takes the one that was made last: that has to be the key.
"""

from __future__ import annotations

from collections.abc import Sequence

import peewee

from flask_durable.storage.database import Sql

_ROWS = 2000

_FILL = 60
"""Percent: an instance's row is written four times or so, each time beside the last one as long as the page has room, and then no index is touched."""

_SAMPLE = "'first-statistics-' ||"
"""How the execution ids of these rows begin, which those of real ones do not."""

_HUB = "CASE WHEN mod(n, 10) > 0 THEN CAST(? AS text) ELSE 'another-' || mod(n, 40) END"

_SAMPLES = {
    "durable_instance": {
        "hub": _HUB,
        "instance_id": "'instance-' || n",
        "execution_id": f"{_SAMPLE} n",
        "generation": "0",
        "name": "'name-' || mod(n, 10)",
        "status": "(ARRAY['Completed', 'Completed', 'Completed', 'Completed', 'Completed', 'Completed', 'Running', 'Running', 'Pending', 'Failed'])[1 + mod(n, 10)]",
        "created_at": "n",
        "updated_at": "n",
        "completed_at": "CASE WHEN mod(n, 10) < 6 THEN n END",
        "sequence": "mod(n, 20)",
        "has_started": "true",
        "ready_at": "CASE WHEN mod(n, 20) = 8 THEN n END",
        "worker_id": "CASE WHEN mod(n, 10) = 6 THEN 'worker-' || mod(n, 4) END",
        "deliveries": "0",
    },
    "durable_activity": {
        "hub": _HUB,
        "execution_id": f"{_SAMPLE} n / 5",
        "task_id": "mod(n, 5)",
        "instance_id": "'instance-' || n / 5",
        "name": "'name-' || mod(n, 10)",
        "attempt": "1",
        "first_task_id": "mod(n, 5)",
        "queued_at": "n",
        "worker_id": "CASE WHEN mod(n, 4) = 0 THEN 'worker-' || mod(n, 8) END",
        "deliveries": "0",
    },
}


def prepare(sql: Sql, tables: Sequence[type[peewee.Model]], hub: str) -> None:
    """Prepare tables that were made in the present transaction; they stay empty.

    Args:
        sql: the database.
        tables: all of them.
        hub: to which most rows will belong, as far as we know.
    """
    if not sql.is_postgresql:
        return
    for table in tables:
        name, key = table._meta.table_name, ", ".join(field.column_name for field in table._meta.get_primary_keys())
        sql.run(f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey, ADD CONSTRAINT {name}_pkey PRIMARY KEY ({key})")
    sql.run(f"ALTER TABLE durable_instance SET (fillfactor = {_FILL})")
    for name, values in _SAMPLES.items():
        sql.run(f"INSERT INTO {name} ({', '.join(values)}) SELECT {', '.join(values.values())} FROM generate_series(1, {_ROWS}) AS n", (hub,))
        # Told of every hub, it would think that any other has no rows
        sql.run(f"ALTER TABLE {name} ALTER COLUMN hub SET STATISTICS 1")
        sql.run(f"ANALYZE {name}")
        sql.run(f"ALTER TABLE {name} ALTER COLUMN hub SET STATISTICS -1")
        sql.run(f"DELETE FROM {name} WHERE starts_with(execution_id, {_SAMPLE} '')")
