"""doctor."""

import json

import pytest
from flask import Flask
from support import until

from flask_durable.cli.doctor import access_mode
from flask_durable.config import load_settings
from flask_durable.errors import StoreUnavailableError


def test_all_is_well(run, worker):
    result = run("doctor")
    assert result.exit_code == 0
    assert result.stdout.endswith("All is well\n")
    for label in (
        "App",
        "Versions",
        "Database",
        "Schema",
        "Orchestrators",
        "Activities",
        "Workers",
        "Instances",
        "Serving",
        "This process",
        "Access",
    ):
        assert f"\n{label} " in f"\n{result.stdout}"


def test_json_says_what_was_found(run, durable, worker):
    durable.client.wait_for_completion(durable.client.start("Echo", instance_id="x"), timeout=20)
    report = json.loads(run("doctor", "--json").stdout)
    assert report["app"] == "shop"
    assert report["versions"].keys() >= {"Python", "Flask", "flask-durable", "peewee"}
    assert report["database"]["writable"] is True
    assert report["orchestrators"] == ["Double", "Echo", "Fail", "Parent", "Wait"]
    assert report["activities"] == ["break_down", "double"]
    assert [worker["expired"] for worker in report["workers"]] == [False]
    assert report["instances"]["Completed"] == 1
    assert report["access"] == "direct requests from this machine only"
    assert (report["warnings"], report["problems"]) == ([], [])


def test_missing_tables_are_a_problem_with_its_cure(run, durable):
    durable.drop_tables()
    result = run("doctor")
    assert result.exit_code == 1
    assert "Problem: The database does not fit: the durable tables are missing. Run `flask durable db init`" in result.stdout


def test_a_database_that_does_not_answer_is_a_problem(run, shop, monkeypatch):
    def refuse():
        raise StoreUnavailableError("The database does not answer")

    monkeypatch.setattr(shop.extensions["durable"].store, "schema_version", refuse)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"] == ["The database does not answer"]


def test_it_changes_nothing(run, durable):
    durable.client.start("Echo", instance_id="x")
    before = durable.client.get_status("x")
    run("doctor")
    assert durable.client.get_status("x") == before
    assert durable.client.count() == 1


def test_work_without_a_worker_is_a_warning(run, durable):
    durable.client.start("Echo")
    result = run("doctor")
    assert result.exit_code == 0
    assert "Warning: 1 instances are Pending and no worker is alive" in result.stdout


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "direct requests from this machine only"),
        ({"DURABLE_ALLOW_ANONYMOUS": True}, "everybody (DURABLE_ALLOW_ANONYMOUS)"),
        ({"DURABLE_API_KEYS": ["k" * 20]}, "callers with one of 1 API keys (DURABLE_API_KEYS)"),
        ({"DURABLE_AUTHORIZER": lambda permission, instance_id: True}, "whom the app's authorizer admits (DURABLE_AUTHORIZER)"),
        ({"DURABLE_MANAGEMENT_API": False}, "the management API is switched off (DURABLE_MANAGEMENT_API)"),
    ],
)
def test_access_is_told_in_words(config, said):
    assert access_mode(load_settings(config)) == said


def test_a_wrong_setting_is_an_error_that_names_it(tmp_path, monkeypatch):
    def broken_factory():
        from flask_durable import FlaskDurable

        app = Flask("broken", instance_path=str(tmp_path))
        app.config["DURABLE_MAX_ACTIVITIES"] = "many"
        FlaskDurable(app)
        return app

    from click.testing import CliRunner
    from flask.cli import ScriptInfo

    from flask_durable.cli import durable

    result = CliRunner().invoke(durable, ["doctor"], obj=ScriptInfo(create_app=broken_factory))
    assert result.exit_code == 1
    assert result.stderr == "Error: DURABLE_MAX_ACTIVITIES = 'many' is not valid: a whole number from 1 to 1000\n"


def test_tells_of_instances_that_no_running_worker_takes(run, durable, worker):  # rule 49
    durable.client.start("Unheard", instance_id="a")
    until(lambda: durable.client.get_status("a").waiting_reason)
    result = run("doctor")
    assert "Warning: 1 instances wait: no running worker knows orchestrator 'Unheard'" in result.stdout
    assert result.exit_code == 0
