"""Each example, run as its README says: one command, a real server, a fresh SQLite file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from served import EXAMPLES, Server, served

FOLDERS = sorted(path.parent.name for path in EXAMPLES.glob("*/app.py"))
PREFIX = "/runtime/orchestrations"


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served("hello", tmp_path_factory.mktemp("hello")) as server:
        yield server


@pytest.fixture(scope="module")
def approval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served("approval", tmp_path_factory.mktemp("approval")) as server:
        yield server


@pytest.mark.parametrize("name", FOLDERS)
def test_an_example_is_short_and_explained(name):
    assert len((EXAMPLES / name / "app.py").read_text().splitlines()) <= 60
    readme = (EXAMPLES / name / "README.md").read_text()
    assert f"flask --app examples/{name}/app.py run\n" in readme
    assert "Left out:" in readme


class TestHello:
    def start(self, hello: Server, name: str, body: Any = None) -> Any:
        status, started = hello.request("POST", f"{PREFIX}/start/{name}", body)
        assert status == 202, started
        return started

    def test_an_order_is_processed_and_its_links_lead_through_its_life(self, hello):
        started = self.start(hello, "ProcessOrder", {"input": {"orderId": "123"}})
        document = hello.until(started["statusQueryGetUri"], "runtimeStatus", "Completed")
        assert document["output"] == {"orderId": "123", "receipt": "R-123", "tracking": "T-123"}
        assert hello.request("DELETE", started["purgeHistoryDeleteUri"]) == (200, {"instancesDeleted": 1})
        assert hello.request("GET", started["statusQueryGetUri"])[0] == 404

    def test_an_order_can_be_cancelled_while_there_is_time(self, hello):
        started = self.start(hello, "ProcessOrder", {"input": {"orderId": "124"}})
        assert hello.request("POST", started["sendEventPostUri"].replace("{eventName}", "Cancel"), {"eventData": True})[0] == 202
        document = hello.until(started["statusQueryGetUri"], "runtimeStatus", "Completed")
        assert document["output"] == {"orderId": "124", "refund": "R-124 was paid back"}

    def test_an_order_can_be_terminated(self, hello):
        started = self.start(hello, "ProcessOrder", {"input": {"orderId": "125"}})
        assert hello.request("POST", started["terminatePostUri"].replace("{text}", "mistake"))[0] == 202
        assert hello.until(started["statusQueryGetUri"], "runtimeStatus", "Terminated")["output"] == "mistake"

    def test_the_sequence_greets_in_order(self, hello):
        result = hello.durable("start", "HelloSequence", "--wait", "--timeout", "30", "--json")
        assert json.loads(result.stdout)["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]

    def test_what_waits_for_approval_goes_on_with_it(self, hello):
        started = self.start(hello, "AwaitApproval", {"input": "a trip"})
        assert hello.durable("raise-event", started["id"], "Approval", '{"by": "Ann"}').returncode == 0
        document = hello.until(started["statusQueryGetUri"], "runtimeStatus", "Completed")
        assert document["output"] == {"request": "a trip", "approval": {"by": "Ann"}}

    def test_the_commands_of_the_readme_work(self, hello):
        for line in (EXAMPLES / "hello" / "README.md").read_text().splitlines():
            match = re.fullmatch(r"flask --app examples/hello/app\.py durable (.*)", line)
            if match:
                words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", match.group(1))]
                result = hello.durable(*words)
                assert result.returncode == 0, result.stderr


class TestApproval:
    def claim(self, approval: Server, **more: Any) -> str:
        status, made = approval.request("POST", "/claims", {"who": "Bob", "amount": 120, **more})
        assert status == 202
        return f"/claims/{made['id']}"

    def test_the_manager_decides(self, approval):
        url = self.claim(approval)
        approval.until(url, "waiting", "waiting for the manager")
        assert approval.request("POST", f"{url}/decision", {"approved": True, "by": "Ann"})[0] == 202
        assert approval.until(url, "state", "Completed")["result"] == {"approved": True, "by": "Ann"}
        assert approval.request("POST", f"{url}/decision", {"approved": True, "by": "Ann"})[0] == 410

    def test_after_the_deadline_the_director_is_asked(self, approval):
        url = self.claim(approval, deadlineSeconds=1)
        approval.until(url, "waiting", "waiting for the director")
        assert approval.request("POST", f"{url}/decision", {"approved": False, "by": "Eve"})[0] == 202
        assert approval.until(url, "state", "Completed")["result"] == {"approved": False, "by": "Eve"}

    def test_when_nobody_decides_the_answer_is_no(self, approval):
        url = self.claim(approval, deadlineSeconds=0.1)
        assert approval.until(url, "state", "Completed")["result"] == {"approved": False, "by": "nobody: both deadlines went by"}

    def test_a_claim_that_is_not_there(self, approval):
        assert approval.request("POST", "/claims/nothing/decision", {"approved": True, "by": "Ann"})[0] == 404
