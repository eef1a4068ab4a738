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
@pytest.mark.parametrize("order", [Order.OLDEST_FIRST, Order.NEWEST_FIRST])
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


def test_inputs_and_outputs_are_listed_only_if_asked_for(durable):  # QRY-1
    @durable.orchestrator
    def returns(ctx, value):
        return value

    @durable.orchestrator
    def raises(ctx):
        raise ValueError("broken")

    durable.start_worker()
    run(durable, returns, {"secret": 1}, instance_id="a")
    run(durable, raises, instance_id="b")

    def listed(**shows):
        page = durable.client.list(order=Order.OLDEST_FIRST, **shows)
        return [(each.input, each.output, each.failure_details and each.failure_details.message) for each in page.items]

    assert listed() == [(None, None, None), (None, None, "broken")]
    assert listed(show_input=True) == [({"secret": 1}, None, None), (None, None, "broken")]
    assert listed(show_output=True) == [(None, {"secret": 1}, None), (None, "broken", "broken")]
    assert listed(show_input=True, show_output=True)[0] == ({"secret": 1}, {"secret": 1}, None)


def test_the_input_of_one_is_left_out_on_request(durable):  # QRY-1
    durable.client.start("wait_for_go", {"secret": 1}, instance_id="a")
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


# -- by completion


def micros(moment):
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)


@pytest.fixture
def ended(durable):
    """Instances that ended in another order than they were made in; one has not ended."""
    durable.start_worker()
    start(durable, "a", "b", "c", "d", "e", "open")
    for instance_id in ("d", "a", "e", "c", "b"):
        if instance_id == "e":
            durable.client.terminate(instance_id)
        else:
            durable.client.raise_event(instance_id, "Go")
        finish(durable, instance_id)
    return durable


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_ids_are_listed_in_order_of_completion(ended, size):  # QRY-3, QRY-2
    def all_ids(**options):
        found, token = [], None
        while True:
            page, token = ended.client.list_ids(page_size=size, token=token, **options)
            assert 1 <= len(page) <= size
            found.extend(page)
            if token is None:
                return found

    assert all_ids(by_completion=True) == ["d", "a", "e", "c", "b"]
    assert all_ids(order=Order.LAST_COMPLETED) == ["b", "c", "e", "a", "d"]
    assert all_ids(order=Order.OLDEST_FIRST) == ["a", "b", "c", "d", "e", "open"]
    assert [each.instance_id for each in ended.client.list(order=Order.FIRST_COMPLETED).items] == ["d", "a", "e", "c", "b"]


def test_ids_are_listed_by_status_and_window_of_completion(ended):  # QRY-3
    times = {each: micros(look(ended, each).completed_time) for each in "abcde"}

    def found(**wanted):
        return list(ended.client.list_ids(InstanceFilter(**wanted), by_completion=True)[0])

    assert found(statuses=(RuntimeStatus.COMPLETED,)) == ["d", "a", "c", "b"]
    assert found(statuses=(RuntimeStatus.TERMINATED, RuntimeStatus.RUNNING)) == ["e"]
    assert found(completed_from=times["a"]) == ["a", "e", "c", "b"]
    assert found(completed_to=times["a"]) == ["d"]
    assert found(completed_to=times["a"], created_to_inclusive=True) == ["d", "a"]
    assert found(completed_from=times["a"], completed_to=times["b"], statuses=(RuntimeStatus.COMPLETED,)) == ["a", "c"]
    assert ids(ended, completed_from=0) == ["a", "b", "c", "d", "e"]


def test_a_token_of_creation_times_is_none_of_completion_times(ended):  # QRY-2
    token = ended.client.list_ids(page_size=1, by_completion=True)[1]
    for order in (Order.OLDEST_FIRST, Order.LAST_COMPLETED):
        with pytest.raises(InvalidArgumentError, match="does not belong"):
            ended.client.list_ids(page_size=1, token=token, order=order)
    with pytest.raises(InvalidArgumentError, match="1 to 1000"):
        ended.client.list_ids(page_size=0)


def test_what_ends_while_paging_comes_once(ended):  # QRY-2, QRY-3
    first, token = ended.client.list_ids(page_size=3, by_completion=True)
    ended.client.terminate("open")
    start(ended, "f")
    second, token = ended.client.list_ids(page_size=3, token=token, by_completion=True)
    assert [*first, *second] == ["d", "a", "e", "c", "b", "open"]
    assert token is None


def test_an_order_may_be_given_by_its_word(ended):  # QRY-1, QRY-3
    assert ended.client.list_ids(order="lastCompleted")[0][0] == "b"
    assert ended.client.list(order="oldest").items[0].instance_id == "a"
    for lists in (ended.client.list, ended.client.list_ids):
        with pytest.raises(InvalidArgumentError, match="newest, oldest, firstCompleted, lastCompleted"):
            lists(order="random")


# -- parts of a list


def test_a_list_can_leave_children_out(durable):  # rule 44
    @durable.orchestrator
    def parent(ctx):
        return (yield ctx.call_sub_orchestrator("wait_for_go", instance_id="child"))

    durable.start_worker()
    durable.client.start(parent, instance_id="parent")
    until(has_status(durable, "child", RuntimeStatus.RUNNING))
    assert ids(durable) == ["parent", "child"]
    assert ids(durable, is_root=True) == ["parent"]
    assert ids(durable, is_root=False) == ["child"]


def test_lists_are_filtered_by_version_and_by_having_one(durable):  # rule 49
    start(durable, "a")
    start(durable, "b", version="1")
    start(durable, "c", version="2")
    assert ids(durable, version="2") == ["c"]
    assert ids(durable, has_version=False) == ["a"]
    assert ids(durable, has_version=True) == ["b", "c"]


def test_the_versions_in_use_are_reported(durable):  # rule 50
    durable.orchestrator(name="other")(lambda ctx: "done")
    durable.start_worker()
    for version in ("1.10", "1.9", None):
        start(durable, f"a-{version}", f"b-{version}", version=version)
    durable.client.start("unheard_of", version="1")
    run(durable, "other", version="5")
    for version in ("1.10", "1.9", None):
        until(has_status(durable, f"b-{version}", RuntimeStatus.RUNNING))
        until(has_status(durable, f"a-{version}", RuntimeStatus.RUNNING))
    durable.client.suspend("a-1.9")
    durable.client.terminate("a-1.10")
    running, pending, suspended = RuntimeStatus.RUNNING, RuntimeStatus.PENDING, RuntimeStatus.SUSPENDED
    report = [(each.name, each.version, each.counts) for each in durable.client.versions()]
    assert report == [
        ("unheard_of", "1", {pending: 1}),
        ("wait_for_go", None, {running: 2}),
        ("wait_for_go", "1.9", {running: 1, suspended: 1}),
        ("wait_for_go", "1.10", {running: 1}),
    ]
    assert [each.version for each in durable.client.versions("wait_for_go")] == [None, "1.9", "1.10"]
    assert durable.client.versions("other") == ()


# -- purging by filter


def test_a_purge_by_filter_takes_ended_ones_of_a_status_and_window(ended):  # MGT-6
    times = {each: micros(look(ended, each).created_time) for each in "abcde"}
    assert ended.client.purge_by(InstanceFilter(created_from=times["b"], created_to=times["d"], statuses=(RuntimeStatus.COMPLETED,))) == 2
    assert ids(ended) == ["a", "d", "e", "open"]
    assert ended.client.purge_by(InstanceFilter(statuses=(RuntimeStatus.RUNNING,))) == 0
    assert ended.client.purge_by(InstanceFilter(completed_to=micros(look(ended, "a").completed_time))) == 1
    assert ended.client.purge_by(InstanceFilter()) == 2
    assert ids(ended) == ["open"]


def test_a_purge_by_filter_takes_children_along_on_request(durable):  # MGT-6, rule 43
    durable.orchestrator(name="leaf")(lambda ctx: ctx.instance_id)

    @durable.orchestrator
    def middle(ctx):
        ctx.call_sub_orchestrator("wait_for_go", instance_id=f"open-{ctx.instance_id}")
        return (yield ctx.call_sub_orchestrator("leaf", instance_id=f"leaf-{ctx.instance_id}"))

    @durable.orchestrator
    def root(ctx):
        return (yield ctx.call_sub_orchestrator("middle", instance_id=f"middle-{ctx.instance_id}"))

    durable.start_worker()
    run(durable, root, instance_id="1")
    run(durable, root, instance_id="2")
    until(has_status(durable, "open-middle-1", RuntimeStatus.RUNNING))
    assert durable.client.purge_by(InstanceFilter(id_prefix="1")) == 1
    # One that is meant and is a child of another one that is meant is deleted once
    assert durable.client.purge_by(InstanceFilter(name="root"), recursive=True) == 3
    assert durable.client.purge_by(InstanceFilter(), recursive=True) == 2
    assert sorted(ids(durable)) == ["open-middle-1", "open-middle-2"]


def test_a_child_purged_before_its_parent_reads_the_result_does_not_hang_the_parent(durable):  # rule 43
    durable.orchestrator(name="leaf")(lambda ctx: "from the leaf")

    @durable.orchestrator
    def root(ctx):
        task = ctx.call_sub_orchestrator("leaf", instance_id="leaf")
        yield ctx.wait_for_external_event("Go")
        return (yield task)

    durable.start_worker()
    durable.client.start(root, instance_id="root")
    until(has_status(durable, "leaf", RuntimeStatus.COMPLETED))
    assert durable.client.purge_by(InstanceFilter()) == 1
    durable.client.raise_event("root", "Go")
    assert finish(durable, "root").output == "from the leaf"


def test_a_purge_by_filter_ends_in_time(durable, monkeypatch):  # MGT-6
    monkeypatch.setattr("flask_durable.client._PURGE_BATCH", 2)
    durable.start_worker()
    for number in range(5):
        durable.client.terminate(durable.client.start("wait_for_go", instance_id=str(number)))
    assert durable.client.purge_by(InstanceFilter(), timeout=0) == 2
    assert durable.client.purge_by(InstanceFilter(), timeout=60) == 3
