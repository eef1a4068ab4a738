"""Workers that are limited to names, what other workers know, and why an instance waits."""

from __future__ import annotations

import itertools
import logging
import threading

import pytest
from support import Ledger, event_names, finish, has_status, look, run, until
from worker_modes import WORKERS

from flask_durable import InvalidArgumentError, RuntimeStatus, TaskFailedError
from flask_durable.runtime.strays import Strays


@pytest.fixture
def make_shop(make_durable, tmp_path):
    """Makes apps with two orchestrators, of which each calls an activity; ``durable.ran`` says which activities ran in it."""
    numbers = itertools.count()

    def make(**config):
        durable = make_durable(**config)
        durable.ran = Ledger(tmp_path / f"ran{next(numbers)}")
        return with_functions(durable)

    return make


def with_functions(durable):
    ran = durable.ran

    @durable.activity
    def pack(item):
        ran.write("pack")
        return f"packed {item}"

    @durable.activity
    def bill(item):
        ran.write("bill")
        return f"billed {item}"

    @durable.orchestrator
    def order(ctx, item):
        return [(yield ctx.call_activity("pack", item)), (yield ctx.call_activity("bill", item))]

    @durable.orchestrator
    def refund(ctx, item):
        return (yield ctx.call_activity("bill", item))

    @durable.orchestrator
    def nothing(ctx):
        return "nothing"

    return durable


def goes_round(durable, name="nothing"):
    for _ in range(3):
        assert run(durable, name).output == "nothing"


@pytest.mark.parametrize("how", ["argument", "function", "configuration"])
def test_a_worker_is_limited_to_some_orchestrators(make_shop, how):  # WRK-5
    # Given a worker for one name
    config = {"DURABLE_WORKER_ORCHESTRATIONS": "refund, nothing"} if how == "configuration" else {}
    shop = make_shop(**config)
    if how == "configuration":
        shop.start_worker()
    else:
        shop.start_worker(orchestrations=["refund", "nothing"] if how == "argument" else [shop.registry.orchestrator("refund").function, "nothing"])

    # Then it takes that, and leaves other work as it is
    orders = [shop.client.start("order", "a"), shop.client.start("order", "b", instance_id="given")]
    assert run(shop, "refund", "x").output == "billed x"
    goes_round(shop)
    assert {look(shop, each).runtime_status for each in orders} == {RuntimeStatus.PENDING}

    # until somebody takes it
    other = make_shop()
    other.start_worker()
    assert [finish(shop, each).output for each in orders] == [["packed a", "billed a"], ["packed b", "billed b"]]


def test_a_worker_is_limited_to_some_activities(make_shop):  # WRK-5
    # Given a worker that packs only
    shop = make_shop()
    shop.start_worker(activities=["pack"])

    # Then the call of another activity waits, and does not fail
    instance_id = shop.client.start("order", "a")
    until(lambda: event_names(shop, instance_id).count("TaskScheduled") == 2)
    goes_round(shop)
    assert shop.ran.read() == ["pack"]
    assert look(shop, instance_id).runtime_status is RuntimeStatus.RUNNING

    # until a worker bills
    other = make_shop()
    other.start_worker(orchestrations=[], activities=["bill"])
    assert finish(shop, instance_id).output == ["packed a", "billed a"]
    assert (shop.ran.read(), other.ran.read()) == (["pack"], ["bill"])


def test_an_empty_list_takes_nothing(make_shop):  # WRK-5
    # Given a worker that only thinks and one that only acts
    thinker, actor = make_shop(), make_shop()
    thinker.start_worker(activities=[])
    actor.start_worker(orchestrations=[])
    instance_ids = [durable.client.start("order", "a") for durable in (thinker, actor)]

    # Then they need each other
    assert [finish(thinker, each).output for each in instance_ids] == [["packed a", "billed a"]] * 2
    assert (thinker.ran.read(), sorted(actor.ran.read())) == ([], ["bill", "bill", "pack", "pack"])
    actor.stop_worker()
    waiting = thinker.client.start("refund", "b")
    until(lambda: "TaskScheduled" in event_names(thinker, waiting))
    goes_round(thinker)
    assert thinker.ran.read() == []
    actor.start_worker(orchestrations=[])
    assert finish(thinker, waiting).output == "billed b"


def test_a_limited_worker_fails_nothing_that_it_does_not_know(make_shop, monkeypatch, ledger):  # WRK-5, REG-5
    monkeypatch.setattr("flask_durable.runtime.worker.UNKNOWN_SECONDS", 0.02)
    shop = make_shop(DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT=0)

    @shop.orchestrator
    def calls(ctx):
        return (yield ctx.call_activity("unheard_of"))

    count_looks(monkeypatch, ledger)
    shop.start_worker(orchestrations=["calls", "nothing"], activities=["pack"])
    unknown, call = shop.client.start("unheard_of"), shop.client.start("calls")
    until(lambda: "TaskScheduled" in event_names(shop, call))
    before = len(ledger)
    until(lambda: len(ledger) >= before + 3 * WORKERS, "the worker looked for strays several times")
    assert look(shop, unknown).runtime_status is RuntimeStatus.PENDING
    assert look(shop, call).runtime_status is RuntimeStatus.RUNNING


def count_looks(monkeypatch, ledger):
    """Write down whenever a worker that is started from now on has looked for strays."""
    original = Strays.look

    def counting(self, worker_id):
        found = original(self, worker_id)
        ledger.write(1)
        return found

    monkeypatch.setattr(Strays, "look", counting)


@pytest.mark.one_worker("it is about starting a worker")
def test_limits_are_given_before_the_worker_runs(make_shop):  # WRK-5
    shop = make_shop()
    for wrong in ("order", [5], [""], ["a/b"]):
        with pytest.raises(InvalidArgumentError):
            shop.start_worker(orchestrations=wrong)
    shop.start_worker()
    shop.start_worker()
    with pytest.raises(InvalidArgumentError, match="stop_worker"):
        shop.start_worker(orchestrations=["order"])


@pytest.mark.one_process("it reads the log of its workers")
def test_a_limit_to_a_name_that_is_not_registered_is_told(make_shop, caplog):  # WRK-5
    shop = make_shop()
    caplog.set_level(logging.WARNING, "flask_durable")
    shop.start_worker(orchestrations=["ordr"], activities=["pack"])
    assert "orchestrator 'ordr' among them is not registered" in caplog.text
    assert "'pack'" not in caplog.text


# -- what others know


def test_a_call_that_nobody_knows_fails_as_a_call(make_shop):  # REG-5
    shop = make_shop()

    @shop.orchestrator
    def calls(ctx):
        try:
            yield ctx.call_activity("unheard_of")
        except TaskFailedError as error:
            return str(error)

    # A worker that has other activities does not help
    other = make_shop()
    other.start_worker(orchestrations=[])
    shop.start_worker()
    assert "No activity named 'unheard_of' is registered here" in run(shop, calls).output


def test_a_call_that_another_worker_knows_is_left_to_it(make_shop):  # REG-5, WRK-5
    shop, other = make_shop(), make_shop()
    other.activity(name="rare")(lambda: "rarely")

    @shop.orchestrator
    def calls(ctx):
        return (yield ctx.when_all([ctx.call_activity("rare"), ctx.call_activity("pack", "a")]))

    other.start_worker(orchestrations=[])
    shop.start_worker()
    assert run(shop, calls).output == ["rarely", "packed a"]


def test_a_call_fails_when_the_worker_that_knew_it_is_gone(make_shop, make_gate, monkeypatch):  # REG-5
    monkeypatch.setattr("flask_durable.runtime.worker.UNKNOWN_SECONDS", 0.05)
    shop, other = (make_shop(DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT=0.2, DURABLE_MAX_ACTIVITIES=1) for _ in range(2))
    release, begun = make_gate(), make_gate()

    @other.activity
    def rare(number):
        begun.open()
        release.wait()
        return number

    @shop.orchestrator
    def calls(ctx):
        results = yield ctx.when_all_settled([ctx.call_activity("rare", number) for number in range(40 * WORKERS)])
        return sorted(str(each.get_exception() or each.get_result()) for each in results)

    other.start_worker(orchestrations=[])
    shop.start_worker()
    instance_id = shop.client.start(calls)
    begun.wait()
    stopping = threading.Thread(target=other.stop_worker)
    stopping.start()
    release.open()
    stopping.join(15)
    output = finish(shop, instance_id).output
    assert len([each for each in output if "No activity named 'rare' is registered here" in each]) >= 1


@pytest.mark.one_worker("it looks into the workers, and reads their log")
def test_an_unknown_instance_that_another_worker_runs_is_not_failed(make_shop, monkeypatch, ledger, caplog):  # REG-5, rule 8
    monkeypatch.setattr("flask_durable.runtime.worker.UNKNOWN_SECONDS", 0.02)
    caplog.set_level(logging.WARNING, "flask_durable")
    # Given a worker that knows an orchestrator and is too busy to take it, and one that does not
    knows, plain = (make_shop(DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT=0) for _ in range(2))
    knows.orchestrator(name="rare")(lambda ctx: "rarely")
    knows.start_worker()
    knows._only.worker.engine.drain()
    plain.start_worker()

    # When the other one looks for what nobody knows
    rare = plain.client.start("rare", instance_id="the-rare-one")
    count_looks(monkeypatch, ledger)
    until(lambda: len(ledger) >= 8, "both have looked several times")

    # Then it tells of it once, and leaves it
    assert look(plain, rare).runtime_status is RuntimeStatus.PENDING
    assert [record.getMessage() for record in caplog.records if "the-rare-one" in record.getMessage()] == [
        "Instance the-rare-one of orchestrator rare waits: another worker takes it, and has not yet"
    ]

    # but once nobody else knows it, it fails
    knows.stop_worker()
    assert "No orchestrator named 'rare'" in finish(plain, rare).output


@pytest.mark.one_worker("each worker tells of it once")
def test_an_instance_that_waits_for_its_code_is_told_of_once(make_shop, monkeypatch, ledger, caplog):  # rule 8
    monkeypatch.setattr("flask_durable.runtime.strays.UNKNOWN_SECONDS", 0.02)
    monkeypatch.setattr("flask_durable.runtime.worker.UNKNOWN_SECONDS", 0.02)
    caplog.set_level(logging.WARNING, "flask_durable")
    shop = make_shop()
    shop.start_worker()
    shop.client.start("unheard_of", instance_id="u")
    count_looks(monkeypatch, ledger)
    until(lambda: len(ledger) >= 6)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("flask_durable")]
    assert messages == ["Instance u of orchestrator unheard_of waits: no running worker knows orchestrator 'unheard_of'"]


@pytest.mark.one_process("it registers functions beside a running worker")
def test_what_is_registered_later_is_told_to_the_others(make_shop):  # REG-5
    shop = make_shop(DURABLE_LEASE_SECONDS=1)
    shop.start_worker()
    store = shop._only.store
    shop.orchestrator(name="late", version="2")(lambda ctx: "late")
    shop.activity(name="late_activity")(lambda: None)

    def is_told():
        told = [each.capabilities for each in store.live_workers()]
        return any(each.runs("late", "2") and each.knows_activity("late_activity") for each in told)

    assert run(shop, "late").output == "late"
    until(is_told)


# -- why an instance waits


def test_a_status_says_why_no_worker_takes_an_instance(make_shop):  # rule 49
    # Given an instance that is due, and no worker
    shop = make_shop(DURABLE_VERSION="1")
    order, newer, unknown = shop.client.start("order", "a"), shop.client.start("order", "a", version="2"), shop.client.start("unheard_of")
    until(lambda: look(shop, order).waiting_reason == "no worker is running")

    # When workers come that do not take it
    shop.start_worker(orchestrations=["nothing", "order"])
    assert finish(shop, order).waiting_reason is None
    until(lambda: look(shop, newer).waiting_reason == "no running worker takes version 2 (running: 1, currentOrOlder)")
    until(lambda: look(shop, unknown).waiting_reason == "no running worker knows orchestrator 'unheard_of'")
    reasons = {each.instance_id: each.waiting_reason for each in shop.client.list().items}
    assert reasons == {order: None, newer: look(shop, newer).waiting_reason, unknown: look(shop, unknown).waiting_reason}

    # Then it is clear when one does
    other = make_shop(DURABLE_VERSION="2")
    other.start_worker()
    assert finish(shop, newer).output == ["packed a", "billed a"]


def test_nothing_more_is_read_for_instances_that_are_not_stuck(durable, monkeypatch):  # rule 49
    asked = []
    monkeypatch.setattr(durable._only.store, "live_workers", lambda: asked.append(1) or [])
    durable.client.start("wait_for_go", instance_id="later")
    durable.start_worker()
    until(has_status(durable, "later", RuntimeStatus.RUNNING))
    durable.client.suspend("later")
    for _ in range(3):
        assert look(durable, "later").waiting_reason is None
        assert [each.waiting_reason for each in durable.client.list().items] == [None]
    assert asked == []
