"""The queries of the engine's loop use an index: their cost depends on what is due, not on what sleeps or has ended."""

from __future__ import annotations

import pytest

from flask_durable.core.events import TaskScheduled
from flask_durable.storage.interface import Batch, ClaimRequest, InstanceFilter, Order, PagePosition, Terminate

HOT = ClaimRequest(instances=10, activities=10, orchestrators=("orchestrator", "another"), activity_names=("one",), unknown_before=1)


@pytest.fixture
def plans(desk, database_url, monkeypatch):
    """Runs something and returns the plans of the statements that it ran."""
    if not database_url.startswith("sqlite"):
        pytest.skip("only SQLite tells its plan without statistics of a large table")
    sql = desk.store._sql
    seen = []
    for method in ("rows", "row"):
        original = getattr(sql, method)

        def spy(text, parameters=(), original=original):
            seen.append((text, parameters))
            return original(text, parameters)

        monkeypatch.setattr(sql, method, spy)

    def explain(call):
        seen.clear()
        call()
        statements = list(seen)
        assert statements
        return {
            text: [row[3] for row in desk.rows(f"EXPLAIN QUERY PLAN {text}", *parameters)]
            for text, parameters in statements
            if text.startswith("SELECT")
        }

    return explain


def assert_no_scan(plans):
    for text, steps in plans.items():
        for step in steps:
            assert not step.startswith("SCAN"), f"{text}\n{steps}"


def test_looking_for_work_uses_indexes_without_sorting(desk, plans):
    found = plans(lambda: desk.store.peek(desk.worker_id, HOT))
    assert len(found) == 3
    assert_no_scan(found)
    assert not any("TEMP B-TREE" in step for steps in found.values() for step in steps)
    assert sum("worker_id=?" in steps[0] for steps in found.values()) == 3


def test_claiming_uses_indexes_without_sorting(desk, plans):
    desk.begin("a", TaskScheduled(1, "one"))
    found = plans(lambda: desk.store.commit(Batch(worker_id=desk.worker_id, claim=HOT)))
    assert_no_scan(found)
    assert not any("TEMP B-TREE" in step for text, steps in found.items() for step in steps if "durable_message" not in text)


def test_looking_for_the_dead_and_the_unknown_uses_indexes(desk, plans):
    assert_no_scan(plans(lambda: desk.store.reap_workers(desk.worker_id, 5)))
    assert_no_scan(plans(lambda: desk.store.unknown_orchestrations(("a",), 1, 10)))


def test_reading_one_instance_and_its_history_uses_the_keys(desk, plans):
    desk.begin("a")
    assert_no_scan(plans(lambda: (desk.get("a"), desk.store.load_history("a", 0), desk.store.history_page("a", 0, after=1, limit=5))))
    assert_no_scan(plans(lambda: desk.do(Terminate("a"))))


@pytest.mark.parametrize("order", list(Order))
def test_a_page_of_a_list_is_read_in_its_order(desk, plans, order):
    position = PagePosition(desk.store.now(), "x")
    found = plans(lambda: desk.store.list_instances(InstanceFilter(), limit=10, after=position, order=order))
    assert_no_scan(found)
    assert not any("TEMP B-TREE" in step for steps in found.values() for step in steps)
