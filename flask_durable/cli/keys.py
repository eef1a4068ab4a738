"""The command that makes API keys."""

from __future__ import annotations

import json
import re

import click

from flask_durable.cli.group import note
from flask_durable.cli.options import json_option
from flask_durable.cli.output import echo, echo_json
from flask_durable.keys import NAME_PATTERN, Permission, hash_key, make_key


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise click.BadParameter("a name has 1 to 64 letters, digits and . _ @ -")
    return text


@click.command("create-key")
@click.option("--name", required=True, type=_name, metavar="NAME", help="What logs call the key.")
@click.option(
    "--permission",
    "permissions",
    type=click.Choice([permission.value for permission in Permission]),
    multiple=True,
    required=True,
    help="What it may do; may be repeated. Everything else is denied.",
)
@json_option
def create_key(name: str, permissions: tuple[str, ...], as_json: bool) -> None:
    """Make an API key: print it, this one time, and the entry for DURABLE_API_KEYS that knows only its hash."""
    key = make_key()
    made = hash_key(name, key, map(Permission, permissions))
    entry = {"name": name, "hash": made.hash, "permissions": [each.value for each in Permission if each in made.permissions]}
    if as_json:
        echo_json({"key": key, "entry": entry})
        return
    note("The key; it is not kept anywhere and is not shown again:")
    echo(key)
    note("The entry for the list DURABLE_API_KEYS:")
    echo(json.dumps(entry))
