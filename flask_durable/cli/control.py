"""Commands that change something: start, raise-event, terminate, suspend, resume, restart, purge."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import IO, Any

import click
from flask.cli import with_appcontext

from flask_durable.cli.group import DurableState, app_state, note
from flask_durable.cli.instances import exit_unless_completed, print_status
from flask_durable.cli.options import filter_options, instance_argument, json_option, make_filter, make_tags, moment, parse_json, tag
from flask_durable.cli.output import echo, echo_json, safe
from flask_durable.core.status import FINAL_STATUSES, RuntimeStatus
from flask_durable.errors import InstanceNotFoundError, NotRegisteredError
from flask_durable.storage.interface import IfExists, InstanceFilter

_FINAL = tuple(status for status in RuntimeStatus if status in FINAL_STATUSES)
_EVERYTHING = InstanceFilter(created_to_inclusive=True)


@click.command("start")
@click.argument("name")
@click.option("--input", "input_text", metavar="JSON", help="The input; `-` reads it from standard input.")
@click.option("--input-file", type=click.File("rb"), help="A file with the input; `-` is standard input.")
@click.option("--instance-id", metavar="ID", help="An id of your own; otherwise one is made.")
@click.option("--version", help="Its version.")
@click.option("--tag", "tags", type=tag, metavar="KEY=VALUE", multiple=True, help="A tag; may be repeated.")
@click.option("--start-at", type=moment, metavar="MOMENT", help="Not before this moment.")
@click.option(
    "--if-exists",
    type=click.Choice([each.value for each in IfExists]),
    default=IfExists.ERROR.value,
    show_default=True,
    help="When the id is in use.",
)
@click.option("--wait", is_flag=True, help="Wait until it has ended; exit status 1 unless it is then Completed.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: give up after so long; the instance goes on.")
@json_option
@with_appcontext
def start(
    name: str,
    input_text: str | None,
    input_file: IO[bytes] | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    tags: tuple[tuple[str, str], ...],
    **options: Any,
) -> None:
    """Start an orchestration and print its id.

    NAME is that of a registered orchestrator. A worker has to run somewhere: in the serving app, or as `flask durable worker`.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes together with --wait")
    state = app_state()
    given = _read_payload(state, input_text, input_file, what="input", option="--input")
    if not state.registry.has_orchestrator(name):
        raise NotRegisteredError("orchestrator", name, state.registry.orchestrator_names())
    instance_id = state.client.start(name, given, tags=make_tags(tags), **options)
    if not wait:
        _print_id(instance_id, as_json=as_json)
        return
    note(f"Started {instance_id}")
    found = state.client.wait_for_completion(instance_id, timeout=math.inf if timeout is None else timeout)
    if found is None:
        raise InstanceNotFoundError(instance_id)
    print_status(found, as_json=as_json)
    exit_unless_completed(found)


@click.command("raise-event")
@instance_argument
@click.argument("name")
@click.argument("data", required=False)
@click.option("--data-file", type=click.File("rb"), help="A file with the data.")
@click.option("--dedup-key", metavar="TEXT", help="A second event with the same key for this instance is dropped.")
@with_appcontext
def raise_event(instance_id: str, name: str, data: str | None, data_file: IO[bytes] | None, dedup_key: str | None) -> None:
    """Send an event to an instance.

    DATA is JSON; `-` reads it from standard input. The event is kept until the orchestrator waits for one of that NAME.
    """
    state = app_state()
    payload = _read_payload(state, data, data_file, what="event data", option="DATA")
    state.client.raise_event(instance_id, name, payload, dedup_key=dedup_key)
    note(f"Event {name} is recorded for {instance_id}")


@click.command("terminate")
@instance_argument
@click.option("--reason", help="Kept as the output of the instance.")
@click.option("--recursive/--no-recursive", default=True, show_default=True, help="End its open sub-orchestrations too.")
@with_appcontext
def terminate(instance_id: str, reason: str | None, recursive: bool) -> None:
    """End an instance now."""
    app_state().client.terminate(instance_id, reason, recursive=recursive)
    note(f"Terminated {instance_id}")


@click.command("suspend")
@instance_argument
@click.option("--reason", help="Kept in the history.")
@click.option("--recursive", is_flag=True, help="Hold its open sub-orchestrations too.")
@with_appcontext
def suspend(instance_id: str, reason: str | None, recursive: bool) -> None:
    """Hold an instance: no code of it runs until it is resumed."""
    app_state().client.suspend(instance_id, reason, recursive=recursive)
    note(f"Suspended {instance_id}")


@click.command("resume")
@instance_argument
@click.option("--reason", help="Kept in the history.")
@click.option("--recursive", is_flag=True, help="Let its suspended sub-orchestrations go on too.")
@with_appcontext
def resume(instance_id: str, reason: str | None, recursive: bool) -> None:
    """Let a suspended instance go on."""
    app_state().client.resume(instance_id, reason, recursive=recursive)
    note(f"Resumed {instance_id}")


@click.command("restart")
@instance_argument
@click.option("--same-id", is_flag=True, help="Under the same id, in place of the old one.")
@json_option
@with_appcontext
def restart(instance_id: str, same_id: bool, as_json: bool) -> None:
    """Run an ended instance again, with the same input, and print the id."""
    _print_id(app_state().client.restart(instance_id, new_instance_id=not same_id), as_json=as_json)


@click.command("purge")
@click.argument("instance_id", metavar="[ID]", required=False)
@click.option("--recursive", is_flag=True, help="Delete their ended sub-orchestrations too.")
@filter_options
@click.option("--dry-run", is_flag=True, help="Only count; delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where nobody can be asked.")
@json_option
@with_appcontext
def purge(instance_id: str | None, recursive: bool, dry_run: bool, yes: bool, as_json: bool, **wanted: Any) -> None:
    """Delete ended instances with their histories: one by its ID, or all that a filter means."""
    wanted_instances = make_filter(**wanted)
    if (instance_id is not None) == (wanted_instances != _EVERYTHING):
        raise click.UsageError("Give either an ID or at least one filter, for example --status Completed")
    state = app_state()
    if instance_id is not None:
        _purge_one(state, instance_id, recursive=recursive, dry_run=dry_run, as_json=as_json)
        return
    _purge_many(state, _ended(wanted_instances), recursive=recursive, dry_run=dry_run, yes=yes, as_json=as_json)


def _purge_one(state: DurableState, instance_id: str, *, recursive: bool, dry_run: bool, as_json: bool) -> None:
    if not dry_run:
        _print_deleted(state.client.purge(instance_id, recursive=recursive), as_json=as_json)
        return
    found = state.client.get_status(instance_id, show_input=False)
    if found is None:
        raise InstanceNotFoundError(instance_id)
    _print_found(1 if found.is_finished else 0, as_json=as_json)


def _purge_many(state: DurableState, wanted: InstanceFilter, *, recursive: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    if dry_run:
        _print_found(state.client.count(wanted), as_json=as_json)
        return
    if not yes:
        if not can_ask():
            raise click.UsageError("There is no terminal to ask on; say --yes, or --dry-run to only count")
        click.confirm(f"Delete {counted(state.client.count(wanted))} with their histories?", abort=True, err=True)
    _print_deleted(state.client.purge_by(wanted, recursive=recursive), as_json=as_json)


def _ended(wanted: InstanceFilter) -> InstanceFilter:
    """The same filter, for ended instances only, so that counting and deleting mean the same.

    Raises:
        click.UsageError: it asks for instances that have not ended.
    """
    live = [status.value for status in wanted.statuses if status not in FINAL_STATUSES]
    if live:
        raise click.UsageError(f"Only ended instances can be purged, not {', '.join(live)}; terminate them first")
    return replace(wanted, statuses=wanted.statuses or _FINAL)


def can_ask() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin.isatty()


def _read_payload(state: DurableState, text: str | None, file: IO[bytes] | None, *, what: str, option: str) -> Any:
    """The JSON value of an argument, a file or standard input; None when there is none."""
    if text is not None and file is not None:
        raise click.UsageError(f"Give the {what} once: as {option} or in a file")
    if file is None and text is None:
        return None
    stream = file or sys.stdin.buffer
    source = stream.read() if text is None or text == "-" else text
    return parse_json(source, what=what, option=option, max_depth=state.settings.max_payload_depth)


def _print_id(instance_id: str, *, as_json: bool) -> None:
    if as_json:
        echo_json({"id": instance_id, "instanceId": instance_id})
    else:
        echo(safe(instance_id))


def _print_deleted(count: int, *, as_json: bool) -> None:
    if as_json:
        echo_json({"instancesDeleted": count})
    else:
        echo(f"Deleted {counted(count)}")


def _print_found(count: int, *, as_json: bool) -> None:
    if as_json:
        echo_json({"instancesDeleted": 0, "instancesFound": count})
    else:
        echo(f"Would delete {counted(count)}")


def counted(count: int) -> str:
    """So many instances, in words."""
    return "1 instance" if count == 1 else f"{count} instances"
