"""The queries of the engine's loop use an index: their cost depends on what is due, not on what sleeps or has ended."""

from __future__ import annotations

import pytest

from flask_durable.core.capabilities import Runnable
from flask_durable.core.events import TaskScheduled
from flask_durable.core.status import RuntimeStatus
from flask_durable.storage.interface import Batch, ClaimRequest, InstanceFilter, NameLimit, Order, PagePosition, SweepPosition, Terminate

RUNNABLE = Runnable(("another", "orchestrator"), {"another": "10011"}, ("", "10012"))
HOT = ClaimRequest(instances=10, activities=10, runnable=RUNNABLE, activity_names=("one",))


def assert_no_scan(plans):
    for text, steps in plans.items():
        for step in steps:
            assert not step.startswith("SCAN"), f"{text}\n{steps}"


def test_looking_for_work_uses_indexes_without_sorting(desk, plans):
    (quiet,) = plans(lambda: desk.store.peek(desk.worker_id, HOT)).items()
    desk.begin("a", TaskScheduled(1, "one"))
    found = plans(lambda: desk.store.peek(desk.worker_id, HOT))
    desk.start("b")
    found |= plans(lambda: desk.store.peek(desk.worker_id, HOT))
    assert quiet[0] in found
    assert len(found) == 3
    assert_no_scan(found)
    assert not any("TEMP B-TREE" in step for steps in found.values() for step in steps)
    assert sum("worker_id=?" in step for step in quiet[1]) == 3
    assert all("worker_id=?" in steps[0] for text, steps in found.items() if text != quiet[0])


def test_claiming_uses_indexes_without_sorting(desk, plans):
    desk.begin("a", TaskScheduled(1, "one"))
    found = plans(lambda: desk.store.commit(Batch(worker_id=desk.worker_id, claim=HOT)))
    assert_no_scan(found)
    assert not any("TEMP B-TREE" in step for text, steps in found.items() for step in steps if "durable_message" not in text)


def test_limits_of_names_are_looked_up_by_an_index(desk, plans):  # rule 56
    # Given names without room at the front of the queue, and one that is limited in the hub
    desk.begin("a", *(TaskScheduled(number, name) for number, name in enumerate(["full", "hub", "hub", "one"], 1)))
    claim = ClaimRequest(activities=10, activity_names=("one",), limited=(NameLimit("full", 0), NameLimit("hub", 5, 1)))
    found = plans(lambda: desk.store.peek(desk.worker_id, claim))
    found |= plans(lambda: desk.store.commit(Batch(worker_id=desk.worker_id, claim=claim)))
    found |= plans(lambda: desk.store.peek(desk.worker_id, claim))
    assert any("COUNT(*)" in text for text in found)
    assert_no_scan(found)
    assert not any("TEMP B-TREE" in step for steps in found.values() for step in steps)


def test_looking_for_the_dead_and_the_unknown_uses_indexes(desk, plans):
    assert_no_scan(plans(lambda: desk.store.reap_workers(desk.worker_id, 5)))
    assert_no_scan(plans(lambda: desk.store.unclaimable([RUNNABLE, RUNNABLE], ("", "10012"), 1, 10)))


def test_reading_one_instance_and_its_history_uses_the_keys(desk, plans):
    desk.begin("a")
    assert_no_scan(plans(lambda: (desk.get("a"), desk.store.load_history("a", 0), desk.store.history_page("a", 0, after=1, limit=5))))
    assert_no_scan(plans(lambda: desk.do(Terminate("a"))))


def test_retention_reads_the_ended_in_their_order_from_the_index(desk, plans):  # retention
    desk.begin("a")
    desk.do(Terminate("a"))
    desk.sql("UPDATE durable_instance SET parent_instance_id = 'nobody', status = 'Completed'")
    cutoffs = {RuntimeStatus.COMPLETED: desk.store.now()}
    for position in (None, SweepPosition(1, "")):
        found = plans(lambda position=position: desk.store.sweep(cutoffs, after=position, limit=10))
        assert_no_scan(found)
        assert not any("TEMP B-TREE" in step for steps in found.values() for step in steps)
        assert any("completed_at" in step for steps in found.values() for step in steps)


@pytest.mark.parametrize("order", list(Order))
def test_a_page_of_a_list_is_read_in_its_order(desk, plans, order):
    position = PagePosition(desk.store.now(), "x")
    found = plans(lambda: desk.store.list_instances(InstanceFilter(), limit=10, after=position, order=order))
    assert_no_scan(found)
    assert not any("TEMP B-TREE" in step for steps in found.values() for step in steps)


@pytest.mark.parametrize("order", [Order.FIRST_COMPLETED, Order.LAST_COMPLETED])
@pytest.mark.parametrize("position", [None, PagePosition(5, "x")])
def test_ids_by_completion_are_read_from_the_index_alone(desk, plans, order, position):  # QRY-3
    desk.end(desk.start("a"))
    wanted = InstanceFilter(completed_from=1, completed_to=desk.store.now())
    found = plans(lambda: desk.store.list_ids(wanted, limit=10, after=position, order=order))
    assert_no_scan(found)
    assert all("COVERING INDEX" in step and "completed_at" in step for steps in found.values() for step in steps)


def test_the_report_of_versions_reads_live_instances_only(desk, plans):  # rule 50
    found = plans(lambda: desk.store.version_use(None))
    assert_no_scan(found)
    assert all("status=?" in steps[0] for steps in found.values())
