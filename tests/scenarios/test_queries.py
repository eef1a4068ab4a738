"""Looking at instances: lists, filters, pages, histories."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support import event_names, finish, has_status, look, run, until

from flask_durable import InstanceFilter, InvalidArgumentError, Order, RuntimeStatus, TaskFailedError
from flask_durable.core.events import ExecutionCompleted, ExecutionStarted, TaskCompleted, TaskScheduled


def ids(durable, **wanted):
    return [status.instance_id for status in durable.client.list(InstanceFilter(**wanted), order=Order.OLDEST_FIRST).items]


def start(durable, *instance_ids, **options):
    return [durable.client.start("wait_for_go", instance_id=instance_id, **options) for instance_id in instance_ids]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("order", list(Order))
def test_pages_hold_each_match_once(durable, size, order):  # QRY-2
    made = start(durable, *(f"i-{number:02}" for number in range(14)))
    found, token = [], None
    while True:
        page = durable.client.list(page_size=size, token=token, order=order)
        assert len(page.items) <= size
        found.extend(status.instance_id for status in page.items)
        token = page.token
        if token is None:
            break
    assert found == (made if order is Order.OLDEST_FIRST else made[::-1])


def test_an_instance_that_comes_while_paging_does_not_shift_the_pages(durable):  # QRY-2
    start(durable, "a", "b", "c", "d")
    first = durable.client.list(page_size=2)
    start(durable, "e")
    second = durable.client.list(page_size=2, token=first.token)
    assert [each.instance_id for each in (*first.items, *second.items)] == ["d", "c", "b", "a"]
    assert second.token is None


@pytest.mark.parametrize("token", ["nonsense", "", "W10", "WzEsMiwzXQ", "\N{SNOWMAN}", "A" * 5000])
def test_a_made_up_token_is_refused(durable, token):  # B3
    start(durable, "a")
    if token == "":
        assert len(durable.client.list(token=token).items) == 1
        return
    with pytest.raises(InvalidArgumentError, match="token"):
        durable.client.list(token=token)


def test_a_token_belongs_to_its_order(durable):  # QRY-2
    start(durable, "a", "b")
    token = durable.client.list(page_size=1).token
    with pytest.raises(InvalidArgumentError, match="does not belong"):
        durable.client.list(page_size=1, token=token, order=Order.OLDEST_FIRST)


@pytest.mark.parametrize("size", [0, -1, 1001])
def test_a_page_has_a_size_within_limits(durable, size):  # S9
    with pytest.raises(InvalidArgumentError, match="1 to 1000"):
        durable.client.list(page_size=size)


def test_lists_are_filtered_by_status(durable):  # QRY-1
    durable.start_worker()
    start(durable, "running", "done", "stopped", "held")
    for instance_id in ("running", "done", "stopped", "held"):
        until(has_status(durable, instance_id, RuntimeStatus.RUNNING))
    durable.client.raise_event("done", "Go")
    finish(durable, "done")
    durable.client.terminate("stopped")
    durable.client.suspend("held")
    assert ids(durable, statuses=(RuntimeStatus.RUNNING,)) == ["running"]
    assert ids(durable, statuses=(RuntimeStatus.TERMINATED, RuntimeStatus.SUSPENDED)) == ["stopped", "held"]
    assert durable.client.count(InstanceFilter(statuses=(RuntimeStatus.COMPLETED,))) == 1


def test_a_prefix_is_taken_literally(durable):  # QRY-1, B5
    start(durable, "a%_1", "a%_2", "abc", "A%_3", "a!4", "b", "\N{SNOWMAN}x")
    assert ids(durable, id_prefix="a%_") == ["a%_1", "a%_2"]
    assert ids(durable, id_prefix="a!") == ["a!4"]
    assert ids(durable, id_prefix="a") == ["a%_1", "a%_2", "abc", "a!4"]
    assert ids(durable, id_prefix="\N{SNOWMAN}") == ["\N{SNOWMAN}x"]
    assert ids(durable, id_prefix="'; --") == []


def test_tags_are_compared_byte_for_byte(durable):  # Tags
    start(durable, "lower", tags={"team": "red", "x": "1"})
    start(durable, "upper", tags={"team": "Red"})
    start(durable, "key", tags={"Team": "red"})
    start(durable, "long", tags={"team": "redder", "a%": "_\"'\\"})
    start(durable, "tricky", tags={"note": '"team":"red"'})
    start(durable, "none")
    assert ids(durable, tags={"team": "red"}) == ["lower"]
    assert ids(durable, tags={"team": "red", "x": "1"}) == ["lower"]
    assert ids(durable, tags={"a%": "_\"'\\"}) == ["long"]
    assert ids(durable, tags={"a_": "_\"'\\"}) == []
    assert ids(durable, tags={"note": '"team":"red"'}) == ["tricky"]


def test_lists_are_filtered_by_name_and_version(durable):  # QRY-1
    durable.client.start("wait_for_go", instance_id="one", version="1")
    durable.client.start("unknown here", instance_id="two", version="2")
    assert ids(durable, name="wait_for_go") == ["one"]
    assert ids(durable, name="unknown here", version="2") == ["two"]
    assert ids(durable, name="wait_for_go", version="2") == []


def test_a_window_of_creation_contains_its_lower_end(durable):  # QRY-1
    start(durable, "a", "b", "c")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    times = [round((look(durable, each).created_time - epoch).total_seconds() * 1e6) for each in ("a", "b", "c")]
    assert ids(durable, created_from=times[1]) == ["b", "c"]
    assert ids(durable, created_to=times[1]) == ["a"]
    assert ids(durable, created_to=times[1], created_to_inclusive=True) == ["a", "b"]
    assert ids(durable, created_from=times[1], created_to=times[2]) == ["b"]


def test_inputs_are_left_out_on_request(durable):  # QRY-1
    durable.client.start("wait_for_go", {"secret": 1}, instance_id="a")
    assert durable.client.list(show_input=False).items[0].input is None
    assert durable.client.list().items[0].input == {"secret": 1}
    assert durable.client.get_status("a", show_input=False).input is None
    assert durable.client.list_ids() == (("a",), None)


def test_two_hubs_on_one_database_do_not_see_each_other(make_durable):  # configuration
    one, other = make_durable(DURABLE_TASK_HUB="hub-one"), make_durable(DURABLE_TASK_HUB="hub-other")
    try:
        for durable in (one, other):
            durable.orchestrator(name="same")(lambda ctx, value: value)
            durable.start_worker()
        for number, durable in enumerate((one, other)):
            assert run(durable, "same", number, instance_id="same").output == number
        assert one.client.purge("same") == 1
        assert look(other, "same").output == 1
    finally:
        for durable in (one, other):
            durable.client.purge_by(InstanceFilter())


def test_a_history_tells_what_happened_in_order(durable):  # QRY-4
    @durable.orchestrator
    def order(ctx, value):
        doubled = yield ctx.call_activity("double", value)
        try:
            yield ctx.call_activity("fail", "no")
        except TaskFailedError:
            return doubled

    durable.start_worker()
    instance_id = run(durable, order, 3).instance_id
    recorded = durable.client.history(instance_id).events
    assert [each.sequence for each in recorded] == [1, 2, 3, 4, 5, 6]
    assert [each.at for each in recorded] == sorted(each.at for each in recorded)
    events = [each.event for each in recorded]
    assert (events[0].name, events[0].input) == ("order", "3")
    assert isinstance(events[0], ExecutionStarted)
    assert events[1] == TaskScheduled(1, "double", "3", 1, 1)
    assert events[2] == TaskCompleted(1, "6")
    assert (events[4].task_id, events[4].failure.message) == (2, "no")
    assert events[5] == ExecutionCompleted(RuntimeStatus.COMPLETED, "6")


def test_a_history_comes_in_pages(durable):  # QRY-4
    @durable.orchestrator
    def steps(ctx):
        for number in range(10):
            yield ctx.call_activity("double", number)

    durable.start_worker()
    instance_id = run(durable, steps).instance_id
    found, after = [], 0
    while after is not None:
        page = durable.client.history(instance_id, page_size=4, after=after)
        found.extend(each.sequence for each in page.events)
        after = page.next_sequence
    assert found == list(range(1, 23))


def test_the_status_shows_the_history_with_or_without_outputs(durable):  # http-api 1.5
    durable.start_worker()
    instance_id = durable.client.start("wait_for_go")
    durable.client.raise_event(instance_id, "Go", "secret")
    finish(durable, instance_id)
    assert look(durable, instance_id).history is None
    brief = durable.client.get_status(instance_id, show_history=True).history
    full = durable.client.get_status(instance_id, show_history=True, show_history_output=True).history
    assert brief[-1].event.output is None
    assert full[-1].event.output == '"secret"'
    assert event_names(durable, instance_id) == ["ExecutionStarted", "EventRaised", "ExecutionCompleted"]
