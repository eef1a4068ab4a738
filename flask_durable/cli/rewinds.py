"""The command rewind: lets failed instances run on, one or many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
from flask.cli import with_appcontext

from flask_durable.cli.control import can_ask, counted
from flask_durable.cli.group import DurableState, app_state, note
from flask_durable.cli.options import filter_options, json_option, make_filter
from flask_durable.cli.output import echo, echo_json
from flask_durable.core.status import RuntimeStatus
from flask_durable.storage.interface import InstanceFilter

_EVERYTHING = InstanceFilter(created_to_inclusive=True)


@click.command("rewind")
@click.argument("instance_id", metavar="[ID]", required=False)
@click.option("--reason", help="Kept in the history.")
@filter_options
@click.option("--dry-run", is_flag=True, help="With a filter: only count.")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where nobody can be asked.")
@json_option
@with_appcontext
def rewind(instance_id: str | None, reason: str | None, dry_run: bool, yes: bool, as_json: bool, **wanted: Any) -> None:
    """Let failed instances run on: one by its ID, or all failed ones that a filter means.

    Failed activities and sub-orchestrations are run again, successful results are kept. `--status Failed` means all failed ones.
    """
    wanted_instances = make_filter(**wanted)
    if (instance_id is not None) == (wanted_instances != _EVERYTHING):
        raise click.UsageError("Give either an ID or at least one filter, for example --status Failed")
    state = app_state()
    if instance_id is None:
        _rewind_many(state, _failed(wanted_instances), reason, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    if dry_run:
        raise click.UsageError("--dry-run goes together with a filter")
    state.client.rewind(instance_id, reason)
    if as_json:
        echo_json({"instancesRewound": 1})
    note(f"Rewound {instance_id}")


def _rewind_many(state: DurableState, wanted: InstanceFilter, reason: str | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    if dry_run:
        _print(state.client.count(wanted), "Would rewind", {"instancesRewound": 0, "instancesFound": state.client.count(wanted)}, as_json=as_json)
        return
    if not yes:
        if not can_ask():
            raise click.UsageError("There is no terminal to ask on; say --yes, or --dry-run to only count")
        click.confirm(f"Rewind {counted(state.client.count(wanted))}?", abort=True, err=True)
    count = state.client.rewind_by(wanted, reason)
    _print(count, "Rewound", {"instancesRewound": count}, as_json=as_json)


def _failed(wanted: InstanceFilter) -> InstanceFilter:
    """The same filter, for failed instances only, so that counting and rewinding mean the same.

    Raises:
        click.UsageError: it asks for others.
    """
    others = [status.value for status in wanted.statuses if status is not RuntimeStatus.FAILED]
    if others:
        raise click.UsageError(f"Only failed instances can be rewound, not {', '.join(others)}")
    return replace(wanted, statuses=(RuntimeStatus.FAILED,))


def _print(count: int, what: str, document: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        echo_json(document)
    else:
        echo(f"{what} {counted(count)}")
