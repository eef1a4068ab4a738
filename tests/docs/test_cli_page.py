"""docs/cli.md names every command and every option."""

import re
from pathlib import Path

import click
import pytest

from flask_durable.cli import durable

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def commands(group, prefix=""):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


@pytest.mark.parametrize(("name", "command"), list(commands(durable)), ids=lambda value: value if isinstance(value, str) else "")
def test_the_page_has_the_command_and_its_options(name, command):
    assert re.search(rf"`{name}\b", TEXT)
    words = [word for parameter in command.params if isinstance(parameter, click.Option) for word in (*parameter.opts, *parameter.secondary_opts)]
    assert [word for word in words if not re.search(rf"`{word}\b", TEXT)] == []
