"""A whole app beside a server that falls silent without closing anything: requests are answered, the engine pauses and goes on."""

from __future__ import annotations

import threading
import time

import pytest
from support import has_status, until
from tcp_proxy import TcpProxy

from flask_durable import FlaskDurable, RuntimeStatus

PREFIX = "/runtime/orchestrations"


@pytest.fixture
def base_config(base_config):
    return {**base_config, "DURABLE_MANAGEMENT_API": True}


@pytest.fixture
def proxy(database_url):
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has no server")
    proxy = TcpProxy(database_url)
    yield proxy
    proxy.thaw()
    proxy.close()


@pytest.fixture
def durable(make_durable, proxy):
    durable: FlaskDurable = make_durable(DURABLE_DATABASE=proxy.url, DURABLE_DATABASE_TIMEOUT=1, DURABLE_TURN_TIMEOUT=1, DURABLE_ALLOW_ANONYMOUS=True)

    @durable.orchestrator
    def waiter(ctx):
        return (yield ctx.wait_for_external_event("go"))

    durable.start_worker()
    yield durable
    proxy.thaw()
    durable.close()


def asks(app):
    """Requests that read and that write."""
    http = app.test_client()
    return [
        lambda: http.get(f"{PREFIX}/waiting"),
        lambda: http.get(PREFIX),
        lambda: http.post(f"{PREFIX}/start/waiter", json={"instanceId": "late"}),
        lambda: http.post(f"{PREFIX}/waiting/raiseEvent/go", json=1),
        lambda: http.post(f"{PREFIX}/waiting/terminate"),
    ]


def test_requests_are_answered_503_in_time_and_the_engine_goes_on_afterwards(durable, proxy):
    app = durable._state()._app
    durable.client.start("waiter", instance_id="waiting")
    until(has_status(durable, "waiting", RuntimeStatus.RUNNING))

    # Given a server that says nothing, when many ask at once, then all are told so before long
    proxy.freeze()
    answers = []

    def ask(request):
        began = time.monotonic()
        response = request()
        answers.append((response.status_code, response.headers.get("Retry-After"), time.monotonic() - began))

    threads = [threading.Thread(target=ask, args=(request,)) for request in asks(app) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer[:2] for answer in answers} == {(503, "5")}
    assert max(answer[2] for answer in answers) < 10

    # When it is back, then work goes on within 5 s
    proxy.thaw()
    began = time.monotonic()
    until(lambda: app.test_client().post(f"{PREFIX}/waiting/raiseEvent/go", json=1).status_code in (202, 410), "the event was taken")
    until(lambda: durable.client.get_status("waiting").runtime_status.is_final, "the instance ended")
    assert time.monotonic() - began < 5


def test_what_was_told_that_it_failed_can_be_sent_again(durable, proxy):
    # Given a start under a name of the caller's own that was answered with an error
    proxy.freeze()
    app = durable._state()._app
    assert app.test_client().post(f"{PREFIX}/start/waiter", json={"instanceId": "mine"}).status_code == 503
    proxy.thaw()
    again = until(
        lambda: [each for each in [app.test_client().post(f"{PREFIX}/start/waiter", json={"instanceId": "mine"})] if each.status_code != 503]
    )
    assert again[0].status_code in (202, 409)  # 409: the first one had been written after all
    assert durable.client.count() == 1


def test_the_connections_of_a_busy_app_stay_within_the_budget(make_durable, proxy):
    durable = make_durable(DURABLE_DATABASE=proxy.url, DURABLE_MAX_CONNECTIONS=8, DURABLE_ALLOW_ANONYMOUS=True)
    app = durable._state()._app

    @durable.activity
    def count():
        return durable.client.count()

    @durable.orchestrator
    def fan(ctx):
        return (yield ctx.when_all([ctx.call_activity(count) for _ in range(4)]))

    durable.start_worker()
    codes = []

    def work():
        http = app.test_client()
        for _ in range(3):
            started = http.post(f"{PREFIX}/start/fan")
            codes.extend([started.status_code, http.get(f"{PREFIX}/{started.json['id']}").status_code])

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: durable.client.count() == sum(is_completed(each) for each in durable.client.list(page_size=200).items), "all ended", 60)
    durable.close()
    assert set(codes) <= {200, 202}
    assert 1 < proxy.most <= 8


def is_completed(status):
    return status.runtime_status is RuntimeStatus.COMPLETED
