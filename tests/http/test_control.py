"""Events, terminate, suspend, resume, restart."""

from __future__ import annotations

from typing import Any

import pytest
from support import has_status, until

from flask_durable import RuntimeStatus

from .conftest import Site

CONTROLS = ["terminate", "suspend", "resume", "raiseEvent/Go"]


@pytest.mark.parametrize(
    ("options", "payload"),
    [
        ({"json": {"eventData": {"approved": True}}}, {"approved": True}),
        ({"json": {"eventData": None}}, None),
        ({"json": {"eventData": {"eventData": 1}}}, {"eventData": 1}),
        ({"json": {"approved": True}}, {"approved": True}),
        ({"json": [1]}, [1]),
        ({"json": "text"}, "text"),
        ({"json": '"twice"'}, '"twice"'),
        ({"json": False}, False),
        ({"data": b"null", "content_type": "application/json"}, None),
        ({}, None),
        ({"data": b"", "content_type": "text/plain"}, None),
    ],
)
def test_an_event_is_wrapped_or_raw(site: Site, options: dict[str, Any], payload: Any) -> None:
    site.start(instanceId="a")

    response = site.post("/a/raiseEvent/Go", **options)
    assert (response.status_code, response.get_json()) == (202, {"id": "a", "instanceId": "a"})
    site.durable.start_worker()
    assert site.durable.client.wait_for_completion("a", timeout=20).output == payload


def test_an_event_that_nobody_waits_for_is_accepted(site: Site) -> None:
    site.start(instanceId="a")
    assert site.post("/a/raiseEvent/Later%20%C3%BC", json=1).status_code == 202


def test_a_key_beside_event_data_is_not_dropped_silently(site: Site) -> None:
    site.start(instanceId="a")
    response = site.post("/a/raiseEvent/Go", json={"eventData": 1, "more": 2})
    assert (response.status_code, response.get_json()["errors"]) == (400, {"more": ["Unknown field."]})


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/a/raiseEvent/@x", {}, 400),
        ("/a/raiseEvent/%20", {}, 400),
        ("/a/raiseEvent/a%23b", {}, 400),
        ("/a/raiseEvent/" + "x" * 201, {}, 400),
        ("/a/raiseEvent/Go", {"data": b"{", "content_type": "application/json"}, 400),
        ("/a/raiseEvent/Go", {"data": b"NaN", "content_type": "application/json"}, 400),
        ("/a/raiseEvent/Go", {"data": b"hello", "content_type": "text/plain"}, 415),
        ("/a/raiseEvent/Go", {"json": "x" * 1024 * 1024}, 413),
        ("/a/raiseEvent", {}, 404),
        ("/a/raiseEvent/a/b", {}, 404),
        ("/start/raiseEvent/x", {}, 404),
    ],
)
def test_a_bad_event_is_refused(site: Site, path: str, options: dict[str, Any], status: int) -> None:
    site.start(instanceId="a")
    assert site.post(path, **options).status_code == status


@pytest.mark.parametrize("control", [*CONTROLS, "restart"])
def test_an_unknown_instance_is_404(site: Site, control: str) -> None:
    for instance_id in ("nope", "docs", "%00", "x" * 300):
        response = site.post(f"/{instance_id}/{control}")
        assert (response.status_code, response.get_json()["code"]) == (404, "instance_not_found")


@pytest.mark.parametrize("control", CONTROLS)
def test_an_ended_instance_is_410(site: Site, control: str) -> None:
    site.ended(instanceId="a")

    response = site.post(f"/a/{control}")
    assert (response.status_code, response.get_json()["code"], response.get_json()["runtimeStatus"]) == (410, "instance_finished", "Terminated")


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/a/terminate?reason=no%20more", {}),
        ("/a/terminate?REASON=no%20more", {}),
        ("/a/terminate", {"json": {"reason": "no more"}}),
        ("/a/terminate?reason={text}&taskHub=default", {"json": {"reason": "no more", "recursive": False}}),
        ("/a/terminate/?reason=no%20more&recursive=FALSE", {"json": {}}),
    ],
)
def test_a_reason_comes_from_the_query_or_the_body(site: Site, path: str, options: dict[str, Any]) -> None:
    site.start(instanceId="a")

    response = site.post(path, **options)
    assert (response.status_code, response.get_json()) == (202, {"id": "a", "instanceId": "a"})
    status = site.get("/a").get_json()
    assert (status["runtimeStatus"], status["output"]) == ("Terminated", "no more")
    assert status["completedTime"] is not None


@pytest.mark.parametrize("control", ["terminate", "suspend", "resume", "rewind", "restart"])
@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {"reasons": "x"}}, 400),
        ({"json": {"reason": 5}}, 400),
        ({"json": {"recursive": "yes", "restartWithNewInstanceId": "true"}}, 400),
        ({"json": []}, 400),
        ({"data": b"reason=x", "content_type": "application/x-www-form-urlencoded"}, 415),
        ({"data": b"{", "content_type": "application/json"}, 400),
    ],
)
def test_a_bad_body_is_refused(site: Site, control: str, options: dict[str, Any], status: int) -> None:
    site.start(instanceId="a")

    assert site.post(f"/a/{control}", **options).status_code == status
    assert site.get("/a").get_json()["runtimeStatus"] == "Pending"


def test_suspend_and_resume_may_be_repeated(site: Site) -> None:
    site.start(instanceId="a")

    assert [site.post("/a/suspend", json={"reason": "x"}).status_code for _ in range(2)] == [202, 202]
    assert site.get("/a").get_json()["runtimeStatus"] == "Suspended"
    assert [site.post("/a/resume?reason=y").status_code for _ in range(2)] == [202, 202]
    assert site.get("/a").get_json()["runtimeStatus"] == "Pending"


def test_restart_runs_an_ended_one_under_a_new_id(site: Site) -> None:
    site.ended(instanceId="a", input=7, tags={"team": "a"})

    response = site.post("/a/restart")
    again = response.get_json()
    assert response.status_code == 202
    assert response.headers["Location"] == again["statusQueryGetUri"]
    assert again["id"] == again["instanceId"] != "a"
    status = site.get(f"/{again['id']}").get_json()
    assert (status["input"], status["tags"], status["restartedFrom"], status["runtimeStatus"]) == (7, {"team": "a"}, "a", "Pending")


@pytest.mark.parametrize(
    ("path", "options"),
    [("?restartWithNewInstanceId=false", {}), ("?RestartWithNewInstanceId=False", {}), ("", {"json": {"restartWithNewInstanceId": False}})],
)
def test_restart_under_the_same_id(site: Site, path: str, options: dict[str, Any]) -> None:
    site.ended(instanceId="a", input=7)

    assert site.post(f"/a/restart{path}", **options).get_json()["id"] == "a"
    assert site.get("/a").get_json()["runtimeStatus"] == "Pending"


def test_restart_of_one_that_goes_on_is_409(site: Site) -> None:
    site.start(instanceId="a")
    for query in ("", "?restartWithNewInstanceId=false"):
        response = site.post(f"/a/restart{query}")
        assert (response.status_code, response.get_json()["code"]) == (409, "instance_not_finished")


def test_the_same_event_with_its_key_counts_once(site: Site) -> None:  # rule 23
    site.start(instanceId="a")
    site.start(instanceId="b")

    for instance_id in ("a", "a", "b"):
        response = site.post(f"/{instance_id}/raiseEvent/Go", json=1, headers={"Idempotency-Key": "k-1"})
        assert (response.status_code, response.get_json()) == (202, {"id": instance_id, "instanceId": instance_id})
    for key, status in (("x" * 200, 202), ("x" * 201, 400), ("", 400), ("  ", 400), ("a\x01b", 400)):
        assert site.post("/a/raiseEvent/Go", json=1, headers={"Idempotency-Key": key}).status_code == status
    site.post("/b/terminate")
    assert site.post("/b/raiseEvent/Go", json=1, headers={"Idempotency-Key": "k-1"}).status_code == 202
    assert site.post("/b/raiseEvent/Go", json=1, headers={"Idempotency-Key": "k-2"}).status_code == 410
    assert site.post("/nope/raiseEvent/Go", json=1, headers={"Idempotency-Key": "k-1"}).status_code == 404


def test_the_key_of_an_event_is_documented(site: Site) -> None:  # rule 23
    operation = site.get("/openapi.json").get_json()["paths"]["/runtime/orchestrations/{instanceId}/raiseEvent/{eventName}"]["post"]
    assert [each["name"] for each in operation["parameters"] if each["in"] == "header"] == ["Idempotency-Key"]


@pytest.mark.parametrize(("query", "options"), [("?recursive=true", {}), ("", {"json": {"recursive": True}})])
def test_a_family_is_suspended_and_resumed_on_request(site: Site, query: str, options: dict[str, Any]) -> None:  # rule 37
    @site.durable.orchestrator
    def holder(ctx: Any, value: Any) -> Any:
        return (yield ctx.call_sub_orchestrator("waiter", value, instance_id="below"))

    site.durable.start_worker()
    site.durable.client.start("holder", instance_id="top")
    until(has_status(site.durable, "below", RuntimeStatus.RUNNING), "the child ran")

    assert site.post("/top/suspend").status_code == 202
    assert [site.get(f"/{each}").get_json()["runtimeStatus"] for each in ("top", "below")] == ["Suspended", "Running"]
    assert site.post(f"/top/suspend{query}", **options).status_code == 202
    assert [site.get(f"/{each}").get_json()["runtimeStatus"] for each in ("top", "below")] == ["Suspended", "Suspended"]
    assert site.post(f"/top/resume{query}", **options).status_code == 202
    assert [site.get(f"/{each}").get_json()["runtimeStatus"] for each in ("top", "below")] == ["Running", "Running"]
