"""Hostile requests: other task hubs, header and log injection, other origins, rebound names, and what a GET may do."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flask_durable.core.ids import RESERVED_IDS
from flask_durable.http.routes import ROUTES

from .conftest import KEY, PREFIX, Site, SiteMaker

CRLF = "\r\nSet-Cookie: stolen=1\r\n\r\n<script>"


def path_of(route: Any, instance_id: str = "order-1") -> str:
    return str(route.path).replace("<orchestratorName>", "waiter").replace("<instanceId>", quote(instance_id, safe="")).replace("<eventName>", "Go")


def snapshot(site: Site) -> list[Any]:
    """Everything that a change would show in."""
    found = [site.get("?showInput=true").get_json()]
    return found + [site.get(f"/{each['instanceId']}/history").get_json() for each in found[0]]


# ---------------------------------------------------------------- task hubs


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.endpoint)
@pytest.mark.parametrize("tail", ["", "taskHub=theirs&connection=theirs"], ids=["plain", "asking"])
def test_no_operation_reaches_an_instance_of_another_task_hub(make_site: SiteMaker, tmp_path: Path, route: Any, tail: str) -> None:  # S1
    database = f"sqlite:///{tmp_path}/shared.db"
    theirs = make_site(DURABLE_DATABASE=database, DURABLE_TASK_HUB="theirs")
    ours = make_site(DURABLE_DATABASE=database, DURABLE_TASK_HUB="ours")
    theirs.start(instanceId="order-1", input="theirs")
    theirs.ended(instanceId="order-2", input="theirs")
    before = snapshot(theirs)

    query = "&".join(filter(None, [tail, "createdTimeFrom=2020-01-01" if route.endpoint == "purge_instances" else ""]))
    for instance_id in ("order-1", "order-2"):
        response = ours.http.open(f"{PREFIX}{path_of(route, instance_id)}?{query}", method=route.method)
        expected = {"start": 202, "list_instances": 200, "purge_instances": 200, "list_versions": 200}.get(route.endpoint, 404)
        assert response.status_code == expected
        assert "theirs" not in response.get_data(as_text=True)
    assert snapshot(theirs) == before


# ---------------------------------------------------------------- ids


def test_an_id_in_use_is_never_anothers_result_by_accident(site: Site) -> None:  # S10
    site.start(instanceId="order-1", input="theirs")
    for body in ({}, {"ifExists": "error"}, {"ifExists": None}, {"input": "mine"}):
        for query in ("", "?timeout=0.02&pollingInterval=0.01"):
            response = site.post(f"/start/waiter{query}", json={"instanceId": "order-1", **body})
            assert (response.status_code, response.get_json()["code"]) == (409, "instance_exists")
            assert "theirs" not in response.get_data(as_text=True)
    assert site.post("/start/waiter", json={"instanceId": "order-1", "ifExists": "Return"}).status_code == 400


@pytest.mark.parametrize("text", [CRLF, "a\rb", "a\nb", "a\x00b", "a\x85b", "a\u2028b"], ids=repr)
def test_no_value_of_a_caller_ends_a_header(site: Site, text: str) -> None:  # S6
    refused = site.post("/start/waiter", json={"instanceId": f"a{text}"})
    assert refused.status_code == (202 if text == "a\u2028b" else 400)
    encoded = quote(text, safe="")
    answers = [
        site.http.open(f"{PREFIX}{path_of(route, text)}?{tail}", method=route.method)
        for route, tail in itertools.product(
            ROUTES,
            (
                f"continuationToken={encoded}",
                f"instanceIdPrefix={encoded}",
                f"name={encoded}",
                f"{encoded}={encoded}",
                f"reason={encoded}",
                f"tag=a:{encoded}",
            ),
        )
    ]
    site.start(tags={"a": "b"})
    site.start(tags={"a": "b"})
    answers += [site.get(f"?top=1&tag=a:b&{encoded}={encoded}"), site.get("?top=1", headers={"x-ms-continuation-token": "x\ty"})]
    for answer in answers:
        assert answer.status_code in (200, 202, 400, 404, 405)
        assert "Set-Cookie" not in answer.headers
        for name, value in answer.headers:
            assert (name + value).isprintable(), name
            assert (name + value).isascii(), name


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:5000", "[::1].evil.example"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.endpoint)
def test_a_page_whose_name_was_rebound_to_this_machine_is_refused_everywhere(site: Site, route: Any, host: str) -> None:  # S3
    """The browser believes that it talks to the attacker's host, so Origin and Host agree; only the name gives it away."""
    site.start(instanceId="order-1")
    before = snapshot(site)
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    answer = site.http.open(PREFIX + path_of(route), method=route.method, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "forbidden")
    assert snapshot(site) == before


# ---------------------------------------------------------------- methods and origins


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_no_method_that_reads_changes_anything(site: Site, method: str) -> None:  # S2
    site.start(instanceId="order-1")
    site.ended(instanceId="order-2")
    before = snapshot(site)
    paths = [path_of(route, instance_id) for route in ROUTES for instance_id in ("order-1", "order-2")]
    overridden = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "POST", "X-HTTP-Method": "POST"}
    for path in [*paths, "/openapi.json", "/docs"]:
        for tail in ("", "?_method=DELETE&method=POST&createdTimeFrom=2020-01-01"):
            assert site.http.open(PREFIX + path + tail, method=method, headers=overridden, buffered=True).status_code in (200, 404, 405)
    assert snapshot(site) == before


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; application/json"]
)
def test_what_a_form_of_another_site_can_send_is_not_taken_for_json(site: Site, content_type: str) -> None:  # S2
    site.start(instanceId="order-1")
    for path in ("/start/waiter", "/order-1/raiseEvent/Go", "/order-1/terminate", "/order-1/suspend"):
        assert site.post(path, data='{"reason": "x"}', content_type=content_type).status_code == 415
    assert len(site.get().get_json()) == 1
    assert site.get("/order-1").get_json()["runtimeStatus"] == "Pending"


@pytest.mark.parametrize("config", [{}, {"DURABLE_API_KEYS": [KEY]}, {"DURABLE_ALLOW_ANONYMOUS": True}], ids=["local", "keys", "open"])
def test_no_other_origin_is_invited(make_site: SiteMaker, config: dict[str, Any]) -> None:  # S2
    site = make_site(**config)
    asks = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
        "X-Api-Key": KEY,
    }
    for route in ROUTES:
        for method in ("OPTIONS", route.method):
            answer = site.http.open(PREFIX + path_of(route), method=method, headers=asks, buffered=True)
            assert not [name for name, _ in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("word", sorted(RESERVED_IDS - {"start"}))
def test_a_word_with_a_route_of_its_own_is_no_instance(site: Site, word: str) -> None:
    assert site.http.delete(f"{PREFIX}/{word}").status_code == 405
    assert "DELETE" not in site.http.open(f"{PREFIX}/{word}", method="OPTIONS").headers["Allow"]
