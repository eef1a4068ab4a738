"""Options that several commands share, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from flask_durable.core import codec
from flask_durable.core.status import RuntimeStatus, parse_status
from flask_durable.core.times import to_micros
from flask_durable.errors import InvalidArgumentError
from flask_durable.storage.interface import InstanceFilter

Command = TypeVar("Command", bound=Callable[..., Any])


def moment(text: str) -> datetime:
    """An ISO 8601 moment; without zone it is UTC."""
    try:
        found = datetime.fromisoformat(text.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is not a moment; write it as 2026-01-31T12:00:00Z") from None


def statuses(text: str) -> tuple[RuntimeStatus, ...]:
    """A runtime status in any case; several with commas between them."""
    found = []
    for word in text.split(","):
        status = parse_status(word)
        if status is None:
            raise click.BadParameter(f"{word.strip()!r} is not a runtime status; there are {', '.join(RuntimeStatus)}")
        found.append(status)
    return tuple(found)


def tag(text: str) -> tuple[str, str]:
    """A tag, ``key=value``."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{text!r} is not a tag; write it as key=value")
    return key, value


def json_option(command: Command) -> Command:
    """Let the command print JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, with the names that the HTTP API uses.")(command)


def instance_argument(command: Command) -> Command:
    """Let the command take an instance id."""
    return click.argument("instance_id", metavar="ID")(command)


def filter_options(command: Command) -> Command:
    """Let the command say which instances it means; it gets them as the arguments of :func:`make_filter`."""
    for option in reversed(_FILTER_OPTIONS):
        command = option(command)
    return command


def make_filter(
    *,
    wanted_statuses: Iterable[tuple[RuntimeStatus, ...]],
    name: str | None,
    id_prefix: str | None,
    created_from: datetime | None,
    created_to: datetime | None,
    parent: str | None,
    tags: Iterable[tuple[str, str]],
    version: str | None,
    has_no_version: bool,
    is_parked: bool,
    is_root: bool,
    completed_from: datetime | None,
    completed_to: datetime | None,
) -> InstanceFilter:
    """The filter that those options mean; a window of times contains both its ends, as over HTTP."""
    return InstanceFilter(
        statuses=tuple(dict.fromkeys(status for group in wanted_statuses for status in group)),
        name=name,
        id_prefix=id_prefix or None,
        created_from=None if created_from is None else to_micros(created_from),
        created_to=None if created_to is None else to_micros(created_to),
        created_to_inclusive=True,
        parent_instance_id=parent,
        tags=make_tags(tags),
        version=version,
        is_parked=True if is_parked else None,
        completed_from=None if completed_from is None else to_micros(completed_from),
        completed_to=None if completed_to is None else to_micros(completed_to),
        has_version=False if has_no_version else None,
        is_root=True if is_root else None,
    )


def make_tags(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Tags from the values of repeated options.

    Raises:
        click.UsageError: two values for one key, which no instance can have.
    """
    tags: dict[str, str] = {}
    for key, value in pairs:
        if tags.setdefault(key, value) != value:
            raise click.UsageError(f"The tag {key!r} is given twice with different values")
    return tags


def parse_json(text: str | bytes, *, what: str, option: str, max_depth: int) -> Any:
    """The value of JSON text that was given on the command line, in a file or on standard input.

    Raises:
        click.BadParameter: it is not JSON.
    """
    try:
        return codec.parse(text, what=what, max_depth=max_depth)
    except InvalidArgumentError as error:
        hint = """. Text needs double quotes: '"like this"'""" if "not valid JSON" in str(error) else ""
        raise click.BadParameter(f"{error}{hint}", param_hint=f"'{option}'") from error


_FILTER_OPTIONS = (
    click.option(
        "--status",
        "--runtime-status",
        "wanted_statuses",
        type=statuses,
        metavar="STATUS",
        multiple=True,
        help="With this status; may be repeated or hold commas.",
    ),
    click.option("--name", help="Of this orchestrator."),
    click.option("--prefix", "--instance-id-prefix", "id_prefix", metavar="TEXT", help="With an id that begins so."),
    click.option("--created-from", "--created-time-from", "created_from", type=moment, metavar="MOMENT", help="Created at this moment or later."),
    click.option("--created-to", "--created-time-to", "created_to", type=moment, metavar="MOMENT", help="Created at this moment or earlier."),
    click.option("--parent", "--parent-instance-id", "parent", metavar="ID", help="Started by this instance."),
    click.option("--tag", "tags", type=tag, metavar="KEY=VALUE", multiple=True, help="With this tag; may be repeated, then all must fit."),
    click.option("--version", help="Of this version."),
    click.option("--no-version", "has_no_version", is_flag=True, help="Without a version."),
    click.option("--parked", "is_parked", is_flag=True, help="Parked: nobody works on it until somebody looks at it."),
    click.option("--roots", "is_root", is_flag=True, help="Started from outside, not by another instance."),
    click.option("--completed-from", "completed_from", type=moment, metavar="MOMENT", help="Ended at this moment or later."),
    click.option("--completed-to", "completed_to", type=moment, metavar="MOMENT", help="Ended at this moment or earlier."),
)
