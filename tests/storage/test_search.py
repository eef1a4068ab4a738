"""Filters, pages and histories of the store, on every database."""

from __future__ import annotations

import pytest

from flask_durable.core.events import EventRaised, ExecutionStarted
from flask_durable.core.status import RuntimeStatus
from flask_durable.storage.interface import InstanceFilter, Order, Park, StartInstance, Suspend, Terminate


def ids(desk, wanted, order=Order.OLDEST_FIRST):
    return [record.instance_id for record in desk.store.list_instances(wanted, limit=100, after=None, order=order).records]


@pytest.fixture
def filled(desk):
    """Eight instances; nothing runs them."""
    for number in range(8):
        desk.start(f"{'Even' if number % 2 == 0 else 'odd'}_{number}", name=f"n{number % 3}", version=str(number % 2), tags={"n": str(number % 4)})
    desk.do(Terminate("Even_0"))
    desk.do(Suspend("odd_1"))
    desk.do(Park("Even_2", "why"))
    return desk


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (InstanceFilter(), [0, 1, 2, 3, 4, 5, 6, 7]),
        (InstanceFilter(statuses=(RuntimeStatus.TERMINATED,)), [0]),
        (InstanceFilter(statuses=(RuntimeStatus.TERMINATED, RuntimeStatus.SUSPENDED)), [0, 1]),
        (InstanceFilter(name="n2"), [2, 5]),
        (InstanceFilter(name="N2"), []),
        (InstanceFilter(version="1"), [1, 3, 5, 7]),
        (InstanceFilter(id_prefix="Even"), [0, 2, 4, 6]),
        (InstanceFilter(id_prefix="even"), []),
        (InstanceFilter(id_prefix="odd_"), [1, 3, 5, 7]),
        (InstanceFilter(id_prefix="_"), []),
        (InstanceFilter(tags={"n": "3"}), [3, 7]),
        (InstanceFilter(tags={"N": "3"}), []),
        (InstanceFilter(tags={"n": ""}), []),
        (InstanceFilter(is_parked=True), [2]),
        (InstanceFilter(is_parked=False, version="0"), [0, 4, 6]),
        (InstanceFilter(parent_instance_id="nobody"), []),
        (InstanceFilter(name="n1", version="1", tags={"n": "1"}), [1]),
    ],
    ids=str,
)
def test_a_filter_means_what_fits_all_of_it(filled, wanted, numbers):  # QRY-1
    assert [int(each[-1]) for each in ids(filled, wanted)] == numbers
    assert [int(each[-1]) for each in ids(filled, wanted, Order.NEWEST_FIRST)] == numbers[::-1]
    assert filled.store.count_instances(wanted) == len(numbers)


@pytest.mark.parametrize("prefix", ["é", "aé", "a\ud7ff", "a\U0010ffff", "\U0010ffff", "a_", "a%", "A"])
def test_a_prefix_means_ids_that_begin_so_letter_by_letter(desk, prefix):
    for number, head in enumerate(["é", "aé", "e", "a\ud7ff", "a\ue000", "a\U0010ffff", "\U0010ffff", "a_", "a%", "A", "a", "B"]):
        desk.start("x")
        desk.sql("UPDATE durable_instance SET instance_id = ? WHERE hub = ? AND instance_id = 'x'", f"{head}{number}", desk.store._hub)
    every = ids(desk, InstanceFilter())
    assert len(every) == 12
    assert ids(desk, InstanceFilter(id_prefix=prefix)) == [each for each in every if each.startswith(prefix)] != []


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("size", [1, 3, 8])
def test_pages_hold_everything_once_also_at_equal_times(timed_desk, clock, order, size):  # QRY-2
    # Given instances of which several have the same time of creation
    for number in range(9):
        moment = clock.micros
        timed_desk.start(f"i-{(number * 7) % 10}")
        if number % 3:
            clock.micros = moment
    timed_desk.sql("UPDATE durable_instance SET status = 'Completed', completed_at = created_at WHERE hub = ?", timed_desk.store._hub)
    found, position = [], None
    while True:
        page = timed_desk.store.list_instances(InstanceFilter(), limit=size, after=position, order=order)
        assert len(page.records) <= size
        found.extend((record.created_at, record.instance_id) for record in page.records)
        position = page.next_position
        if position is None:
            break
    assert found == sorted(set(found), reverse=order in (Order.NEWEST_FIRST, Order.LAST_COMPLETED))
    assert len(found) == 9


def test_a_history_comes_in_pages(desk):  # QRY-4
    desk.begin("a", *(EventRaised("E", str(number)) for number in range(6)))
    first = desk.store.history_page("a", 0, after=0, limit=4)
    second = desk.store.history_page("a", 0, after=first.next_sequence, limit=4)
    assert [each.sequence for each in first.events] == [1, 2, 3, 4]
    assert isinstance(first.events[0].event, ExecutionStarted)
    assert ([each.sequence for each in second.events], second.next_sequence) == ([5, 6, 7], None)


def test_a_damaged_row_is_shown_and_hides_no_others(desk):  # DESIGN 3.1.8
    desk.do(StartInstance("a", "e1", "n", input='"in"', tags={"k": "v"}))
    desk.do(StartInstance("b", "e2", "n"))
    desk.sql("UPDATE durable_instance SET tags = '{broken', failure = '[]' WHERE hub = ? AND instance_id = 'a'", desk.store._hub)
    assert ids(desk, InstanceFilter()) == ["a", "b"]
    record = desk.get("a")
    assert (record.input, record.tags, record.failure) == ('"in"', {}, None)
    assert "cannot be read" in record.parked_reason
    assert desk.do(Terminate("a")) is None
    assert desk.get("a").status is RuntimeStatus.TERMINATED


def test_a_damaged_instance_is_parked_and_takes_no_others_along(desk):  # DESIGN 3.1.8
    desk.start("a", tags={"k": "v"})
    desk.start("b")
    desk.sql("UPDATE durable_instance SET tags = '{broken' WHERE hub = ? AND instance_id = 'a'", desk.store._hub)
    assert [work.record.instance_id for work in desk.claim().orchestrations] == ["b"]
    assert "its instance row" in desk.get("a").parked_reason
    assert desk.claim(desk.register()).orchestrations == []
