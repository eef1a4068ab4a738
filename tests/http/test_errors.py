"""Every error of the package has its HTTP status, and every error answer the same body."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from flask import Flask, got_request_exception
from werkzeug.exceptions import MethodNotAllowed, RequestEntityTooLarge

import flask_durable.azure  # noqa: F401 - so that every error class there is has been made
from flask_durable.errors import DurableError, InstanceExistsError, InstanceNotFoundError, StoreUnavailableError
from flask_durable.http.errors import STATUS_OF_CODE, ApiError, error_response


def all_errors(root: type[DurableError] = DurableError) -> Iterator[type[DurableError]]:
    yield root
    for kind in root.__subclasses__():
        yield from all_errors(kind)


@pytest.fixture
def small_app() -> Iterator[Flask]:
    app = Flask("errors")
    with app.app_context():
        yield app


def body_of(error: Exception) -> dict[str, object]:
    body: dict[str, object] = error_response(error, retry_after=7).get_json()
    return body


def test_every_error_class_has_a_status() -> None:
    assert {kind.code for kind in all_errors() if kind.__module__.startswith("flask_durable.")} == set(STATUS_OF_CODE)


def test_the_text_stands_under_the_names_of_all_relatives(small_app: Flask) -> None:
    text = "No instance has the id 'x'"
    expected = {"message": text, "Message": text, "ExceptionMessage": text, "code": "instance_not_found", "status": 404}
    assert body_of(InstanceNotFoundError("x")) == expected


def test_a_conflict_tells_the_state(small_app: Flask) -> None:
    body = body_of(InstanceExistsError("x", "Running"))
    assert (body["status"], body["instanceId"], body["runtimeStatus"]) == (409, "x", "Running")


def test_fields_are_named(small_app: Flask) -> None:
    assert body_of(ApiError(400, "top: no", errors={"top": ["no"]}))["errors"] == {"top": ["no"]}


def test_an_unreachable_database_is_503_with_retry_after_and_without_its_address(small_app: Flask) -> None:
    response = error_response(StoreUnavailableError("connection to db.internal as admin failed"), retry_after=7)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    assert "db.internal" not in response.get_data(as_text=True)


def test_what_nobody_foresaw_is_logged_reported_and_says_nothing(small_app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Exception] = []
    got_request_exception.connect(lambda sender, exception, **_: seen.append(exception), small_app, weak=False)
    error = ZeroDivisionError("secret")

    with caplog.at_level(logging.ERROR, logger="flask_durable.http"):
        response = error_response(error, retry_after=7)

    assert (response.status_code, response.get_json()["code"]) == (500, "internal_error")
    assert "secret" not in response.get_data(as_text=True)
    assert "secret" in caplog.text
    assert seen == [error]


def test_werkzeugs_errors_become_json_too(small_app: Flask) -> None:
    response = error_response(MethodNotAllowed(["GET", "POST"]), retry_after=7)
    assert (response.status_code, response.headers["Allow"], response.get_json()["code"]) == (405, "GET, POST", "method_not_allowed")
    assert body_of(RequestEntityTooLarge())["code"] == "payload_too_large"
