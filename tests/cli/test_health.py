"""The health endpoint and the limits of a worker process."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import click
import pytest

from flask_durable.cli import limits
from flask_durable.cli.health import address, serve_health
from flask_durable.cli.limits import Limits
from flask_durable.runtime.health import Health

ANY_PORT = ("127.0.0.1", 0)


def ask(url: str, method: str = "GET") -> tuple[int, dict[str, object] | None]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    return status, json.loads(body) if body else None


def option(value: str | None) -> tuple[str, int] | None:
    command = click.Command("worker")
    return address(click.Context(command), click.Option(["--health"]), value)


@pytest.mark.parametrize(
    ("health", "live", "ready"),
    [
        (Health(True, True), 200, 200),
        (Health(True, False, "the worker stops"), 200, 503),
        (Health(False, False, "the loop has stood still for 61 s"), 503, 503),
    ],
)
def test_live_and_ready_are_answered_by_status(health, live, ready):
    with serve_health(ANY_PORT, lambda: health) as url:
        body = {"live": health.is_live, "ready": health.is_ready, "reason": health.reason}
        assert ask(f"{url}/live") == (live, body)
        assert ask(f"{url}/ready?verbose=1") == (ready, body)
        assert ask(f"{url}/ready", "HEAD") == (ready, None)
        assert ask(f"{url}/etc/passwd") == (404, {"error": "there is /live and /ready"})


def test_nothing_but_questions_is_answered():  # S2
    with serve_health(ANY_PORT, lambda: Health(True, True)) as url:
        for method in ("POST", "PUT", "DELETE"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(urllib.request.Request(f"{url}/live", method=method), timeout=10)
            assert caught.value.code == 501
            caught.value.close()


def test_an_address_in_use_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(click.ClickException, match=f"cannot listen at 127.0.0.1:{port}"),
            serve_health(("127.0.0.1", port), lambda: Health(True, True)),
        ):
            pass


def test_addresses():
    assert option(None) is None
    assert option("8081") == ("127.0.0.1", 8081)
    assert option("0.0.0.0:8081") == ("0.0.0.0", 8081)
    assert option("[::1]:8081") == ("::1", 8081)
    for wrong in ("", "host", "host:", "99999", "-1", "1.5", "host:٣"):
        with pytest.raises(click.BadParameter, match="is not a port"):
            option(wrong)


def test_limits():
    assert Limits().reached(10**6) is None
    assert Limits(calls=3).reached(2) is None
    assert Limits(calls=3).reached(3) == "3 activity calls have ended (--max-calls 3)"
    assert Limits(seconds=1e-9).reached(0) == "it has run long enough (--max-seconds 1e-09)"
    assert Limits(seconds=3600).reached(0) is None


def test_the_limit_of_memory(monkeypatch):
    monkeypatch.setattr(limits, "_resident_mib", lambda: 200)
    assert Limits(memory=201).reached(0) is None
    assert Limits(memory=200).reached(0) == "it uses 200 MiB of memory (--max-memory 200)"
    monkeypatch.setattr(limits, "_resident_mib", lambda: None)
    assert Limits(memory=1).reached(0) is None
