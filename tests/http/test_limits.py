"""Limits, each at the last value that is allowed and the first that is not: bodies, depth, pages, waits, purges."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support import until

from flask_durable import client as client_module
from flask_durable.http.errors import ApiError
from flask_durable.http.parsing import ENVELOPE_BYTES
from flask_durable.http.waiting import WaitingRoom
from flask_durable.storage.interface import PurgeBy

from .conftest import PREFIX, Site, SiteMaker

WAIT = "/start/waiter?timeout=20&pollingInterval=1"


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(("extra", "status"), [(-1, 202), (0, 202), (1, 400)])
@pytest.mark.parametrize(("path", "key"), [("/start/waiter", "input"), ("/a/raiseEvent/Go", "eventData")])
def test_the_depth_of_a_payload(make_site: SiteMaker, path: str, key: str, extra: int, status: int) -> None:  # S9
    site = make_site(DURABLE_MAX_PAYLOAD_DEPTH=10)
    site.start(instanceId="a")
    assert site.post(path, json={key: nested(10 + extra)}).status_code == status


@pytest.mark.parametrize("depth", [100, 10_000, 100_000])
def test_a_body_of_any_depth_is_an_error_and_no_crash(site: Site, depth: int) -> None:  # S9
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "0" + "}" * depth):
        for path in ("/start/waiter", "/a/raiseEvent/Go"):
            assert site.post(path, data=text, content_type="application/json").status_code in (400, 404)


@pytest.mark.parametrize(("extra", "status"), [(-1, 202), (0, 202), (1, 413)])
def test_the_size_of_an_event(make_site: SiteMaker, extra: int, status: int) -> None:  # S9
    site = make_site(DURABLE_MAX_PAYLOAD_BYTES=2048)
    site.start(instanceId="a")
    assert site.post("/a/raiseEvent/Go", json={"eventData": "x" * (2046 + extra)}).status_code == status


@pytest.mark.parametrize(("extra", "status"), [(-1, 202), (0, 202), (1, 413)])
def test_the_size_of_a_body_with_all_that_surrounds_the_payload(make_site: SiteMaker, extra: int, status: int) -> None:  # S9
    site = make_site(DURABLE_MAX_PAYLOAD_BYTES=2048)
    body = b'{"input": 1}'
    assert site.post("/start/waiter", data=body.ljust(2048 + ENVELOPE_BYTES + extra), content_type="application/json").status_code == status


@pytest.mark.parametrize(("path", "most"), [("", 1000), ("/a/history", 1000)])
def test_the_size_of_a_page(site: Site, path: str, most: int) -> None:  # S9
    site.start(instanceId="a")
    assert [site.get(f"{path}?top={top}").status_code for top in (0, 1, most, most + 1)] == [400, 200, 200, 400]


@pytest.mark.parametrize(("extra", "status"), [(-1, 202), (0, 202), (1, 400)])
def test_the_number_and_length_of_tags(site: Site, extra: int, status: int) -> None:  # S9
    assert site.post("/start/waiter", json={"tags": {f"t{number}": "x" for number in range(50 + extra)}}).status_code == status
    assert site.post("/start/waiter", json={"tags": {"t": "x" * (256 + extra)}}).status_code == status


@pytest.mark.parametrize(("extra", "status"), [(-1, 202), (0, 202), (1, 400)])
def test_the_length_of_ids(site: Site, extra: int, status: int) -> None:  # S9
    assert site.post("/start/waiter", json={"instanceId": "x" * (100 + extra)}).status_code == status


# ---------------------------------------------------------------- requests that wait


def test_so_many_requests_may_wait_and_the_next_starts_nothing(make_site: SiteMaker) -> None:  # S9
    site = make_site(DURABLE_MAX_WAITING_REQUESTS=2)
    site.durable.start_worker()
    answers: list[int] = []

    def wait(instance_id: str) -> None:
        answers.append(site.app.test_client().post(PREFIX + WAIT, json={"instanceId": instance_id}).status_code)

    threads = [threading.Thread(target=wait, args=(f"i{number}",)) for number in range(2)]
    try:
        for thread in threads:
            thread.start()
        until(lambda: len(site.get("?runtimeStatus=Running").get_json()) == 2)
        refused = site.post(WAIT, json={"instanceId": "i2"})
        assert (refused.status_code, refused.get_json()["code"], refused.headers["Retry-After"]) == (429, "too_many_requests", "5")
        assert site.get("/i2").status_code == 404
        assert site.post("/start/waiter", json={"instanceId": "i3"}).status_code == 202, "who does not wait needs no place"
        for number in range(2):
            assert site.post(f"/i{number}/raiseEvent/Go", json={"eventData": number}).status_code == 202
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        ended = site.post(f"{WAIT}".replace("timeout=20&pollingInterval=1", "timeout=0.02&pollingInterval=0.01"), json={"instanceId": "i2"})
        assert ended.status_code == 202, "their places are free again"
    finally:
        site.durable.stop_worker()


@pytest.mark.parametrize("path", ["/start/nobody?timeout=1&pollingInterval=1", "/start/waiter?timeout=1&pollingInterval=2"])
def test_a_start_that_is_refused_for_another_reason_keeps_no_place(make_site: SiteMaker, path: str) -> None:  # S9
    site = make_site(DURABLE_MAX_WAITING_REQUESTS=1)
    for _ in range(3):
        assert site.post(path).status_code == 400
    site.start(instanceId="a")
    for _ in range(3):
        assert site.post("/start/waiter?timeout=0.02&pollingInterval=0.01", json={"instanceId": "a"}).status_code == 409


def test_without_places_nobody_may_wait(make_site: SiteMaker) -> None:  # S9
    site = make_site(DURABLE_MAX_WAITING_REQUESTS=0)
    assert [site.post(path).status_code for path in (WAIT, "/start/waiter")] == [429, 202]


def test_a_place_is_given_back_whatever_happens_in_it() -> None:  # S9
    room = WaitingRoom(1, 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), room.place():
            raise ZeroDivisionError
    with room.place(), pytest.raises(ApiError) as refused, room.place():
        pass
    assert refused.value.headers == {"Retry-After": "1"}


# ---------------------------------------------------------------- purges


@pytest.mark.parametrize(("count", "transactions"), [(4, 1), (5, 2), (6, 2), (11, 3)])
def test_a_purge_of_many_goes_in_transactions_of_bounded_size(
    site: Site, monkeypatch: pytest.MonkeyPatch, count: int, transactions: int
) -> None:  # S9
    monkeypatch.setattr(client_module, "_PURGE_BATCH", 5)
    for _ in range(count):
        site.ended()
    commands: list[Any] = []
    run = type(site.durable.client)._run
    monkeypatch.setattr(type(site.durable.client), "_run", lambda self, command: commands.append(command) or run(self, command))

    assert site.delete("?createdTimeFrom=2020-01-01").get_json() == {"instancesDeleted": count}
    assert [command.limit for command in commands if isinstance(command, PurgeBy)] == [5] * transactions
