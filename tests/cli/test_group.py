"""The group as a whole: help, colours, errors."""

import click
import pytest
from click.testing import CliRunner

from flask_durable.cli import durable as group
from flask_durable.errors import StoreUnavailableError


def commands(parent, prefix=()):
    for name, command in sorted(parent.commands.items()):
        yield (*prefix, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))


ALL = dict(commands(group))


def test_has_the_commands_that_the_documentation_promises():
    assert {" ".join(words) for words in ALL} == {
        "create-key", "db", "db init", "db upgrade", "doctor", "history", "list", "purge", "raise-event", "restart", "resume", "rewind",
        "start", "status", "suspend", "terminate", "versions", "worker",
    }  # fmt: skip


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_explains_itself_without_an_app(words):
    result = CliRunner().invoke(group, [*words, "--help"])
    assert result.exit_code == 0
    assert "Usage: durable" in result.stdout


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_is_explained(words):
    unexplained = [parameter.name for parameter in ALL[words].params if isinstance(parameter, click.Option) and not parameter.help]
    assert unexplained == []


@pytest.mark.parametrize("name", ["status", "list", "history", "doctor", "start", "restart", "purge"])
def test_what_shows_something_can_show_it_as_json(name):
    assert "as_json" in [parameter.name for parameter in group.commands[name].params]


def test_colours_are_there_when_wanted_and_go_with_no_color(run, durable, worker, monkeypatch):
    durable.client.wait_for_completion(durable.client.start("Echo", instance_id="x"), timeout=20)
    assert "\x1b[32mCompleted\x1b[0m" in run("status", "x", color=True).stdout
    assert "\x1b" not in run("status", "x").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("status", "x", color=True).stdout


def test_wrong_usage_has_exit_status_2(run):
    assert run("status").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("list", "--nonsense").exit_code == 2


COMMANDS_ON_INSTANCES = [
    "list",
    "status x",
    "history x",
    "start Echo",
    "raise-event x Go",
    "terminate x",
    "suspend x",
    "resume x",
    "restart x",
    "rewind x",
    "purge x",
]


@pytest.mark.parametrize("words", COMMANDS_ON_INSTANCES)
def test_tables_that_do_not_fit_are_not_touched(run, durable, words):
    durable.drop_tables()
    result = run(*words.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: The database does not fit: the durable tables are missing. Run `flask durable db init`\n"


def test_an_error_of_several_lines_keeps_them_and_nothing_else(run, shop, monkeypatch):
    def refuse():
        raise StoreUnavailableError("The database refused:\n\tconnection \x1b[31mfailed")

    monkeypatch.setattr(shop.extensions["durable"].store, "check_schema", refuse)
    assert run("list").stderr == "Error: The database refused:\n\\x09connection \\x1b[31mfailed\n"
