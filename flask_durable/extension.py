"""FlaskDurable: the extension object; the only place that wires the parts together."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar, overload

from flask import Flask, current_app, has_app_context
from werkzeug.local import LocalProxy

from flask_durable import cli, http
from flask_durable.cli import invocation
from flask_durable.client import DurableClient
from flask_durable.config import Settings, load_settings
from flask_durable.core.ids import check_name
from flask_durable.core.options import ActivityOptions
from flask_durable.core.retry import RetryPolicy
from flask_durable.errors import ConfigurationError, DurableError, InvalidArgumentError, SchemaVersionError, StoreUnavailableError
from flask_durable.logs import get_logger
from flask_durable.registry import Activity, Function, Registry
from flask_durable.runtime import servers
from flask_durable.runtime.abilities import WorkFilter
from flask_durable.runtime.activities import ActivityContext, present_activity
from flask_durable.runtime.health import Health
from flask_durable.runtime.startup import Role, StartUp
from flask_durable.runtime.worker import Worker
from flask_durable.storage.database import ServerOptions
from flask_durable.storage.interface import Batch, Command, Committed, Outcome
from flask_durable.storage.sql_store import SqlStore
from flask_durable.telemetry import Telemetry, instrument
from flask_durable.watchers import Watchers

logger = get_logger("flask_durable")

AnyFunction = TypeVar("AnyFunction", bound=Function)
AnyException = TypeVar("AnyException", bound=type[Exception])

current_activity: ActivityContext = LocalProxy(
    present_activity, unbound_message="There is no current activity: this code does not run inside an activity that an orchestrator called"
)  # type: ignore[assignment]  # a proxy of it
"""The call that the running activity serves; a proxy, as ``flask.current_app`` is."""


class DurableBlueprint:
    """A collection of orchestrators and activities that a module defines without an app."""

    def __init__(self) -> None:
        self.registry = Registry()

    @overload
    def orchestrator(self, function: AnyFunction, /) -> AnyFunction: ...

    @overload
    def orchestrator(
        self, function: None = None, /, *, name: str | None = None, version: str | None = None
    ) -> Callable[[AnyFunction], AnyFunction]: ...

    def orchestrator(self, function: Any = None, /, *, name: str | None = None, version: str | None = None) -> Any:
        """Register an orchestrator, under its own name or the one given; the function stays what it is (REG-1).

        Args:
            function: the orchestrator, when the decorator is used without parentheses.
            name: its name; otherwise that of the function.
            version: the version of the instances it runs; it also runs those of later versions that have no orchestrator of their own (rule 50).
        """
        return _decorate(lambda decorated: self.registry.add_orchestrator(decorated, name, version), function)

    @overload
    def activity(self, function: AnyFunction, /) -> AnyFunction: ...

    @overload
    def activity(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        timeout: float | timedelta | None = None,
        non_retriable: Sequence[type[BaseException] | str] = (),
        at_most_once: bool = False,
        max_concurrency: int | None = None,
        hub_concurrency: int | None = None,
        priority: int = 0,
        retry_policy: RetryPolicy | None = None,
        transactional: bool = False,
    ) -> Callable[[AnyFunction], AnyFunction]: ...

    def activity(self, function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
        """Register an activity, under its own name or the one given; the function stays what it is (REG-1).

        Args:
            function: the function, when the decorator is used without parentheses.
            name: its name; otherwise the function's own.
            options: see :class:`ActivityOptions`.

        Raises:
            InvalidArgumentError: the name is taken or not allowed, or an option has a wrong value.
            ConfigurationError: it is transactional, and the app's durable state is not in a database object of the app's own.
        """
        checked = ActivityOptions(**options)
        return _decorate(lambda decorated: self.registry.add_activity(decorated, name, checked), function)

    def exception(self, kind: AnyException, /) -> AnyException:
        """Register an exception class, so that ``except`` catches it around a call in an orchestrator; also a decorator (rule 30).

        It is caught as :class:`TaskFailedError` too. Its arguments and attributes travel as data, as far as JSON can carry them.

        Raises:
            InvalidArgumentError: it is no class derived from Exception, or another one has its name.
        """
        return self.registry.exceptions.add(kind)


class FlaskDurable(DurableBlueprint):
    """Durable orchestrations for Flask apps; ``FlaskDurable(app)``, or ``FlaskDurable()`` and ``init_app(app)``.

    The object holds the registered functions; what belongs to an app is kept in ``app.extensions["durable"]``.
    """

    def __init__(self, app: Flask | None = None) -> None:
        super().__init__()
        self._only: AppState | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set an app up: configuration, storage, endpoints, command line, and a worker in each process that serves.

        Raises:
            ConfigurationError: a DURABLE_ key has a wrong value.
            SchemaVersionError: the tables were made by other code.
            InvalidArgumentError: the app has been set up already.
        """
        if "durable" in app.extensions:
            raise InvalidArgumentError("A FlaskDurable is already set up on this app; keep the one object and register everything with it")
        state = AppState(app, self.registry)
        app.extensions["durable"] = state
        self._only = state if self._only is None else self._only
        app.cli.add_command(cli.durable)
        app.shell_context_processor(lambda: {"durable": self})
        if state.settings.management_api:
            http.register(app, client=state.client, registry=self.registry, settings=state.settings, telemetry=state.telemetry, api=None)
        app.before_request(state.on_request)
        if state.settings.otel == "instrument":
            instrument(app)
        state.startup.arm()

    def register(self, blueprint: DurableBlueprint) -> None:
        """Add the orchestrators and activities of a blueprint (REG-1)."""
        self.registry.include(blueprint.registry)

    # -- the parts of one app

    @property
    def client(self) -> DurableClient:
        """The management service of the current app, or of the only one."""
        return self._state().client

    def create_tables(self) -> None:
        """Create the tables, or bring them up to date."""
        self._state().store.create_tables()

    def drop_tables(self) -> None:
        """Delete the tables with all they hold."""
        self._state().store.drop_tables()

    def start_worker(self, orchestrations: Iterable[object] | None = None, activities: Iterable[object] | None = None) -> None:
        """Start a worker in this process now.

        Args:
            orchestrations: functions or names of the only orchestrators it runs, none for an empty list; otherwise ``DURABLE_WORKER_ORCHESTRATIONS``.
            activities: functions or names of the only activities it runs, likewise; otherwise ``DURABLE_WORKER_ACTIVITIES`` (WRK-5).

        Raises:
            InvalidArgumentError: limits are given and a worker is running already.
        """
        self._state().start_worker(orchestrations, activities)

    def stop_worker(self) -> None:
        """Stop this process's worker; returns when no user code runs (WRK-2)."""
        self._state().stop_worker(waits=True)

    def close(self) -> None:
        """Stop the worker and give back all connections."""
        self._state().close()

    def _state(self) -> AppState:
        if has_app_context():
            found = current_app.extensions.get("durable")
            if isinstance(found, AppState) and found.registry is self.registry:
                return found
        if self._only is None:
            raise InvalidArgumentError("This FlaskDurable has no app yet: call init_app(app) first, or use it inside an app context")
        return self._only


class AppState:
    """What one app has: settings, storage, client and, in a serving process, the worker."""

    def __init__(self, app: Flask, registry: Registry) -> None:
        self.registry = registry
        self.settings: Settings = load_settings(app.config)
        target = self.settings.database or f"sqlite:///{os.path.join(app.instance_path, 'durable.db')}"
        self.store = SqlStore(
            target,
            hub=self.settings.task_hub,
            sqlite_synchronous=self.settings.sqlite_synchronous,
            timeout=self.settings.database_timeout,
            server=ServerOptions(self.settings.max_connections, self.settings.database_sessions),
        )
        self.database_url = self.store.name
        registry.check_activities(functools.partial(_check_activity, self.store.is_shared, self.store.name))
        self.telemetry = Telemetry(is_enabled=self.settings.otel != "off")
        self._watchers = Watchers()
        self._app = app
        self._worker: Worker | None = None
        self._stopping: Worker | None = None
        self.client = DurableClient(
            self.store,
            execute=self._execute,
            registry=registry,
            settings=self.settings,
            watchers=self._watchers,
            telemetry=self.telemetry,
        )
        self._is_testing = bool(app.testing)
        self.startup = StartUp(self.start_worker, self._let_go, self._forget_parent, self._role)
        self._prepare_schema()
        self._let_go()
        atexit.register(_at_exit, weakref.ref(self))

    # -- the worker

    @property
    def is_worker_running(self) -> bool:
        """Whether this process runs a worker for the app."""
        return self._worker is not None

    @property
    def worker(self) -> Worker | None:
        """This process's worker."""
        return self._worker

    def worker_health(self) -> Health:
        """How this process's worker is."""
        worker = self._worker or self._stopping
        return Health(False, False, "no worker runs in this process") if worker is None else worker.health()

    @property
    def ended_calls(self) -> int:
        """How many activity calls have ended in this process's worker."""
        worker = self._worker
        return 0 if worker is None else worker.ended_calls

    def start_mode(self) -> str:
        """Whether and why this process starts a worker by itself, for people."""
        return self.startup.reason

    def start_worker(self, orchestrations: Iterable[object] | None = None, activities: Iterable[object] | None = None) -> None:
        """Start a worker in this process now.

        Args:
            orchestrations: the only orchestrators it runs; those of the configuration for None.
            activities: the only activities it runs; those of the configuration for None.

        Raises:
            SchemaVersionError: the tables are missing or do not fit.
            InvalidArgumentError: limits are given and a worker is running already, or a transaction is open.
        """
        if self._worker is not None:
            if orchestrations is not None or activities is not None:
                raise InvalidArgumentError("This process runs a worker already, with limits of its own; call stop_worker() first")
            return
        if self.store.in_callers_transaction():
            raise InvalidArgumentError("A worker cannot be started inside a transaction: its own thread would not see what is written here")
        self.store.check_schema()
        settings = self.settings
        worker = Worker(
            self.store,
            self.registry,
            settings,
            watchers=self._watchers,
            telemetry=self.telemetry,
            activity_context=self._activity_context,
            work_filter=WorkFilter(
                self._chosen("orchestrator", orchestrations, settings.worker_orchestrations),
                self._chosen("activity", activities, settings.worker_activities),
            ),
        )
        worker.start()
        self._worker = worker
        self.startup.started()

    def _chosen(self, kind: str, given: Iterable[object] | None, configured: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if given is None:
            return configured
        if isinstance(given, str):
            raise InvalidArgumentError(f"A worker is limited by a list of functions or names, not by the text {given!r}")
        return tuple(sorted({check_name(kind, self.registry.name_of(each)) for each in given}))

    def stop_worker(self, *, waits: bool = False) -> bool:
        """Stop the worker; returns whether no user code runs any more.

        Args:
            waits: wait for running activities however long they take, instead of the configured grace.
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return True
        self._stopping = worker
        try:
            return worker.stop(None if waits else self.settings.shutdown_grace)
        finally:
            self._stopping = None

    def close(self) -> None:
        """Stop the worker for good and give back all connections."""
        self.startup.close()
        self.stop_worker(waits=True)
        self.store.close()

    def shut_down(self) -> None:
        """The process ends: running activities get the grace, the rest is given to others."""
        self.startup.close()
        try:
            self.stop_worker()
        except DurableError as error:
            logger.warning("The worker could not give its work back; others take it when its lease is over: %s", error)

    def on_request(self) -> None:
        """Runs before each request of the app."""
        if self._starts_by_itself:
            self.startup.request()

    @property
    def _starts_by_itself(self) -> bool:
        return self.settings.worker is True or (self.settings.worker is None and not self._is_testing)

    def _role(self) -> Role:
        if not self._starts_by_itself:
            return Role(False, "DURABLE_WORKER is off" if self.settings.worker is False else "TESTING is set", is_off=True)
        return _role()

    def _let_go(self) -> None:
        # SQLite would take the parent's locks for its own in every child, and work without any.
        self.store.close_idle()

    def _forget_parent(self) -> None:
        self._worker = None
        self._watchers.forget()
        self.store.forget_connections()

    @contextlib.contextmanager
    def _activity_context(self) -> Iterator[None]:
        with self._app.app_context(), self.store.guard():
            yield

    # -- commands

    def _execute(self, command: Command) -> Outcome:
        if self.store.in_callers_transaction():
            committed = self.store.commit(Batch(commands=[command]))
            self.store.after_commit(lambda: self._was_committed(committed))
            return committed.outcomes[0]
        if self._starts_by_itself and not self.is_worker_running:
            self._take_part()
        worker = self._worker
        if worker is not None:
            return worker.execute(command)
        return self._execute_alone(command)

    def _take_part(self) -> None:
        # A client call in a forked server process that no hook announced; not in commands, which only pass by.
        if _role().serves:
            self.startup.request()

    def _execute_alone(self, command: Command) -> Outcome:
        committed = self.store.commit(Batch(commands=[command]))
        self._watchers.notify((*committed.ended, *committed.taken))
        return committed.outcomes[0]

    def _was_committed(self, committed: Committed) -> None:
        # An exception would come out of the caller's block, which by then is committed
        try:
            self._watchers.notify((*committed.ended, *committed.taken))
            if self._starts_by_itself and not self.is_worker_running and not self.store.in_callers_transaction():
                self._take_part()
            worker = self._worker
            if worker is not None:
                worker.wake()
        except Exception:
            logger.exception("What a transaction of the app has started could not be taken up at once; the next look finds it")

    def _prepare_schema(self) -> None:
        try:
            found = self.store.schema_version()
        except StoreUnavailableError as error:
            raise ConfigurationError("DURABLE_DATABASE", self.database_url, f"a database that can be used, which this one cannot: {error}") from error
        if found is None and not invocation.is_schema_command():
            self.store.create_tables()
        elif not invocation.is_schema_command():
            with contextlib.suppress(SchemaVersionError) if invocation.command() not in (None, "run") else contextlib.nullcontext():
                self.store.check_schema()


def _check_activity(is_shared: bool, name: str, activity: Activity) -> None:
    if activity.options.transactional and not is_shared:
        raise ConfigurationError(
            "DURABLE_DATABASE",
            name,
            f"activity {activity.name!r} is transactional, so it has to be the Peewee Database object that the activity writes with"
            " (a URL makes connections of its own, which are in no transaction with the app's)",
        )


def _decorate(add: Callable[[Function], object], function: Any) -> Any:
    def decorator(decorated: Function) -> Function:
        add(decorated)
        return decorated

    return decorator if function is None else decorator(function)


def _at_exit(reference: weakref.ref[AppState]) -> None:
    state = reference()
    if state is not None:
        state.shut_down()


def _role() -> Role:
    command = invocation.command()
    if command is not None and command != "run":
        return Role(False, f"the command `flask {command}` does not serve")
    if command == "run" and invocation.has_reloader() and os.environ.get("WERKZEUG_RUN_MAIN") != "true":
        return Role(False, "the reloader's parent does not serve")
    if servers.is_gunicorn_master():
        return Role(False, "the gunicorn master does not serve, its workers do")
    if servers.is_uwsgi_without_threads():
        return Role(False, "uWSGI runs without threads; give it --enable-threads, or run `flask durable worker`")
    if servers.is_uwsgi_master():
        return Role(False, "the uWSGI master does not serve, its workers do")
    return Role(True, "this process serves requests", is_certain=command == "run" or servers.is_gunicorn_worker())
