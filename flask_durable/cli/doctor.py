"""The command that looks whether everything is in order."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

from flask_durable.cli.documents import time_text
from flask_durable.cli.group import DurableState, app_state
from flask_durable.cli.options import json_option
from flask_durable.cli.output import echo, echo_json, print_fields, safe
from flask_durable.config import Settings
from flask_durable.core.capabilities import waiting_reason
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import from_micros
from flask_durable.errors import DurableError, InstanceNotFoundError
from flask_durable.storage.interface import Batch, InstanceFilter, Purge, Store

_PACKAGES = ("flask-durable", "Flask", "flask-smorest", "peewee", "APScheduler")
_STATUSES = tuple(status for status in RuntimeStatus if status not in (RuntimeStatus.CANCELED, RuntimeStatus.CONTINUED_AS_NEW))
_WAITS_MICROS = 1_000_000
_MOST_WAITING = 1000
_NOBODY = "@doctor"
"""No instance can have this id: asking to purge it opens a transaction for writing and changes nothing."""


@click.command("doctor")
@json_option
@with_appcontext
def doctor(as_json: bool) -> None:
    """Check the set-up: database, tables, workers, access. Exit status 1 when something is wrong."""
    report = examine(app_state(checks_tables=False))
    if as_json:
        echo_json(report.document())
    else:
        print_fields(list(_lines(report)))
        for warning in report.warnings:
            echo(f"{click.style('Warning:', fg='yellow')} {safe(warning)}")
        for problem in report.problems:
            echo(f"{click.style('Problem:', fg='red')} {safe(problem)}")
        if not report.problems:
            echo(click.style("All is well" if not report.warnings else "It works, with warnings", fg="green"))
    if report.problems:
        raise click.exceptions.Exit(1)


@dataclass(slots=True)
class Report:
    """What was found; parts that could not be looked at are missing."""

    app: str
    versions: dict[str, str]
    database: str
    is_writable: bool = False
    schema_version: int | None = None
    orchestrators: tuple[str, ...] = ()
    activities: tuple[str, ...] = ()
    workers: list[dict[str, Any]] = field(default_factory=list)
    instances: dict[str, int] = field(default_factory=dict)
    parked: int = 0
    serving: str = ""
    this_process: str = ""
    access: str = ""
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "app": self.app,
            "versions": self.versions,
            "database": {"url": self.database, "writable": self.is_writable, "schemaVersion": self.schema_version},
            "orchestrators": list(self.orchestrators),
            "activities": list(self.activities),
            "workers": self.workers,
            "instances": self.instances,
            "parked": self.parked,
            "serving": self.serving,
            "thisProcess": self.this_process,
            "access": self.access,
            "warnings": self.warnings,
            "problems": self.problems,
        }


def examine(state: DurableState) -> Report:
    """Look at everything; what is wrong becomes a problem in the report."""
    report = Report(
        app=current_app.name,
        versions={"Python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        database=state.database_url,
        orchestrators=state.registry.orchestrator_names(),
        activities=state.registry.activity_names(),
        serving=serving_mode(state.settings, is_testing=current_app.testing),
        this_process=state.start_mode(),
        access=access_mode(state.settings),
    )
    if not report.orchestrators:
        report.warnings.append("No orchestrator is registered; is the module imported that defines them?")
    looks: tuple[Callable[[Store, Report], None], ...] = (
        _look_at_schema,
        _look_at_writing,
        _look_at_workers,
        _look_at_instances,
        _look_at_waiting,
    )
    for look in looks:
        try:
            look(state.store, report)
        except DurableError as error:
            report.problems.append(str(error))
            break
    return report


def serving_mode(settings: Settings, *, is_testing: bool) -> str:
    """What a process that serves the app does, in words."""
    if settings.worker is False:
        return "serving processes only accept work, workers of their own do it (DURABLE_WORKER is off)"
    if settings.worker is None and is_testing:
        return "no worker starts by itself (TESTING is set)"
    return "each serving process runs a worker"


def access_mode(settings: Settings) -> str:
    """Who may use the management API, in words."""
    if not settings.management_api:
        return "the management API is switched off (DURABLE_MANAGEMENT_API)"
    modes = []
    if settings.api_keys:
        modes.append(f"callers with one of {len(settings.api_keys)} API keys (DURABLE_API_KEYS)")
    if settings.authorizer is not None:
        modes.append("whom the app's authorizer admits (DURABLE_AUTHORIZER)")
    if not modes:
        modes.append("everybody (DURABLE_ALLOW_ANONYMOUS)" if settings.allow_anonymous else "direct requests from this machine only")
    return ", and of these ".join(modes)


def _look_at_schema(store: Store, report: Report) -> None:
    report.schema_version = store.schema_version()
    store.check_schema()


def _look_at_writing(store: Store, report: Report) -> None:
    for outcome in store.commit(Batch(commands=[Purge(_NOBODY)])).outcomes:
        if isinstance(outcome, DurableError) and not isinstance(outcome, InstanceNotFoundError):
            raise outcome
    report.is_writable = True


def _look_at_workers(store: Store, report: Report) -> None:
    now = store.now()
    for each in store.workers():
        report.workers.append(
            {
                "id": each.worker_id,
                "host": each.host,
                "process": each.pid,
                "startedTime": time_text(from_micros(each.started_at)),
                "heartbeatAgeSeconds": round(max(0, now - each.heartbeat_at) / 1_000_000, 1),
                "expired": each.expires_at <= now,
                "version": each.capabilities.rule.version,
            }
        )


def _look_at_instances(store: Store, report: Report) -> None:
    report.instances = {status.value: store.count_instances(InstanceFilter(statuses=(status,))) for status in _STATUSES}
    report.parked = store.count_instances(InstanceFilter(is_parked=True))
    if report.parked:
        report.warnings.append(f"{report.parked} instances are parked; look at them with `flask durable list --parked`")
    waiting = report.instances[RuntimeStatus.PENDING]
    if waiting and all(each["expired"] for each in report.workers):
        report.warnings.append(f"{waiting} instances are Pending and no worker is alive; serve the app or run `flask durable worker`")


def _look_at_waiting(store: Store, report: Report) -> None:
    """Tell of instances that are due and that none of the running workers takes."""
    workers = [worker.capabilities for worker in store.live_workers()]
    if not workers:
        return
    reasons: dict[str, int] = {}
    for record in store.unclaimable([worker.runnable() for worker in workers], None, store.now() - _WAITS_MICROS, _MOST_WAITING):
        reason = waiting_reason(record.name, record.version, workers)
        if reason is not None:
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        report.warnings.append(f"{count}{' or more' if count >= _MOST_WAITING else ''} instances wait: {reason}")


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    yield "App", report.app
    yield "Versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield "Database", f"{report.database} ({'can be written' if report.is_writable else 'not looked into, or cannot be written'})"
    yield "Schema", "none" if report.schema_version is None else f"version {report.schema_version}"
    yield "Orchestrators", ", ".join(report.orchestrators) or "none"
    yield "Activities", ", ".join(report.activities) or "none"
    yield "Workers", "\n".join(_worker_line(each) for each in report.workers) or "none"
    if report.instances:
        yield "Instances", ", ".join(f"{count} {status}" for status, count in report.instances.items())
    yield "Serving", report.serving
    yield "This process", report.this_process
    yield "Access", report.access


def _worker_line(each: dict[str, Any]) -> str:
    state = "EXPIRED, " if each["expired"] else ""
    return f"{each['id']} on {each['host']}, process {each['process']}, {state}last sign of life {each['heartbeatAgeSeconds']} s ago"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
