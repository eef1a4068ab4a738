"""New tables on PostgreSQL: rows are found by their key from the first one on, before autovacuum has looked at the tables."""

from __future__ import annotations

import pytest

from flask_durable.storage.sql_store import SqlStore

PAIRS = "SELECT r ->> 0 AS c0, r ->> 1 AS c1, (r ->> 2)::bigint AS c2 FROM UNNEST(ARRAY(SELECT json_array_elements($1::json))) AS r"
ONE, SOME = "(text, text)", "(text)"
BY_KEY = {
    "one row": (ONE, "SELECT 1 FROM durable_instance WHERE hub = $1 AND instance_id = $2 FOR UPDATE"),
    "some rows": (
        SOME,
        f"SELECT 1 FROM ({PAIRS}) AS given, LATERAL (SELECT 1 FROM durable_instance WHERE hub = given.c0 AND instance_id = given.c1 FOR UPDATE) AS found",
    ),
    "changes": (SOME, f"UPDATE durable_instance SET sequence = 1 FROM ({PAIRS}) AS given WHERE hub = given.c0 AND instance_id = given.c1"),
    "calls": (SOME, f"DELETE FROM durable_activity USING ({PAIRS}) AS given WHERE hub = given.c0 AND execution_id = given.c1 AND task_id = given.c2"),
}


@pytest.fixture(params=["h", "another"])
def fresh(empty_url, request):
    """A store whose tables were made a moment ago, with some rows that the planner does not know of."""
    if not empty_url.startswith("postgres"):
        pytest.skip("other databases need no statistics to prefer a key")
    store = SqlStore(empty_url, hub=request.param)
    store.create_tables()
    yield store
    store.close()


def plan(store, types, text, mode):
    sql = store._sql
    arguments = "'h', 'i-7'" if types == ONE else """'[["h", "i-7", 1], ["h", "i-8", 2]]'"""

    def explain():
        sql.run(f"SET LOCAL plan_cache_mode = {mode}")
        sql.run(f"PREPARE looked_at {types} AS {text}")
        found = [row[0] for row in sql.rows(f"EXPLAIN EXECUTE looked_at ({arguments})")]
        sql.run("DEALLOCATE looked_at")
        return "\n".join(found)

    return sql.transaction(explain)


@pytest.mark.parametrize("rows", [0, 3000])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("case", BY_KEY)
def test_rows_are_found_by_their_key(fresh, case, mode, rows):
    fill = (
        "INSERT INTO durable_instance (hub, instance_id, execution_id, generation, name, status, created_at, updated_at, sequence, has_started, deliveries)"
        f" SELECT 'h', 'i-' || n, 'e-' || n, 0, 'one', 'Running', n, n, 0, true, 0 FROM generate_series(1, {rows}) AS n"
    )
    fresh._sql.transaction(lambda: fresh._sql.run(fill))
    found = plan(fresh, *BY_KEY[case], mode)
    assert "_pkey" in found, found
    assert "Filter: (" not in found, found


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_pages_are_read_in_the_order_of_an_index(fresh, mode):
    text = "SELECT instance_id FROM durable_instance WHERE hub = $1 AND status IN ($2) ORDER BY created_at DESC, instance_id DESC LIMIT 50"
    found = plan(fresh, ONE, text, mode)
    assert "_hub_status_created_at_instance_id" in found, found
    assert "Sort" not in found, found
    counting = plan(fresh, ONE, "SELECT instance_id FROM durable_instance WHERE hub = $1 AND status IN ($2) LIMIT 1001", mode)
    assert "Filter" not in counting, counting


def test_they_are_empty_and_fit(fresh):
    for table in ("durable_instance", "durable_activity"):
        assert fresh._sql.read(lambda table=table: fresh._sql.value(f"SELECT COUNT(*) FROM {table}")) == 0
    fresh.check_schema()
