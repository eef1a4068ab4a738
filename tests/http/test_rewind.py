"""Rewinding over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Site


@pytest.fixture
def failed(site: Site) -> str:
    site.durable.start_worker()
    started = site.start("failing", instanceId="f", input="x")
    site.durable.client.wait_for_completion(started, timeout=20)
    site.durable.stop_worker()
    assert site.get("/f").get_json()["runtimeStatus"] == "Failed"
    return started


@pytest.mark.parametrize(("query", "options"), [("?reason=paper%20is%20there", {}), ("", {"json": {"reason": "paper is there"}})])
def test_a_failed_instance_runs_on(site: Site, failed: str, query: str, options: dict[str, Any]) -> None:  # REW-2, REW-5
    response = site.post(f"/f/rewind{query}", **options)
    assert (response.status_code, response.get_json()) == (202, {"id": "f", "instanceId": "f"})
    status = site.get("/f?showHistory=true").get_json()
    assert (status["runtimeStatus"], status["failureDetails"], status["output"], status["completedTime"]) == ("Running", None, None, None)
    entry = status["historyEvents"][-1]
    assert (entry["EventType"], entry["Reason"]) == ("ExecutionRewound", "paper is there")
    full = site.get("/f/history").get_json()[-1]
    assert (full["EventType"], full["Reason"], full["Redone"]) == ("ExecutionRewound", "paper is there", [1])


def test_a_body_and_a_reason_are_not_needed(site: Site, failed: str) -> None:
    assert site.post("/f/rewind").status_code == 202


def test_the_link_leads_there(site: Site, failed: str) -> None:
    link = site.post("/f/restart").get_json()["rewindPostUri"].replace("{text}", "why")
    assert "/rewind?reason=why&taskHub=" in link
    refused = site.http.post(link)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "instance_not_failed")


@pytest.mark.parametrize(("ended", "status"), [(False, 409), (True, 410)])
def test_what_has_not_failed_is_refused(site: Site, ended: bool, status: int) -> None:  # REW-1
    site.start(instanceId="a")
    if ended:
        site.post("/a/terminate")
    response = site.post("/a/rewind")
    assert response.status_code == status
    body = response.get_json()
    assert (body["code"], body["status"], body["runtimeStatus"]) == ("instance_not_failed", status, "Terminated" if ended else "Pending")


def test_an_unknown_instance_is_not_found(site: Site) -> None:  # REW-1
    assert site.post("/nobody/rewind").status_code == 404
