"""start, raise-event, terminate, suspend, resume, restart, purge."""

import json

import pytest
from support import has_status, until

from flask_durable import RuntimeStatus


def status_of(durable, instance_id):
    return durable.client.get_status(instance_id).runtime_status


class TestStart:
    def test_prints_the_id_and_nothing_else(self, run, durable):
        result = run("start", "Echo")
        assert (result.exit_code, result.stderr) == (0, "")
        assert status_of(durable, result.stdout.strip()) == "Pending"

    def test_starts_no_worker(self, run, durable, shop):
        run("start", "Echo")
        assert not shop.extensions["durable"].is_worker_running

    def test_passes_on_what_it_is_given(self, run, durable):
        result = run(
            "start", "Echo", "--input", '{"n": [1, null]}', "--instance-id", "my-1", "--version", "2",
            "--tag", "team=a", "--tag", "shop=b=c", "--start-at", "2100-01-01T00:00:00+02:00",
        )  # fmt: skip
        assert (result.exit_code, result.stdout) == (0, "my-1\n")
        found = durable.client.get_status("my-1")
        assert (found.input, found.version, found.tags) == ({"n": [1, None]}, "2", {"team": "a", "shop": "b=c"})
        assert found.scheduled_start_time.isoformat() == "2099-12-31T22:00:00+00:00"

    @pytest.mark.parametrize("words", [["--input", "-"], ["--input-file", "-"]])
    def test_reads_the_input_from_standard_input(self, run, durable, words):
        result = run("start", "Echo", *words, input='["日本"]')
        assert durable.client.get_status(result.stdout.strip()).input == ["日本"]

    def test_reads_the_input_from_a_file(self, run, durable, tmp_path):
        (tmp_path / "order.json").write_bytes(b'{"n": 1}')
        result = run("start", "Echo", "--input-file", str(tmp_path / "order.json"))
        assert durable.client.get_status(result.stdout.strip()).input == {"n": 1}

    def test_json_has_the_id_under_both_names(self, run):
        assert json.loads(run("start", "Echo", "--instance-id", "x", "--json").stdout) == {"id": "x", "instanceId": "x"}

    def test_waits_for_the_end(self, run, worker):
        result = run("start", "Double", "--input", "21", "--instance-id", "x", "--wait", "--timeout", "20", "--json")
        assert (result.exit_code, result.stderr) == (0, "Started x\n")
        assert json.loads(result.stdout)["output"] == 42

    def test_waiting_for_one_that_fails_is_a_failure(self, run, worker):
        result = run("start", "Fail", "--wait", "--timeout", "20")
        assert result.exit_code == 1
        assert "no more paper" in result.stdout

    def test_waiting_ends_with_the_time(self, run, worker):
        result = run("start", "Wait", "--instance-id", "x", "--wait", "--timeout", "0.05")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "Started x\nError: Instance 'x' did not end within 0.05 s\n"

    def test_an_unknown_orchestrator_is_refused_with_the_known_ones(self, run):
        result = run("start", "Ecko")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "Error: No orchestrator named 'Ecko' is registered here. Registered: Double, Echo, Fail, Parent, Wait\n"

    def test_an_id_in_use(self, run):
        run("start", "Echo", "--instance-id", "x")
        result = run("start", "Echo", "--instance-id", "x")
        assert (result.exit_code, result.stderr) == (1, "Error: An instance with the id 'x' already exists; it is Pending\n")
        assert run("start", "Echo", "--instance-id", "x", "--if-exists", "return").stdout == "x\n"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--input", "{"], "The input is not valid JSON"),
            (["--input", "hello"], """Text needs double quotes: '"like this"'"""),
            (["--input", "NaN"], "NaN is not JSON"),
            (["--input", "1", "--input-file", "-"], "Give the input once"),
            (["--input-file", "/no/such/file"], "No such file"),
            (["--start-at", "soon"], "'soon' is not a moment"),
            (["--tag", "=x"], "is not a tag"),
            (["--if-exists", "maybe"], "'maybe' is not one of"),
            (["--timeout", "3"], "--timeout goes together with --wait"),
            (["--wait", "--timeout", "-1"], "not in the range"),
        ],
    )
    def test_wrong_values_are_wrong_usage(self, run, words, said):
        result = run("start", "Echo", *words, input="1")
        assert result.exit_code == 2
        assert said in result.stderr

    def test_an_input_that_does_not_fit_its_declared_type_is_an_error_with_its_place(self, run, shop_and_durable):  # rule 55
        @shop_and_durable[1].orchestrator(name="Sum")
        def add(ctx, numbers: list[int]) -> int:
            return sum(numbers)

        result = run("start", "Sum", "--input", '[1, "two"]')
        assert result.exit_code == 1
        assert result.stderr == "Error: The input of orchestrator 'Sum' does not fit at [1]: expected int, found the text 'two'\n"

    def test_a_bad_id_is_an_error_with_the_rule(self, run):
        result = run("start", "Echo", "--instance-id", "a/b")
        assert result.exit_code == 1
        assert "Error: The instance id 'a/b' contains '/'" in result.stderr


class TestEvents:
    def test_an_event_reaches_the_instance_with_its_data(self, run, durable, worker):
        run("start", "Wait", "--instance-id", "x")
        result = run("raise-event", "x", "Go", '{"by": "Ann"}')
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "Event Go is recorded for x\n")
        assert durable.client.wait_for_completion("x", timeout=20).output == {"by": "Ann"}

    def test_an_event_with_its_key_counts_once(self, run, durable):  # rule 23
        run("start", "Wait", "--instance-id", "x")
        for _ in range(2):
            assert run("raise-event", "x", "Go", "1", "--dedup-key", "k").exit_code == 0
        result = run("raise-event", "x", "Go", "1", "--dedup-key", " ")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "de-duplication key" in result.stderr

    @pytest.mark.parametrize(("words", "given", "data"), [([], None, None), (["-"], "[1]", [1])])
    def test_data_may_be_absent_or_come_from_standard_input(self, run, durable, worker, words, given, data):
        run("start", "Wait", "--instance-id", "x")
        assert run("raise-event", "x", "Go", *words, input=given).exit_code == 0
        assert durable.client.wait_for_completion("x", timeout=20).output == data

    def test_data_may_come_from_a_file(self, run, durable, worker, tmp_path):
        (tmp_path / "data.json").write_text("7")
        run("start", "Wait", "--instance-id", "x")
        assert run("raise-event", "x", "Go", "--data-file", str(tmp_path / "data.json")).exit_code == 0
        assert durable.client.wait_for_completion("x", timeout=20).output == 7

    def test_an_ended_or_unknown_instance_cannot_be_reached(self, run, durable, worker):
        durable.client.wait_for_completion(durable.client.start("Echo", instance_id="x"), timeout=20)
        assert run("raise-event", "x", "Go").stderr == "Error: Instance 'x' has ended; it is Completed\n"
        assert run("raise-event", "y", "Go").stderr == "Error: No instance has the id 'y'\n"


class TestControl:
    def test_terminate_ends_it_with_the_reason(self, run, durable):
        run("start", "Wait", "--instance-id", "x")
        assert run("terminate", "x", "--reason", "a mistake").stderr == "Terminated x\n"
        found = durable.client.get_status("x")
        assert (found.runtime_status, found.output) == ("Terminated", "a mistake")
        assert run("terminate", "x").exit_code == 1

    @pytest.mark.parametrize(("words", "child"), [([], "Terminated"), (["--no-recursive"], "Running")])
    def test_terminate_reaches_children_unless_told_otherwise(self, run, durable, worker, words, child):
        run("start", "Parent", "--instance-id", "x")
        durable.client.wait_for_start("x", timeout=20)
        until(has_status(durable, "the-child", RuntimeStatus.RUNNING))
        assert run("terminate", "x", *words).exit_code == 0
        assert status_of(durable, "x") == "Terminated"
        assert status_of(durable, "the-child") == child

    def test_suspend_holds_and_resume_lets_go(self, run, durable, worker):
        run("start", "Wait", "--instance-id", "x")
        durable.client.wait_for_start("x", timeout=20)
        assert run("suspend", "x", "--reason", "audit").stderr == "Suspended x\n"
        run("raise-event", "x", "Go", "1")
        assert status_of(durable, "x") == "Suspended"
        assert run("resume", "x").stderr == "Resumed x\n"
        assert durable.client.wait_for_completion("x", timeout=20).output == 1

    def test_restart_runs_it_again_under_a_new_id_or_the_same(self, run, durable, worker):
        run("start", "Double", "--input", "4", "--instance-id", "x", "--wait")
        new_id = run("restart", "x").stdout.strip()
        assert new_id != "x"
        assert durable.client.wait_for_completion(new_id, timeout=20).output == 8
        assert json.loads(run("restart", "x", "--same-id", "--json").stdout) == {"id": "x", "instanceId": "x"}

    def test_a_family_is_held_and_let_go(self, run, durable, worker):  # rule 37
        run("start", "Parent", "--instance-id", "p")
        until(has_status(durable, "the-child", RuntimeStatus.RUNNING), "the child ran")
        assert run("suspend", "p", "--recursive").exit_code == 0
        assert durable.client.get_status("the-child").runtime_status == "Suspended"
        assert run("resume", "p", "--recursive").exit_code == 0
        assert durable.client.get_status("the-child").runtime_status == "Running"

    @pytest.mark.parametrize("command", ["terminate", "suspend", "resume", "rewind", "restart", "purge"])
    def test_an_unknown_id_is_an_error(self, run, command):
        result = run(command, "nobody")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: No instance has the id 'nobody'\n")


class TestPurge:
    @pytest.fixture
    def four(self, durable, worker):
        for instance_id, name in (("a", "Echo"), ("b", "Echo"), ("c", "Fail")):
            durable.client.wait_for_completion(durable.client.start(name, instance_id=instance_id), timeout=20)
        durable.client.start("Wait", instance_id="d")

    def left(self, run):
        return sorted(each["instanceId"] for each in json.loads(run("list", "--json").stdout))

    def test_one_by_its_id(self, run, four):
        assert run("purge", "a").stdout == "Deleted 1 instance\n"
        assert self.left(run) == ["b", "c", "d"]

    def test_one_that_has_not_ended_is_refused(self, run, four):
        result = run("purge", "d")
        assert result.exit_code == 1
        assert "purge needs one that has ended" in result.stderr

    def test_many_by_a_filter_never_touch_what_runs(self, run, four):
        assert run("purge", "--created-to", "2100-01-01", "--yes", "--json").stdout == '{\n  "instancesDeleted": 3\n}\n'
        assert self.left(run) == ["d"]

    def test_a_dry_run_only_counts(self, run, four):
        assert run("purge", "--status", "Completed", "--dry-run").stdout == "Would delete 2 instances\n"
        assert json.loads(run("purge", "--created-from", "2001-01-01", "--dry-run", "--json").stdout) == {"instancesDeleted": 0, "instancesFound": 3}
        assert run("purge", "d", "--dry-run").stdout == "Would delete 0 instances\n"
        assert self.left(run) == ["a", "b", "c", "d"]

    def test_without_a_terminal_it_does_not_guess(self, run, four):
        result = run("purge", "--status", "Failed")
        assert result.exit_code == 2
        assert "say --yes" in result.stderr
        assert self.left(run) == ["a", "b", "c", "d"]

    @pytest.mark.parametrize(("answer", "exit_code", "left"), [("y\n", 0, ["c", "d"]), ("n\n", 1, ["a", "b", "c", "d"])])
    def test_on_a_terminal_it_asks(self, run, four, monkeypatch, answer, exit_code, left):
        monkeypatch.setattr("flask_durable.cli.control.can_ask", lambda: True)
        result = run("purge", "--status", "Completed", input=answer)
        assert result.exit_code == exit_code
        assert "Delete 2 instances with their histories?" in result.stderr
        assert self.left(run) == left

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "Give either an ID or at least one filter"),
            (["a", "--status", "Failed"], "Give either an ID or at least one filter"),
            (["--status", "Running", "--yes"], "Only ended instances can be purged, not Running"),
        ],
    )
    def test_what_it_does_not_understand_it_refuses(self, run, words, said):
        result = run("purge", *words)
        assert result.exit_code == 2
        assert said in result.stderr
