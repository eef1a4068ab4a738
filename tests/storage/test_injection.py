"""Nothing that a caller hands over gets into the text of a statement: it is compared, stored and found as it is."""

from __future__ import annotations

import pytest

from flask_durable.core.capabilities import Runnable
from flask_durable.core.status import RuntimeStatus
from flask_durable.storage.interface import (
    ClaimRequest,
    IfExists,
    InstanceFilter,
    Order,
    PagePosition,
    Park,
    Purge,
    PurgeBy,
    RaiseEvent,
    Resume,
    StartInstance,
    Suspend,
    SweepPosition,
    Terminate,
)

MARK = "zqx"
HOSTILE = [
    f"{MARK}' OR '1'='1",
    f'{MARK}"; DROP TABLE durable_instance; --',
    f"{MARK}%s?%(a)s",
    f"{MARK}_%[a]*",
    f"{MARK}\\' OR 1=1 --",
    f"{MARK}{{0}}",
]


@pytest.fixture
def texts(desk, monkeypatch):
    """The text of every statement that the store runs."""
    seen = []
    sql = desk.store._sql
    translate = sql._translated
    monkeypatch.setattr(sql, "_translated", lambda text: seen.append(text) or translate(text))
    return seen


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_are_values(desk, texts, value):  # S12, B5
    store, bystander = desk.store, desk.start("bystander")
    texts.clear()
    start = {"name": value, "version": value, "tags": {value: value}, "input": f'"{MARK}"', "trace": {"traceparent": value}}
    assert desk.do(StartInstance(value, f"{MARK}e", **start)) == value
    desk.do(StartInstance(value, f"{MARK}f", value, if_exists=IfExists.RETURN))
    everything = InstanceFilter(
        statuses=(RuntimeStatus.PENDING,), name=value, id_prefix=value, created_from=1, created_to=store.now(), tags={value: value}, version=value
    )
    for order in Order:
        page = store.list_instances(everything, limit=5, after=None, order=order)
        assert [each.instance_id for each in page.records] == ([] if order.is_by_completion else [value])
        assert list(store.list_ids(everything, limit=5, after=None, order=order).ids) == ([] if order.is_by_completion else [value])
        store.list_instances(everything, limit=5, after=PagePosition(1, value), order=order)
    assert store.count_instances(everything) == 1
    assert store.count_instances(InstanceFilter(parent_instance_id=value)) == 0
    assert [each.version for each in store.version_use(value)] == [value]
    hostile = Runnable((value,), {value: value}, ("", value))
    store.unclaimable([hostile], ("", value), store.now(), 5)
    store.unclaimable_activities([value], store.now())
    desk.claim(request=ClaimRequest(runnable=hostile, instances=1, activities=1, activity_names=(value,), max_deliveries=0))
    for command in (
        RaiseEvent(value, value, f'"{value}"'.replace("\\", "\\\\")),
        Suspend(value, f'"{MARK}"'),
        Resume(value, f'"{MARK}"'),
        Park(value, value),
        Terminate(value, f'"{MARK}"'),
    ):
        assert desk.do(command) is None
    assert desk.get(value).status is RuntimeStatus.TERMINATED
    store.sweep({RuntimeStatus.FAILED: store.now()}, after=SweepPosition(1, value), limit=5)
    assert desk.do(PurgeBy(InstanceFilter(id_prefix=value, name=value))) == 1
    desk.do(Purge(value))

    assert texts
    assert [text for text in texts if MARK in text] == []
    assert desk.get(bystander).status is RuntimeStatus.PENDING
