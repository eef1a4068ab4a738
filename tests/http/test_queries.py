"""GET of one instance, of its history, and of the list; DELETE."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from support import until

from flask_durable.storage.interface import Park

from .conftest import PREFIX, Site


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.get_data(as_text=True)
    return [each["instanceId"] for each in response.get_json()]


# ---------------------------------------------------------------- one instance


def test_a_status_is_200_with_all_its_fields_whatever_the_state(site: Site) -> None:
    site.start(instanceId="a", input=1)

    response = site.get("/a")
    assert response.status_code == 200
    assert list(response.get_json()) == [
        "name", "instanceId", "runtimeStatus", "input", "customStatus", "output", "createdTime", "lastUpdatedTime", "completedTime", "scheduledStartTime",
        "parentInstanceId", "version", "tags", "failureDetails", "restartedFrom", "parkedReason", "waitingReason",
    ]  # fmt: skip
    assert not [name for name in response.get_json() if "_" in name]


@pytest.mark.parametrize("query", ["showInput=false", "SHOWINPUT=False", "showinput=FALSE&taskHub=x&_=1"])
def test_the_input_can_be_left_out(site: Site, query: str) -> None:
    site.start(instanceId="a", input=1)
    assert site.get(f"/a?{query}").get_json()["input"] is None


@pytest.mark.parametrize("query", ["showInput=", "showInput=1", "showHistory=maybe", "async=2", "showInput=true&showInput=false", "showInput=%FF"])
def test_a_flag_that_is_none_is_400(site: Site, query: str) -> None:
    site.start(instanceId="a")
    response = site.get(f"/a?{query}")
    assert (response.status_code, list(response.get_json()["errors"])) == (400, [query.partition("=")[0]])


@pytest.mark.parametrize(
    "instance_id",
    ["nope", "start", "%00", "%FF", "..%5c", "@x", "x" * 5000, "a%0D%0AX:1", "%F0%9F%98%80", "' OR 1=1", "%25", "_", "openapi.jsonx", "a%3Fb", "%20"],
)
@pytest.mark.parametrize("tail", ["", "/history"])
def test_whatever_comes_as_an_id_is_404_when_unknown(site: Site, instance_id: str, tail: str) -> None:
    response = site.get(f"/{instance_id}{tail}")
    assert (response.status_code, response.get_json()["status"]) == (404, 404)


def test_a_failed_one_is_500_only_on_request(site: Site) -> None:
    instance_id = site.run("failing")

    plain, asked = site.get(f"/{instance_id}"), site.get(f"/{instance_id}?returnInternalServerErrorOnFailure=true")
    assert (plain.status_code, asked.status_code) == (200, 500)
    assert plain.get_json() == asked.get_json()
    assert plain.get_json()["failureDetails"]["errorType"].endswith("TaskFailedError")
    assert "boom" in plain.get_json()["output"]


def test_polling_is_202_with_location_until_the_end(site: Site) -> None:
    site.start(instanceId="a b")

    waiting = site.get("/a%20b?async=true&showInput=false")
    assert waiting.status_code == 202
    assert waiting.headers["Location"] == f"http://localhost{PREFIX}/a%20b?async=true&showInput=false"
    assert waiting.headers["Retry-After"] == "5"
    site.post("/a%20b/terminate")
    assert site.http.get(waiting.headers["Location"]).status_code == 200


def test_history_is_shown_under_both_names_and_only_on_request(site: Site) -> None:
    instance_id = site.run("echo", input=[1])

    assert "history" not in site.get(f"/{instance_id}").get_json()
    shown = site.get(f"/{instance_id}?showHistory=true").get_json()
    assert shown["history"] == shown["historyEvents"]
    assert [event["EventType"] for event in shown["history"]] == ["ExecutionStarted", "TaskCompleted", "ExecutionCompleted"]
    assert [("Result" in event) for event in shown["history"]] == [False] * 3
    assert [event.get("Input") for event in shown["history"]] == ["[1]", "[1]", None]
    full = site.get(f"/{instance_id}?showHistory=true&showHistoryOutput=true").get_json()
    assert [event.get("Result") for event in full["history"]] == [None, [1], [1]]
    assert shown["customStatus"] == {"step": 1}


def test_a_child_names_its_parent_and_is_found_by_it(site: Site) -> None:
    instance_id = site.run("parent", input=1)

    assert site.get("/the-child").get_json()["parentInstanceId"] == instance_id
    assert ids(site.get(f"?parentInstanceId={instance_id}")) == ["the-child"]
    (folded,) = [event for event in site.get(f"/{instance_id}?showHistory=true").get_json()["history"] if event["EventType"].startswith("SubOrch")]
    assert (folded["EventType"], folded["InstanceId"], folded["FunctionName"]) == ("SubOrchestrationInstanceCompleted", "the-child", "echo")


def test_the_full_history_comes_in_pages(site: Site) -> None:
    instance_id = site.run("echo", input=[1])
    whole = site.get(f"/{instance_id}/history")
    assert [event["Sequence"] for event in whole.get_json()] == list(range(1, len(whole.get_json()) + 1))
    assert (whole.headers["x-ms-continuation-token"], "Link" in whole.headers) == ("", False)

    pages, response = [], site.get(f"/{instance_id}/history?top=2")
    while True:
        pages.append(response.get_json())
        token = response.headers["x-ms-continuation-token"]
        if not token:
            break
        assert len(pages[-1]) == 2
        response = site.get(f"/{instance_id}/history?top=2", headers={"x-ms-continuation-token": token})
    assert [event for page in pages for event in page] == whole.get_json()


@pytest.mark.parametrize("query", ["top=0", "top=1001", "top=x", "continuationToken=x", "continuationToken=-1", "continuationToken=" + "9" * 30])
def test_a_bad_page_of_a_history_is_400(site: Site, query: str) -> None:
    site.start(instanceId="a")
    assert site.get(f"/a/history?{query}").status_code == 400


# ---------------------------------------------------------------- the list


def test_the_list_has_the_newest_first_and_the_oldest_on_request(site: Site) -> None:
    for each in "abc":
        site.start(instanceId=each, input=each)

    assert ids(site.get()) == ["c", "b", "a"]
    assert ids(site.get("/?sort=oldest")) == ["a", "b", "c"]
    assert site.get("?showInput=FALSE").get_json()[0]["input"] is None
    assert "history" not in site.get().get_json()[0]


def test_pages_follow_by_header_by_query_and_by_link(site: Site) -> None:
    for number in range(5):
        site.start(instanceId=f"i{number}", tags={"team": "ü"})
    first = site.get(f"?top=2&tag=team:{quote('ü')}&sort=newest")
    token = first.headers["x-ms-continuation-token"]

    assert ids(first) == ["i4", "i3"]
    assert ids(site.get("?top=2", headers={"X-MS-Continuation-Token": token})) == ["i2", "i1"]
    assert ids(site.get(f"?top=2&continuationToken={token}")) == ["i2", "i1"]
    link = first.headers["Link"]
    assert link.endswith('>; rel="next"')
    second = site.http.get(link.removeprefix("<").partition(">")[0])
    assert ids(second) == ["i2", "i1"]
    third = site.http.get(second.headers["Link"].removeprefix("<").partition(">")[0])
    assert (ids(third), third.headers["x-ms-continuation-token"], "Link" in third.headers) == (["i0"], "", False)


def test_the_total_is_counted_on_request(site: Site) -> None:
    for number in range(3):
        site.start(instanceId=f"i{number}")

    response = site.get("?top=1&includeTotal=true&instanceIdPrefix=i")
    assert (len(response.get_json()), response.headers["x-total-count"]) == (1, "3")
    assert "x-total-count" not in site.get().headers


def test_every_filter_filters(site: Site) -> None:
    site.start("waiter", instanceId="w_1", tags={"team": "a", "kind": "x:y"}, version="1")
    site.start("echo", instanceId="wx1", tags={"team": "a"}, version="2")
    site.ended("echo", instanceId="e%1")

    assert ids(site.get("?runtimeStatus=pending")) == ["wx1", "w_1"]
    assert ids(site.get("?runtimeStatus=TERMINATED,running")) == ["e%1"]
    assert ids(site.get("?runtimeStatus=Terminated&runtimestatus=Pending&name=echo")) == ["e%1", "wx1"]
    assert ids(site.get("?instanceIdPrefix=w_")) == ["w_1"]
    assert ids(site.get("?instanceIdPrefix=e%25")) == ["e%1"]
    assert ids(site.get("?instanceIdPrefix=W")) == []
    assert ids(site.get("?name=Waiter")) == []
    assert ids(site.get("?tag=team:a")) == ["wx1", "w_1"]
    assert ids(site.get("?tag=team:a&TAG=kind:x:y")) == ["w_1"]
    assert ids(site.get("?version=2")) == ["wx1"]


def test_both_ends_of_the_window_belong_to_it(site: Site) -> None:
    site.start(instanceId="a")
    created = site.get("/a").get_json()["createdTime"]

    assert ids(site.get(f"?createdTimeFrom={created}&createdTimeTo={created}")) == ["a"]
    assert ids(site.get("?createdTimeFrom=1-01-01T00:00:00.000000Z")) == ["a"]
    assert ids(site.get("?createdTimeTo=2020-01-01")) == []
    assert ids(site.get("?createdTimeFrom=2020-01-01T00:00:00+02:00")) == ["a"]


@pytest.mark.parametrize(
    "query",
    ["runtimeStatus=Done", "runtimeStatus=", "runtimeStatus=Running,,", "createdTimeFrom=x", "createdTimeTo=", "top=0", "top=-1", "top=1001", "top=1.5", "top=ten", "top=",
     "sort=name", "sort=NEWEST%00", "tag=x", "tag=a:1&tag=a:2", "showInput=no", "includeTotal=2", "name=%00", "instanceIdPrefix=%0A", "continuationToken=x",
     "continuationToken=WzEsImEiLCJvbGRlc3QiXQ", "continuationToken=%F0%9F%98%80", "name=a&name=b"],  # pragma: allowlist secret
)  # fmt: skip
def test_a_list_with_any_value_that_does_not_parse_is_400(site: Site, query: str) -> None:
    response = site.get(f"?{query}")
    assert (response.status_code, response.get_json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    "position",
    [[1, "\x00", "newest"], [1, "\ud800", "newest"], [2**70, "a", "newest"], ["1", "a", "newest"], [1, "a", "oldest"], [1, "a"], {}, 5, None],
)
def test_a_made_up_token_is_400(site: Site, position: Any) -> None:
    token = base64.urlsafe_b64encode(json.dumps(position).encode()).decode()
    assert site.get("", headers={"x-ms-continuation-token": token}).status_code == 400


# ---------------------------------------------------------------- deleting


def test_purging_an_ended_one_deletes_it(site: Site) -> None:
    site.ended(instanceId="a")

    response = site.delete("/a")
    assert (response.status_code, response.get_json()) == (200, {"instancesDeleted": 1})
    assert [site.get("/a").status_code, site.delete("/a").status_code] == [404, 404]


def test_purging_one_that_goes_on_is_refused(site: Site) -> None:
    site.start(instanceId="a")

    response = site.delete("/a")
    assert (response.status_code, response.get_json()["code"], response.get_json()["runtimeStatus"]) == (409, "instance_not_finished", "Pending")


def test_purging_takes_ended_children_along_on_request(site: Site) -> None:
    instance_id = site.run("parent")
    assert site.delete(f"/{instance_id}?recursive=True").get_json() == {"instancesDeleted": 2}


def test_a_purge_by_filter_takes_ended_ones_only(site: Site) -> None:
    site.ended(instanceId="a")
    site.ended("echo", instanceId="b")
    site.start(instanceId="c")

    assert site.delete("?createdTimeFrom=2020-01-01&name=echo&taskHub=default").get_json() == {"instancesDeleted": 1}
    assert site.delete("/?createdTimeFrom=2020-01-01&runtimeStatus=Running,Terminated").get_json() == {"instancesDeleted": 1}
    assert site.delete("?createdTimeFrom=2020-01-01").get_json() == {"instancesDeleted": 0}
    assert ids(site.get()) == ["c"]


@pytest.mark.parametrize(
    "query",
    ["", "name=waiter", "createdTimeFrom=", "createdTimeFrom=2020-01-01&runtimeStatus=Done", "createdTimeFrom=2020-01-01&runtimeStatuss=Failed"],
)
def test_a_purge_that_could_mean_too_much_is_400_and_deletes_nothing(site: Site, query: str) -> None:
    site.ended(instanceId="a")

    assert site.delete(f"?{query}").status_code == 400
    assert ids(site.get()) == ["a"]


# ---------------------------------------------------------------- parked


def test_parked_instances_are_found_with_their_reason(site: Site) -> None:  # dead letter
    parked, other = site.start(), site.start()
    site.durable.client._run(Park(parked, "5 workers died with it"))

    assert [(each["instanceId"], each["parkedReason"]) for each in site.get("?parked=true").get_json()] == [(parked, "5 workers died with it")]
    assert ids(site.get("?parked=false")) == [other]
    assert set(ids(site.get(""))) == {parked, other}
    assert site.get("?PARKED=True&includeTotal=true").headers["x-total-count"] == "1"
    assert site.get("?parked=maybe").status_code == 400


def test_a_parked_one_is_released_or_ended_and_purged(site: Site) -> None:  # dead letter
    for instance_id in (site.start(), site.start()):
        site.durable.client._run(Park(instance_id, "5 workers died with it"))
    released, ended = ids(site.get("?parked=true"))

    assert site.delete(f"/{ended}").status_code == 409
    assert [site.post(f"/{released}/resume").status_code, site.post(f"/{ended}/terminate").status_code] == [202, 202]
    assert ids(site.get("?parked=true")) == []
    assert site.delete(f"/{ended}").get_json() == {"instancesDeleted": 1}
    assert site.get(f"/{released}").get_json()["parkedReason"] is None


# -- versions, completion, parts of a list


def test_instances_are_listed_in_order_of_completion(site: Site) -> None:  # QRY-3
    for instance_id in ("a", "b", "c", "open"):
        site.start(instanceId=instance_id)
    for instance_id in ("b", "c", "a"):
        site.post(f"/{instance_id}/terminate")
    first = site.get("?sort=firstCompleted&top=2")
    assert ids(first) == ["b", "c"]
    rest = site.get("?sort=firstCompleted&top=2", headers={"x-ms-continuation-token": first.headers["x-ms-continuation-token"]})
    assert (ids(rest), rest.headers["x-ms-continuation-token"]) == (["a"], "")
    assert ids(site.get("?sort=lastCompleted")) == ["a", "c", "b"]
    ended = site.get("/c").get_json()["completedTime"]
    assert ids(site.get(f"?completedTimeFrom={ended}&sort=firstCompleted")) == ["c", "a"]
    assert ids(site.get(f"?completedTimeTo={ended}&sort=firstCompleted")) == ["b", "c"]
    assert site.get("?sort=completed").status_code == 400
    assert site.get("?completedTimeTo=yesterday").get_json()["errors"].keys() == {"completedTimeTo"}


def test_a_list_can_leave_out_outputs_children_and_versions(site: Site) -> None:  # QRY-1, rule 44
    site.run("parent", input=1)
    instance_id = site.run("echo", input=1, version="2")
    assert "the-child" not in ids(site.get("?rootsOnly=true"))
    assert ids(site.get("?hasVersion=true")) == [instance_id]
    assert instance_id not in ids(site.get("?hasVersion=false"))
    shown = [(each["input"], each["output"]) for each in site.get("?version=2&showInput=false&showOutput=false").get_json()]
    assert shown == [(None, None)]
    assert site.get("?version=2").get_json()[0]["output"] is not None


def test_the_versions_in_use_are_reported(site: Site) -> None:  # rule 50
    site.durable.stop_worker()
    for version in ("1.10", "1.9", None):
        site.start(version=version)
    site.start(version="1.9")
    [name] = {each["name"] for each in site.get("/versions").get_json()}
    assert site.get("/versions").get_json() == [
        {"name": name, "version": None, "total": 1, "counts": {"Pending": 1}},
        {"name": name, "version": "1.9", "total": 2, "counts": {"Pending": 2}},
        {"name": name, "version": "1.10", "total": 1, "counts": {"Pending": 1}},
    ]
    assert site.get("/versions?name=other").get_json() == []
    assert site.http.post(f"{PREFIX}/start/{name}", json={"instanceId": "Versions"}).status_code == 400


def test_a_status_says_why_no_worker_takes_an_instance(site: Site) -> None:  # rule 49
    site.durable.stop_worker()
    site.start(instanceId="a")
    until(lambda: site.get("/a").get_json()["waitingReason"] == "no worker is running")
    assert [each["waitingReason"] for each in site.get("").get_json()] == ["no worker is running"]


def test_a_purge_by_filter_takes_children_along_on_request(site: Site) -> None:  # MGT-6
    site.run("parent", input=1)
    answer = site.http.delete(f"{PREFIX}?createdTimeFrom=2000-01-01&rootsOnly=true&recursive=true&timeout=60")
    assert answer.get_json() == {"instancesDeleted": 2}
    assert site.get("/the-child").status_code == 404


def test_tags_of_a_start_are_shown_and_searchable(site: Site) -> None:  # Tags
    site.start(instanceId="a", tags={"team": "x", "a": "1"})
    site.start(instanceId="b", tags={"team": "y"})
    assert site.get("/a").get_json()["tags"] == {"a": "1", "team": "x"}
    assert ids(site.get("?tag=team:x&tag=a:1")) == ["a"]
    assert ids(site.get("?tag=team:x&tag=a:2")) == []
