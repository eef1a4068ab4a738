"""db init, db upgrade."""

import pytest

from flask_durable import FlaskDurable


@pytest.fixture
def version(shop):
    """The version of tables that this code makes."""
    return shop.extensions["durable"].store.schema_version()


def test_init_makes_the_tables_and_says_so(run, durable, version):
    durable.drop_tables()
    result = run("db", "init")
    assert (result.exit_code, result.stdout) == (0, f"Tables created, version {version}\n")
    assert result.stderr.startswith("Database: sqlite:///")
    assert run("list", "--json").stdout == "[]\n"


@pytest.mark.parametrize("command", ["init", "upgrade"])
def test_doing_it_again_changes_nothing(run, version, command):
    run("start", "Echo", "--instance-id", "x")
    result = run("db", command)
    assert (result.exit_code, result.stdout) == (0, f"Nothing to do: the tables have version {version}\n")
    assert run("status", "x").exit_code == 0


def test_upgrade_does_not_make_tables_in_a_database_that_has_none(run, durable):
    durable.drop_tables()
    result = run("db", "upgrade")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Create them with `flask durable db init`" in result.stderr


def test_the_password_of_a_database_is_not_shown(run, shop, monkeypatch):
    monkeypatch.setattr(shop.extensions["durable"], "database_url", "postgresql://me:***@db/shop")
    assert "postgresql://me:***@db/shop" in run("db", "init").stderr


def test_an_app_without_the_extension_gets_a_sentence(run, shop):
    del shop.extensions["durable"]
    result = run("db", "init")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The app 'shop' has no FlaskDurable.")
    assert FlaskDurable.__name__ in result.stderr
