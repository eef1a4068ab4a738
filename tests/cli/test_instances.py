"""status, list, history."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from support import until

from flask_durable.storage.interface import Park


@pytest.fixture
def three(durable, worker):
    """Three instances that have ended, oldest first."""
    for instance_id, name, given in (("a-1", "Echo", {"n": 1}), ("a-2", "Double", 21), ("b-1", "Fail", None)):
        durable.client.start(name, given, instance_id=instance_id, tags={"team": instance_id[0]})
        durable.client.wait_for_completion(instance_id, timeout=20)


def fields_of(text):
    return dict(line.split("  ", 1) for line in text.splitlines() if line and not line.startswith(" "))


class TestStatus:
    def test_shows_what_is_known_of_an_instance(self, run, three):
        result = run("status", "a-2")
        assert result.exit_code == 0
        assert {label: value.strip() for label, value in fields_of(result.stdout).items()} | {"Created": "", "Updated": "", "Ended": ""} == {
            "Instance": "a-2",
            "Name": "Double",
            "Status": "Completed",
            "Created": "",
            "Updated": "",
            "Ended": "",
            "Tags": "team=a",
            "Input": "21",
            "Output": "42",
        }

    def test_json_has_the_names_of_the_http_api(self, run, three, shop):
        document = json.loads(run("status", "a-1", "--json").stdout)
        answer = shop.test_client().get("/runtime/orchestrations/a-1", headers={"Host": "localhost"})
        assert document == answer.json
        assert document["runtimeStatus"] == "Completed"
        assert document["output"] == {"n": 1}

    def test_a_failure_is_shown_with_its_type(self, run, three):
        result = run("status", "b-1")
        assert result.exit_code == 0
        assert "TaskFailedError" in fields_of(result.stdout)["Failure"]
        assert "no more paper" in result.stdout

    def test_the_input_can_be_left_out(self, run, three):
        assert json.loads(run("status", "a-1", "--no-input", "--json").stdout)["input"] is None
        assert "Input" not in fields_of(run("status", "a-1", "--no-input").stdout)

    def test_the_history_can_be_shown_too(self, run, three):
        assert "TaskCompleted" in run("status", "a-2", "--history").stdout
        events = json.loads(run("status", "a-2", "--history", "--json").stdout)["historyEvents"]
        assert [event["EventType"] for event in events] == ["ExecutionStarted", "TaskScheduled", "TaskCompleted", "ExecutionCompleted"]

    def test_an_unknown_id_is_an_error_on_standard_error(self, run):
        result = run("status", "nobody")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: No instance has the id 'nobody'\n")

    def test_watching_tells_each_change_and_ends_with_the_instance(self, run, three):
        result = run("status", "a-2", "--watch", "--json")
        assert result.exit_code == 0
        assert "Completed" in result.stderr
        assert json.loads(result.stdout)["output"] == 42

    def test_watching_one_that_fails_is_a_failure(self, run, three):
        assert run("status", "b-1", "--watch").exit_code == 1

    def test_user_data_cannot_control_the_terminal(self, run, durable, worker):
        evil = durable.client.start("Echo", "\x1b]0;owned\x07\u202e", instance_id="e")
        durable.client.wait_for_completion(evil, timeout=20)
        for words in (["status", "e"], ["status", "e", "--json"], ["history", "e"], ["history", "e", "--json"]):
            shown = run(*words).stdout
            assert "\x1b" not in shown
            assert "\x07" not in shown
            assert "\u202e" not in shown
        assert json.loads(run("status", "e", "--json").stdout)["output"] == "\x1b]0;owned\x07\u202e"


class TestList:
    def ids(self, run, *words):
        result = run("list", "--json", *words)
        assert result.exit_code == 0, result.output
        return [each["instanceId"] for each in json.loads(result.stdout)]

    def test_is_a_table_newest_first(self, run, three):
        result = run("list")
        rows = [line.split() for line in result.stdout.splitlines()]
        assert rows[0] == ["ID", "NAME", "STATUS", "CREATED", "UPDATED"]
        assert [row[:3] for row in rows[1:]] == [["b-1", "Fail", "Failed"], ["a-2", "Double", "Completed"], ["a-1", "Echo", "Completed"]]
        assert result.stderr == ""

    def test_nothing_found_is_a_note_and_no_error(self, run):
        result = run("list")
        assert (result.exit_code, result.stdout.split(), result.stderr) == (0, ["ID", "NAME", "STATUS", "CREATED", "UPDATED"], "No instances\n")
        assert run("list", "--json").stdout == "[]\n"

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (["--status", "completed"], ["a-2", "a-1"]),
            (["--status", "Failed,Running"], ["b-1"]),
            (["--runtime-status", "Failed", "--status", "Completed"], ["b-1", "a-2", "a-1"]),
            (["--name", "Echo"], ["a-1"]),
            (["--prefix", "a-"], ["a-2", "a-1"]),
            (["--instance-id-prefix", "b"], ["b-1"]),
            (["--tag", "team=b"], ["b-1"]),
            (["--parent", "nobody"], []),
            (["--version", "1"], []),
            (["--parked"], []),
            (["--order", "oldest"], ["a-1", "a-2", "b-1"]),
        ],
    )
    def test_filters(self, run, three, words, found):
        assert self.ids(run, *words) == found

    def test_a_window_of_creation_times(self, run, three):
        hour = timedelta(hours=1)
        now = datetime.now(UTC)
        assert len(self.ids(run, "--created-from", (now - hour).isoformat(), "--created-to", (now + hour).isoformat())) == 3
        assert self.ids(run, "--created-from", (now + hour).strftime("%Y-%m-%dT%H:%M:%SZ")) == []
        assert self.ids(run, "--created-to", "2001-01-01") == []

    def test_pages_follow_each_other_by_token(self, run, three):
        first = run("list", "--top", "2", "--json")
        token = first.stderr.split("--token ")[1].split(",")[0]
        assert self.ids(run, "--top", "2", "--token", token) == ["a-1"]

    def test_all_of_them_whatever_the_page_size(self, run, three, monkeypatch):
        monkeypatch.setattr("flask_durable.cli.instances.MAX_PAGE_SIZE", 2)
        assert self.ids(run, "--all") == ["b-1", "a-2", "a-1"]
        assert len(run("list", "--all").stdout.splitlines()) == 4

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--status", "Done"], "'Done' is not a runtime status; there are Pending, Running"),
            (["--created-from", "yesterday"], "'yesterday' is not a moment"),
            (["--tag", "team"], "'team' is not a tag; write it as key=value"),
            (["--tag", "t=1", "--tag", "t=2"], "given twice"),
            (["--top", "0"], "0 is not in the range"),
            (["--order", "random"], "'random' is not one of"),
        ],
    )
    def test_wrong_values_are_wrong_usage(self, run, words, said):
        result = run("list", *words)
        assert result.exit_code == 2
        assert said in result.stderr

    def test_a_token_that_nobody_made_is_refused(self, run):
        result = run("list", "--token", "x")
        assert result.exit_code == 1
        assert "Error: The continuation token is not one that this API made" in result.stderr


class TestHistory:
    def test_is_a_table_of_events(self, run, three):
        result = run("history", "a-2")
        rows = [line.split()[:1] + line.split()[2:4] for line in result.stdout.splitlines()]
        assert rows == [
            ["SEQ", "EVENT", "DETAILS"],
            ["1", "ExecutionStarted", "Name=Double"],
            ["2", "TaskScheduled", "TaskId=1"],
            ["3", "TaskCompleted", "TaskId=1"],
            ["4", "ExecutionCompleted", "Status=Completed"],
        ]

    def test_json_is_what_the_http_api_answers(self, run, three, shop):
        assert json.loads(run("history", "b-1", "--json").stdout) == shop.test_client().get("/runtime/orchestrations/b-1/history").json

    def test_an_unknown_id_is_an_error(self, run):
        result = run("history", "nobody")
        assert (result.exit_code, result.stderr) == (1, "Error: No instance has the id 'nobody'\n")


def test_parked_instances_are_listed_with_the_reason(run, durable):  # dead letter, S6
    parked = durable.client.start("Wait", instance_id="stuck")
    durable.client.start("Wait", instance_id="well")
    durable.client._run(Park(parked, "it kills\nits \x1b[31mworkers " + "x" * 300))
    result = run("list", "--parked")
    assert result.exit_code == 0
    assert "REASON" in result.stdout
    assert "well" not in result.stdout
    assert r"it kills\x0aits \x1b[31mworkers xxx" in result.stdout
    assert "\x1b[31mworkers" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 300
    assert "REASON" not in run("list").stdout
    assert "it kills" in run("status", parked).stdout
    assert run("resume", parked).exit_code == 0
    assert "stuck" not in run("list", "--parked").stdout


class TestVersions:
    def test_shows_the_versions_in_use(self, run, durable):  # rule 50
        for version in ("1.10", "1.9", None):
            durable.client.start("Wait", version=version)
        result = run("versions")
        assert result.exit_code == 0
        assert [line.split() for line in result.stdout.splitlines()[1:]] == [
            ["Wait", "-", "1", "1", "Pending"],
            ["Wait", "1.9", "1", "1", "Pending"],
            ["Wait", "1.10", "1", "1", "Pending"],
        ]
        assert run("versions", "--name", "Echo").stderr == "No instances\n"

    def test_json_is_what_the_http_api_answers(self, run, durable, shop):  # rule 50
        durable.client.start("Wait", version="1")
        answer = shop.test_client().get("/runtime/orchestrations/versions", headers={"Host": "localhost"})
        assert json.loads(run("versions", "--json").stdout) == answer.json == [{"name": "Wait", "version": "1", "total": 1, "counts": {"Pending": 1}}]

    def test_a_list_can_ask_for_what_has_no_version(self, run, durable):
        durable.client.start("Wait", version="1", instance_id="with")
        durable.client.start("Wait", instance_id="without")
        assert [each["instanceId"] for each in json.loads(run("list", "--no-version", "--json").stdout)] == ["without"]


class TestWaiting:
    def test_shows_why_no_worker_takes_an_instance(self, run, durable):  # rule 49
        durable.client.start("Echo", 1, instance_id="a")
        until(lambda: durable.client.get_status("a").waiting_reason)
        assert fields_of(run("status", "a").stdout)["Waits"].strip() == "no worker is running"
        assert "Pending (no worker)" in run("list").stdout
        assert json.loads(run("status", "a", "--json").stdout)["waitingReason"] == "no worker is running"


class TestCompletion:
    def test_lists_in_order_of_completion(self, run, durable):  # QRY-3
        for instance_id in ("a", "b", "c"):
            durable.client.start("Wait", instance_id=instance_id, tags={"team": "x"})
        for instance_id in ("c", "a"):
            durable.client.terminate(instance_id)
        listed = json.loads(run("list", "--order", "firstCompleted", "--tag", "team=x", "--no-output", "--json").stdout)
        assert [(each["instanceId"], each["output"]) for each in listed] == [("c", None), ("a", None)]
        moment = listed[1]["completedTime"]
        assert [each["instanceId"] for each in json.loads(run("list", "--completed-from", moment, "--json").stdout)] == ["a"]
        assert [each["instanceId"] for each in json.loads(run("list", "--completed-to", moment, "--roots", "--json").stdout)] == ["c", "a"]

    def test_a_purge_by_filter_takes_children_along_on_request(self, run, durable, worker):  # MGT-6
        durable.client.start("Parent", instance_id="p")
        until(lambda: durable.client.get_status("the-child"))
        durable.client.terminate("p")
        assert "2 instances" in run("purge", "--name", "Parent", "--recursive", "--yes").stdout
