"""rewind."""

import json

import pytest
from support import finish

from flask_durable import RuntimeStatus


@pytest.fixture
def three(durable, worker):
    """Two that have failed, one that has not."""
    for instance_id, name in (("a", "Fail"), ("b", "Fail"), ("c", "Echo")):
        finish(durable, durable.client.start(name, instance_id=instance_id))
    durable.stop_worker()


def status_of(durable, instance_id):
    return durable.client.get_status(instance_id).runtime_status


def test_one_by_its_id_with_a_reason(run, durable, three):  # REW-1, REW-5
    assert run("rewind", "a", "--reason", "paper is there").stderr == "Rewound a\n"
    assert status_of(durable, "a") is RuntimeStatus.RUNNING
    rewound = durable.client.history("a").events[-1].event
    assert (type(rewound).__name__, rewound.reason) == ("ExecutionRewound", '"paper is there"')
    assert "ExecutionRewound" in run("history", "a").stdout
    assert json.loads(run("rewind", "b", "--json").stdout) == {"instancesRewound": 1}


def test_one_that_has_not_failed_is_refused(run, three):  # REW-1
    result = run("rewind", "c")
    assert (result.exit_code, result.stderr) == (1, "Error: Instance 'c' is Completed; only one that is Failed can be rewound\n")


def test_many_by_a_filter(run, durable, three):  # rule 46
    assert run("rewind", "--name", "Fail", "--yes").stdout == "Rewound 2 instances\n"
    assert [status_of(durable, each) for each in "abc"] == ["Running", "Running", "Completed"]
    assert run("rewind", "--status", "Failed", "--yes", "--json").stdout == '{\n  "instancesRewound": 0\n}\n'


def test_a_dry_run_only_counts(run, durable, three):  # rule 46
    assert run("rewind", "--status", "Failed", "--dry-run").stdout == "Would rewind 2 instances\n"
    assert json.loads(run("rewind", "--prefix", "a", "--dry-run", "--json").stdout) == {"instancesRewound": 0, "instancesFound": 1}
    assert status_of(durable, "a") is RuntimeStatus.FAILED


@pytest.mark.parametrize(("answer", "status"), [("y\n", "Running"), ("n\n", "Failed")])
def test_on_a_terminal_it_asks(run, durable, three, monkeypatch, answer, status):
    monkeypatch.setattr("flask_durable.cli.rewinds.can_ask", lambda: True)
    result = run("rewind", "--status", "Failed", input=answer)
    assert "Rewind 2 instances?" in result.stderr
    assert status_of(durable, "a") == status


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give either an ID or at least one filter"),
        (["a", "--status", "Failed"], "Give either an ID or at least one filter"),
        (["--status", "Running", "--yes"], "Only failed instances can be rewound, not Running"),
        (["a", "--dry-run"], "--dry-run goes together with a filter"),
        (["--status", "Failed"], "say --yes"),
    ],
)
def test_what_it_does_not_understand_it_refuses(run, words, said):
    result = run("rewind", *words)
    assert result.exit_code == 2
    assert said in result.stderr
