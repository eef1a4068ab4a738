"""Configuration: a wrong value of any key stops the app and names the key, the value and what is allowed."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from flask import Flask

from flask_durable import ConfigurationError, FlaskDurable
from flask_durable.config import OPTIONS, load_settings, mask_url

DAY = 86_400 * 1_000_000
SECRET = "a-key-of-many-letters"  # pragma: allowlist secret

WRONG = {
    "DURABLE_DATABASE": ["/var/lib/app.db", "oracle://host/db", 5, 1.5],
    "DURABLE_TASK_HUB": ["", "x" * 65, "a b", "hüb", None, 1],
    "DURABLE_WORKER": ["maybe", 2, []],
    "DURABLE_MANAGEMENT_API": ["perhaps", None, 2],
    "DURABLE_URL_PREFIX": ["", "/", "no-slash", "/ends/", "/a b", "/<id>", "/a?b", "/a#b", None, 1],
    "DURABLE_BASE_URL": ["your-app", "ftp://your-app", "https://", "https://your-app?x=1", 5],
    "DURABLE_API_KEYS": ["short", ["short"], 5, [5], ["ü" * 20], [SECRET, None], ["line\nfeed-and-more-letters"]],
    "DURABLE_AUTHORIZER": ["name", 5, True],
    "DURABLE_ALLOW_ANONYMOUS": ["perhaps", None, 2],
    "DURABLE_MAX_ACTIVITIES": [0, 1001, -1, "many", 1.5, True, None],
    "DURABLE_CACHE_SIZE": [-1, 1_000_001, "big", True, None],
    "DURABLE_POLL_INTERVAL": [0, 0.001, 61, "often", True, None, float("nan")],
    "DURABLE_LEASE_SECONDS": [0, 3601, "long", None, float("nan")],
    "DURABLE_SHUTDOWN_GRACE": [-1, 3601, "short", None],
    "DURABLE_TURN_TIMEOUT": [0, 3601, "short", None],
    "DURABLE_MAX_DELIVERIES": [0, 1001, "few", None],
    "DURABLE_UNKNOWN_ORCHESTRATOR_TIMEOUT": [-1, "never", None],
    "DURABLE_NONDETERMINISM": ["ignore", None, 1],
    "DURABLE_RETENTION": [0, -1, 36501, True, "soon", float("nan"), [7], timedelta(0), {"Running": 7}, {"Completed": 0}, {"done": 7}, {5: 5}],
    "DURABLE_VERSION": ["x" * 101, [], True, "a\nb"],
    "DURABLE_VERSION_MATCH": ["newer", None, 1],
    "DURABLE_VERSION_FAILURE": ["wait", None, True],
    "DURABLE_WORKER_ORCHESTRATIONS": [5, [5], ["a/b"], "a,,b", True, [None]],
    "DURABLE_WORKER_ACTIVITIES": [5, [5], ["@a"], "a,", {"a": 1}],
    "DURABLE_MAX_PAYLOAD_BYTES": [0, 1023, 2**40, "1 MB", None],
    "DURABLE_MAX_PAYLOAD_DEPTH": [0, 501, "deep", None],
    "DURABLE_MAX_CUSTOM_STATUS_BYTES": [0, 2**30, None],
    "DURABLE_MAX_ACTIONS_PER_TURN": [0, -5, "all", None],
    "DURABLE_MAX_TIMER_INTERVAL": [0, -1, 31_536_001, "long", True],
    "DURABLE_MAX_HISTORY_EVENTS": [0, 99, None],
    "DURABLE_MAX_WAITING_REQUESTS": [-1, 100_001, "many", None],
    "DURABLE_RETRY_AFTER": [-1, 3601, "soon", None],
    "DURABLE_SQLITE_SYNCHRONOUS": ["OFF", "EXTRA", 1, None],
    "DURABLE_DATABASE_TIMEOUT": [0, 601, "long", None],
    "DURABLE_MAX_CONNECTIONS": [4, 1001, "many", None],
    "DURABLE_DATABASE_SESSIONS": ["maybe", True, None],
    "DURABLE_OTEL": ["on", True, None],
}

RIGHT = {
    "DURABLE_WORKER": [("false", False), ("1", True), (None, None), (True, True)],
    "DURABLE_MAX_ACTIVITIES": [("16", 16), (1, 1), (1000, 1000)],
    "DURABLE_CACHE_SIZE": [(0, 0), ("0", 0)],
    "DURABLE_POLL_INTERVAL": [("0.5", 0.5), (1, 1.0)],
    "DURABLE_API_KEYS": [(None, ()), ([], ())],
    "DURABLE_RETENTION": [
        (None, {}),
        ("", {}),
        (7, dict.fromkeys(("Canceled", "Completed", "Failed", "Terminated"), 7 * DAY)),
        ({"completed": "0.5", "FAILED": timedelta(days=30), "Terminated": None}, {"Completed": DAY // 2, "Failed": 30 * DAY}),
    ],
    "DURABLE_NONDETERMINISM": [("PARK", "park")],
    "DURABLE_SQLITE_SYNCHRONOUS": [("normal", "NORMAL")],
    "DURABLE_MAX_TIMER_INTERVAL": [(None, None), ("", None), (3600, 3600.0), ("0.01", 0.01)],
    "DURABLE_BASE_URL": [("https://your-app/prefix/", "https://your-app/prefix"), ("", None)],
    "DURABLE_VERSION": [("", None), (2, "2"), ("2.1", "2.1")],
    "DURABLE_VERSION_MATCH": [("currentorolder", "currentOrOlder"), ("NONE", "none")],
    "DURABLE_WORKER_ORCHESTRATIONS": [(None, None), ("", None), ([], ()), ("order, pack", ("order", "pack")), (("order",), ("order",))],
    "DURABLE_WORKER_ACTIVITIES": [({"pack"}, ("pack",)), ("pack", ("pack",))],
    "DURABLE_URL_PREFIX": [("/runtime/durable", "/runtime/durable")],
}


def test_every_key_is_tried_here():
    assert set(WRONG) == set(OPTIONS)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values], ids=str)
def test_a_wrong_value_names_the_key_and_what_is_allowed(key, value):  # Bad input
    with pytest.raises(ConfigurationError) as caught:
        load_settings({key: value})
    assert caught.value.key == key
    assert caught.value.allowed
    assert str(caught.value).startswith(f"{key} = ")
    if key not in ("DURABLE_API_KEYS", "DURABLE_DATABASE"):
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize(("key", "value", "expected"), [(key, *pair) for key, pairs in RIGHT.items() for pair in pairs], ids=str)
def test_values_may_come_as_texts_from_the_environment(key, value, expected):
    assert getattr(load_settings({key: value}), key.removeprefix("DURABLE_").lower()) == expected


def test_without_any_key_everything_has_its_default():
    settings = load_settings({})
    for key, option in OPTIONS.items():
        assert getattr(settings, key.removeprefix("DURABLE_").lower()) == option.check(key, option.default)


def test_an_app_with_a_wrong_value_is_not_set_up(tmp_path):
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, DURABLE_MAX_ACTIVITIES=0)
    with pytest.raises(ConfigurationError, match="DURABLE_MAX_ACTIVITIES = 0 is not valid: a whole number from 1 to 1000"):
        FlaskDurable(app)
    assert "durable" not in app.extensions
    assert list(tmp_path.iterdir()) == []


def test_keys_and_passwords_are_not_shown():  # S7
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"DURABLE_API_KEYS": ["secret"]})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"DURABLE_DATABASE": "oracle://user:secret@host/db"})  # pragma: allowlist secret
    assert "secret" not in str(caught.value)
    assert mask_url("postgresql://user:p%40ss@host:1/db?password=x") == "postgresql://user:***@host:1/db"  # pragma: allowlist secret
    assert mask_url("sqlite:///file") == "sqlite:///file"
    assert "x" not in mask_url("postgresql://host/db?password=x").partition("?")[2]


def test_keys_and_access_for_everybody_exclude_each_other():
    with pytest.raises(ConfigurationError, match="DURABLE_ALLOW_ANONYMOUS = True is not valid: False while DURABLE_API_KEYS is set"):
        load_settings({"DURABLE_API_KEYS": SECRET, "DURABLE_ALLOW_ANONYMOUS": True})


def test_an_unknown_key_is_told_with_a_guess(caplog):
    with caplog.at_level(logging.WARNING):
        load_settings({"DURABLE_MAX_ACTIVITES": 5, "OTHER": 1})
    assert [record.getMessage() for record in caplog.records] == [
        "Unknown configuration key DURABLE_MAX_ACTIVITES is ignored; did you mean DURABLE_MAX_ACTIVITIES?"
    ]
