"""Who is served: the rules of access.py on plain values."""

from __future__ import annotations

import base64

import pytest

from flask_durable.access import Caller, Permission, admit, authorize, is_direct_local, is_loopback_host, make_policy

KEY = "correct-horse-battery"
LOCAL = make_policy([], None, is_open=False)
KEYED = make_policy(["first-key-of-the-app", KEY], None, is_open=False)
OPEN = make_policy([], None, is_open=True)


def caller(peer: str | None = "127.0.0.1", host: str | None = "localhost:5000", method: str = "GET", **headers: str) -> Caller:
    return Caller(peer, host, method, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:5000", "127.1.2.3", "[::1]", "[::1]:80"])
def test_a_direct_request_of_this_machine_is_served(peer: str, host: str) -> None:
    assert admit(LOCAL, caller(peer, host)) is None


@pytest.mark.parametrize(
    "peer", [None, "", "10.0.0.1", "192.168.1.2", "8.8.8.8", "::2", "::ffff:10.0.0.1", "127.0.0.1, 10.0.0.1", "localhost", "unix:"]
)
def test_a_request_from_elsewhere_is_refused_and_told_how_to_configure_access(peer: str | None) -> None:
    refusal = admit(LOCAL, caller(peer))

    assert refusal is not None
    assert refusal.status == 403
    assert "DURABLE_API_KEYS" in refusal.message
    assert "DURABLE_AUTHORIZER" in refusal.message


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "example.com",
        "localhost.example.com",
        "localhost@example.com",
        "localhost:80:90",
        "localhost:abc",
        "127.0.0.1.nip.io",
        "0.0.0.0",
        "[::2]",
        "2130706433",
        "a,localhost",
    ],
)
def test_a_name_that_does_not_mean_this_machine_is_refused(host: str | None) -> None:
    # DNS rebinding: the address is ours, the name is not
    assert not is_loopback_host(host)
    refusal = admit(LOCAL, caller(host=host))
    assert refusal is not None
    assert refusal.status == 403


@pytest.mark.parametrize(
    "header",
    [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-anything",
        "forwarded",
        "x-real-ip",
        "via",
        "cf-connecting-ip",
        "true-client-ip",
    ],
)
def test_a_request_that_a_proxy_passed_on_is_refused(header: str) -> None:
    request = Caller("127.0.0.1", "localhost", "GET", {header: "127.0.0.1"})

    assert not is_direct_local(request)
    refusal = admit(LOCAL, request)
    assert refusal is not None
    assert refusal.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://localhost:5000.evil.example"},
        {"origin": "file://"},
        {"origin": "http://localhost:99999999"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "same-origin", "origin": "http://evil.example"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_a_page_of_another_origin_cannot_write(method: str, headers: dict[str, str]) -> None:
    refusal = admit(LOCAL, caller(method=method, **headers))

    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "forbidden")


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("localhost:5000", {}),
        ("localhost:5000", {"origin": "http://localhost:5000"}),
        ("localhost", {"origin": "http://localhost"}),
        ("localhost:80", {"origin": "http://localhost"}),
        ("localhost:5000", {"sec_fetch_site": "same-origin", "origin": "http://localhost:5000"}),
        ("localhost:5000", {"sec_fetch_site": "none"}),
    ],
)
def test_programs_and_pages_of_this_server_can_write(host: str, headers: dict[str, str]) -> None:
    assert admit(LOCAL, caller(host=host, method="POST", **headers)) is None


def test_a_page_of_another_origin_can_make_a_browser_read_but_not_see_the_answer() -> None:
    assert admit(LOCAL, caller(origin="http://evil.example", sec_fetch_site="cross-site")) is None


def test_behind_a_proxy_that_rewrites_the_host_the_browsers_word_is_taken() -> None:
    policy = make_policy([], lambda permission, instance_id: True, is_open=False)
    write = {"origin": "https://shop.example", "sec_fetch_site": "same-origin"}

    assert admit(policy, caller("10.0.0.1", "backend:8000", "POST", **write)) is None
    assert admit(policy, caller("10.0.0.1", "backend:8000", "POST", origin="https://evil.example")) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x_api_key": KEY},
        {"authorization": "Bearer wrong", "x_api_key": KEY},
    ],
)
def test_a_key_opens_from_everywhere(headers: dict[str, str]) -> None:
    assert admit(KEYED, caller("8.8.8.8", "example.com", "POST", **headers)) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": KEY},
        {"x_api_key": KEY[:-1]},
        {"x_api_key": ""},
        {"x_api_key": "ä" * 20},
    ],
)
def test_without_a_valid_key_the_answer_is_401_also_on_this_machine(headers: dict[str, str]) -> None:
    refusal = admit(KEYED, caller(**headers))

    assert refusal is not None
    assert (refusal.status, refusal.code) == (401, "unauthorized")
    assert refusal.headers["WWW-Authenticate"].startswith("Bearer ")


def test_a_browser_may_send_the_key_as_a_password_to_pages_only() -> None:
    basic = {"authorization": "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()}

    assert admit(KEYED, caller(**basic), accepts_basic=True) is None
    refused = [admit(KEYED, caller(**basic)), admit(KEYED, caller(authorization="Basic ???"), accepts_basic=True)]
    assert [refusal and refusal.status for refusal in refused] == [401, 401]
    asked = admit(KEYED, caller(), accepts_basic=True)
    assert asked is not None
    assert asked.headers["WWW-Authenticate"].startswith("Basic ")


def test_keys_are_not_kept() -> None:
    assert KEY not in repr(KEYED)


def test_everybody_is_served_when_the_app_says_so() -> None:
    assert admit(OPEN, caller("8.8.8.8", "example.com", "POST", x_forwarded_for="1.2.3.4")) is None


def test_the_authorizer_decides_with_permission_and_id() -> None:
    asked: list[tuple[Permission, str | None]] = []

    def decide(permission: Permission, instance_id: str | None) -> bool | None:
        asked.append((permission, instance_id))
        return {"read": True, "start": False}.get(permission)

    policy = make_policy([], decide, is_open=False)

    assert authorize(policy, Permission.READ, "a") is None
    for permission in (Permission.START, Permission.PURGE):
        refusal = authorize(policy, permission, None)
        assert refusal is not None
        assert refusal.status == 403
    assert asked == [("read", "a"), ("start", None), ("purge", None)]


def test_an_authorizer_that_answers_with_a_page_does_not_open_the_api() -> None:
    policy = make_policy([], lambda permission, instance_id: "<h1>Please log in</h1>", is_open=False)  # type: ignore[arg-type, return-value]

    with pytest.raises(TypeError, match="DURABLE_AUTHORIZER must return True or False, not str"):
        authorize(policy, Permission.READ, None)
