"""Transactional activities: what they write and the end of their call are one commit (G3, I10)."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import peewee
import pytest
from flask import Flask
from support import finish, has_status, look, run, until

from flask_durable import DurableBlueprint, FlaskDurable, RetryPolicy, RuntimeStatus, current_activity
from flask_durable.errors import ConfigurationError, InvalidArgumentError

TWICE = RetryPolicy(first_retry_interval=0.01, max_number_of_attempts=2)


@pytest.fixture
def is_sqlite(database_url):
    return database_url.startswith("sqlite")


def call(durable, activity, value=None, **options):
    """Run an orchestrator that makes one call and gives what came of it."""
    name = f"calls-{activity.__name__}-{len(durable.registry.orchestrator_names())}"

    @durable.orchestrator(name=name)
    def calls(ctx, value):
        return (yield ctx.call_activity(activity, value, **options))

    return run(durable, name, value)


def test_every_effect_has_its_completion(shop, durable):
    @durable.activity(transactional=True)
    def order(number):
        shop.Order.create(number=number)
        return shop.Order.select().where(shop.Order.number == number).count()

    @durable.orchestrator
    def chain_and_fan(ctx, first):
        counts = []
        for number in range(first, first + 3):
            counts.append((yield ctx.call_activity(order, number)))
        return counts + (yield ctx.when_all([ctx.call_activity(order, number) for number in range(first + 3, first + 8)]))

    durable.start_worker()
    ids = [durable.client.start(chain_and_fan, 100 * number) for number in range(8)]
    assert [finish(durable, each).output for each in ids] == [[1] * 8] * 8
    assert shop.orders() == sorted(100 * number + step for number in range(8) for step in range(8))


def test_an_attempt_that_raises_leaves_nothing(shop, durable):
    @durable.activity(transactional=True)
    def fails_at_first(number):
        shop.Order.create(number=current_activity.attempt)
        if current_activity.attempt < 3:
            raise ValueError("not yet")
        return "done"

    durable.start_worker()
    policy = RetryPolicy(first_retry_interval=0.01, max_number_of_attempts=3)
    assert call(durable, fails_at_first, retry_policy=policy).output == "done"
    assert shop.orders() == [3]
    failed = call(durable, fails_at_first)
    assert failed.runtime_status is RuntimeStatus.FAILED
    assert "not yet" in failed.failure_details.message
    assert shop.orders() == [3]


def test_a_result_that_cannot_be_written_leaves_nothing(shop, durable):
    @durable.activity(transactional=True)
    def gives_an_object(_):
        shop.Order.create(number=1)
        return object()

    durable.start_worker()
    assert call(durable, gives_an_object).runtime_status is RuntimeStatus.FAILED
    assert shop.orders() == []


def test_blocks_inside_it_are_parts_of_its_transaction(any_shop, any_durable):
    shop, durable = any_shop, any_durable

    @durable.activity(transactional=True)
    def blocks(_):
        with shop.database:
            shop.Order.create(number=1)
        with shop.database.connection_context(), shop.database.atomic() as part:
            shop.Order.create(number=2)
            part.rollback()
        with contextlib.suppress(ValueError), shop.database.atomic():
            shop.Order.create(number=3)
            raise ValueError
        return shop.database.in_transaction()

    durable.start_worker()
    assert call(durable, blocks).output is True
    assert shop.orders() == [1]


def test_what_it_starts_is_part_of_it(shop, durable):
    @durable.activity(transactional=True)
    def starts(should_fail):
        durable.client.start("echo", 1, instance_id=f"child-{should_fail}")
        if should_fail:
            raise ValueError("no")
        return durable.client.get_status(f"child-{should_fail}").runtime_status.value

    durable.start_worker()
    assert call(durable, starts, True).runtime_status is RuntimeStatus.FAILED
    assert durable.client.get_status("child-True") is None
    assert call(durable, starts, False).output == "Pending"
    assert finish(durable, "child-False").output == 1


def test_it_cannot_wait_for_what_it_starts(durable):
    @durable.activity(transactional=True)
    def waits(_):
        with pytest.raises(InvalidArgumentError, match="Wait after the block"):
            durable.client.start_and_wait("echo", 1, timeout=30)

    durable.start_worker()
    assert call(durable, waits).runtime_status is RuntimeStatus.COMPLETED


def test_its_result_is_taken_up_without_a_look(shop, durable, monkeypatch):
    @durable.activity(transactional=True)
    def order(number):
        shop.Order.create(number=number)

    @durable.orchestrator
    def chain(ctx):
        for number in range(5):
            yield ctx.call_activity(order, number)

    durable.start_worker()
    # Given a worker whose looks find nothing: it knows what it is told
    monkeypatch.setattr(durable._state().worker.engine._polling, "look", lambda *_, **__: False)
    run(durable, chain)
    assert shop.orders() == list(range(5))


# -- whose call it is


class Stop:
    """A place where an activity waits for the test."""

    def __init__(self):
        self.arrived = threading.Event()
        self.may_go = threading.Event()

    def wait(self):
        self.arrived.set()
        assert self.may_go.wait(30)


@pytest.fixture
def stop():
    found = Stop()
    yield found
    found.may_go.set()


def meanwhile(is_sqlite, stop, act):
    """Do something while the activity waits; on SQLite, where it has the only right to write, right after it."""
    assert stop.arrived.wait(30)
    thread = threading.Thread(target=act)
    thread.start()
    if not is_sqlite:
        thread.join(30)
    stop.may_go.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_worker_that_has_lost_its_calls_leaves_nothing(shop, durable, stop, is_sqlite):  # G5, I7
    runs = []

    @durable.activity(transactional=True)
    def order(number):
        runs.append(current_activity.delivery)
        shop.Order.create(number=number)
        if len(runs) == 1:
            stop.wait()
        return len(runs)

    durable.orchestrator(name="calls")(lambda ctx: (yield ctx.call_activity(order, 7)))
    durable.start_worker()
    state = durable._state()
    instance_id = durable.client.start("calls")
    # When its worker is taken for dead in the middle, and the call given to the next one
    lost = state.worker.worker_id
    meanwhile(is_sqlite, stop, lambda: state.store.release_worker(lost))
    output = finish(durable, instance_id, 60).output
    # Then there is the effect of the run whose completion is recorded, and no other
    assert shop.orders() == [7]
    assert (output, len(runs)) == ((1, 1) if is_sqlite else (2, 2))


@pytest.mark.parametrize("end", ["terminate", "terminate and purge", "continue as new"])
def test_the_effect_of_a_call_that_nobody_wants_any_more_is_rolled_back(shop, durable, stop, is_sqlite, end):
    @durable.activity(transactional=True)
    def order(number):
        shop.Order.create(number=number)
        stop.wait()

    @durable.orchestrator
    def calls(ctx, is_first):
        if is_first:
            task = ctx.call_activity(order, 7)
            if (yield ctx.when_any([task, ctx.wait_for_external_event("Go")])) is not task:
                ctx.continue_as_new(False)

    durable.start_worker()
    client = durable.client
    instance_id = client.start(calls, True)

    def act():
        if end == "continue as new":
            client.raise_event(instance_id, "Go")
        else:
            client.terminate(instance_id)
            if end != "terminate":
                client.purge(instance_id)
        if not is_sqlite:
            until(lambda: client.get_status(instance_id) is None or client.get_status(instance_id).runtime_status.is_final)

    if is_sqlite:  # nothing can come in between: the call ends first
        assert stop.arrived.wait(30)
        stop.may_go.set()
        finish(durable, instance_id)
        assert shop.orders() == [7]
        return
    meanwhile(is_sqlite, stop, act)
    until(lambda: durable._state().worker.engine.busy_count == 0, "the call has ended")
    assert shop.orders() == []


@pytest.mark.parametrize("state", ["suspended", "failed"])
def test_the_result_for_an_instance_that_may_go_on_is_kept(shop, durable, stop, is_sqlite, state):  # REW-3, rule 36
    calls_made = []

    @durable.activity(transactional=True)
    def order(number):
        calls_made.append(number)
        shop.Order.create(number=number)
        stop.wait()
        return "recorded"

    is_broken = [True]

    @durable.orchestrator
    def calls(ctx):
        task = ctx.call_activity(order, 7)
        if state == "failed":
            yield ctx.wait_for_external_event("Go")
            if is_broken[0]:
                raise ValueError("broken")
        return (yield task)

    durable.start_worker()
    client = durable.client
    instance_id = client.start(calls)

    def act():
        if state == "suspended":
            client.suspend(instance_id)
        else:
            client.raise_event(instance_id, "Go")
            until(has_status(durable, instance_id, RuntimeStatus.FAILED))

    meanwhile(is_sqlite, stop, act)
    until(lambda: durable._state().worker.engine.busy_count == 0, "the call has ended")
    assert shop.orders() == [7]
    is_broken[0] = False
    if look(durable, instance_id).runtime_status is RuntimeStatus.SUSPENDED:
        client.resume(instance_id)
    elif state == "failed":
        client.rewind(instance_id)
    assert finish(durable, instance_id).output == "recorded"
    assert (calls_made, shop.orders()) == ([7], [7])


def test_what_it_wrote_after_its_time_is_rolled_back(shop, durable):  # rule 56
    @durable.activity(transactional=True, timeout=0.3)
    def slow(_):
        shop.Order.create(number=current_activity.attempt)
        if current_activity.attempt == 1:
            while not current_activity.is_cancelled:
                time.sleep(0.005)
        return current_activity.attempt

    durable.start_worker()
    assert call(durable, slow, retry_policy=TWICE).output == 2
    assert shop.orders() == [2]


# -- the database in between


def lost_answer(shop, monkeypatch, *, is_done, error=None, times=1):
    """Let commits with an order in them fail: after they were done, or before."""
    commit, create = shop.database.commit, shop.Order.create
    ordering = threading.local()
    left = [times]

    def noted(**values):
        ordering.is_open = True
        return create(**values)

    def failing():
        if getattr(ordering, "is_open", False) and left[0]:
            left[0] -= 1
            ordering.is_open = False
            if is_done:
                commit()
            raise error or peewee.OperationalError("server closed the connection unexpectedly")
        commit()

    monkeypatch.setattr(shop.database, "commit", failing)
    monkeypatch.setattr(shop.Order, "create", noted)


@pytest.mark.parametrize(("is_done", "times", "runs_wanted"), [(True, 1, 1), (False, 1, 2)])
def test_a_commit_whose_outcome_is_not_known_is_looked_up(shop, durable, monkeypatch, is_done, times, runs_wanted):  # F3
    runs = []

    @durable.activity(transactional=True)
    def order(number):
        runs.append(number)
        shop.Order.create(number=number)
        return number

    durable.start_worker()
    lost_answer(shop, monkeypatch, is_done=is_done, times=times)
    assert call(durable, order, 7).output == 7
    assert (len(runs), shop.orders()) == (runs_wanted, [7])


def test_a_transaction_that_the_database_never_takes_fails_the_attempt(shop, durable, monkeypatch):
    @durable.activity(transactional=True)
    def order(number):
        shop.Order.create(number=number)

    durable.start_worker()
    lost_answer(shop, monkeypatch, is_done=False, times=3)
    failed = call(durable, order, 7)
    assert failed.runtime_status is RuntimeStatus.FAILED
    assert "closed the connection" in failed.failure_details.message
    assert shop.orders() == []


def test_a_constraint_that_is_checked_at_the_commit_fails_the_attempt(shop, durable, monkeypatch):
    runs = []

    @durable.activity(transactional=True)
    def order(number):
        runs.append(number)
        shop.Order.create(number=number)

    durable.start_worker()
    lost_answer(shop, monkeypatch, is_done=False, error=peewee.IntegrityError("foreign key"))
    assert "foreign key" in call(durable, order, 7).failure_details.message
    assert (len(runs), shop.orders()) == (1, [])


def test_a_lost_connection_fails_the_attempt_and_no_other(shop, durable, is_sqlite):
    if is_sqlite:
        pytest.skip("a file has no connection to lose")
    text = "SELECT pg_terminate_backend(pg_backend_pid())" if isinstance(shop.database, peewee.PostgresqlDatabase) else "KILL CONNECTION_ID()"

    @durable.activity(transactional=True)
    def order(number):
        shop.Order.create(number=current_activity.attempt)
        if current_activity.attempt == 1:
            shop.database.execute_sql(text)

    durable.start_worker()
    assert call(durable, order, retry_policy=TWICE).runtime_status is RuntimeStatus.COMPLETED
    assert shop.orders() == [2]


# -- what it must not do


def ends_it(database):
    database.rollback()


def commits_it(database):
    database.commit()


def leaves_one_open(database):
    database.session_start()


def ends_the_session(database):
    database.session_commit()


@pytest.mark.parametrize("misdeed", [ends_it, commits_it, leaves_one_open, ends_the_session])
def test_one_that_does_not_leave_its_transaction_alone_fails(shop, durable, misdeed):
    @durable.activity(transactional=True)
    def meddles(_):
        misdeed(shop.database)

    @durable.activity(transactional=True)
    def order(number):
        shop.Order.create(number=number)

    durable.start_worker()
    assert "must leave its transaction as it is" in call(durable, meddles).failure_details.message
    assert call(durable, order, 1).runtime_status is RuntimeStatus.COMPLETED  # nothing of that is left in the thread
    assert shop.orders() == [1]


def test_one_that_ends_its_own_instance_fails(shop, durable):
    @durable.activity(transactional=True)
    def terminates(_):
        shop.Order.create(number=1)
        durable.client.terminate(current_activity.instance_id)

    durable.start_worker()
    assert "cannot end or delete the instance" in call(durable, terminates).failure_details.message
    assert shop.orders() == []


def test_a_statement_that_fails_and_is_passed_over(shop, durable):
    @durable.activity(transactional=True)
    def passes_over(_):
        shop.Order.create(number=1)
        with contextlib.suppress(peewee.PeeweeException):
            shop.database.execute_sql("SELECT nonsense FROM nowhere")
        return "done"

    durable.start_worker()
    ended = call(durable, passes_over)
    if isinstance(shop.database, peewee.PostgresqlDatabase):  # it has given the transaction up
        assert "transaction is aborted" in ended.failure_details.message
        assert shop.orders() == []
    else:
        assert (ended.output, shop.orders()) == ("done", [1])


def test_an_app_that_closes_its_database_with_each_context(shop):
    durable = shop.app()
    app = durable._state()._app

    @app.teardown_appcontext
    def close(_):
        if not shop.database.is_closed():
            shop.database.close()

    @durable.activity(transactional=True)
    def order(number):
        shop.Order.create(number=number)

    durable.start_worker()
    assert call(durable, order, 1).runtime_status is RuntimeStatus.COMPLETED
    assert shop.orders() == [1]


# -- with the other options


def test_with_limits_and_at_most_once(shop, durable):  # rules 54, 56
    @durable.activity(transactional=True, at_most_once=True, hub_concurrency=2, priority=5, timeout=30)
    def one(number):
        shop.Order.create(number=number)

    @durable.activity(transactional=True, max_concurrency=1)
    def other(number):
        shop.Order.create(number=number)

    @durable.orchestrator
    def fan(ctx):
        yield ctx.when_all([ctx.call_activity((one, other)[number % 2], number) for number in range(20)])

    durable.start_worker()
    assert run(durable, fan).runtime_status is RuntimeStatus.COMPLETED
    assert shop.orders() == list(range(20))
    assert durable._state().worker.engine._capacity._taken == 0


def test_stopping_waits_for_the_one_that_runs_and_leaves_the_others(shop, durable, stop):  # WRK-2
    runs, turns = [], itertools.count()

    @durable.activity(transactional=True)
    def order(number):
        is_first = next(turns) == 0
        runs.append(number)
        shop.Order.create(number=number)
        if is_first:
            stop.wait()

    @durable.orchestrator
    def fan(ctx):
        yield ctx.when_all([ctx.call_activity(order, number) for number in range(40)])

    durable.start_worker()
    instance_id = durable.client.start(fan)
    assert stop.arrived.wait(30)
    thread = threading.Thread(target=durable.stop_worker)
    thread.start()
    stop.may_go.set()
    thread.join(30)
    assert len(shop.orders()) == len(runs)
    durable.start_worker()
    assert finish(durable, instance_id).runtime_status is RuntimeStatus.COMPLETED
    assert shop.orders() == list(range(40))


def test_the_option_is_true_or_false(durable):
    with pytest.raises(InvalidArgumentError, match="transactional is True or False"):
        durable.activity(transactional="yes")


# -- where it cannot be


def url_app(tmp_path):
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True)
    return app


def test_with_a_url_it_is_refused_where_it_is_registered(tmp_path):
    durable = FlaskDurable(url_app(tmp_path))
    with pytest.raises(ConfigurationError, match="activity 'order' is transactional, so it has to be the Peewee Database object"):

        @durable.activity(transactional=True)
        def order(number):
            pass

    assert durable.registry.activity_names() == ()
    blueprint = DurableBlueprint()
    blueprint.activity(order, transactional=True) if False else blueprint.activity(name="later", transactional=True)(lambda _: None)
    with pytest.raises(ConfigurationError, match="'later' is transactional"):
        durable.register(blueprint)
    durable.close()


def test_with_a_url_it_is_refused_where_the_app_is_set_up(tmp_path):
    durable = FlaskDurable()
    durable.activity(name="order", transactional=True)(lambda number: None)
    with pytest.raises(ConfigurationError, match="'order' is transactional"):
        durable.init_app(url_app(tmp_path))
