"""POST /start/{name}."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .conftest import PREFIX, Site, SiteMaker

LINKS = [
    "statusQueryGetUri", "sendEventPostUri", "terminatePostUri", "purgeHistoryDeleteUri", "restartPostUri", "suspendPostUri", "resumePostUri",
    "rewindPostUri",
]  # fmt: skip


def test_the_example_of_the_documentation_works(site: Site) -> None:
    response = site.post("/start/waiter", data='{"input": {"orderId": "123"}}', content_type="application/json")

    body = response.get_json()
    assert response.status_code == 202
    assert re.fullmatch("[0-9a-f]{32}", body["id"])
    assert body["instanceId"] == body["id"]
    assert list(body) == ["id", "instanceId", *LINKS, "managementUrls"]
    assert body["managementUrls"] == {name: body[name] for name in LINKS}
    assert response.headers["Location"] == body["statusQueryGetUri"]
    assert response.headers["Retry-After"] == "5"
    assert site.get(f"/{body['id']}").get_json()["input"] == {"orderId": "123"}


def test_every_link_takes_more_query_and_has_its_braces_as_they_are(site: Site) -> None:
    body = site.post("/start/waiter").get_json()

    for name in LINKS:
        assert "?" in body[name]
        assert "%7B" not in body[name]
        assert body[name].startswith(f"http://localhost{PREFIX}/{body['id']}")
    assert "/raiseEvent/{eventName}?" in body["sendEventPostUri"]
    assert "reason={text}&" in body["terminatePostUri"]


def test_every_link_works_when_its_placeholders_are_replaced_as_text(site: Site) -> None:
    links = site.post("/start/waiter").get_json()

    def follow(name: str, verb: str = "post") -> int:
        url = links[name].replace("{eventName}", "Go").replace("{text}", "because")
        return int(getattr(site.http, verb)(url.removeprefix("http://localhost") + "&more=1").status_code)

    assert follow("statusQueryGetUri", "get") == 200
    assert [follow(name) for name in ("suspendPostUri", "resumePostUri", "sendEventPostUri", "terminatePostUri")] == [202] * 4
    assert site.get(f"/{links['id']}").get_json()["output"] == "because"
    assert follow("restartPostUri") == 202
    assert follow("purgeHistoryDeleteUri", "delete") == 200


def test_links_work_with_the_placeholders_left_in(site: Site) -> None:
    links = site.post("/start/waiter").get_json()

    for name in ("sendEventPostUri", "suspendPostUri", "resumePostUri", "terminatePostUri"):
        assert site.http.post(links[name].removeprefix("http://localhost")).status_code == 202
    assert site.get(f"/{links['id']}").get_json()["output"] == "{text}"


def test_the_base_of_links_is_a_setting_or_the_request_after_proxy_fix_and_never_a_bare_header(make_site: SiteMaker) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix

    headers = {"X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/mnt", "X-Api-Key": "a" * 20}
    plain, fixed, based = (make_site(DURABLE_API_KEYS=["a" * 20], DURABLE_BASE_URL=base) for base in (None, None, "https://your-app/x"))
    fixed.app.wsgi_app = ProxyFix(fixed.app.wsgi_app, x_host=1, x_proto=1, x_prefix=1)  # type: ignore[method-assign]

    locations = [each.post("/start/waiter", headers=headers, json={"instanceId": "a b"}).headers["Location"] for each in (plain, fixed, based)]

    assert locations == [
        f"http://localhost{PREFIX}/a%20b?taskHub=default",
        f"https://shop.example/mnt{PREFIX}/a%20b?taskHub=default",
        f"https://your-app/x{PREFIX}/a%20b?taskHub=default",
    ]


@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "text/plain", "application/json"])
def test_an_empty_body_of_any_type_is_no_input(site: Site, content_type: str | None) -> None:
    response = site.post("/start/waiter", data=b"", content_type=content_type)

    assert response.status_code == 202
    assert site.get(f"/{response.get_json()['id']}").get_json()["input"] is None


@pytest.mark.parametrize(
    "value", [None, 0, False, "", [], {}, "Tokyo", '"twice"', 1.5, [1, {"a": None}], {"input": 1}, 2**64, "ü\u2028\U0001f600\x00"]
)
def test_any_json_value_is_an_input(site: Site, value: Any) -> None:
    instance_id = site.start(input=value)

    assert site.get(f"/{instance_id}").get_json()["input"] == value


def test_all_fields_of_the_body_reach_the_instance(site: Site) -> None:
    body = {"input": 1, "instanceId": "order-1", "version": "2.1", "tags": {"team": "a"}, "startAt": "2030-01-01T00:00:00+01:00", "ifExists": "error"}

    assert site.start(**body) == "order-1"
    status = site.get("/order-1").get_json()
    assert {name: status[name] for name in ("name", "instanceId", "version", "tags", "runtimeStatus", "scheduledStartTime")} == {
        "name": "waiter", "instanceId": "order-1", "version": "2.1", "tags": {"team": "a"}, "runtimeStatus": "Pending",
        "scheduledStartTime": "2029-12-31T23:00:00.000000Z",
    }  # fmt: skip


def test_null_is_the_same_as_absent(site: Site) -> None:
    nothing = dict.fromkeys(("input", "instanceId", "version", "tags", "startAt", "ifExists"))
    assert site.post("/start/waiter", json=nothing).status_code == 202


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"inputt": 1, "InstanceId": "x"}, ["InstanceId", "inputt"]),
        ({"instanceId": 5}, ["instanceId"]),
        ({"tags": []}, ["tags"]),
        ({"tags": {"a": 1}}, ["tags.a.value"]),
        ({"startAt": "soon"}, ["startAt"]),
        ({"startAt": 0}, ["startAt"]),
        ({"ifExists": "maybe"}, ["ifExists"]),
        ({"version": ""}, ["version"]),
        ({"version": "1\x00"}, ["version"]),
    ],
)
def test_what_is_wrong_with_a_field_is_said_by_its_name(site: Site, body: dict[str, Any], fields: list[str]) -> None:
    response = site.post("/start/waiter", json=body)

    answer = response.get_json()
    assert (response.status_code, answer["code"], answer["status"]) == (400, "invalid_argument", 400)
    assert list(answer["errors"]) == fields
    assert answer["message"] == answer["Message"] == answer["ExceptionMessage"]
    assert all(name in answer["message"] for name in fields)


@pytest.mark.parametrize(
    "raw",
    [b"{", b"nope", b"[]", b"null", b'"x"', b"5", b'{"input": NaN}', b'{"input": -Infinity}', b"\xff\xfe", b'{"input": "\xff"}', b'{"input": "\\ud800"}',
     b'{"instanceId": "\\ud800"}', b'{"tags": {"a": "\\ud800"}}', b"[" * 100_000, b'{"input": ' + b"[" * 64 + b"1" + b"]" * 65, b'{"input": 1' + b"0" * 5000 + b"}"],
)  # fmt: skip
def test_a_malformed_body_is_400(site: Site, raw: bytes) -> None:
    response = site.post("/start/waiter", data=raw, content_type="application/json")

    assert (response.status_code, response.get_json()["code"]) == (400, "invalid_argument")


def test_the_deepest_allowed_input_is_taken(site: Site) -> None:
    deep = "[" * 64 + "]" * 64
    assert site.post("/start/waiter", data=f'{{"input": {deep}}}', content_type="application/json").status_code == 202


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/octet-stream", "text/json"]
)
def test_a_body_that_says_it_is_something_else_is_not_taken_for_nothing(site: Site, content_type: str) -> None:
    response = site.post("/start/waiter", data=b'{"input": 1}', content_type=content_type)

    assert (response.status_code, response.get_json()["code"]) == (415, "unsupported_media_type")
    assert site.get().get_json() == []


@pytest.mark.parametrize("content_type", [None, "application/json; charset=utf-8", "application/problem+json"])
def test_json_under_any_of_its_names_is_taken(site: Site, content_type: str | None) -> None:
    assert site.post("/start/waiter", data=b'\xef\xbb\xbf{"input": 1}'[3:], content_type=content_type).status_code == 202


@pytest.mark.parametrize(
    "instance_id",
    ["", "@x", "a/b", "a\\b", "a#b", "a?b", "a\nb", "a\r\nSet-Cookie: x", "a\x00", "x" * 101, "start", "Docs", "openapi.json", "..", " x"],
)
def test_a_bad_id_is_400(site: Site, instance_id: str) -> None:
    response = site.post("/start/waiter", json={"instanceId": instance_id})
    assert (response.status_code, response.get_json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("instance_id", ["x" * 100, "ä b", "%2e", "a;b=c", "a&b", "über-😀", "a+b", "{id}", "a'b\"c", "A", "a"])
def test_a_good_id_leads_from_its_link_to_the_instance(site: Site, instance_id: str) -> None:
    response = site.post("/start/waiter", json={"instanceId": instance_id})

    assert response.get_json()["id"] == instance_id
    assert site.http.get(response.headers["Location"]).get_json()["instanceId"] == instance_id


@pytest.mark.parametrize("name", ["nope", "Waiter", "wait%C3%A9r", "@x", "a%00b", "x" * 300])
def test_an_unknown_orchestrator_is_400_and_the_known_ones_are_named(site: Site, name: str) -> None:
    response = site.post(f"/start/{name}", json={"input": 1})

    assert (response.status_code, response.get_json()["code"]) == (400, "not_registered")
    assert "waiter" in response.get_json()["message"]


def test_an_id_in_use_is_409_and_says_in_what_state(site: Site) -> None:
    site.start(instanceId="order-1")
    running = site.post("/start/waiter", json={"instanceId": "order-1"})
    site.post("/order-1/terminate")
    ended = site.post("/start/waiter", json={"instanceId": "order-1"})

    assert (running.status_code, running.get_json()["code"], running.get_json()["runtimeStatus"]) == (409, "instance_exists", "Pending")
    assert (ended.status_code, ended.get_json()["runtimeStatus"]) == (409, "Terminated")


def test_if_exists_returns_or_replaces(site: Site) -> None:
    site.start(instanceId="order-1", input=1)

    returned = site.post("/start/waiter", json={"instanceId": "order-1", "input": 2, "ifExists": "return"})
    assert (returned.status_code, returned.get_json()["id"], site.get("/order-1").get_json()["input"]) == (202, "order-1", 1)
    assert site.post("/start/waiter", json={"instanceId": "order-1", "ifExists": "replaceFinished"}).status_code == 409
    site.post("/order-1/terminate")
    assert site.post("/start/waiter", json={"instanceId": "order-1", "input": 3, "ifExists": "replaceFinished"}).status_code == 202
    assert site.get("/order-1").get_json()["input"] == 3


@pytest.mark.parametrize(("extra", "status"), [(0, 202), (1, 413)])
def test_the_size_of_an_input_is_limited_to_the_byte(make_site: SiteMaker, extra: int, status: int) -> None:
    site = make_site(DURABLE_MAX_PAYLOAD_BYTES=2048)

    response = site.post("/start/waiter", json={"input": "x" * (2048 - 2 + extra)})

    assert response.status_code == status
    if status == 413:
        assert response.get_json()["code"] == "payload_too_large"


@pytest.mark.parametrize(("extra", "status"), [(0, 400), (1, 413)])
def test_the_size_of_a_body_is_limited_by_its_length_and_while_reading(make_site: SiteMaker, extra: int, status: int) -> None:
    site = make_site(DURABLE_MAX_PAYLOAD_BYTES=2048)
    body = b"x" * (2048 + 64 * 1024 + extra)

    by_length = site.post("/start/waiter", data=body, content_type="application/json")
    chunked = site.post(
        "/start/waiter",
        data=body,
        headers={"Content-Type": "application/json"},
        environ_overrides={"CONTENT_LENGTH": "", "wsgi.input_terminated": True},
    )

    assert [by_length.status_code, chunked.status_code] == [status, status]


def test_a_body_that_the_server_cannot_read_is_not_taken_for_nothing(site: Site) -> None:
    response = site.post(
        "/start/waiter", data=b"{}", content_type="application/json", environ_overrides={"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    )
    assert (response.status_code, response.get_json()["code"]) == (411, "length_required")


@pytest.mark.parametrize(
    "query", ["timeout=5", "pollingInterval=1", "timeout=1&pollingInterval=2", "timeout=1&pollingInterval=0", "timeout=-1&pollingInterval=-2", "timeout=nan&pollingInterval=1",
              "timeout=inf&pollingInterval=1", "timeout=x&pollingInterval=1"]
)  # fmt: skip
def test_a_bad_waiting_pair_is_400_and_starts_nothing(site: Site, query: str) -> None:
    assert site.post(f"/start/waiter?{query}").status_code == 400
    assert site.get().get_json() == []


def test_waiting_in_vain_answers_as_without_waiting(site: Site) -> None:
    response = site.post("/start/waiter?timeout=0.05&pollingInterval=0.01")

    assert response.status_code == 202
    assert response.get_json()["statusQueryGetUri"] == response.headers["Location"]


def test_waiting_for_a_completed_one_answers_its_output_and_nothing_else(site: Site) -> None:
    site.durable.start_worker()
    response = site.post("/start/echo?Timeout=20&POLLINGINTERVAL=0.5", json={"input": {"a": [1, None]}})

    assert (response.status_code, response.get_json()) == (200, {"a": [1, None]})
    assert site.post("/start/echo?timeout=20&pollingInterval=1").get_data(as_text=True).strip() == "null"


def test_waiting_for_a_failed_one_answers_its_status(site: Site) -> None:
    site.durable.start_worker()
    response = site.post("/start/failing?timeout=20&pollingInterval=1")

    assert (response.status_code, response.get_json()["runtimeStatus"]) == (200, "Failed")
    assert "boom" in response.get_json()["output"]
    assert site.post("/start/failing?timeout=20&pollingInterval=1&returnInternalServerErrorOnFailure=true").status_code == 500


def test_answers_are_json_and_kept_by_no_cache(site: Site) -> None:
    response = site.post("/start/waiter")

    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert json.loads(response.data) == response.get_json()


def test_an_input_that_does_not_fit_its_declared_type_is_refused_with_its_place(site: Site) -> None:  # rule 55, B4
    @site.durable.orchestrator(name="sum")
    def add(ctx: Any, numbers: list[int]) -> int:
        return sum(numbers)

    response = site.post("/start/sum", json={"input": [1, {"two": 2}]})
    assert response.status_code == 400
    document = response.get_json()
    assert (document["code"], document["message"]) == (
        "type_mismatch",
        "The input of orchestrator 'sum' does not fit at [1]: expected int, found an object",
    )
    assert site.post("/start/sum", json={"input": [1, 2]}).status_code == 202
