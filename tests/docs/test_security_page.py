"""docs/security.md: its login examples work, and it names every dependency."""

from __future__ import annotations

import re
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_durable import FlaskDurable

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
LOGIN, TOKEN = re.findall(r"^```py\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
URL = "/runtime/orchestrations"


@pytest.fixture
def answers(tmp_path):
    """Runs an example and returns what reading and starting answer, with these headers."""
    made: list[Any] = []

    def ask(example: str, names: dict[str, Any], **headers: str) -> list[int]:
        app = Flask("shop", instance_path=str(tmp_path))
        app.config["TESTING"] = True
        exec(example, {"app": app, **names})
        durable = FlaskDurable(app)
        durable.orchestrator(lambda ctx, value: value, name="echo")
        made.append(durable)
        visitor = app.test_client()
        return [visitor.get(URL, headers=headers).status_code, visitor.post(f"{URL}/start/echo", headers=headers).status_code]

    yield ask
    for durable in made:
        durable.close()


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (types.SimpleNamespace(is_authenticated=False), [403, 403]),
        (types.SimpleNamespace(is_authenticated=True, is_operator=False), [200, 403]),
        (types.SimpleNamespace(is_authenticated=True, is_operator=True), [200, 202]),
    ],
)
def test_the_example_for_flask_login(answers, monkeypatch, user, expected):  # S1
    monkeypatch.setitem(sys.modules, "flask_login", types.SimpleNamespace(current_user=user))
    assert answers(LOGIN, {}) == expected


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("", [403, 403]),
        ("Bearer nonsense", [403, 403]),
        ("Bearer durable:read", [200, 403]),
        ("Bearer durable:read+durable:start", [200, 202]),
        ("Basic durable:read", [403, 403]),
    ],
)
def test_the_example_for_tokens(answers, monkeypatch, authorization, expected):  # S1
    class InvalidTokenError(Exception):
        pass

    def decode(token: str, key: str, *, algorithms: list[str], audience: str) -> dict[str, str]:
        assert (key, algorithms, audience) == ("the public key", ["RS256"], "shop")
        if not token.startswith("durable:"):
            raise InvalidTokenError
        return {"scope": token.replace("+", " ")}

    monkeypatch.setitem(sys.modules, "jwt", types.SimpleNamespace(decode=decode, InvalidTokenError=InvalidTokenError))
    assert answers(TOKEN, {"PUBLIC_KEY": "the public key"}, Authorization=authorization) == expected


def test_every_dependency_is_named_with_its_reason():  # S13
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for name, listed in project["optional-dependencies"].items() if name != "dev" for each in listed]
    needed = {re.match(r"[A-Za-z0-9-]+", each)[0] for each in [*project["dependencies"], *extras]}
    reasons = dict(re.findall(r"^\| `([A-Za-z0-9-]+)`[^|]*\| (.+) \|$", TEXT.partition("## Dependencies")[2], re.MULTILINE))
    assert set(reasons) == needed
    assert all(len(reason) > 10 for reason in reasons.values())


def test_the_policy_for_reports_is_there():  # S13
    text = (ROOT / "SECURITY.md").read_text()
    assert "Report it in private" in text
    assert "docs/security.md" in text
