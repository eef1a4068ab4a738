"""Around the views: access over HTTP, pages of the host, errors as JSON, trace context."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest
from flask import Flask, abort, redirect, request
from opentelemetry import trace
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_durable.errors import ConnectionsExhaustedError, StoreUnavailableError

from .conftest import KEY, PREFIX, Site, SiteMaker

EVERYTHING = [
    ("GET", ""), ("DELETE", "?createdTimeFrom=2020-01-01"), ("POST", "/start/waiter"), ("GET", "/a"), ("DELETE", "/a"), ("GET", "/a/history"), ("POST", "/a/raiseEvent/Go"),
    ("POST", "/a/terminate"), ("POST", "/a/suspend"), ("POST", "/a/resume"), ("POST", "/a/rewind"), ("POST", "/a/restart"), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/docs/swagger-ui.css"),
    ("GET", "/docs/nothing.js"), ("OPTIONS", "/a"), ("HEAD", "/a"), ("GET", "/no/such/page"), ("PUT", "/a"), ("GET", "/start/waiter"),
]  # fmt: skip


def statuses(site: Site, **options: Any) -> set[int]:
    return {site.http.open(PREFIX + path, method=method, buffered=True, **options).status_code for method, path in EVERYTHING}


# ---------------------------------------------------------------- access


@pytest.mark.parametrize(
    "options",
    [
        {"environ_overrides": {"REMOTE_ADDR": "10.0.0.1"}},
        {"headers": {"Host": "shop.example"}},
        {"headers": {"X-Forwarded-For": "127.0.0.1"}},
        {"headers": {"Forwarded": "for=127.0.0.1"}},
        {"headers": {"X-Real-IP": "127.0.0.1"}},
        {"environ_overrides": {"SERVER_PROTOCOL": "HTTP/1.0"}},  # what nginx sends when nobody configured it
    ],
)
def test_without_configuration_only_direct_local_requests_are_served(site: Site, options: dict[str, Any]) -> None:
    assert statuses(site, **options) == {403}
    refused = site.get("", **options).get_json()
    assert refused["code"] == "forbidden"
    assert "DURABLE_API_KEYS" in refused["message"]
    assert "DURABLE_AUTHORIZER" in refused["message"]
    assert 403 not in statuses(site)


def test_proxy_fix_does_not_make_a_remote_caller_local(make_site: SiteMaker) -> None:
    site = make_site()
    site.app.wsgi_app = ProxyFix(site.app.wsgi_app, x_for=1, x_host=1)  # type: ignore[method-assign]

    forged = site.get("", headers={"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost"}, environ_overrides={"REMOTE_ADDR": "10.0.0.1"})
    rebound = site.get("", headers={"Host": "evil.example", "X-Forwarded-Host": "localhost"})
    direct = site.get("")
    assert [forged.status_code, rebound.status_code, direct.status_code] == [403, 403, 200]


@pytest.mark.parametrize(
    ("peer", "headers"),
    [("10.0.0.1", {"X-Forwarded-For": "127.0.0.1"}), ("127.0.0.1", {"Host": "evil.example", "X-Forwarded-Host": "localhost"})],
)
def test_a_middleware_that_hides_the_headers_of_the_proxy_does_not_help_either(site: Site, peer: str, headers: dict[str, str]) -> None:
    serve = site.app.wsgi_app

    def hiding(environ: dict[str, Any], start_response: Any) -> Any:
        return serve({name: value for name, value in environ.items() if not name.startswith("HTTP_X_")}, start_response)

    site.app.wsgi_app = ProxyFix(hiding, x_for=1, x_host=1)  # type: ignore[method-assign]
    assert site.get("", headers=headers, environ_overrides={"REMOTE_ADDR": peer}).status_code == 403
    assert site.get("").status_code == 200


def test_a_page_of_another_origin_cannot_start_anything(site: Site) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert site.post("/start/waiter", headers=headers).status_code == 403
        assert site.delete("?createdTimeFrom=2020-01-01", headers=headers).status_code == 403
    assert site.get().get_json() == []
    assert site.post("/start/waiter", headers={"Origin": "http://localhost"}).status_code == 202


def test_with_keys_everybody_needs_one(make_site: SiteMaker) -> None:
    site = make_site(DURABLE_API_KEYS=[KEY, "another-key-of-many"])

    assert statuses(site) == {401}
    assert statuses(site, headers={"X-Api-Key": KEY + "x"}) == {401}
    refused = site.get()
    assert (refused.get_json()["code"], refused.headers["WWW-Authenticate"]) == ("unauthorized", 'Bearer realm="flask-durable"')
    for headers in ({"X-Api-Key": KEY}, {"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": "another-key-of-many", "Host": "shop.example"}):
        assert not statuses(site, headers=headers, environ_overrides={"REMOTE_ADDR": "10.0.0.1"}) & {401, 403}


def test_a_browser_is_asked_for_the_key_on_pages_and_cannot_be_made_to_write_with_it(make_site: SiteMaker) -> None:
    site = make_site(DURABLE_API_KEYS=[KEY])
    basic = {"Authorization": "Basic " + base64.b64encode(f":{KEY}".encode()).decode()}

    assert site.get("/docs").headers["WWW-Authenticate"].startswith("Basic ")
    assert [site.get(path, headers=basic).status_code for path in ("/docs", "/openapi.json", "/docs/swagger-ui.css")] == [200] * 3
    assert [site.post("/start/waiter", headers=basic).status_code, site.get("", headers=basic).status_code] == [401, 401]


def test_anonymous_access_is_served_and_logged(make_site: SiteMaker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="flask_durable.http"):
        site = make_site(DURABLE_ALLOW_ANONYMOUS=True)

    assert "DURABLE_ALLOW_ANONYMOUS" in caplog.text
    assert (
        site.get("", headers={"Host": "shop.example", "X-Forwarded-For": "1.2.3.4"}, environ_overrides={"REMOTE_ADDR": "10.0.0.1"}).status_code == 200
    )


def test_the_authorizer_is_asked_with_the_permission_and_the_id(make_site: SiteMaker) -> None:
    asked: list[tuple[str, str | None]] = []

    def decide(permission: str, instance_id: str | None) -> bool:
        asked.append((permission, instance_id))
        return request.headers.get("X-User") == "me"  # the request is at hand

    site = make_site(DURABLE_AUTHORIZER=decide)
    remote = {"environ_overrides": {"REMOTE_ADDR": "10.0.0.1"}, "headers": {"X-User": "you", "Host": "shop.example"}}

    assert statuses(site, **remote) == {403}
    assert asked == [
        ("read", None), ("purge", None), ("start", None), ("read", "a"), ("purge", "a"), ("read", "a"), ("event", "a"),
        ("control", "a"), ("control", "a"), ("control", "a"), ("control", "a"), ("control", "a"), ("read", None), ("read", None), ("read", None),
        ("read", None), ("read", "a"), ("read", "a"), ("read", None), ("read", None), ("read", None),
    ]  # fmt: skip
    assert site.post("/start/waiter", headers={"X-User": "me"}).status_code == 202


@pytest.mark.parametrize(
    ("body", "query", "needed"),
    [
        ({"instanceId": "x"}, "", ["start"]),
        ({"instanceId": "x", "ifExists": "replaceFinished"}, "", ["start", "purge"]),
        ({"instanceId": "x", "ifExists": "return"}, "", ["start"]),
        ({"instanceId": "x", "ifExists": "return"}, "?timeout=0.02&pollingInterval=0.01", ["start", "read"]),
    ],
)
def test_a_start_that_shows_or_replaces_what_others_started_needs_that_permission_too(
    make_site: SiteMaker, body: dict[str, str], query: str, needed: list[str]
) -> None:
    asked: list[tuple[str, str | None]] = []

    def decide(permission: str, instance_id: str | None) -> bool:
        asked.append((permission, instance_id))
        return True

    site = make_site(DURABLE_AUTHORIZER=decide)
    assert site.post(f"/start/waiter{query}", json=body).status_code == 202
    assert asked == [(permission, "x") for permission in needed]


def test_an_authorizer_that_fails_closes_the_api_and_is_logged(make_site: SiteMaker, caplog: pytest.LogCaptureFixture) -> None:
    def decide(permission: str, instance_id: str | None) -> bool:
        raise RuntimeError("the user table is gone")

    site = make_site(DURABLE_AUTHORIZER=decide)
    response = site.get()

    assert (response.status_code, response.get_json()["code"]) == (500, "internal_error")
    assert "user table" not in response.get_data(as_text=True)
    assert "user table" in caplog.text


def test_an_authorizer_may_abort_and_may_not_answer_with_a_page(make_site: SiteMaker) -> None:
    aborting = make_site(DURABLE_AUTHORIZER=lambda permission, instance_id: abort(401))
    answering = make_site(DURABLE_AUTHORIZER=lambda permission, instance_id: redirect("/login"))

    assert (aborting.get().status_code, aborting.get().get_json()["code"]) == (401, "unauthorized")
    assert answering.get().status_code == 500


# ---------------------------------------------------------------- errors and the host


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/a/b/c", 404), ("POST", "/a", 405), ("PUT", "", 405), ("POST", "", 405), ("GET", "/start/waiter", 405), ("PATCH", "/a/terminate", 405), ("POST", "/start", 405),
     ("GET", "/a//history", 404), ("GET", "//a", 404), ("TRACE", "/a", 405), ("GET", "/docs/../x", 404), ("DELETE", "/a/history", 405)],
)  # fmt: skip
def test_below_the_prefix_wrong_paths_and_methods_are_json_too(site: Site, method: str, path: str, status: int) -> None:
    response = site.http.open(PREFIX + path, method=method)

    assert (response.status_code, response.get_json()["status"]) == (status, status)
    assert ("Allow" in response.headers) == (status == 405)


def test_the_allow_header_names_all_methods_of_the_path(site: Site) -> None:
    assert site.http.put(f"{PREFIX}/a").headers["Allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert site.get("/a/terminate").headers["Allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    "path",
    ["", "/", "/docs", "/docs/", "/openapi.json", "/openapi.json/", "/a/", "/a/history/", "/start/waiter/", "/a/terminate/", "/a/raiseEvent/x/"],
)
def test_nothing_redirects(site: Site, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert not 300 <= site.http.open(PREFIX + path, method=method, buffered=True).status_code < 400


def host_with_pages() -> Flask:
    app = Flask("host")

    @app.errorhandler(404)
    @app.errorhandler(405)
    @app.errorhandler(Exception)
    def page(error: Exception) -> tuple[str, int]:
        return f"<h1>{type(error).__name__}</h1>", 418

    @app.get("/crash")
    def crash() -> str:
        raise ZeroDivisionError

    return app


def test_the_hosts_pages_stay_and_ours_are_not_taken_by_its_handlers(make_site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site(host_with_pages())
    site.start(instanceId="a")

    assert [site.http.get(path).data for path in ("/nowhere", f"{PREFIX}x", "/crash")] == [b"<h1>NotFound</h1>"] * 2 + [b"<h1>ZeroDivisionError</h1>"]
    assert site.http.post("/crash").data == b"<h1>MethodNotAllowed</h1>"
    monkeypatch.setattr(type(site.durable.client), "history", lambda *args, **options: 1 / 0)
    ours = [
        site.get("/nope"),
        site.get("/a/b/c"),
        site.post("/a"),
        site.get("/a/history"),
        site.get("?top=x"),
        site.post("/start/waiter", data=b"x", content_type="text/plain"),
    ]
    assert [(each.status_code, each.get_json()["code"]) for each in ours] == [
        (404, "instance_not_found"), (404, "not_found"), (405, "method_not_allowed"), (500, "internal_error"), (400, "invalid_argument"), (415, "unsupported_media_type"),
    ]  # fmt: skip


def test_the_hosts_own_limit_of_bodies_holds_and_is_json(make_site: SiteMaker) -> None:
    site = make_site(MAX_CONTENT_LENGTH=100)
    responses = [site.post("/start/waiter", json={"input": "x" * length}) for length in (10, 90, 200)]
    assert [response.status_code for response in responses] == [202, 413, 413]
    assert responses[2].get_json()["code"] == "payload_too_large"


def test_a_database_that_does_not_answer_is_503(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*args: Any, **options: Any) -> Any:
        raise StoreUnavailableError("db.internal is down")

    monkeypatch.setattr(type(site.durable.client), "start", unavailable)
    response = site.post("/start/waiter")
    assert (response.status_code, response.headers["Retry-After"], response.get_json()["code"]) == (503, "5", "store_unavailable")


def test_too_few_connections_are_503_and_say_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: Any, **options: Any) -> Any:
        raise ConnectionsExhaustedError(8, 10.0)

    monkeypatch.setattr(type(site.durable.client), "start", exhausted)
    response = site.post("/start/waiter")
    assert (response.status_code, response.headers["Retry-After"], response.get_json()["code"]) == (503, "5", "connections_exhausted")
    assert "All 8 connections" in response.get_json()["message"]


def test_the_json_provider_of_the_host_changes_nothing(make_site: SiteMaker) -> None:
    app = Flask("host")
    app.json.sort_keys = True  # type: ignore[attr-defined]
    app.json.dumps = lambda *args, **options: "broken"  # type: ignore[method-assign]
    site = make_site(app)
    assert list(site.get("/nope").get_json(force=True))[:2] == ["message", "Message"]


def test_two_apps_in_one_process_do_not_see_each_other(make_site: SiteMaker) -> None:
    one, two = make_site(DURABLE_URL_PREFIX="/one"), make_site(DURABLE_API_KEYS=[KEY])

    assert one.http.post("/one/start/waiter", json={"instanceId": "a"}).status_code == 202
    assert one.get().status_code == 404
    assert two.get().status_code == 401
    assert two.get("/a", headers={"X-Api-Key": KEY}).status_code == 404


def test_the_endpoints_can_be_switched_off(make_site: SiteMaker) -> None:
    site = make_site(DURABLE_MANAGEMENT_API=False)

    assert site.get().status_code == 404
    assert site.durable.client.get_status(site.durable.client.start("waiter")) is not None


# ---------------------------------------------------------------- trace context


def test_the_view_works_in_the_trace_of_its_caller(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    get_status = type(site.durable.client).get_status

    def watching(*args: Any, **options: Any) -> Any:
        seen.append(f"{trace.get_current_span().get_span_context().trace_id:032x}")
        return get_status(*args, **options)

    monkeypatch.setattr(type(site.durable.client), "get_status", watching)
    site.get("/a", headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    site.get("/a")
    assert seen == ["0af7651916cd43dd8448eb211c80319c", "0" * 32]  # pragma: allowlist secret
