"""Keys with permissions over HTTP: what each may do, what logs say of it, and logins of the app's own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from typing import Any

import pytest
from flask import Flask, g, request, session

from flask_durable.access import Permission
from flask_durable.http.routes import ROUTES
from flask_durable.keys import hash_key, make_key

from .conftest import PREFIX, Site, SiteMaker

KEYS = {permission.value: make_key() for permission in Permission}
ENTRIES = [{"name": f"{word}er", "hash": hash_key(word, key, [Permission(word)]).hash, "permissions": [word]} for word, key in KEYS.items()]


def call(site: Site, method: str, path: str, key: str, **options: Any) -> int:
    return site.http.open(PREFIX + path, method=method, headers={"X-Api-Key": key}, buffered=True, **options).status_code


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.endpoint)
def test_each_operation_is_denied_to_every_key_without_its_permission(make_site: SiteMaker, route: Any) -> None:  # S1
    site = make_site(DURABLE_API_KEYS=ENTRIES)
    path = route.path.replace("<orchestratorName>", "waiter").replace("<instanceId>", "nobody").replace("<eventName>", "Go")
    answers = {word: call(site, route.method, path, key) for word, key in KEYS.items()}

    assert {word for word, status in answers.items() if status != 403} == {route.permission.value}
    assert answers[route.permission.value] in (200, 202, 400, 404)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/swagger-ui.css", "/no/such/page"])
def test_pages_and_what_does_not_exist_need_the_permission_to_read(make_site: SiteMaker, path: str) -> None:  # S1
    site = make_site(DURABLE_API_KEYS=ENTRIES)
    answers = {word: call(site, "GET", path, key) for word, key in KEYS.items()}
    assert {word for word, status in answers.items() if status != 403} == {"read"}


def test_a_start_that_replaces_or_shows_needs_those_permissions_too(make_site: SiteMaker) -> None:  # S10
    starter, both = make_key(), make_key()
    site = make_site(
        DURABLE_API_KEYS={
            "starter": {"hash": hash_key("", starter).hash, "permissions": ["start"]},
            "both": {"hash": hash_key("", both).hash, "permissions": ["start", "read", "purge"]},
        }
    )
    shows, replaces = {"instanceId": "x", "ifExists": "return"}, {"instanceId": "x", "ifExists": "replaceFinished"}
    wait = "/start/waiter?timeout=0.02&pollingInterval=0.01"

    assert call(site, "POST", "/start/waiter", starter, json={"instanceId": "x"}) == 202
    assert call(site, "POST", "/start/waiter", starter, json={"instanceId": "x"}) == 409
    assert [call(site, "POST", path, starter, json=body) for path, body in ((wait, shows), ("/start/waiter", replaces))] == [403, 403]
    assert [call(site, "POST", path, both, json=body) for path, body in ((wait, shows), ("/start/waiter", replaces))] == [202, 409]


def test_logs_name_the_key_and_never_hold_it(make_site: SiteMaker, caplog: pytest.LogCaptureFixture) -> None:  # S7
    site = make_site(DURABLE_API_KEYS=ENTRIES)
    with caplog.at_level(logging.DEBUG):
        site.http.post(f"{PREFIX}/start/waiter", headers={"X-Api-Key": KEYS["start"]}, json={"instanceId": "order-1", "input": "a secret input"})
        site.http.post(f"{PREFIX}/order-1/terminate?reason=secretly", headers={"Authorization": f"Bearer {KEYS['control']}"})
        site.http.delete(f"{PREFIX}/order-1", headers={"X-Api-Key": KEYS["read"]})
        site.http.get(f"{PREFIX}/order-1", headers={"X-Api-Key": "wrong-" + KEYS["read"]})
        site.http.get(f"{PREFIX}/order-1", headers={"X-Api-Key": KEYS["read"]})

    audit = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "flask_durable.audit"]
    assert audit == [
        ("INFO", "start orchestratorName=waiter instanceId=order-1 by starter from 127.0.0.1: 202"),
        ("INFO", "terminate instanceId=order-1 by controler from 127.0.0.1: 202"),
        ("WARNING", "purge_instance instanceId=order-1 by reader from 127.0.0.1: 403"),
        ("WARNING", "get_instance instanceId=order-1 by nobody named from 127.0.0.1: 401"),
    ]
    assert not [word for word in (*KEYS.values(), "secret") if word in caplog.text]


def test_a_made_up_id_cannot_forge_a_line_of_the_audit_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:  # S6
    with caplog.at_level(logging.INFO, logger="flask_durable.audit"):
        site.post("/a%0AINFO%20forged%1b[2J/terminate")
    (record,) = caplog.records
    assert record.getMessage() == r"terminate instanceId=a\x0aINFO forged\x1b[2J by nobody named from 127.0.0.1: 404"


def test_an_authorizer_knows_the_name_of_the_key(make_site: SiteMaker) -> None:  # S1
    def own_only(permission: str, instance_id: str | None) -> bool:
        return instance_id is not None and instance_id.startswith(f"{g.durable_api_key}-")

    site = make_site(DURABLE_API_KEYS=ENTRIES, DURABLE_AUTHORIZER=own_only)
    paths = ("/reader-1", "/starter-1", "")
    assert [call(site, "GET", path, KEYS["read"]) for path in paths] == [404, 403, 403]
    assert call(site, "GET", "/starter-1", KEYS["start"]) == 403, "both have to agree"


def test_a_login_of_the_app_can_decide(make_site: SiteMaker) -> None:  # S1
    """As with Flask-Login, whose ``current_user`` is read from the session."""
    app = Flask("host")
    app.secret_key = "only for this test"  # pragma: allowlist secret

    @app.post("/login/<name>")
    def login(name: str) -> str:
        session["user"] = name
        return "welcome"

    def may(permission: str, instance_id: str | None) -> bool:
        user = session.get("user")
        return user is not None and (permission == "read" or user == "operator")

    site = make_site(app, DURABLE_AUTHORIZER=may)
    remote = {"environ_overrides": {"REMOTE_ADDR": "10.0.0.1"}}

    def tries() -> list[int]:
        return [site.get("", **remote).status_code, site.post("/start/waiter", **remote).status_code]

    assert tries() == [403, 403]
    site.http.post("/login/visitor")
    assert tries() == [200, 403]
    site.http.post("/login/operator")
    assert tries() == [200, 202]
    # The browser sends the cookie along when another site makes it write
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert site.post("/start/waiter", headers=headers, **remote).status_code == 403  # S2


def signed(claims: dict[str, Any], secret: bytes = b"shared") -> str:
    """A JSON Web Token (HS256), as an identity provider makes it."""
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, claims))
    mark = base64.urlsafe_b64encode(hmac.digest(secret, head + b"." + body, hashlib.sha256)).rstrip(b"=")
    return b".".join((head, body, mark)).decode()


def test_a_bearer_token_of_an_identity_provider_can_decide(make_site: SiteMaker) -> None:  # S1
    def may(permission: str, instance_id: str | None) -> bool:
        head, _, rest = request.headers.get("Authorization", "").removeprefix("Bearer ").partition(".")
        body, _, mark = rest.partition(".")
        right = hmac.digest(b"shared", f"{head}.{body}".encode(), hashlib.sha256)
        if not hmac.compare_digest(base64.urlsafe_b64encode(right).rstrip(b"="), mark.encode()):
            return False
        return permission in json.loads(base64.urlsafe_b64decode(body + "=="))["durable"]

    site = make_site(DURABLE_AUTHORIZER=may)
    tokens = [signed({"durable": ["read"]}), signed({"durable": ["read", "start"]}), signed({"durable": ["read", "start"]}, b"forged"), "nonsense"]
    answers = [
        (site.get("", headers=headers).status_code, site.post("/start/waiter", headers=headers).status_code)
        for headers in ({"Authorization": f"Bearer {token}"} for token in tokens)
    ]
    assert answers == [(200, 403), (200, 202), (403, 403), (403, 403)]
