"""Pages are the same by whichever index they are read, on every database; SQLite says which one that is."""

from __future__ import annotations

import itertools
import random

import pytest

from flask_durable.core.status import RuntimeStatus
from flask_durable.storage import list_plans
from flask_durable.storage.interface import InstanceFilter, Order

NAMES, STATUSES = ("a", "b"), (RuntimeStatus.RUNNING, RuntimeStatus.COMPLETED, RuntimeStatus.FAILED)
COUNT = 36
PARTS = [
    [{}, *({"name": name} for name in (*NAMES, "c"))],
    [{}, {"statuses": STATUSES[:1]}, {"statuses": STATUSES[1:]}, {"statuses": (STATUSES[2],) * 2}, {"statuses": tuple(RuntimeStatus)}],
    [{}, {"id_prefix": "Id-1"}, {"id_prefix": "id-"}, {"id_prefix": "zz"}],
    [{}, {"parent_instance_id": "p"}, {"is_root": True}, {"is_root": False}],
    [{}, {"version": "1"}, {"has_version": True}, {"has_version": False}],
    [{}, {"is_parked": True}, {"is_parked": False}],
    [{}, {"tags": {"k": "v"}}],
    [{}, {"created_from": 1005, "created_to": 1030}, {"completed_from": 2003, "completed_to": 2020, "created_to_inclusive": True}],
]


@pytest.fixture(scope="module")
def wanted():
    every = [InstanceFilter(**{key: value for part in parts for key, value in part.items()}) for parts in itertools.product(*PARTS)]
    simple = [each for each in every if sum(bool(part) for part in _chosen(each)) <= 1]
    return simple + random.Random(7).sample(every, 60)


def _chosen(wanted):
    defaults = InstanceFilter()
    return [getattr(wanted, name) != getattr(defaults, name) for name in InstanceFilter.__slots__ if name != "created_to_inclusive"]


@pytest.fixture
def mixed(desk):
    """Instances of all kinds; some have the same times."""
    lots = random.Random(3)
    for number in range(COUNT):
        instance_id = f"{lots.choice(('Id', 'id'))}-{number}"
        desk.start(instance_id, name=lots.choice(NAMES), version=lots.choice((None, "1", "2")), tags={"k": lots.choice("vw")})
        status = lots.choice(STATUSES)
        completed = None if status is RuntimeStatus.RUNNING else 2000 + lots.randrange(COUNT) // 2
        values = (status.value, 1000 + lots.randrange(COUNT), completed, lots.choice((None, "p", "q")), lots.choice((None, None, None, "why")))
        text = "UPDATE durable_instance SET status = ?, created_at = ?, completed_at = ?, parent_instance_id = ?, parked_reason = ?"
        desk.sql(f"{text} WHERE hub = ? AND instance_id = ?", *values, desk.store._hub, instance_id)
    return desk


def fits(record, wanted):
    """What a filter means, in other words than the store's."""
    version, parent, parked = record.version, record.parent_instance_id, record.parked_reason
    inclusive = 1 if wanted.created_to_inclusive else 0
    return (
        (not wanted.statuses or record.status in wanted.statuses)
        and wanted.name in (None, record.name)
        and record.instance_id.startswith(wanted.id_prefix or "")
        and wanted.parent_instance_id in (None, parent)
        and wanted.version in (None, version)
        and wanted.has_version in (None, version is not None)
        and wanted.is_root in (None, parent is None)
        and wanted.is_parked in (None, parked is not None)
        and wanted.tags.items() <= record.tags.items()
        and (wanted.created_from is None or wanted.created_from <= record.created_at < wanted.created_to + inclusive)
        and (wanted.completed_from is None or wanted.completed_from <= (record.completed_at or 0) < wanted.completed_to + inclusive)
    )


@pytest.mark.parametrize("few", [0, 5, list_plans.FEW], ids=["walked", "either", "few"])
def test_every_filter_in_every_order_finds_what_it_means(mixed, wanted, monkeypatch, few):  # QRY-1, QRY-2
    monkeypatch.setattr(list_plans, "FEW", few)
    store = mixed.store
    everything = store.list_instances(InstanceFilter(), limit=100, after=None, order=Order.OLDEST_FIRST).records
    assert len(everything) == COUNT
    for each in wanted:
        for order in Order:
            moment = "completed_at" if order.is_by_completion else "created_at"
            keys = {record.instance_id: (getattr(record, moment), record.instance_id) for record in everything}
            right = [
                record.instance_id for record in everything if fits(record, each) and (record.completed_at is not None or not order.is_by_completion)
            ]
            right.sort(key=keys.__getitem__, reverse=order in (Order.NEWEST_FIRST, Order.LAST_COMPLETED))
            first = store.list_instances(each, limit=7, after=None, order=order)
            found, position = [record.instance_id for record in first.records], first.next_position
            while position is not None:
                page = store.list_ids(each, limit=7, after=position, order=order)
                found += page.ids
                position = page.next_position
            assert found == right, (each, order)


@pytest.mark.parametrize(
    ("wanted", "order", "indexes"),
    [
        (InstanceFilter(), Order.NEWEST_FIRST, ["hub_created_at_instance_id"]),
        (InstanceFilter(name="a"), Order.NEWEST_FIRST, ["hub_name_created_at_instance_id"]),
        (InstanceFilter(statuses=STATUSES[:1]), Order.OLDEST_FIRST, ["hub_status_created_at_instance_id"]),
        (InstanceFilter(statuses=STATUSES[1:]), Order.NEWEST_FIRST, ["hub_status_created_at_instance_id"] * 2),
        (InstanceFilter(statuses=STATUSES, name="a"), Order.OLDEST_FIRST, ["hub_name_status_created_at_instance_id"] * 3),
        (InstanceFilter(parent_instance_id="p"), Order.NEWEST_FIRST, ["hub_parent_instance_id_created_at_instance_id"]),
        (InstanceFilter(is_root=True), Order.NEWEST_FIRST, ["hub_parent_instance_id_created_at_instance_id"]),
        (InstanceFilter(version="1"), Order.NEWEST_FIRST, ["version"]),
        (InstanceFilter(), Order.LAST_COMPLETED, ["completed"]),
        (InstanceFilter(name="a", statuses=STATUSES), Order.FIRST_COMPLETED, ["completed"]),
    ],
    ids=str,
)
def test_a_page_of_many_is_read_in_order_from_an_index(mixed, plans, monkeypatch, wanted, order, indexes):
    monkeypatch.setattr(list_plans, "FEW", 0)
    found = plans(lambda: mixed.store.list_instances(wanted, limit=3, after=None, order=order))
    steps = list(found.values())[-1]
    searches = [step for step in steps if step.startswith("SEARCH") and "autoindex" not in step]
    assert [step.split("INDEX ")[1].split()[0].removeprefix("durable_instance_") for step in searches] == indexes
    # Nothing is sorted before the limit: that would come right after the search
    assert not any("TEMP B-TREE" in after for step, after in itertools.pairwise(steps) if step in searches)


@pytest.mark.parametrize(
    ("wanted", "order", "index"),
    [
        (InstanceFilter(is_parked=True), Order.NEWEST_FIRST, "durable_instance_parked"),
        (InstanceFilter(id_prefix="Id"), Order.NEWEST_FIRST, "sqlite_autoindex_durable_instance_1"),
        (InstanceFilter(statuses=STATUSES[2:]), Order.LAST_COMPLETED, "durable_instance_hub_status_created_at_instance_id"),
        (InstanceFilter(name="a"), Order.LAST_COMPLETED, "durable_instance_hub_name_status_created_at_instance_id"),
        (InstanceFilter(completed_from=2001), Order.NEWEST_FIRST, "durable_instance_completed"),
    ],
    ids=str,
)
def test_few_are_read_first_and_sorted(mixed, plans, wanted, order, index):
    looked, page = plans(lambda: mixed.store.list_instances(wanted, limit=3, after=None, order=order)).values()
    assert all("SEARCH" in step and index in step for step in looked)
    assert "sqlite_autoindex_durable_instance_1 (hub=? AND instance_id" in page[0]


def test_what_cannot_have_ended_is_not_looked_for(mixed, monkeypatch):
    monkeypatch.setattr(mixed.store._sql, "rows", None)
    live = InstanceFilter(statuses=(RuntimeStatus.RUNNING, RuntimeStatus.PENDING))
    assert mixed.store.list_instances(live, limit=3, after=None, order=Order.LAST_COMPLETED).records == ()
