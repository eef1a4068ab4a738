"""Apps: several in one process, blueprints, an app's own database, and when a worker starts by itself."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import peewee
import pytest
from support import finish, look, run, until

from flask_durable import (
    ConfigurationError,
    DurableBlueprint,
    FlaskDurable,
    InstanceNotFoundError,
    InvalidArgumentError,
    NotRegisteredError,
    RuntimeStatus,
)


@pytest.fixture
def close():
    """Closes what a test made."""
    made = []
    yield made.append
    for durable in made:
        durable.close()


# -- several apps


def test_two_apps_in_one_process_do_not_see_each_other(make_app, close):  # DESIGN 1, REG-2
    durables = []
    for name in ("one", "two"):
        durable = FlaskDurable(make_app(name))
        close(durable)
        durable.orchestrator(name="whoami")(lambda ctx, _, name=name: name)
        durable.orchestrator(name=f"only-{name}")(lambda ctx: None)
        durable.start_worker()
        durables.append(durable)
    assert [run(durable, "whoami", instance_id="same").output for durable in durables] == ["one", "two"]
    assert [durable.client.count() for durable in durables] == [1, 1]
    with pytest.raises(NotRegisteredError):
        durables[0].registry.orchestrator("only-two")
    durables[0].stop_worker()
    assert run(durables[1], "whoami").output == "two"


def test_one_object_serves_several_apps(make_app):  # DESIGN 1
    # Given one object with one orchestrator, on two apps
    durable = FlaskDurable()
    apps = [make_app(name) for name in ("one", "two")]

    @durable.activity
    def where():
        from flask import current_app

        return current_app.name

    @durable.orchestrator
    def tells(ctx):
        return (yield ctx.call_activity(where))

    for app in apps:
        durable.init_app(app)

    # When each app starts one, in its context, then each has its own
    for app in apps:
        with app.app_context():
            durable.start_worker()
            assert run(durable, tells, instance_id="same").output == app.name
            assert durable.client.count() == 1
    for app in apps:
        with app.app_context():
            durable.close()


def test_outside_a_context_the_first_app_is_meant(make_app, close):
    durable = FlaskDurable()
    with pytest.raises(InvalidArgumentError, match="has no app yet"):
        _ = durable.client
    app = make_app()
    durable.init_app(app)
    close(durable)
    durable.client.start("x", instance_id="a")
    with app.app_context():
        assert look(durable, "a").name == "x"


def test_an_app_is_set_up_once(make_app, close):
    app = make_app()
    close(FlaskDurable(app))
    with pytest.raises(InvalidArgumentError, match="already set up on this app"):
        FlaskDurable(app)


# -- registering


def test_a_blueprint_brings_its_functions(make_app, close):  # REG-1
    blueprint = DurableBlueprint()

    @blueprint.activity(name="math.double")
    def double(value):
        return value * 2

    @blueprint.orchestrator
    def doubles(ctx, value):
        return (yield ctx.call_activity(double, value))

    durables = []
    for name in ("one", "two"):
        durable = FlaskDurable(make_app(name))
        close(durable)
        durable.register(blueprint)
        durable.start_worker()
        durables.append(durable)
    assert [run(durable, doubles, 21).output for durable in durables] == [42, 42]
    assert double(1) == 2  # functions stay what they are
    with pytest.raises(InvalidArgumentError, match="already registered"):
        durables[0].register(blueprint)


def test_functions_can_be_registered_while_the_worker_runs(make_app, close):  # REG-1
    durable = FlaskDurable(make_app())
    close(durable)
    durable.start_worker()
    instance_id = durable.client.start("later")
    assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING
    durable.orchestrator(name="later")(lambda ctx: "came")
    assert finish(durable, instance_id).output == "came"


@pytest.mark.parametrize("name", ["", " ", "@x", "a/b", "x" * 201, "a\nb", 5])
def test_names_are_checked(make_app, close, name):  # REG-1, B5
    durable = FlaskDurable(make_app())
    close(durable)
    for register in (durable.orchestrator, durable.activity):
        with pytest.raises(InvalidArgumentError):
            register(name=name)(lambda ctx: None)
    with pytest.raises(InvalidArgumentError, match="no name of its own"):
        durable.activity(lambda: None)
    with pytest.raises(InvalidArgumentError, match="is a function"):
        durable.activity(5)


def test_a_name_belongs_to_one_function(make_app, close):  # REG-1
    durable = FlaskDurable(make_app())
    close(durable)
    durable.activity(name="same")(lambda: 1)
    durable.orchestrator(name="same")(lambda ctx: 1)
    with pytest.raises(InvalidArgumentError, match="An activity named 'same' is already registered"):
        durable.activity(name="same")(lambda: 2)


# -- when a worker starts


def is_running(app):
    return app.extensions["durable"].is_worker_running


def test_testing_starts_no_worker(make_app, close):  # DESIGN 2
    app = make_app()
    durable = FlaskDurable(app)
    close(durable)
    app.route("/")(lambda: "page")
    instance_id = durable.client.start("x")
    assert app.test_client().get("/").status_code == 200
    assert not is_running(app)
    assert app.extensions["durable"].start_mode() == "TESTING is set"
    assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING
    assert [thread for thread in threading.enumerate() if thread.name.startswith("durable-")] == []


def test_a_worker_can_be_switched_off_for_good(make_app, close):  # DESIGN 3.4
    app = make_app(TESTING=False, DURABLE_WORKER=False)
    durable = FlaskDurable(app)
    close(durable)
    durable.client.start("x")
    assert not is_running(app)
    assert app.extensions["durable"].start_mode() == "DURABLE_WORKER is off"


def test_a_serving_process_starts_its_worker_without_a_request(make_app, close):  # DESIGN 3.2
    app = make_app(DURABLE_WORKER=True)
    began = time.monotonic()
    durable = FlaskDurable(app)
    close(durable)
    durable.orchestrator(name="x")(lambda ctx: "ran")
    until(lambda: is_running(app))
    assert time.monotonic() - began < 2
    assert run(durable, "x").output == "ran"


def test_a_first_request_starts_it_at_the_latest(make_app, close):  # ecosystem 6.3
    app = make_app(DURABLE_WORKER=True)
    app.route("/")(lambda: "page")
    durable = FlaskDurable(app)
    close(durable)
    app.test_client().get("/")
    until(lambda: is_running(app))


def test_a_closed_app_starts_no_worker_any_more(make_app):
    app = make_app(DURABLE_WORKER=True)
    app.route("/")(lambda: "page")
    durable = FlaskDurable(app)
    durable.close()
    app.test_client().get("/")
    assert not is_running(app)


# -- the app's own database


@pytest.fixture(params=["pooled", "plain"])
def own(request, make_app, close, tmp_path):
    """An app with a Peewee database of its own, and a table in it."""
    from playhouse.pool import PooledSqliteDatabase

    kind = PooledSqliteDatabase if request.param == "pooled" else peewee.SqliteDatabase
    database = kind(str(tmp_path / "own.db"), pragmas={"journal_mode": "wal"}, timeout=10, check_same_thread=request.param != "pooled")

    class Order(peewee.Model):
        number = peewee.IntegerField()

        class Meta:
            pass

    Order._meta.set_database(database)
    with database:
        database.create_tables([Order])
    durable = FlaskDurable(make_app(DURABLE_DATABASE=database, DURABLE_DATABASE_TIMEOUT=2.0, DURABLE_TURN_TIMEOUT=2.0))

    @durable.activity
    def count():
        database.connect(reuse_if_open=True)
        return Order.select().count()

    @durable.orchestrator
    def counts(ctx):
        return (yield ctx.call_activity(count))

    yield durable, database, Order
    durable.close()
    if not database.is_closed():
        database.close()


def test_a_pool_whose_connections_stay_in_their_thread_is_refused(make_app, tmp_path):
    from playhouse.pool import PooledSqliteDatabase

    with pytest.raises(ConfigurationError, match="check_same_thread=False"):
        FlaskDurable(make_app(DURABLE_DATABASE=PooledSqliteDatabase(str(tmp_path / "own.db"))))


def test_durable_tables_live_beside_the_apps_own(own):  # DESIGN 3.4
    durable, database, order = own
    with database:
        order.create(number=1)
        assert {"order", "durable_instance", "durable_schema"} <= set(database.get_tables())
    durable.start_worker()
    assert run(durable, "counts").output == 1
    assert database.is_closed()  # the caller's thread has no connection that it did not open


@pytest.mark.parametrize("is_running", [True, False])
def test_a_start_inside_a_transaction_takes_effect_with_it(own, is_running):  # DESIGN 3.1.6
    durable, database, order = own
    if is_running:
        durable.start_worker()

    # Given a start beside data of the app, in one transaction
    with database, database.atomic():
        order.create(number=1)
        instance_id = durable.client.start("counts")
        durable.client.raise_event(instance_id, "Note", 1)
        assert look(durable, instance_id).runtime_status is RuntimeStatus.PENDING

    # When it is committed, then the instance runs and sees the data
    durable.start_worker()
    assert finish(durable, instance_id).output == 1


@pytest.mark.parametrize("is_running", [True, False])
def test_a_start_inside_a_rolled_back_transaction_never_was(own, is_running):  # DESIGN 3.1.6
    durable, database, order = own
    if is_running:
        durable.start_worker()
    waiting = durable.client.start("counts-later")
    with database:
        with database.atomic() as transaction:
            order.create(number=1)
            instance_id = durable.client.start("counts")
            durable.client.terminate(waiting)
            transaction.rollback()
        assert order.select().count() == 0
    assert durable.client.get_status(instance_id) is None
    assert look(durable, waiting).runtime_status is RuntimeStatus.PENDING
    with pytest.raises(InstanceNotFoundError):
        durable.client.raise_event(instance_id, "Go")
    durable.start_worker()
    assert run(durable, "counts").output == 0


def test_an_error_of_a_command_leaves_the_callers_transaction_alone(own):  # DESIGN 3.1.6
    durable, database, order = own
    with database, database.atomic():
        order.create(number=1)
        durable.client.start("counts", instance_id="a")
        with pytest.raises(Exception, match="already exists"):
            durable.client.start("counts", instance_id="a")
        with pytest.raises(InstanceNotFoundError):
            durable.client.terminate("unknown")
    with database:
        assert order.select().count() == 1
    assert durable.client.count() == 1


def test_a_connection_that_an_activity_leaves_open_is_given_back(own):  # rule 57
    durable, database, _ = own
    states = []

    @durable.activity
    def opens():
        states.append(database.is_closed())
        database.connect()

    @durable.orchestrator
    def opens_often(ctx):
        for _ in range(5):
            yield ctx.call_activity(opens)

    durable.start_worker()
    assert run(durable, opens_often).runtime_status is RuntimeStatus.COMPLETED
    assert states == [True] * 5


@pytest.mark.parametrize("config", [{"DURABLE_WORKER": False}, {"TESTING": True}])
def test_a_fork_does_not_start_a_worker_that_is_not_wanted(tmp_path, config):
    script = f"""
import os, sys, time
from flask import Flask
from flask_durable import FlaskDurable

app = Flask("shop", instance_path={str(tmp_path)!r})
app.config.update(DURABLE_DATABASE="sqlite:///{tmp_path}/durable.db", **{config!r})
durable = FlaskDurable(app)
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
time.sleep(0.6)  # longer than a forked process waits before it starts one
os._exit(int(app.extensions["durable"].is_worker_running))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("name", ["durable._watchers._lock", "database._lock", "database._pool_lock"])
def test_a_fork_beside_a_busy_thread_does_not_hang(tmp_path, name):
    # Given a thread that holds a lock at the moment of the fork
    script = f"""
import os, signal, sys, threading
os.register_at_fork(after_in_child=lambda: signal.alarm(20))
from flask import Flask
from flask_durable import FlaskDurable
from flask_durable.errors import WaitTimeoutError

app = Flask("shop", instance_path={str(tmp_path)!r})
app.config.update(DURABLE_DATABASE="sqlite:///{tmp_path}/durable.db", TESTING=True)
durable = FlaskDurable(app)
durable.orchestrator(name="waits")(lambda ctx: (yield ctx.wait_for_external_event("Go")))
durable = app.extensions["durable"]
database = durable.store._sql.database
is_held, is_over = threading.Event(), threading.Event()

def hold():
    with {name}:
        is_held.set()
        is_over.wait()

threading.Thread(target=hold, daemon=True).start()
is_held.wait()
database.close_idle = lambda: None  # it would wait for the thread, as it must
pid = os.fork()
is_over.set()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
try:
    durable.client.wait_for_completion(durable.client.start("waits"), timeout=0.01)
except WaitTimeoutError:
    os._exit(0)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60, check=False).returncode == 0
