"""Commands that look at instances: status, list, history."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import click
from flask.cli import with_appcontext

from flask_durable.cli.documents import Document, event_fields, history_documents, status_document, time_text, version_document
from flask_durable.cli.group import app_state, note
from flask_durable.cli.options import filter_options, instance_argument, json_option, make_filter
from flask_durable.cli.output import Table, color_status, echo, echo_json, print_fields, safe, to_json
from flask_durable.client import DurableClient
from flask_durable.core.events import Recorded
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.times import from_micros
from flask_durable.errors import InstanceNotFoundError
from flask_durable.queries import MAX_PAGE_SIZE
from flask_durable.statuses import OrchestrationStatus
from flask_durable.storage.interface import Order

_WATCH_SECONDS = 0.5
_LONGEST_DETAIL = 160


@click.command("status")
@instance_argument
@click.option("--watch", is_flag=True, help="Follow it until it has ended; exit status 1 unless it is then Completed.")
@click.option("--history", "shows_history", is_flag=True, help="Show the history too.")
@click.option("--no-input", is_flag=True, help="Leave the input out.")
@json_option
@with_appcontext
def status(instance_id: str, watch: bool, shows_history: bool, no_input: bool, as_json: bool) -> None:
    """Show the status of an instance."""
    client = app_state().client
    if watch:
        _follow(client, instance_id)
    found = client.get_status(instance_id, show_input=not no_input, show_history=shows_history, show_history_output=True)
    if found is None:
        raise InstanceNotFoundError(instance_id)
    print_status(found, as_json=as_json)
    if watch:
        exit_unless_completed(found)


@click.command("list")
@filter_options
@click.option("--top", type=click.IntRange(1, MAX_PAGE_SIZE), default=100, show_default=True, help="At most so many.")
@click.option("--token", help="Go on where an earlier list ended.")
@click.option("--all", "shows_all", is_flag=True, help="All of them, however many.")
@click.option(
    "--order",
    type=click.Choice([order.value for order in Order]),
    default=Order.NEWEST_FIRST.value,
    show_default=True,
    help="By time of creation or of completion.",
)
@click.option("--no-input", is_flag=True, help="Leave the inputs out; only JSON has them.")
@click.option("--no-output", is_flag=True, help="Leave the outputs out; only JSON has them.")
@json_option
@with_appcontext
def list_instances(top: int, token: str | None, shows_all: bool, order: str, no_input: bool, no_output: bool, as_json: bool, **wanted: Any) -> None:
    """List instances, newest first."""
    client, rest = app_state().client, [token]

    def pages() -> Iterator[tuple[OrchestrationStatus, ...]]:
        while True:
            page = client.list(
                make_filter(**wanted),
                page_size=MAX_PAGE_SIZE if shows_all else top,
                token=rest[0],
                order=Order(order),
                show_input=as_json and not no_input,
                show_output=as_json and not no_output,
            )
            rest[0] = page.token
            yield page.items
            if page.token is None or not shows_all:
                return

    if as_json:
        _print_json_list(status_document(each) for page in pages() for each in page)
    else:
        _print_instances(pages(), shows_reason=wanted["is_parked"])
    if rest[0] is not None:
        note(f"There are more: --token {rest[0]}, or --all")


@click.command("versions")
@click.option("--name", help="Of this orchestrator only.")
@json_option
@with_appcontext
def versions(name: str | None, as_json: bool) -> None:
    """Show which versions are in use by instances that have not ended."""
    rows = [version_document(each) for each in app_state().client.versions(name)]
    if as_json:
        echo_json(rows)
        return
    table = Table("NAME", "VERSION", "INSTANCES", "STATUS")
    table.print(
        [
            (row["name"], row["version"] or "-", str(row["total"]), ", ".join(f"{count} {status}" for status, count in row["counts"].items()))
            for row in rows
        ]
    )
    if not rows:
        note("No instances")


@click.command("history")
@instance_argument
@json_option
@with_appcontext
def history(instance_id: str, as_json: bool) -> None:
    """Show the history of an instance, event by event."""
    pages = _history_pages(app_state().client, instance_id)
    if as_json:
        _print_json_list(document for page in pages for document in history_documents(page))
    else:
        _print_history(pages)


def print_status(found: OrchestrationStatus, *, as_json: bool) -> None:
    """Print a status, with its history if it has one."""
    if as_json:
        echo_json(status_document(found))
        return
    print_fields(list(_status_fields(found)), styles={"Status": color_status})
    if found.history is not None:
        echo("")
        _print_history([found.history])


def exit_unless_completed(found: OrchestrationStatus) -> None:
    """End the command with exit status 1 if the instance ended otherwise than by completing."""
    if found.runtime_status is not RuntimeStatus.COMPLETED:
        raise click.exceptions.Exit(1)


def _follow(client: DurableClient, instance_id: str) -> None:
    """Tell each change on standard error until the instance has ended."""
    told = None
    while True:
        found = client.get_status(instance_id, show_input=False)
        if found is None:
            raise InstanceNotFoundError(instance_id)
        text = found.runtime_status.value if found.custom_status is None else f"{found.runtime_status.value}  {to_json(found.custom_status)}"
        if text != told:
            told = text
            note(f"{time_text(found.last_updated_time)}  {text}")
        if found.is_finished:
            return
        time.sleep(_WATCH_SECONDS)


def _status_fields(found: OrchestrationStatus) -> Iterator[tuple[str, str]]:
    yield "Instance", found.instance_id
    yield "Name", found.name
    yield "Status", found.runtime_status.value
    rest = (
        ("Created", time_text(found.created_time)),
        ("Scheduled", time_text(found.scheduled_start_time)),
        ("Updated", time_text(found.last_updated_time)),
        ("Ended", time_text(found.completed_time)),
        ("Parent", found.parent_instance_id),
        ("Restarted from", found.restarted_from),
        ("Version", found.version),
        ("Tags", ", ".join(f"{key}={value}" for key, value in found.tags.items())),
        ("Parked", found.parked_reason),
        ("Waits", found.waiting_reason),
        ("Custom status", _payload_text(found.custom_status)),
        ("Input", _payload_text(found.input)),
        ("Output", _payload_text(found.output) if found.failure_details is None else None),
    )
    for label, value in rest:
        if value:
            yield label, value
    if found.failure_details is not None:
        yield "Failure", f"{found.failure_details.type_name}: {found.failure_details.message}"


def _print_instances(pages: Iterable[tuple[OrchestrationStatus, ...]], *, shows_reason: bool) -> None:
    headings = ("ID", "NAME", "STATUS", "CREATED", "UPDATED", *(("REASON",) if shows_reason else ()))
    table = Table(*headings, styles={"STATUS": color_status})
    is_empty = True
    for page in pages:
        is_empty = is_empty and not page
        table.print([_instance_row(each)[: len(headings)] for each in page])
    if is_empty:
        note("No instances")


def _instance_row(found: OrchestrationStatus) -> tuple[str, ...]:
    times = (_seconds(found.created_time), _seconds(found.last_updated_time))
    return (found.instance_id, found.name, _status_cell(found), *times, _shortened(safe(found.parked_reason or "")))


def _status_cell(found: OrchestrationStatus) -> str:
    mark = " (parked)" if found.parked_reason is not None else " (no worker)" if found.waiting_reason is not None else ""
    return f"{found.runtime_status.value}{mark}"


def _print_history(pages: Iterable[tuple[Recorded, ...]]) -> None:
    table = Table("SEQ", "TIME", "EVENT", "DETAILS")
    for page in pages:
        table.print([(str(each.sequence), time_text(from_micros(each.at)) or "", type(each.event).__name__, _details(each)) for each in page])


def _details(recorded: Recorded) -> str:
    """What an event says, in one line that is not too long."""
    values = {name: value for name, value in event_fields(recorded.event).items() if value not in (None, {}, ())}
    failure = values.pop("Failure", None)
    parts = [f"{name}={value if isinstance(value, str) else to_json(value)}" for name, value in values.items()]
    if failure is not None:
        parts.append(f"{failure['errorType']}: {failure['errorMessage']}")
    return _shortened(safe(" ".join(parts)))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_DETAIL else text[: _LONGEST_DETAIL - 1] + "…"


def _history_pages(client: DurableClient, instance_id: str) -> Iterator[tuple[Recorded, ...]]:
    after: int | None = 0
    while after is not None:
        page = client.history(instance_id, page_size=MAX_PAGE_SIZE, after=after)
        yield page.events
        after = page.next_sequence


def _print_json_list(documents: Iterable[Document]) -> None:
    """Print a JSON list item by item: it may be longer than fits in memory."""
    waiting = None
    for document in documents:
        echo("[" if waiting is None else f"{waiting},")
        waiting = "  " + to_json(document, indent=2).replace("\n", "\n  ")
    if waiting is None:
        echo("[]")
    else:
        echo(f"{waiting}\n]")


def _payload_text(value: Any) -> str | None:
    return None if value is None else to_json(value)


def _seconds(moment: Any) -> str:
    text: str = moment.strftime("%Y-%m-%d %H:%M:%S")
    return text
